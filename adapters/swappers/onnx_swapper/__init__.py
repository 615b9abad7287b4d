"""Swappers published as ONNX files, through onnxruntime: inswapper, ReSwapper's export, HyperSwap."""
