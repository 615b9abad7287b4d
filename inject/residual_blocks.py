"""RestorerID's modulations inside a UNet's residual blocks, on the host's own layers.

No options reach a residual block, so what a forward pass knows (structure maps, reference tokens, whether the step is
in range) is laid beside it for its duration and taken away whatever happens.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ..adapters.errors import BaseModelMismatch, PatchIncomplete
from ..adapters.families.restorerid.network import BlockModulations
from . import host
from .call_state import CallState
from .memo import Memo
from .shared import Shared

SLOT = "residual"
Pair = tuple[Tensor, Tensor]
MapSize = tuple[int, int]


@dataclass(frozen=True, eq=False)
class RestorationCall:
    """What the blocks need in one forward pass.

    Attributes:
        maps: structure maps (M, labels, H, W) by their size; none where nothing acts in this step.
        pattern: positive or negative, for each chunk of rows.
        extra: the host's options, for its attention.
        state: where blocks note that they ran, or None.
    """

    maps: Mapping[MapSize, Tensor]
    pattern: tuple[int, ...]
    extra: Mapping[str, Any]
    state: CallState | None


class CallHolder(Shared):
    """The forward pass that runs now, for each thread its own."""

    def __init__(self) -> None:
        self._local = threading.local()

    @property
    def call(self) -> RestorationCall | None:
        """What was laid down, or None outside of a forward pass."""
        return getattr(self._local, "call", None)

    @contextmanager
    def holding(self, call: RestorationCall) -> Iterator[None]:
        """Lay ``call`` down until the block ends, however it ends."""
        before = self.call
        self._local.call = call
        try:
            yield
        finally:
            self._local.call = before


@dataclass(frozen=True, eq=False)
class ReferenceTokens(Shared):
    """Reference tokens (P, T, C) of the positive rows' pictures, and (1, T, C) of the negative rows."""

    positive: Tensor
    negative: Tensor

    def rows(self, pattern: tuple[int, ...]) -> Tensor:
        """Tokens (len(pattern) * P, T, C): chunk by chunk, picture by picture."""
        sides = (self.positive, self.negative.expand_as(self.positive))
        return torch.cat([sides[row] for row in pattern])


@dataclass(frozen=True, eq=False)
class RestoredBlock(Shared):
    """Takes the place of one residual block's ``forward``.

    Attributes:
        name: of the block inside the UNet.
        block: the host's residual block.
        modulations: of this block.
        holder: where the forward pass is found.
        tokens: the reference's.
        structure_strength, fir_strength: 1 is the official sum, 0 leaves the modulation out.
        constant: whether the FIR-Adapter is constant.
    """

    name: str
    block: nn.Module
    modulations: BlockModulations
    holder: CallHolder
    tokens: ReferenceTokens
    structure_strength: float = 1.0
    fir_strength: float = 1.0
    constant: bool = False
    _keys_values: Memo[Pair] = field(default_factory=lambda: Memo(limit=4), repr=False)

    def __call__(self, x: Tensor, emb: Tensor) -> Tensor:
        """x (B, in, H, W) and emb (B, embedding) give (B, out, H, W)."""
        call = self.holder.call
        if call is None:
            raise PatchIncomplete(
                "RestorerID",
                expected="its wrapper around the model's forward pass",
                found="that another node took its place",
                cure="put the node that wraps the model before Apply RestorerID",
            )
        if call.state is not None:
            call.state.mark(SLOT, self.name)
        if not call.maps:
            return type(self.block).forward(self.block, x, emb)
        return self._restored(x, emb, call)

    def _restored(self, x: Tensor, emb: Tensor, call: RestorationCall) -> Tensor:
        layers: Any = self.block
        h = layers.in_layers(x)
        h = layers.out_layers(h + layers.emb_layers(emb).to(h)[:, :, None, None])
        structure = call.maps.get((int(h.shape[-2]), int(h.shape[-1])))
        if structure is None:
            raise _wrong_size(h, call.maps)
        h = layers.skip_connection(x) + self._modulated(h, structure)
        return self._balanced(h, structure, call)

    def _modulated(self, h: Tensor, structure: Tensor) -> Tensor:
        if self.structure_strength == 0.0:
            return h
        spade = self.modulations.spade(h, structure)
        return spade if self.structure_strength == 1.0 else h.lerp(spade, self.structure_strength)

    def _balanced(self, h: Tensor, structure: Tensor, call: RestorationCall) -> Tensor:
        if self.fir_strength == 0.0:
            return h
        fir = self.modulations.IDBalance
        if self.constant:
            return h.add(fir.constant(h), alpha=self.fir_strength)
        key = (call.pattern, h.dtype, h.device)
        pair = self._keys_values.get(key, lambda: fir.crossattn.keys_values(self.tokens.rows(call.pattern).to(h)))
        term = fir(h, structure, pair, lambda q, k, v, heads: host.attention(q, k, v, heads, call.extra))
        return h.add(term, alpha=self.fir_strength)


def residual_blocks(model: Any, modulations: Mapping[str, BlockModulations]) -> dict[str, nn.Module]:
    """The host's residual blocks of these names, checked against the adapter.

    Raises:
        BaseModelMismatch: a block is missing, of another width, or of another kind.
    """
    unet = model.model.diffusion_model
    found = {name: _module(unet, name) for name in modulations}
    for name, block in found.items():
        wanted = modulations[name].channels
        kind = type(block).__name__
        plain = not any(getattr(block, option, True) for option in ("updown", "use_scale_shift_norm", "skip_t_emb"))
        width = getattr(block, "out_channels", None)
        if not plain or width != wanted:
            raise BaseModelMismatch(
                "RestorerID",
                expected=f"an SD1.5 model whose residual block {name} has {wanted} channels",
                found=f"{kind} with {width}" if block is not None else "no such block",
                cure="connect a model loaded from an SD1.5 checkpoint",
            )
    return {name: block for name, block in found.items() if block is not None}


def _module(unet: nn.Module, name: str) -> nn.Module | None:
    try:
        return unet.get_submodule(name)
    except AttributeError:
        return None


def _wrong_size(h: Tensor, maps: Mapping[MapSize, Tensor]) -> BaseModelMismatch:
    sizes = ", ".join(f"{height} x {width}" for height, width in maps)
    return BaseModelMismatch(
        "RestorerID",
        expected=f"feature maps of the damaged picture's sizes ({sizes})",
        found=f"one of {h.shape[-2]} x {h.shape[-1]}",
        cure="remove the node that changes the model's resolution between levels, or that tiles the latent",
    )
