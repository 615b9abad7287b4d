"""Identity attention between the blocks of a DiT (Flux): ``image += w * mask * attention(image, identity)``.

Follows ``flux/model.py`` of ToTheBeginning/PuLID. The host calls a replacement for a whole block; ours calls the block
(or the replacement found there) and adds to the picture tokens of its result. In double blocks they stand alone, in
single blocks they follow the text tokens.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..adapters.adapter import BlockAttentionAdapter
from ..adapters.errors import BaseModelMismatch, HostTooOld
from . import host
from .block_chain import BlockFunction, holds, with_changed
from .call_state import CallState, call_state
from .patching import block_slot, set_block_slot
from .rows import POSITIVE, row_pattern
from .shared import Shared
from .term import Term

DOUBLE, SINGLE = "double_block", "single_block"
SLOTS = (DOUBLE, SINGLE)
# Blocks hand their options to a replacement since this version (commit d7f40442 of September 2025).
FIRST_VERSION = "0.3.60"

Place = tuple[str, int]


@dataclass(frozen=True, eq=False, kw_only=True)
class BlockTerm(Term):
    """One identity's contribution after the blocks of a DiT.

    Attributes:
        adapter: what is added.
        places: the blocks after which it is added, in the order of ``keys_values``.
    """

    adapter: BlockAttentionAdapter
    places: Sequence[Place]

    def add(self, out: Tensor, image: Tensor, place: Place, extra: Mapping[str, Any]) -> Tensor:
        """Return ``out`` (B, N, C) with this identity's part added; ``image`` (B, N, C) are the block's own tokens."""
        pattern, _ = row_pattern(extra, image.shape[0])
        index = self.places.index(place)
        if not self.positive_only:
            return self._add_rows(out, image, pattern, index, extra)
        chunks = zip(pattern, out.chunk(len(pattern)), image.chunk(len(pattern)), strict=True)
        return torch.cat([self._add_rows(o, x, (row,), index, extra) if row == POSITIVE else o for row, o, x in chunks])

    def _add_rows(
        self, out: Tensor, image: Tensor, pattern: tuple[int, ...], index: int, extra: Mapping[str, Any]
    ) -> Tensor:
        k, v = self.keys_values.rows(index, pattern, image)
        # Rows of a chunk share their identity, so they stand side by side as queries of one row.
        folded = image.reshape(len(pattern), -1, image.shape[-1])
        term = self.adapter.added(
            index, folded, k, v, lambda q, k, v, heads: host.attention(q, k, v, heads, extra)
        ).view_as(image)
        if self.mask is None:
            return torch.add(out, term, alpha=self.strength)
        own = picture_tokens(extra, image.shape[1])
        rows = self.mask.rows(term[:, :own], len(pattern), extra)
        masked = torch.addcmul(out[:, :own], term[:, :own], rows, value=self.strength)
        # Tokens of reference pictures follow those of the picture itself; no mask covers them.
        return masked if own == image.shape[1] else torch.cat((masked, out[:, own:]), dim=1)


@dataclass(frozen=True, eq=False)
class IdentityBlock(Shared):
    """The replacement of one block.

    Attributes:
        place: kind and number of the block.
        terms: the identities that act here.
        previous: the replacement of another pack that was found there and is still called, or None.
    """

    place: Place
    terms: tuple[BlockTerm, ...]
    previous: BlockFunction | None = None

    def __call__(self, args: dict[str, Any], block: Mapping[str, Any], **kwargs: Any) -> dict[str, Any]:
        out = block["original_block"](args) if self.previous is None else self.previous(args, block, **kwargs)
        extra = _options(args)
        state = call_state(extra) or CallState()
        state.mark(self.place[0], self.place)
        acting = [term for term in self.terms if term.acts(extra)]
        image = out["img"]
        if self.place[0] == DOUBLE:
            state.image_tokens = image.shape[1]
            return {**out, "img": self._added(image, acting, {**extra, "original_shape": state.latent_shape})}
        if not acting:
            return out
        text = image.shape[1] - _known_tokens(state)
        added = self._added(image[:, text:], acting, {**extra, "original_shape": state.latent_shape})
        return {**out, "img": torch.cat((image[:, :text], added), dim=1)}

    def _added(self, image: Tensor, acting: Sequence[BlockTerm], extra: Mapping[str, Any]) -> Tensor:
        """Every identity reads the block's own tokens and none what another added: their order is of no account."""
        out = image
        for term in acting:
            out = term.add(out, image, self.place, extra)
        return out

    def with_term(self, term: BlockTerm) -> IdentityBlock:
        """A replacement with the term added, in place of one with the same key."""
        others = tuple(old for old in self.terms if old.key != term.key)
        return IdentityBlock(self.place, (*others, term), self.previous)


def insertions(model: Any, adapter: BlockAttentionAdapter) -> Sequence[Place]:
    """The blocks of a MODEL after which the adapter adds.

    Raises:
        HostTooOld: this ComfyUI has no Flux.
        BaseModelMismatch: the model is no Flux, or one of another depth or width.
    """
    flux = require_flux(adapter.report.title)
    dit = model.model.diffusion_model
    expected = f"a Flux model of width {adapter.width} with {adapter.report.layers} places for the identity"
    cure = "connect FLUX.1-dev, or a model of the same size, or load the adapter made for this one"
    # HunyuanVideo has blocks of the same names and width, and as many places.
    if not isinstance(dit, flux.Flux):
        found = f"the model {type(model.model).__name__} ({type(dit).__name__})"
        raise BaseModelMismatch(adapter.report.title, expected=expected, found=found, cure=cure)
    double, single = len(dit.double_blocks), len(dit.single_blocks)
    places = adapter.insertions(double, single)
    width = int(dit.hidden_size)
    if len(places) != adapter.report.layers or width != adapter.width:
        found = f"width {width} with {double} double and {single} single blocks, that is {len(places)} places"
        raise BaseModelMismatch(adapter.report.title, expected=expected, found=found, cure=cure)
    return places


def require_flux(what: str) -> Any:
    """The host's module of Flux.

    Raises:
        HostTooOld: naming the version that has it.
    """
    try:
        return importlib.import_module("comfy.ldm.flux.model")
    except ImportError as error:
        raise _too_old(what, "one without Flux") from error


def patch_blocks(clone: Any, term: BlockTerm) -> None:
    """Put the term behind each of its blocks on a clone, calling what was there before."""
    for place in term.places:
        found = block_slot(clone, place)
        if holds(found, IdentityBlock):
            patch = with_changed(found, IdentityBlock, lambda own: own.with_term(term))
        else:
            patch = IdentityBlock(place, (term,), found)
        set_block_slot(clone, place, patch)


def picture_tokens(extra: Mapping[str, Any], tokens: int) -> int:
    """How many of the picture tokens belong to the picture that is made: one for each 2 x 2 cells of the latent."""
    shape = extra.get("original_shape")
    if shape is None:
        return tokens
    return min(tokens, -(-int(shape[-2]) // 2) * -(-int(shape[-1]) // 2))


def _options(args: Mapping[str, Any]) -> Mapping[str, Any]:
    options = args.get("transformer_options")
    if options is None:
        raise _too_old("apply identity", "one whose Flux blocks do not tell a patch the step and the rows")
    return dict(options)


def _known_tokens(state: CallState) -> int:
    if state.image_tokens is None:
        raise BaseModelMismatch(
            "apply identity",
            expected="a Flux model whose double blocks run before its single blocks, all in one call",
            found="a single block alone",
            cure="remove the node that wraps or skips the model's blocks",
        )
    return state.image_tokens


def _too_old(what: str, found: str) -> HostTooOld:
    return HostTooOld(
        what,
        expected=f"ComfyUI {FIRST_VERSION} or newer",
        found=found,
        cure="update ComfyUI, or use PuLID for SDXL, which needs no newer one",
    )
