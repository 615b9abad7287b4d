"""Voice factors after FaceChain-ImagineID: our construction from the paper; the authors published no code."""
