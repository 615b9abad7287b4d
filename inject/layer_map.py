"""Order and names of a UNet's transformer blocks: the host's (input, middle, output), the files' (down, up, middle).

The tables are read off the model at hand, not typed: any SD1.5 or SDXL layout of any width is covered. SDXL's middle
block is ``("middle", 0)`` at run time.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ..adapters.errors import BaseModelMismatch


@dataclass(frozen=True)
class UNetLayer:
    """One transformer block of a UNet.

    Attributes:
        block: the host's name at run time, such as ``("input", 1)``.
        depth: index of the block inside its spatial transformer (``block_index`` at run time).
        path: the diffusers name, such as ``down_blocks.0.attentions.0.transformer_blocks.0``.
        weights: prefix of its weights in the host's model, such as
            ``diffusion_model.input_blocks.1.1.transformer_blocks.0``.
        width: channels of the hidden state.
        heads: attention heads.
        context_dim: width of the text context.
    """

    block: tuple[str, int]
    depth: int
    path: str
    weights: str
    width: int
    heads: int
    context_dim: int

    @property
    def key(self) -> tuple[str, int, int]:
        """Key of the layer's slot in ``patches_replace``."""
        return (*self.block, self.depth)


_READ: weakref.WeakKeyDictionary[Any, tuple[UNetLayer, ...]] = weakref.WeakKeyDictionary()


def unet_layers(model: Any) -> tuple[UNetLayer, ...]:
    """The transformer blocks of a MODEL in the order of adapter files: down, up, middle.

    Raises:
        BaseModelMismatch: when the model is no UNet of the SD1.5 / SDXL kind.
    """
    unet = model.model.diffusion_model
    if not all(hasattr(unet, name) for name in ("input_blocks", "middle_block", "output_blocks")):
        raise BaseModelMismatch(
            "apply identity",
            expected="a UNet of the SD1.5 or SDXL kind",
            found=f"the model {type(model.model).__name__} ({type(unet).__name__})",
            cure="connect a model loaded from an SD1.5 or SDXL checkpoint",
        )
    # Every node that patches asks for them; blocks stand where they are for as long as a UNet lives.
    found = _READ.get(unet)
    if found is None:
        found = _READ[unet] = (*_down(unet), *_up(unet), *_middle(unet))
    return found


def _down(unet: Any) -> Iterator[UNetLayer]:
    level, attention = 0, 0
    for number, block in enumerate(unet.input_blocks):
        yield from _layers(
            block, ("input", number), f"input_blocks.{number}", f"down_blocks.{level}.attentions.{attention}"
        )
        if any(type(part).__name__ == "Downsample" for part in block):
            level, attention = level + 1, 0
        elif number > 0:
            attention += 1


def _up(unet: Any) -> Iterator[UNetLayer]:
    level, attention = 0, 0
    for number, block in enumerate(unet.output_blocks):
        yield from _layers(
            block, ("output", number), f"output_blocks.{number}", f"up_blocks.{level}.attentions.{attention}"
        )
        attention += 1
        if any(type(part).__name__ == "Upsample" for part in block):
            level, attention = level + 1, 0


def _middle(unet: Any) -> Iterator[UNetLayer]:
    yield from _layers(unet.middle_block, ("middle", 0), "middle_block", "mid_block.attentions.0")


def _layers(block: Any, name: tuple[str, int], weights: str, path: str) -> Iterator[UNetLayer]:
    for position, part in enumerate(block or ()):
        for depth, transformer in enumerate(getattr(part, "transformer_blocks", ())):
            attn2 = getattr(transformer, "attn2", None)
            if attn2 is None:
                continue
            yield UNetLayer(
                block=name,
                depth=depth,
                path=f"{path}.transformer_blocks.{depth}",
                weights=f"diffusion_model.{weights}.{position}.transformer_blocks.{depth}",
                width=int(attn2.to_q.out_features),
                heads=int(attn2.heads),
                context_dim=int(attn2.to_k.in_features),
            )
