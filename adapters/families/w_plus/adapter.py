"""A loaded W+ adapter: from W+ codes to four tokens and the folded maps of the residual attention."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ...adapter import IdentityTokens, ResidualAttentionAdapter, TokenOptions, module_device_dtype
from ...errors import EncoderMismatch
from ...identity import W_PLUS, Identity
from ...report import DetectionReport
from .arch import ROWS, ResidualMaps, WPlusMapper

ENCODER = "e4e"


class WPlusNetwork(nn.Module):
    """Mapper and attention maps, in one place for the memory manager.

    Args:
        mapper: W+ codes to tokens, in float32.
        maps: the maps of each attn2 layer, in file order.
    """

    def __init__(self, mapper: WPlusMapper, maps: Sequence[ResidualMaps]) -> None:
        super().__init__()
        self.mapper = mapper
        self.maps = nn.ModuleList(maps)


class WPlusAdapter(ResidualAttentionAdapter):
    """Four tokens of a W+ code through a residual attention in every attn2 of SD1.5.

    Several codes are averaged: W+ is a space in which the mean of a person's codes is a face. The negative rows get the
    tokens of a code of zeros.

    Args:
        report: what was recognised.
        digest: identifies the file.
        network: mapper and attention maps.
        context_dim: width of the base model's text context.
    """

    network: WPlusNetwork

    def __init__(self, report: DetectionReport, digest: str, network: WPlusNetwork, context_dim: int) -> None:
        self.report = report
        self.digest = digest
        self.network = network.eval().requires_grad_(False)
        self.base = report.base
        self.context_dim = context_dim

    @property
    def layer_widths(self) -> Sequence[int]:
        """Width of each attn2 layer: down blocks, up blocks, middle block."""
        return [maps.width for maps in self._maps()]

    def tokens(self, identity: Identity, options: TokenOptions) -> IdentityTokens:
        """Tokens (1, 4, context_dim) of the mean code, in float32.

        Raises:
            EncoderMismatch: an identity without W+ codes of e4e.
        """
        codes = w_plus_codes(identity, self.report.title).to(*module_device_dtype(self.network.mapper))
        # Rows of zeros stand for pictures without a face.
        found = codes[codes.flatten(1).ne(0).any(dim=1)]
        cond = self.network.mapper((found if len(found) else codes).mean(dim=0, keepdim=True))
        if not options.negative:
            return IdentityTokens(cond, None)
        return IdentityTokens(cond, self.network.mapper(torch.zeros_like(codes[:1])))

    def keys_values(self, tokens: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Tokens (B, T, context_dim) to the folded maps (B, heads * T, width) of every attn2 layer, in file order."""
        return [maps(tokens) for maps in self._maps()]

    def _maps(self) -> list[ResidualMaps]:
        return [maps for maps in self.network.maps if isinstance(maps, ResidualMaps)]


def w_plus_codes(identity: Identity, what: str) -> Tensor:
    """The W+ codes (N, 18, 512) of an identity.

    Raises:
        EncoderMismatch: an identity of another encoder, or codes of another shape.
    """
    codes = identity.features.get(W_PLUS)
    if codes is None or codes.ndim != 3 or tuple(codes.shape[1:]) != (ROWS[-1], 512) or identity.encoder != ENCODER:
        raise EncoderMismatch(
            what,
            expected=f"{W_PLUS} (N, {ROWS[-1]}, 512) of the encoder {ENCODER}",
            found=f"{identity.shapes} of the encoder {identity.encoder}",
            cure="encode the face with the e4e encoder (e4e_ffhq_encode.pt)",
        )
    return codes
