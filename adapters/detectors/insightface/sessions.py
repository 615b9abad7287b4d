"""onnxruntime sessions with explicit execution providers, and what to tell when another one answers."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

from ...errors import BadCheckpoint, MissingPackage

PROVIDERS = {
    "cuda": "CUDAExecutionProvider",
    "coreml": "CoreMLExecutionProvider",
    "directml": "DmlExecutionProvider",
    "rocm": "ROCMExecutionProvider",
    "cpu": "CPUExecutionProvider",
}
_ERRORS = ("Fail", "InvalidArgument", "InvalidGraph", "InvalidProtobuf", "NoModel", "NoSuchFile", "NotImplemented")


def runtime(what: str = "InsightFace detector") -> Any:
    """The module onnxruntime; ``what`` needs it.

    Raises:
        MissingPackage: it is not installed or does not load.
    """
    try:
        return importlib.import_module("onnxruntime")
    except ImportError as cause:
        raise missing_package("onnxruntime", str(cause), what) from cause


def missing_package(package: str, found: str, what: str = "InsightFace detector") -> MissingPackage:
    """The error for insightface or onnxruntime, with the pip line of this interpreter."""
    pip = f'"{sys.executable}" -m pip install'
    if package == "insightface":
        cure = f"run {pip} --no-deps insightface, and {pip} onnx scipy scikit-image requests tqdm, and restart ComfyUI"
    else:
        cure = f"run {pip} onnxruntime, or with an NVIDIA card {pip} onnxruntime-gpu, never both, and restart ComfyUI"
    return MissingPackage(what, expected=f"the package {package}", found=found, cure=cure)


def wanted_providers(provider: str, available: list[str], what: str = "detector") -> tuple[list[str], tuple[str, ...]]:
    """Providers to ask for, and notes.

    Args:
        provider: a key of `PROVIDERS`, or "auto" for the first one that this onnxruntime has.
        available: what this onnxruntime has.
        what: what runs there, for the notes.
    """
    cpu = PROVIDERS["cpu"]
    if provider == "auto":
        first = next((name for name in PROVIDERS.values() if name in available), cpu)
        return list(dict.fromkeys([first, cpu])), ()
    name = PROVIDERS.get(provider, provider)
    if name in available:
        return list(dict.fromkeys([name, cpu])), ()
    have = ", ".join(available)
    return [cpu], (f"onnxruntime has no {name} (it has {have}); the {what} runs on the CPU",)


def open_session(path: Path, provider: str, what: str = "detector") -> tuple[Any, tuple[str, ...]]:
    """A session on a file that exists, and notes about the provider that really runs it; ``what`` is its name in them.

    Raises:
        MissingPackage: no onnxruntime.
        BadCheckpoint: onnxruntime refuses the file.
    """
    onnxruntime = runtime() if what == "detector" else runtime(what)
    wanted, notes = wanted_providers(provider, list(onnxruntime.get_available_providers()), what)
    state = onnxruntime.capi.onnxruntime_pybind11_state
    refusals = tuple(getattr(state, name) for name in _ERRORS if hasattr(state, name))
    try:
        session = onnxruntime.InferenceSession(str(path), providers=wanted)
    except (*refusals, RuntimeError, ValueError) as cause:
        raise BadCheckpoint(
            str(path),
            expected="an ONNX file that onnxruntime can open",
            found=str(cause)[:200],
            cure="download the file again, or update onnxruntime",
        ) from cause
    running = session.get_providers()
    if running[:1] != wanted[:1]:
        notes = (*notes, f"onnxruntime could not start {wanted[0]}; the {what} runs on {running[0]}")
    return session, notes
