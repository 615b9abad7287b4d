"""Every graph with nodes of this pack carries a manifest, so that whatever saves its pictures writes it into the file.

ComfyUI's own save nodes write the graph, and what came with it, into the files they make. The manifest is added when a
graph is queued, by the server's own hook for that, and only to graphs in which nodes of this pack take part: as a
further entry beside the canvas graph, or, for graphs queued without one, in the free ``_meta`` of one of our nodes.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from ..adapters.provenance import NAME, Manifest, ModelUse
from ..faces.errors import LikenessError
from . import model_folders

logger = logging.getLogger(__name__)

PREFIX = "Likeness"
_KINDS = tuple(kind for kind in vars(model_folders).values() if isinstance(kind, model_folders.FileKind))


def with_manifest(queued: Any) -> Any:
    """Add the manifest to a queued graph of ours; other graphs, and broken ones, go through as they are."""
    # The host shows its handlers whatever JSON was posted.
    prompt = queued.get("prompt") if isinstance(queued, dict) else None
    ours = list(_our_nodes(prompt))
    if not ours:
        return queued
    values = graph_manifest(prompt).as_dict()
    extra = queued.get("extra_data")
    beside = extra.get("extra_pnginfo") if isinstance(extra, dict) else None
    if isinstance(beside, dict):
        beside[NAME] = values
    else:
        about = ours[0].setdefault("_meta", {})
        if isinstance(about, dict):
            about[NAME] = values
    return queued


def graph_manifest(prompt: Any) -> Manifest:
    """What a graph in API form says of itself: our nodes, and the model files they name."""
    ours = list(_our_nodes(prompt))
    names = dict.fromkeys(str(node["class_type"]) for node in ours)
    files = dict.fromkeys(path for node in ours for path in _model_files(node))
    models = tuple(_model_use(path, *_stamp(path)) for path in files)
    return Manifest(tuple(names), models, (), tuple(_notes(models)))


def _our_nodes(prompt: Any) -> Iterable[dict[str, Any]]:
    for node in prompt.values() if isinstance(prompt, dict) else ():
        kind = node.get("class_type") if isinstance(node, dict) else None
        if isinstance(kind, str) and kind.startswith(PREFIX):
            yield node


def _model_files(node: Mapping[str, Any]) -> Iterable[Path]:
    inputs = node.get("inputs")
    for value in inputs.values() if isinstance(inputs, dict) else ():
        if isinstance(value, str) and Path(value).suffix.lower() in model_folders.EXTENSIONS | {".onnx"}:
            found = _find(value)
            if found is not None:
                yield found


def _find(name: str) -> Path | None:
    for kind in _KINDS:
        try:
            return model_folders.find_file(kind, name)
        except LikenessError:
            continue
    return None


def _stamp(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_size, status.st_mtime_ns


@lru_cache(maxsize=64)
def _model_use(path: Path, size: int, changed: int) -> ModelUse:
    """What is known of a file; size and time of its last change are part of the memo's key."""
    from ..adapters import registry
    from ..adapters.checkpoint import read_header

    try:
        header = read_header(path)
        report = registry.describe(path)
    except LikenessError as error:
        logger.info("provenance of %s: %s", path.name, error)
        return ModelUse(path.name, digest=f"{size} bytes")
    licences = (report.code_licence, report.weight_licence, report.commercial)
    return ModelUse(path.name, report.family, header.digest, *licences)


def _notes(models: Iterable[ModelUse]) -> Iterable[str]:
    closed = [model.file for model in models if model.commercial is False]
    unsaid = [model.file for model in models if model.commercial is None]
    if closed:
        yield f"not for commercial use: {', '.join(closed)}"
    if unsaid:
        yield f"commercial use not stated by the publisher: {', '.join(unsaid)}"
