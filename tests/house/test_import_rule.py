"""Who may import whom: layers point downward, heavy and optional packages wait for the call that needs them."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest
from sources import LAYERS, PACKAGES, Import, Source, pack_sources

BELOW: dict[str, set[str]] = {
    "faces": {"faces"},
    "media": {"media", "faces"},
    "adapters": {"adapters", "faces"},
    "training": {"training", "adapters", "faces"},
    "evaluation": {"evaluation", "adapters", "faces"},
    "inject": {"inject", "adapters", "faces"},
    "nodes": {"nodes", "inject", "evaluation", "training", "adapters", "media", "faces"},
    "root": {"nodes", "inject"},
    "tools": set(PACKAGES) - {"tests"} | {"tools"},
}
NUMERIC = {"torch", "numpy", "safetensors", "kornia"}
HOST = {
    "comfy", "comfy_api", "comfy_execution", "comfy_extras", "execution", "folder_paths", "latent_preview",
    "node_helpers", "nodes", "server",
}  # fmt: skip
OPTIONAL = {
    "PIL", "aiohttp", "av", "cv2", "dlib", "face_recognition_models", "imwatermark", "insightface", "joblib", "lz4",
    "mtcnn", "onnx", "onnxruntime", "pytorch_metric_learning", "scipy", "torchvision", "transformers", "yaml",
}  # fmt: skip


def breaches(source: Source) -> list[str]:
    """One line per import of ``source`` that its layer does not allow."""
    return [f"{source.file}:{item.line} {reason}" for item in source.imports if (reason := refusal(source.layer, item))]


def refusal(layer: str, item: Import) -> str | None:
    """Why a file of ``layer`` may not import ``item``, or None."""
    if item.relative:
        return None if item.top in BELOW[layer] else f"{layer} imports upward: {item.name}"
    if layer == "tools" and item.top == "likeness_pack" or item.top in sys.stdlib_module_names:
        return None
    if item.top in HOST:
        return None if layer in ("inject", "tools") else f"only inject talks to the host: {item.name}"
    if item.top in PACKAGES or item.top == "likeness_pack":
        return f"own packages are imported relatively: {item.name}"
    if item.top in NUMERIC or layer == "tools":
        return None
    if item.top not in OPTIONAL:
        return f"not a package of ComfyUI or a named optional one: {item.name}"
    return f"heavy or optional, import it in the function that needs it: {item.name}" if item.when == "import" else None


@pytest.mark.parametrize("layer", BELOW)
def test_layers_import_downward_only(layer: str) -> None:
    found = [line for source in pack_sources() if source.layer == layer for line in breaches(source)]
    assert not found, "\n".join(found)


def test_every_python_file_belongs_to_a_layer() -> None:
    assert {source.layer for source in pack_sources()} <= set(BELOW)
    assert {"faces", "adapters", "inject", "nodes", "root"} <= {source.layer for source in pack_sources()}


def test_tools_are_imported_by_nobody() -> None:
    found = [
        f"{source.file}:{item.line}"
        for source in pack_sources()
        if source.layer in (*LAYERS, "root")
        for item in source.imports
        if item.relative and item.top == "tools"
    ]
    assert not found


@pytest.mark.parametrize(
    ("layer", "code", "word"),
    [
        ("faces", "from ..adapters import registry", "upward"),
        ("adapters", "from ..inject.host import folder_paths", "upward"),
        ("adapters", "from .. import nodes", "upward"),
        ("adapters", "import comfy.ops", "host"),
        ("nodes", "from comfy import utils", "host"),
        ("inject", "import nodes.loaders", None),
        ("adapters", "from faces import types", "relatively"),
        ("adapters", "import likeness_pack.faces", "relatively"),
        ("adapters", "import insightface", "in the function"),
        ("adapters", "def f():\n    import insightface", None),
        ("adapters", "def f():\n    import diffusers", "optional"),
        ("adapters", "def f():\n    importlib.import_module('tensorflow')", "optional"),
        ("faces", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from PIL import Image", None),
        ("faces", "import torch, math\nfrom . import types", None),
    ],
)
def test_the_rule_itself(layer: str, code: str, word: str | None) -> None:
    source = Source(Path(layer, "example.py"))
    source.__dict__["tree"] = ast.parse(code)
    found = breaches(source)
    assert bool(found) == (word is not None)
    assert all(word in line for line in found if word)
