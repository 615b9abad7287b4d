"""Training of face adapters for SD1.5: FaceChain-FACT with FAIR, face-condition drop, shuffle and curriculum; FaceID."""
