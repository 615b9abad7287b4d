"""Training of face adapters for SD1.5: FaceChain-FACT (FAIR, face-condition drop, shuffle, curriculum) and FaceID."""
