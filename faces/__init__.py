"""Face geometry on tensors: boxes, landmarks, templates, warps, paste, selection. No network lives here."""
