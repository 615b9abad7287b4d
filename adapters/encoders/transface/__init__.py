"""TransFace: vision transformers for face recognition."""
