"""Where a FACT file keeps what: block paths, sizes from shapes, and the names of the published layout."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

from ...checkpoint import CheckpointHeader
from ...errors import KeyMismatch
from .arch import HEAD_DIM

PROJECTOR = "local_fac_prj."
PROCESSOR = ".attn2.processor"
FUSER = ".fuser"
BLOCK = ".transformer_blocks.0"
OVERRIDE = ".ln."

# The trainer names blocks as the original SD1.5 code does, the published files as diffusers does (16 of each).
TRAINER_PATHS: Mapping[str, str] = (
    {f"input_blocks.{3 * i + j + 1}.1": f"down_blocks.{i}.attentions.{j}" for i in range(3) for j in range(2)}
    | {f"output_blocks.{3 * i + j}.1": f"up_blocks.{i}.attentions.{j}" for i in range(1, 4) for j in range(3)}
    | {"middle_block.1": "mid_block.attentions.0"}
)
BLOCK_PATHS = tuple(path + BLOCK for path in TRAINER_PATHS.values())

Value = TypeVar("Value")


@dataclass(frozen=True)
class ResamplerSizes:
    """Sizes of the projector of the published files ("v1")."""

    input_dim: int
    width: int
    output_dim: int
    queries: int
    depth: int
    heads: int
    head_dim: int
    feed_forward: int


@dataclass(frozen=True)
class FirstProjectorSizes:
    """Sizes of the projector of the first generation ("v0")."""

    tokens_in: int
    tokens_out: int
    width_in: int
    width_out: int


def published_names(values: Mapping[str, Value]) -> dict[str, Value]:
    """Rename the trainer's layout to the published one; other names stay as they are."""
    return {_published(name): value for name, value in values.items()}


def _published(name: str) -> str:
    path, block, rest = name.partition(f"{BLOCK}{FUSER}.")
    return f"{TRAINER_PATHS[path]}{BLOCK}{PROCESSOR}.{rest}" if block and path in TRAINER_PATHS else name


def gated_widths(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, int]:
    """Width of each gated layer by diffusers block path, in the order of `BLOCK_PATHS`; absent layers are left out.

    Args:
        shapes: by published name.
    """
    found = {path: shapes.get(f"{path}{PROCESSOR}.attn.to_q.weight") for path in BLOCK_PATHS}
    return {path: shape[0] for path, shape in found.items() if shape}


def resampler_sizes(header: CheckpointHeader) -> ResamplerSizes:
    """Sizes of the v1 projector. Raises KeyMismatch where a key that tells one is missing."""
    latents = _shape(header, "latents", 3)
    inner = _shape(header, "layers.0.0.to_q.weight", 2)[0]
    parts = {name.split(".")[1] for name in header.with_prefix(PROJECTOR) if name.startswith("layers.")}
    return ResamplerSizes(
        input_dim=_shape(header, "proj_in.weight", 2)[1],
        width=latents[2],
        output_dim=_shape(header, "proj_out.weight", 2)[0],
        queries=latents[1],
        depth=len(parts),
        heads=inner // HEAD_DIM,
        head_dim=HEAD_DIM,
        feed_forward=_shape(header, "layers.0.1.1.weight", 2)[0],
    )


def first_projector_sizes(header: CheckpointHeader) -> FirstProjectorSizes:
    """Sizes of the v0 projector. Raises KeyMismatch where a key that tells one is missing."""
    tokens_out, tokens_in = _shape(header, "net.weight", 2)
    width_out, width_in = _shape(header, "feature.0.weight", 2)
    return FirstProjectorSizes(tokens_in, tokens_out, width_in, width_out)


def _shape(header: CheckpointHeader, name: str, dimensions: int) -> tuple[int, ...]:
    shape = header.shape(PROJECTOR + name)
    if shape is None or len(shape) != dimensions or not math.prod(shape):
        raise KeyMismatch(
            header.path.name,
            expected=f"{PROJECTOR}{name} of {dimensions} dimensions",
            found="no such key" if shape is None else f"shape {shape}",
            cure="use the publisher's unchanged file",
        )
    return shape
