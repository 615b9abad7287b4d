"""The files of the demo weights, small networks for drawn faces that come with the pack: their names and headers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from .checkpoint import CheckpointHeader, read_header
from .errors import MissingModelFile

DRAWN_BASE, DRAWN_VAE, DRAWN_ENCODER = "drawn_base.safetensors", "drawn_vae.safetensors", "drawn_encoder.safetensors"
DRAWN_ADAPTER, DRAWN_JUDGE = "drawn_fact.safetensors", "drawn_judge.safetensors"
# The two networks inside the base model's file: the UNet, and what turns attributes into tokens.
UNET_PREFIX, PROMPT_PREFIX = "model.diffusion_model.", "prompt."
CURE = "install the pack again, or run tools/train_demo_weights.py"


def demo_header(path: Path) -> CheckpointHeader:
    """The header of one of the files.

    Raises:
        MissingModelFile: the pack came without it.
        BadCheckpoint: a file that cannot be read.
    """
    if not path.is_file():
        raise MissingModelFile(
            path.name, expected=f"the demo weights in {path.parent.name}", found="no such file", cure=CURE
        )
    return read_header(path)


def in_float32(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a file, which keeps them in float16, in the precision they are used in."""
    return {name: one.float() for name, one in tensors.items()}
