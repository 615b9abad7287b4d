"""MODEL, CLIP and VAE of a whole checkpoint file that holds an adapter too."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

from ..adapters.checkpoint import CheckpointHeader, load_tensors
from ..adapters.errors import BadCheckpoint
from ..adapters.families.restorerid.layout import narrowed
from .host import folder_paths


def load_base(header: CheckpointHeader, is_base: Callable[[str], bool]) -> tuple[Any, Any, Any]:
    """Load the base model inside a file with the host's own loader.

    Args:
        header: of the file; a pickle that asks for more than tensors was refused before.
        is_base: whether a tensor belongs to the base model.

    Raises:
        BadCheckpoint: the host finds no model in it.
    """
    loader = importlib.import_module("comfy.sd")
    embeddings = folder_paths().get_folder_paths("embeddings")
    if hasattr(loader, "load_state_dict_guess_config"):
        tensors = load_tensors(narrowed(header, filter(is_base, header.tensors)))
        found = loader.load_state_dict_guess_config(tensors, embedding_directory=embeddings)
    else:
        # The older loader takes a path alone; it passes over the adapter's tensors.
        found = loader.load_checkpoint_guess_config(str(header.path), embedding_directory=embeddings)
    if found is None or found[0] is None:
        raise BadCheckpoint(
            header.path.name,
            expected="a whole SD1.5 checkpoint",
            found="no model that ComfyUI recognises",
            cure="download the file again and compare its size with the publisher's",
        )
    model, clip, vae = found[:3]
    return model, clip, vae
