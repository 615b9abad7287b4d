"""RestorerID's files in the model folders, as the loader node takes them."""

from __future__ import annotations

from typing import Any

from ..adapters import registry
from ..adapters.checkpoint import read_header
from ..adapters.errors import UnknownCheckpoint
from ..adapters.families.restorerid.family import FAMILY
from ..adapters.families.restorerid.layout import has_base, is_base
from ..adapters.family import rebuild
from . import model_folders
from .checkpoints import load_base
from .loaded import LoadedAdapter
from .restorerid import restorer_of

RESTORERS = model_folders.FileKind("face_adapters", ("checkpoints",))


def list_restorers() -> list[str]:
    """Names for the loader's dropdown: the adapters' folder, and the host's checkpoints behind ``[checkpoints] ``."""
    return model_folders.list_files(RESTORERS)


def load_restorer(choice: str) -> tuple[Any, Any, Any, LoadedAdapter]:
    """MODEL, CLIP, VAE and adapter of a file.

    Raises:
        UnknownCheckpoint: no RestorerID file, or one without its base model.
        UnsafeCheckpoint: a pickle that asks for code.
    """
    header = read_header(model_folders.find_file(RESTORERS, choice))
    match = registry.recognise(header, "adapter")
    if match.family is not FAMILY or not has_base(header):
        raise UnknownCheckpoint(
            header.path.name,
            expected="RestorerID's whole checkpoint (RestorerIDFull.ckpt)",
            found="its slim adapter file" if match.family is FAMILY else f"a file of {match.family.title}",
            cure="load it with Load Face Adapter, and an SD1.5 model with the checkpoint loader",
        )
    adapter = LoadedAdapter(rebuild(FAMILY, header, match))
    model, clip, vae = load_base(header, is_base)
    return model, clip, vae, adapter


def with_projection(loaded: LoadedAdapter, faceid: LoadedAdapter) -> LoadedAdapter:
    """A RestorerID adapter with the projection of a FaceID-Plus file; the same one for as long as both are in use."""
    return loaded.made(
        ("with projection", faceid.adapter.digest),
        lambda: LoadedAdapter(restorer_of(loaded).with_projection(faceid.adapter)),
        of=faceid,
    )
