"""Small replacements inside HunyuanVideo that its options do not reach: text, positions, modulation, conditions.

Each stands in a MODEL's object patches, holds nothing that changes, and is undone with the MODEL. What the reference
does: ``hymm_sp/modules/models_audio.py`` and ``token_refiner.py`` of Tencent-Hunyuan/HunyuanVideo-Avatar.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ..adapters.families.hunyuan_avatar.arch import sinusoid
from ..faces.errors import LikenessError
from .hunyuan_avatar_call import TEXT_MASK, TEXT_TOKENS, TextCall, avatar_call
from .memo import Memo
from .shared import Shared

CONDITIONS = "extra_conds"
POSITIONS, ROTATION = "diffusion_model.img_ids", "diffusion_model.pe_embedder.forward"
POOLED, TEXT = "diffusion_model.vector_in.forward", "diffusion_model.txt_in.forward"


@dataclass(frozen=True, eq=False)
class ObjectPatch(Shared):
    """Stands in the place of a method of the model.

    Attributes:
        original: the method, or what another pack put there.
    """

    original: Callable[..., Any]


@dataclass(frozen=True, eq=False)
class TextConditions(ObjectPatch):
    """``extra_conds``: hands on the mask of positions that a prompt carries.

    And how many of its tokens the blocks see, as a constant, so that the host runs no two lengths in one call.
    """

    def __call__(self, **given: Any) -> dict[str, Any]:
        out: dict[str, Any] = self.original(**given)
        mask = given.get(TEXT_MASK)
        if mask is not None:
            conds = importlib.import_module("comfy.conds")
            out |= {TEXT_MASK: conds.CONDRegular(mask), TEXT_TOKENS: conds.CONDConstant(_count(mask))}
        return out


def _count(mask: Tensor) -> int:
    counts = {int(count) for count in mask.reshape(mask.shape[0], -1).sum(1)}
    if len(counts) != 1:
        raise LikenessError(
            "text of an avatar",
            expected="one length of text in a conditioning",
            found=f"lengths {sorted(counts)}",
            cure="give each prompt a conditioning of its own",
        )
    return counts.pop()


@dataclass(frozen=True, eq=False)
class OwnPositions(ObjectPatch):
    """``img_ids``: positions that may be written to; the host's are one tensor seen from every row of the batch."""

    def __call__(self, *given: Any, **named: Any) -> Any:
        return self.original(*given, **named).clone()


@dataclass(frozen=True, eq=False)
class BeforeTheVideo(ObjectPatch):
    """The rotary embedding: tokens before time 0 begin at the left edge.

    The host moves a reference to the right of the video; this model was trained with it at time -1 and in place.
    """

    def __call__(self, ids: Tensor) -> Any:
        return self.original(unshifted(ids))


def unshifted(ids: Tensor) -> Tensor:
    """Positions (B, N, 3) of time, row and column, with the columns of those before time 0 counted from their first."""
    before, columns = ids[..., 0] < 0, ids[..., 2]
    first = torch.where(before, columns, torch.inf).amin(dim=-1, keepdim=True)
    return torch.cat((ids[..., :2], torch.where(before, columns - first, columns)[..., None]), dim=-1)


@dataclass(frozen=True, eq=False)
class WithMotion(ObjectPatch):
    """``vector_in``: the modulation vector with motion and frame rate in it.

    Attributes:
        vector: (1, width) float32.
    """

    vector: Tensor
    placed: Memo[Tensor] = field(default_factory=lambda: Memo(limit=4))

    def __call__(self, pooled: Tensor) -> Tensor:
        out: Tensor = self.original(pooled)
        return out + self.placed.get((out.device, out.dtype), lambda: self.vector.to(out))


@dataclass(frozen=True, eq=False)
class RefinedText(ObjectPatch):
    """``txt_in``: the refiner with the official mask of positions, then the first tokens for the blocks.

    Attributes:
        refiner: the host's module.
    """

    refiner: nn.Module

    def __call__(self, x: Tensor, timesteps: Tensor, *given: Any, **named: Any) -> Any:
        options: Mapping[str, Any] = named.get("transformer_options") or {}
        call = avatar_call(options)
        if call is None or call.text is None:
            return self.original(x, timesteps, *given, **named)
        return refined(self.refiner, call.text, timesteps, x.dtype, options)[:, : call.text.count]


def refined(refiner: Any, text: TextCall, timesteps: Tensor, dtype: torch.dtype, options: Mapping[str, Any]) -> Tensor:
    """All tokens of the text, refined: (B, L, width).

    The official mask counts pads as valid and hides tokens of the picture: both the mean of the text and the attention
    follow it, and the first token is open to everybody.

    Args:
        refiner: the host's ``txt_in``.
        text: states and mask.
        timesteps: (B,), 0..1000.
        dtype: to compute in.
        options: of this call, for the host's attention.
    """
    states, mask = text.states.to(dtype), text.mask.to(text.states.device, dtype)
    mean = (states * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
    vector = refiner.t_embedder(sinusoid(timesteps).to(dtype)) + refiner.c_embedder(mean)
    seen = mask[:, None, :, None] * mask[:, None, None, :]
    seen[..., 0] = 1
    closed = (seen - 1) * torch.finfo(dtype).max
    tokens = refiner.input_embedder(states)
    for block in refiner.individual_token_refiner.blocks:
        tokens = block(tokens, vector, closed, transformer_options=options)
    return torch.as_tensor(tokens)
