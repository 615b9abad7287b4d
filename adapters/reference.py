"""Adapters that take a picture's features from a pass of the base model itself, and no identity."""

from __future__ import annotations

from .adapter import Adapter, IdentityTokens, TokenOptions
from .errors import EncoderMismatch
from .identity import Identity


class ReferenceAdapter(Adapter):
    """Has no tokens: a reference picture passes through the base model, and later passes read what was recorded."""

    def tokens(self, identity: Identity, options: TokenOptions) -> IdentityTokens:
        """Refuse. Raises EncoderMismatch, which names the nodes to use instead."""
        raise self.refusal(identity)

    def refusal(self, identity: Identity) -> EncoderMismatch:
        """The error for an identity that was connected to this adapter."""
        return EncoderMismatch(
            self.report.title,
            expected="a reference picture",
            found=f"an identity of the encoder {identity.encoder}",
            cure="use 'Encode Garment' and 'Apply Garment'",
        )
