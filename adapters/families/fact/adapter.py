"""A loaded FACT file: from the identity of a face encoder to face tokens, and the gated layers that read them."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ...adapter import GatedAttentionAdapter, IdentityTokens, TokenOptions, module_device_dtype
from ...errors import EncoderMismatch, IdentityMismatch
from ...identity import TOKENS, Identity
from ...layers.gated_attention import GatedSelfAttention
from ...report import DetectionReport
from .arch import FactNetwork, FirstProjector

ENCODER = "transface_s"


class FactAdapter(GatedAttentionAdapter):
    """FaceChain-FACT, published files ("v1") and the first generation ("v0").

    Several photos of a v1 file: the tokens of each, one after the other in the order of the photos. The negative rows
    get the projection of all-zero encoder tokens; a v0 file gives both branches the positive tokens, as its authors'
    demo does.

    Args:
        report: what was recognised.
        digest: identifies the file.
        network: projector and layers.
        layers: the gated layers of ``network`` by diffusers block path.
        input_shape: (T, C) of the encoder's tokens; T is None where any number will do.
        norm2_overrides: weight and bias, by block path, of another ``norm2`` for the base block. Published files have
            none; the official loader would overwrite the base model's with them. Kept, and told in the report.
        encoder: id of the face encoder the file was trained with.
    """

    base = "sd15"
    network: FactNetwork

    def __init__(
        self,
        report: DetectionReport,
        digest: str,
        network: FactNetwork,
        layers: Mapping[str, GatedSelfAttention],
        input_shape: tuple[int | None, int],
        norm2_overrides: Mapping[str, tuple[Tensor, Tensor]],
        encoder: str = ENCODER,
    ) -> None:
        self.report = report
        self.digest = digest
        self.network = network.eval().requires_grad_(False)
        self.context_dim = next(iter(layers.values())).linear.in_features
        self.norm2_overrides = dict(norm2_overrides)
        self._layers = dict(layers)
        self._input_shape = input_shape
        self.encoder = encoder

    @property
    def layers(self) -> Mapping[str, GatedSelfAttention]:
        """The 16 layers by diffusers block path."""
        return self._layers

    @property
    def token_network(self) -> nn.Module:
        """The projector."""
        return self.network.local_fac_prj

    @property
    def first_generation(self) -> bool:
        """Whether this is a v0 file."""
        return isinstance(self.network.local_fac_prj, FirstProjector)

    def tokens(self, identity: Identity, options: TokenOptions) -> IdentityTokens:
        """Face tokens (1, T, context_dim): 16 for each photo, or 196 of a single one (v0).

        Raises:
            EncoderMismatch: the identity has no tokens of the file's encoder.
            IdentityMismatch: several photos for a v0 file.
        """
        features = self._features(identity)
        projector = self.network.local_fac_prj
        device, dtype = module_device_dtype(projector)
        features = features.to(device, dtype)
        cond = projector(features).flatten(0, 1)[None]
        if not options.negative:
            return IdentityTokens(cond, None)
        if self.first_generation:
            return IdentityTokens(cond, cond)
        # All photos share one negative set, so it is projected once and repeated.
        negative = projector(torch.zeros_like(features[:1]))
        return IdentityTokens(cond, negative.repeat(1, len(features), 1))

    def _features(self, identity: Identity) -> Tensor:
        tokens = identity.features.get(TOKENS)
        count, width = self._input_shape
        if identity.encoder != self.encoder or tokens is None or not _fits(tokens, count, width):
            raise EncoderMismatch(
                self.report.title,
                expected=f"tokens (N, {count or 'T'}, {width}) of the encoder {self.encoder}",
                found=f"{identity.shapes} of the encoder {identity.encoder}",
                cure=f"encode the face with {'a TransFace-S encoder' if self.encoder == ENCODER else 'that encoder'}",
            )
        if self.first_generation and len(tokens) > 1:
            raise IdentityMismatch(
                f"{self.report.title} (first generation)",
                expected="one photo",
                found=f"{len(tokens)} photos",
                cure="choose one photo, or use a v1 file, which takes several",
            )
        return tokens


def _fits(tokens: Tensor, count: int | None, width: int) -> bool:
    return tokens.ndim == 3 and tokens.shape[2] == width and count in (None, tokens.shape[1])
