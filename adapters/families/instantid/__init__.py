"""InstantID, and FaceID-Portrait-unnorm, whose tensors are the same."""
