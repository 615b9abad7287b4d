"""Face tokens as the context of a ControlNet: InstantID's ControlNet attends to the face and not to the text.

Fact: the host gives a conditioning's ``cross_attn_controlnet`` to ControlNets in place of the text.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..adapters.adapter import IdentityTokens, TokenOptions
from ..adapters.errors import EncoderMismatch
from ..adapters.identity import Identity
from ..adapters.identity_ops import faces_alone
from .loaded import LoadedAdapter

Conditioning = list[list[Any]]
INSTANTID = "instantid"


def face_context(
    positive: Conditioning, negative: Conditioning, loaded: LoadedAdapter, identity: Identity
) -> tuple[Conditioning, Conditioning]:
    """Copies of both conditionings whose ControlNets see face tokens: the identity's, and those of a zero embedding.

    Raises:
        EncoderMismatch: the adapter is not InstantID's, or does not take this identity.
    """
    report = loaded.adapter.report
    if (report.family, report.variant) != (INSTANTID, INSTANTID):
        raise EncoderMismatch(
            report.title,
            expected="an InstantID adapter, whose ControlNet reads face tokens",
            found=f"a file of the family {report.family}" + (f", variant {report.variant}" if report.variant else ""),
            cure="load InstantID's ip-adapter.bin and set variant to instantid where the loader asks",
        )
    tokens = identity_tokens(loaded, identity)
    negative_tokens = tokens.cond if tokens.uncond is None else tokens.uncond
    return with_context(positive, tokens.cond), with_context(negative, negative_tokens)


def identity_tokens(loaded: LoadedAdapter, identity: Identity, options: TokenOptions | None = None) -> IdentityTokens:
    """The tokens of an identity on the CPU, in float32; the adapter is loaded by the host for it."""
    loaded.managed.load()
    with torch.inference_mode(False), torch.no_grad():
        tokens = loaded.adapter.tokens(faces_alone(identity), options or TokenOptions())
    uncond = None if tokens.uncond is None else tokens.uncond.float().cpu()
    return IdentityTokens(tokens.cond.float().cpu(), uncond)


def with_context(conditioning: Conditioning, tokens: Tensor) -> Conditioning:
    """A copy of a conditioning whose ControlNets see ``tokens`` (1, T, C) instead of the text."""
    return [[text, {**values, "cross_attn_controlnet": tokens}] for text, values in conditioning]
