"""What IP-Adapter and InstantID share: a projection of one feature to tokens, and keys and values of every attn2."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from ...adapter import CrossAttentionAdapter, IdentityTokens, TokenOptions, module_device_dtype
from ...identity import Identity
from ...report import DetectionReport
from ..ip_adapter_faceid.arch import FaceKeysValues
from .arch import ProjectedAttention


class ProjectedAdapter(CrossAttentionAdapter):
    """One feature of an identity through a projection: the tokens of each photo, one after the other.

    Args:
        report: what was recognised.
        digest: identifies the file.
        network: projection, keys and values.
    """

    network: ProjectedAttention

    def __init__(self, report: DetectionReport, digest: str, network: ProjectedAttention) -> None:
        self.report = report
        self.digest = digest
        self.network = network.eval().requires_grad_(False)
        self.base = report.base
        self.context_dim = self._layers()[0].to_k_ip.in_features

    @property
    def layer_widths(self) -> Sequence[int]:
        """Width of each attn2 layer: down blocks, up blocks, middle block."""
        return [layer.width for layer in self._layers()]

    @abstractmethod
    def positive(self, identity: Identity) -> Tensor:
        """The feature (N, ...) that is projected. Raises EncoderMismatch where the identity lacks it."""

    @abstractmethod
    def negative(self, identity: Identity, positive: Tensor) -> Tensor:
        """The feature (1, ...) of the unconditional rows."""

    def tokens(self, identity: Identity, options: TokenOptions) -> IdentityTokens:
        """Tokens (1, N * tokens, context_dim) of N photos, in float32.

        Raises:
            EncoderMismatch: the identity lacks the feature, or has it in another width.
        """
        feature = self.positive(identity)
        cond = self._project(feature).flatten(0, 1)[None]
        if not options.negative:
            return IdentityTokens(cond, None)
        negative = self._project(self.negative(identity, feature))
        return IdentityTokens(cond, negative.repeat(1, len(feature), 1))

    def keys_values(self, tokens: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Tokens (B, T, context_dim) to keys and values (B, T, width) of every attn2 layer, in file order."""
        return [layer(tokens) for layer in self._layers()]

    def _project(self, feature: Tensor) -> Tensor:
        tokens: Tensor = self.network.image_proj(feature.to(*module_device_dtype(self.network.image_proj)))
        return tokens.to(torch.float32)

    def _layers(self) -> list[FaceKeysValues]:
        return [layer for layer in self.network.keys_values if isinstance(layer, FaceKeysValues)]


def fits(shape: Sequence[int], wanted: Sequence[int | None]) -> bool:
    """Whether a shape is the wanted one; None stands for any size."""
    return len(shape) == len(wanted) and all(size in (None, got) for got, size in zip(shape, wanted, strict=True))
