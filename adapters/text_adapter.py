"""Adapters that write an identity into the text conditioning instead of the attention of the UNet."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence

from torch import Tensor

from .adapter import Adapter, LowRank
from .identity import Identity


class TextAdapter(Adapter):
    """Replaces the rows of a class word by rows that carry an identity.

    Attributes:
        tokens_per_photo: rows that one photo takes.
        needs_embedding: whether `encode` wants an identity of a face encoder beside the photos.
    """

    tokens_per_photo: int
    needs_embedding: bool

    @abstractmethod
    def encode(self, images: Tensor, identity: Identity | None = None) -> Identity:
        """Turn whole photos (N, H, W, 3), 0..1, into an identity of this adapter's own tokens.

        Raises:
            EncoderMismatch: the adapter needs an identity of a face encoder and got none, or another one.
        """

    @abstractmethod
    def fuse(self, prompt: Tensor, tokens: Tensor, rows: Sequence[int]) -> Tensor:
        """Write tokens (1, len(rows), C) into ``rows`` of a text conditioning (B, T, C); a new tensor, float32."""

    @abstractmethod
    def low_rank_modules(self) -> Mapping[str, LowRank]:
        """Weight changes of the UNet by diffusers module name (``down_blocks.1.attentions.0...to_q``); may be empty."""
