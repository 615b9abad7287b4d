"""SCRFD, the detector of InsightFace's model packs (ONNX files): optional, through onnxruntime."""
