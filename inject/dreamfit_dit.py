"""Reference features in a DiT (Flux): keys and values of a reference pass, appended in every block's attention.

The blocks are wrapped one by one (``patches_replace["dit"]``), so that each knows its place however other packs order
or skip them; inside a block the host's attention override sees keys after their rotation. The reference's own positions
start at (0, 0) as the target's do, and never change, so rotated keys can be kept: the same numbers as storing them
unrotated and rotating them in every step.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from ..adapters.errors import HostTooOld
from .block_chain import holds, with_changed
from .call_state import call_state
from .dit_blocks import DOUBLE, SINGLE
from .managed import ManagedNetwork
from .patching import block_slot, set_block_slot
from .row_values import Pair
from .schedule import StepRange
from .shared import Shared

SLOT = "reference"
OVERRIDE = "optimized_attention_override"
BlockKey = tuple[str, int]
Block = Callable[[dict[str, Any]], dict[str, Any]]


def require_dit_host() -> None:
    """Raise HostTooOld unless this ComfyUI has Flux with blocks that pass on an attention override."""
    try:
        layers = importlib.import_module("comfy.ldm.flux.layers")
        attention = importlib.import_module("comfy.ldm.modules.attention")
    except ImportError as error:
        raise _too_old("one without Flux") from error
    known = inspect.signature(layers.DoubleStreamBlock.forward).parameters
    if "transformer_options" not in known or not hasattr(attention, "wrap_attn"):
        raise _too_old("one whose Flux attention takes no override")


def _too_old(found: str) -> HostTooOld:
    return HostTooOld(
        "DreamFit for Flux",
        expected="ComfyUI 0.3.60 or newer",
        found=found,
        cure="update ComfyUI, or use the SD1.5 file",
    )


def block_keys(double: int, single: int) -> tuple[BlockKey, ...]:
    """Keys of all blocks in the order in which the host runs them."""
    return (*((DOUBLE, number) for number in range(double)), *((SINGLE, number) for number in range(single)))


class ReferenceBank(nn.Module):
    """Keys and values (1, heads, T, D) of a reference in every block, as weights for the host's memory manager.

    Args:
        pairs: by block.
    """

    def __init__(self, pairs: Mapping[BlockKey, Pair]) -> None:
        super().__init__()
        for (kind, number), (k, v) in pairs.items():
            block = nn.Module()
            block.k = nn.Parameter(k, requires_grad=False)
            block.v = nn.Parameter(v, requires_grad=False)
            self.add_module(f"{kind}_{number}", block)

    def pair(self, key: BlockKey, like: Tensor) -> Pair:
        """Keys and values of a block for the rows of ``like`` (B, heads, T, D), in its dtype and on its device."""
        block = self.get_submodule(f"{key[0]}_{key[1]}")
        k, v = (part.to(like.device, like.dtype).expand(like.shape[0], -1, -1, -1) for part in block.parameters())
        return k, v


class RecordBlocks:
    """Lives for one reference pass: a wrapper for every block, and what their attentions were given.

    Args:
        keys: of all blocks.
    """

    def __init__(self, keys: Sequence[BlockKey]) -> None:
        self.pairs: dict[BlockKey, Pair] = {}
        self.patches = {key: self._wrapper(key) for key in keys}

    def _wrapper(self, key: BlockKey) -> Callable[[dict[str, Any], Mapping[str, Block]], dict[str, Any]]:
        def wrapped(args: dict[str, Any], extra: Mapping[str, Block]) -> dict[str, Any]:
            # In a double block the text's keys come first and are left out; a single block's stream holds the text too.
            text = args["txt"].shape[1] if key[0] == DOUBLE else 0

            def override(
                attend: Callable[..., Tensor], q: Tensor, k: Tensor, v: Tensor, *rest: Any, **named: Any
            ) -> Any:
                self.pairs[key] = _kept(k[:, :, text:]), _kept(v[:, :, text:])
                return attend(q, k, v, *rest, **named)

            options = {**(args.get("transformer_options") or {}), OVERRIDE: override}
            return extra["original_block"]({**args, "transformer_options": options})

        return wrapped


def _kept(tensor: Tensor) -> Tensor:
    """A copy in main memory; the host moves it to the device with the model that reads it."""
    with torch.inference_mode(False), torch.no_grad():
        return tensor.to("cpu", copy=True).contiguous()


@dataclass(frozen=True, eq=False)
class BankTerm(Shared):
    """One reference in a DiT.

    Attributes:
        key: what the term is; a second term with the same key takes its place.
        network: its bank, under the host's memory manager.
        steps: the steps in which it acts.
    """

    key: str
    network: ManagedNetwork
    steps: StepRange

    def pair(self, block: BlockKey, like: Tensor) -> Pair:
        """Keys and values of a block, see `ReferenceBank.pair`."""
        bank = self.network.network
        if not isinstance(bank, ReferenceBank):
            raise TypeError(type(bank).__name__)
        return bank.pair(block, like)


@dataclass(frozen=True, eq=False)
class ReferenceBlock(Shared):
    """The patch around one block.

    Attributes:
        key: the block.
        terms: the references that act here.
        previous: the patch of another pack that was found in the slot and is still called, or None.
    """

    key: BlockKey
    terms: tuple[BankTerm, ...]
    previous: Callable[..., dict[str, Any]] | None = None

    def __call__(self, args: dict[str, Any], extra: Mapping[str, Block], **kwargs: Any) -> dict[str, Any]:
        options = args.get("transformer_options") or {}
        state = call_state(options)
        if state is not None:
            state.mark(SLOT, self.key)
        acting = tuple(term for term in self.terms if term.steps.active(options))
        if acting:
            override = _Extended(self.key, acting, options.get(OVERRIDE))
            args = {**args, "transformer_options": {**options, OVERRIDE: override}}
        return extra["original_block"](args) if self.previous is None else self.previous(args, extra, **kwargs)

    def with_term(self, term: BankTerm) -> ReferenceBlock:
        """A replacement with the term added, in place of one with the same key."""
        others = tuple(old for old in self.terms if old.key != term.key)
        return ReferenceBlock(self.key, (*others, term), self.previous)


@dataclass(frozen=True, eq=False)
class _Extended(Shared):
    """The attention override of one block in one call: appends the references' keys and values."""

    key: BlockKey
    terms: tuple[BankTerm, ...]
    previous: Callable[..., Tensor] | None

    def __call__(
        self, attend: Callable[..., Tensor], q: Tensor, k: Tensor, v: Tensor, *rest: Any, **named: Any
    ) -> Tensor:
        pairs = [(k, v), *(term.pair(self.key, k) for term in self.terms)]
        longer_k, longer_v = (torch.cat(parts, dim=2) for parts in zip(*pairs, strict=True))
        mask = named.get("mask")
        if mask is not None:
            named = {**named, "mask": _opened(mask, longer_k.shape[2] - k.shape[2])}
        if self.previous is not None:
            return self.previous(attend, q, longer_k, longer_v, *rest, **named)
        return attend(q, longer_k, longer_v, *rest, **named)


def _opened(mask: Tensor, count: int) -> Tensor:
    """The attention mask (..., T) with ``count`` more keys, all of them visible."""
    return pad(mask, (0, count), value=True if mask.dtype == torch.bool else 0.0)


def set_reference_blocks(clone: Any, keys: Sequence[BlockKey], term: BankTerm) -> None:
    """Put a reference around the blocks of a clone; one with the same key is replaced."""
    for key in keys:
        found = block_slot(clone, key)
        if holds(found, ReferenceBlock):
            patch = with_changed(found, ReferenceBlock, lambda own: own.with_term(term))
        else:
            patch = ReferenceBlock(key, (term,), found)
        set_block_slot(clone, key, patch)
