"""Writes stand-in checkpoints: ``python tools/make_standins.py --out DIR KIND [KIND ...]``."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from safetensors.torch import save_file
from torch import Tensor

from . import dreamid_v
from .adapters import SD15_LEVELS, SDXL_LEVELS, faceid, faceid_portrait, fact, transface_s
from .base_models import sd15
from .fill import Shapes, filled_all
from .musetalk import musetalk, unavglip
from .restorerid import musiq, restorerid_full, restorerid_slim
from .whisper import TINY_WIDTH, whisper

# Read by the loader where tensors cannot tell the variants of a family apart.
VARIANT = "likeness.variant"
DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}
Levels = Sequence[int]
Container = Literal["flat", "nested", "lightning", "safetensors"]


@dataclass(frozen=True)
class Kind:
    """One kind of stand-in.

    Attributes:
        shapes: names and shapes for the given width of each UNet level.
        levels: widths of the published files (width and inner width for DreamID-V); () where the kind has none.
        suffix: file name suffix of the published file.
        container: flat pickle, nested pickle (``image_proj`` and ``ip_adapter``), pickle of PyTorch Lightning, or
            safetensors.
        dtype: name of the default dtype.
        variant: variant that no tensor tells, written into the metadata.
    """

    shapes: Callable[[Levels], Shapes]
    levels: Levels
    suffix: str
    container: Container
    dtype: str = "fp16"
    variant: str | None = None


def _faceid(base: str, plus: bool = False) -> Callable[[Levels], Shapes]:
    return lambda levels: faceid(base, levels, plus=plus)


KINDS: dict[str, Kind] = {
    "transface-s": Kind(lambda _: transface_s(), (), ".pt", "flat", "fp32"),
    "fact-v1": Kind(fact, SD15_LEVELS, ".ckpt", "flat"),
    "fact-v0": Kind(lambda levels: fact(levels, first_generation=True), SD15_LEVELS, ".ckpt", "flat"),
    "faceid-sd15": Kind(_faceid("sd15"), SD15_LEVELS, ".bin", "nested"),
    "faceid-plus-sd15": Kind(_faceid("sd15", plus=True), SD15_LEVELS, ".bin", "nested", variant="plus"),
    "faceid-plusv2-sd15": Kind(_faceid("sd15", plus=True), SD15_LEVELS, ".bin", "nested", variant="plus_v2"),
    "faceid-portrait-sd15": Kind(faceid_portrait, SD15_LEVELS, ".bin", "nested"),
    "faceid-sdxl": Kind(_faceid("sdxl"), SDXL_LEVELS, ".bin", "nested"),
    "faceid-plusv2-sdxl": Kind(_faceid("sdxl", plus=True), SDXL_LEVELS, ".bin", "nested", variant="plus_v2"),
    "restorerid-full": Kind(restorerid_full, SD15_LEVELS, ".ckpt", "lightning"),
    "restorerid-slim": Kind(restorerid_slim, SD15_LEVELS, ".safetensors", "safetensors"),
    "dreamid-v": Kind(dreamid_v.pose, dreamid_v.LEVELS, ".pth", "flat"),
    "dreamid-v-faster": Kind(dreamid_v.faster, dreamid_v.LEVELS, ".pth", "flat"),
    "musetalk-v1": Kind(musetalk, SD15_LEVELS, ".safetensors", "safetensors", variant="v1"),
    "musetalk-v15": Kind(musetalk, SD15_LEVELS, ".safetensors", "safetensors", variant="v15"),
    "unavglip": Kind(unavglip, SD15_LEVELS, ".safetensors", "safetensors", "fp32"),
    "musiq": Kind(lambda _: musiq(), (), ".pth", "flat", "fp32"),
    "whisper-tiny": Kind(lambda levels: whisper(levels[0]), (TINY_WIDTH,), ".safetensors", "safetensors", "fp32"),
    "sd15-thin": Kind(sd15, (320, 320, 320, 320), ".safetensors", "safetensors"),
    "sd15-full": Kind(sd15, SD15_LEVELS, ".safetensors", "safetensors"),
}


def write_standin(name: str, folder: Path, widths: Levels = (), dtype: str | None = None) -> Path:
    """Write one stand-in and return its path.

    Args:
        name: a key of `KINDS`.
        folder: where to; created if missing.
        widths: width of each UNet level, the last one repeated as needed; the published widths if empty.
        dtype: a key of `DTYPES`; the kind's own by default.

    Raises:
        ValueError: widths for a kind without, too many, or not divisible by 8.
    """
    kind = KINDS[name]
    levels = _levels(name, kind, widths)
    tensors = filled_all(kind.shapes(levels), DTYPES[dtype or kind.dtype])
    thin = "-w" + "-".join(map(str, widths)) if widths else ""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"standin-{name}{thin}{kind.suffix}"
    _save(tensors, path, kind)
    return path


def _levels(name: str, kind: Kind, widths: Levels) -> Levels:
    if not widths:
        return kind.levels
    if len(widths) > len(kind.levels) or any(width <= 0 or width % 8 for width in widths):
        raise ValueError(f"{name} takes {len(kind.levels)} widths at most, each a multiple of 8; found {list(widths)}")
    return [*widths, *[widths[-1]] * (len(kind.levels) - len(widths))]


def _save(tensors: dict[str, Tensor], path: Path, kind: Kind) -> None:
    metadata = {"likeness.standin": "no trained weights"} | ({VARIANT: kind.variant} if kind.variant else {})
    if kind.container == "safetensors":
        save_file(tensors, path, metadata=metadata)
        return
    content: dict[str, object] = dict(tensors)
    if kind.container == "lightning":
        content = {"epoch": 0, "global_step": 0, "state_dict": dict(tensors)}
    if kind.container == "nested":
        content = {}
        for name, tensor in tensors.items():
            part, _, rest = name.partition(".")
            inner = content.setdefault(part, {})
            assert isinstance(inner, dict)
            inner[rest] = tensor
        # Official loaders read the two parts by name, so a further entry does not disturb them.
        content |= {VARIANT: kind.variant} if kind.variant else {}
    torch.save(content, path)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    parser = argparse.ArgumentParser(
        prog="make_standins.py",
        description="Write checkpoints with published names, shapes and containers, filled with meaningless numbers "
        "that depend on the names alone. They prove that files are read and layers patched; faces they do not make.",
    )
    parser.add_argument("kinds", nargs="+", metavar="KIND", choices=list(KINDS), help=", ".join(KINDS))
    parser.add_argument("--out", type=Path, required=True, help="folder to write to")
    parser.add_argument(
        "--widths",
        type=_widths,
        default=(),
        help="width of each UNet level, such as 320 or 32,64,128: follows a thin base model (default: as published). "
        "The host's checkpoint loader needs 320 as the first",
    )
    parser.add_argument("--dtype", choices=list(DTYPES), help="default: fp16, and fp32 for encoders")
    options = parser.parse_args(arguments)
    for name in options.kinds:
        try:
            path = write_standin(name, options.out, options.widths if KINDS[name].levels else (), options.dtype)
        except ValueError as error:
            parser.error(str(error))
        print(f"{path} ({path.stat().st_size / 1e6:.1f} MB)")
    return 0


def _widths(text: str) -> tuple[int, ...]:
    return tuple(int(width) for width in text.split(","))
