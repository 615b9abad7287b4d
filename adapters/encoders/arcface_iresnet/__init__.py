"""ArcFace residual networks in torch, from arcface_torch files and from converted ONNX files."""
