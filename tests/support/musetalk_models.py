"""MuseTalk MODELs and UnAvgLip adapters for tests: files in the published layout at small width, loaded as any file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from host_inprocess import engine
from likeness_pack.tools.standins.fill import filled_all
from likeness_pack.tools.standins.musetalk import musetalk, unavglip
from safetensors.torch import save_file
from torch import Tensor

WIDTHS = (32, 64, 64, 64)
RANK, HEADS = 4, 2


def write_tensors(tensors: Mapping[str, Tensor], path: Path) -> Path:
    """Write a safetensors file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)
    return path


def write_musetalk(path: Path, widths: Sequence[int] = WIDTHS) -> Path:
    """A stand-in UNet."""
    return write_tensors(filled_all(musetalk(widths), torch.float32), path)


def write_unavglip(path: Path, widths: Sequence[int] = WIDTHS, decoder: bool = False) -> Path:
    """A stand-in adapter."""
    return write_tensors(filled_all(unavglip(widths, RANK, HEADS, decoder), torch.float32), path)


def model_of(path: Path, variant: str = "v15") -> Any:
    """The MODEL of a UNet file, loaded as the node loads it."""
    from likeness_pack.adapters import registry
    from likeness_pack.inject.musetalk import load_musetalk

    engine()
    return load_musetalk(registry.load(path, "adapter", variant))


def adapter_of(path: Path) -> Any:
    """The socket's value for an adapter file."""
    from likeness_pack.adapters import registry
    from likeness_pack.inject.loaded import LoadedAdapter

    engine()
    return LoadedAdapter(registry.load(path, "adapter"))


def filled_model(golden: Any, shapes: Mapping[str, Sequence[int]], folder: Path, variant: str = "v15") -> Any:
    """A MODEL whose weights the golden file's rule makes."""
    return model_of(write_tensors(golden.filled(dict(shapes)), folder / "unet.safetensors"), variant)


class SmallVae:
    """A VAE's interface with next to no work: means of 8 x 8 pixels, and a fourth channel of zeros."""

    def encode(self, pictures: Tensor) -> Tensor:
        """Pictures (B, H, W, 3) to latents."""
        means = torch.nn.functional.avg_pool2d(pictures.movedim(-1, 1), 8) * 10 - 5
        return torch.nn.functional.pad(means, (0, 0, 0, 0, 0, 1))

    def decode(self, latents: Tensor) -> Tensor:
        """Latents to pictures."""
        return (torch.nn.functional.interpolate(latents[:, :3], scale_factor=8.0) / 10 + 0.5).movedim(1, -1)


def seeded(*shape: int, seed: int = 0) -> Tensor:
    """Normal numbers of a seed."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))
