"""How PuLID adds an identity to the text attention of SDXL: the formulas, written out.

With o the result of the text attention and r that of the identity attention, both (B, N, C):

    neutral:   r
    style:     r - p                p = o * sum(o r) / sum(o o), the sums over the N picture tokens, channel by channel
    fidelity:  r + (a - 1) p        a = share of the first five tokens in the softmax of the unscaled logits, averaged
                                    over the heads, for each picture token

Follows ``pulid/attention_processor.py`` of ToTheBeginning/PuLID, where they are "off", "ortho" and "ortho_v2".
"""

from __future__ import annotations

from enum import Enum

from torch import Tensor

from ...layers.attention import attention

# The tokens that the face vector gives stand first: their share says how much a picture token looks at the face.
FACE_TOKENS = 5


class Projection(str, Enum):
    """What is taken out of the identity's contribution."""

    NEUTRAL = "neutral"
    STYLE = "style"
    FIDELITY = "fidelity"


# Zero tokens of the authors' demos: app.py (v1: "fidelity", "extremely style"), app_v1_1.py (slider's default).
_ZERO_TOKENS = {
    "v1": {Projection.FIDELITY: 8, Projection.STYLE: 16},
    "v1.1": {Projection.FIDELITY: 20, Projection.STYLE: 20},
}


def zero_tokens(projection: Projection, version: str) -> int:
    """The official number of zero tokens for a projection of PuLID ``"v1"`` or ``"v1.1"``; none without one."""
    return _ZERO_TOKENS.get(version, {}).get(projection, 0)


def identity_term(out: Tensor, q: Tensor, k: Tensor, v: Tensor, heads: int, projection: Projection) -> Tensor:
    """What PuLID adds to the text attention, times the strength: the reference for the faster form in `inject`.

    Args:
        out: (B, N, C) the text attention, before the layer's output map.
        q: (B, N, C) the layer's queries.
        k: (B, T, C) the identity's keys.
        v: (B, T, C) the identity's values.
        heads: heads of the layer.
        projection: see the module's text.
    """
    term = attention(q, k, v, heads)
    if projection is Projection.NEUTRAL:
        return term
    onto = out * ((out * term).sum(-2, keepdim=True) / (out * out).sum(-2, keepdim=True))
    if projection is Projection.STYLE:
        return term - onto
    return term + (_face_share(q, k, heads) - 1) * onto


def _face_share(q: Tensor, k: Tensor, heads: int) -> Tensor:
    """(B, N, 1): how much of each picture token's attention goes to the tokens of the face vector."""
    q, k = (x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (q, k))
    weights = (q @ k.transpose(-2, -1)).softmax(dim=-1)
    return weights[..., :FACE_TOKENS].sum(-1).mean(1).unsqueeze(-1)
