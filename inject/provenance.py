"""Every graph with nodes of this pack carries a manifest, so that whatever saves its pictures writes it into the file.

ComfyUI's own save nodes write the graph, and what came with it, into the files they make. The manifest is added when a
graph is queued, by the server's own hook for that, and only to graphs in which nodes of this pack take part: as a
further entry beside the canvas graph, or, for graphs queued without one, in the free ``_meta`` of one of our nodes.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from ..adapters.model_spec import stated_licence
from ..adapters.model_table import published_files
from ..adapters.provenance import NAME, Manifest, ModelUse
from ..faces.errors import LikenessError
from . import model_folders

logger = logging.getLogger(__name__)

PREFIX = "Likeness"
# Where the host's own loaders read base models and what goes on them.
_HOST_FOLDERS = ("checkpoints", "diffusion_models", "unet", "loras", "controlnet", "clip_vision")
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
    """What a graph in API form says of itself: our nodes, the model files they name, and those of the host's loaders:
    base model, LoRAs, ControlNets."""
    ours = list(_our_nodes(prompt))
    names = dict.fromkeys(str(node["class_type"]) for node in ours)
    others = [node for node in _nodes(prompt) if not node["class_type"].startswith(PREFIX)]
    files = dict.fromkeys(path for node in ours for path in _model_files(node, _find))
    base = dict.fromkeys(path for node in others for path in _model_files(node, _find_of_the_host))
    told = [_model_use(path, *_stamp(path)) for path in files]
    models = [model for model, _ in told]
    notes = [*_notes(models), *(note for _, needs in told for note in needs)]
    models += [_host_use(path, *_stamp(path)) for path in base if path not in files]
    return Manifest(tuple(names), tuple(models), (), tuple(notes))


def _nodes(prompt: Any) -> Iterable[dict[str, Any]]:
    for node in prompt.values() if isinstance(prompt, dict) else ():
        if isinstance(node, dict) and isinstance(node.get("class_type"), str):
            yield node


def _our_nodes(prompt: Any) -> Iterable[dict[str, Any]]:
    return (node for node in _nodes(prompt) if node["class_type"].startswith(PREFIX))


def _model_files(node: Mapping[str, Any], find: Callable[[str], Path | None]) -> Iterable[Path]:
    inputs = node.get("inputs")
    for value in inputs.values() if isinstance(inputs, dict) else ():
        if isinstance(value, str) and Path(value).suffix.lower() in model_folders.EXTENSIONS | {".onnx"}:
            found = find(value)
            if found is not None:
                yield found


def _find_of_the_host(name: str) -> Path | None:
    found = (model_folders.full_path(folder, name) for folder in _HOST_FOLDERS)
    return next((path for path in found if path is not None), None)


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
def _model_use(path: Path, size: int, changed: int) -> tuple[ModelUse, tuple[str, ...]]:
    """What is known of a file, and what is to be known of what it needs; size and time of its last change are part of
    the memo's key."""
    from ..adapters import registry
    from ..adapters.checkpoint import read_header

    try:
        header = read_header(path)
        report = registry.describe(path)
    except LikenessError as error:
        logger.info("provenance of %s: %s", path.name, error)
        return ModelUse(path.name, digest=f"{size} bytes"), ()
    weights = stated_licence(header.metadata) or report.weight_licence
    licences = (report.code_licence, weights, report.commercial)
    # A file trained here names its encoder, which need not be the published one.
    published = "encoder" not in header.metadata
    needed = [row for row in published_files() if published and row.is_needed_by(report.family, report.variant)]
    closed = [f"{row.file} ({row.weight_licence})" for row in needed if row.commercial is False]
    notes = (f"{path.name} needs what is not for commercial use: {', '.join(closed)}",) if closed else ()
    return ModelUse(path.name, report.family, header.digest, *licences), notes


@lru_cache(maxsize=64)
def _host_use(path: Path, size: int, changed: int) -> ModelUse:
    """A file of the host's own loaders, of whose licence this pack knows what the file says itself; memo as above."""
    from ..adapters.checkpoint import read_header

    try:
        header = read_header(path)
    except LikenessError as error:
        logger.info("provenance of %s: %s", path.name, error)
        return ModelUse(path.name, digest=f"{size} bytes")
    return ModelUse(path.name, digest=header.digest, weight_licence=stated_licence(header.metadata))


def _notes(models: Iterable[ModelUse]) -> Iterable[str]:
    closed = [model.file for model in models if model.commercial is False]
    unsaid = [model.file for model in models if model.commercial is None]
    if closed:
        yield f"not for commercial use: {', '.join(closed)}"
    if unsaid:
        yield f"commercial use not stated by the publisher: {', '.join(unsaid)}"
