"""The finished demo weights as files: each in the layout that its loader knows, float16, with what it is made of."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from torch import Tensor

from ...adapters.demo_weights import (
    DRAWN_ADAPTER,
    DRAWN_BASE,
    DRAWN_ENCODER,
    DRAWN_JUDGE,
    DRAWN_VAE,
    PROMPT_PREFIX,
    UNET_PREFIX,
)
from ...adapters.family import OWN_LICENCE, OWN_WEIGHTS
from ...adapters.model_spec import PREFIX
from ..checkpointing import write_model
from ..dreamid_names import to_original
from ..fact.models import save_adapter
from .autoencoder import published_tensors
from .conditioning import CONTEXT, TOKENS
from .recipe import ENCODER_ID, SIZE, UNET_WIDTHS, Workshop, adapter_options

_LICENCE = {"licence": OWN_WEIGHTS, PREFIX + "license": OWN_LICENCE}
_NOTE = "trained on drawn faces by tools/train_demo_weights.py; no photographs"


def export(workshop: Workshop, folder: Path) -> list[Path]:
    """Write the files; return them."""
    base = workshop.base()
    fact, options = workshop.fact("fact", base), adapter_options("fact", workshop.share)
    tensors = {UNET_PREFIX + name: one for name, one in to_original(base.unet.state_dict()).items()}
    tensors |= {PROMPT_PREFIX + name: one for name, one in base.prompt.state_dict().items()}
    sizes = {"widths": json.dumps(UNET_WIDTHS), "context": str(CONTEXT), "tokens": str(TOKENS), "size": str(SIZE)}
    _write(folder / DRAWN_VAE, published_tensors(workshop.autoencoder()), {"size": str(SIZE)}, "autoencoder")
    _write(folder / DRAWN_ENCODER, workshop.encoder().state_dict(), {"id": ENCODER_ID}, "face-encoder")
    _write(folder / DRAWN_BASE, tensors, sizes, "unet", "sd15")
    _write(folder / DRAWN_JUDGE, workshop.judge().state_dict(), {}, "face-encoder")
    save_adapter(
        folder / DRAWN_ADAPTER,
        fact,
        workshop.people(base),
        options,
        options.steps,
        notes={"note": _NOTE, **_LICENCE},
    )
    fact.attached.close()
    return [folder / name for name in (DRAWN_VAE, DRAWN_ENCODER, DRAWN_BASE, DRAWN_ADAPTER, DRAWN_JUDGE)]


def _write(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str], kind: str, base: str = "") -> None:
    halves = {name: one.half() if one.dtype is torch.float32 and one.ndim else one for name, one in tensors.items()}
    write_model(path, halves, {**metadata, "note": _NOTE, **_LICENCE}, kind, base)
