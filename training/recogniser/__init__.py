"""Training of face encoders: the recipes of TransFace (ICCV 2023) and TopoFR (NeurIPS 2024)."""
