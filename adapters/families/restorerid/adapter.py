"""A loaded RestorerID file: from an ArcFace identity with CLIP patches to reference tokens, keys and values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

import torch
from torch import Tensor
from torch.nn.functional import normalize

from ...adapter import Adapter, IdentityTokens, LowRank, TokenOptions, module_device_dtype
from ...errors import EncoderMismatch, MissingModelFile
from ...identity import EMBEDDING, IMAGE_TOKENS_ZERO, Identity
from ...report import DetectionReport
from ..ip_adapter_faceid.adapter import ENCODER, FaceIDAdapter
from ..ip_adapter_faceid.arch import PlusProjection
from .network import RestorerNetwork

# CLIP patches of crops whose channels stand in the order blue, green, red, as RestorerID was trained.
IMAGE_TOKENS_BGR = "image_tokens_bgr"


class RestorerIDAdapter(Adapter):
    """RestorerID: structure encoder, 22 modulated residual blocks, 16 attentions with reference tokens, a LoRA.

    Args:
        report: what was recognised.
        digest: identifies the file.
        network: every network.
        low_rank: the LoRA by weight name inside the UNet, such as
            ``input_blocks.1.1.transformer_blocks.0.attn1.to_q.weight``; on the CPU, in the file's dtype.
        context_dim: width of the base model's text context.
        constant: residual blocks whose FIR-Adapter was never trained beyond a constant.
    """

    apply_node = "Apply RestorerID"
    network: RestorerNetwork

    def __init__(
        self,
        report: DetectionReport,
        digest: str,
        network: RestorerNetwork,
        low_rank: Mapping[str, LowRank],
        context_dim: int,
        constant: frozenset[str] = frozenset(),
    ) -> None:
        self.report = report
        self.digest = digest
        self.network = network.eval().requires_grad_(False)
        self.base = report.base
        self.context_dim = context_dim
        self.low_rank = MappingProxyType(dict(low_rank))
        self.constant = constant

    def tokens(self, identity: Identity, options: TokenOptions) -> IdentityTokens:
        """Reference tokens (1, N * 4, context_dim) of N faces side by side, in float32."""
        cond, uncond = self.reference_tokens(identity)
        joined = cond.flatten(0, 1)[None]
        return IdentityTokens(joined, uncond.repeat(1, len(cond), 1) if options.negative else None)

    def reference_tokens(self, identity: Identity) -> tuple[Tensor, Tensor]:
        """Tokens (N, 4, context_dim) of N faces, and those of no one (1, 4, context_dim), in float32.

        The embedding is brought to unit length here. Unconditional are an embedding of zeros and the patches of a
        picture that is zero after normalisation.

        Raises:
            EncoderMismatch: another encoder, or features that are missing or of another width.
            MissingModelFile: the file has no projection.
        """
        projection = self._projection()
        features = self._features(identity, projection)
        device, dtype = module_device_dtype(projection)
        embedding, patches, zero = (feature.to(device, dtype) for feature in features)
        cond = projection.refined(normalize(embedding, dim=-1), patches, None)
        uncond = projection.refined(torch.zeros_like(embedding[:1]), zero, None)
        return cond, uncond

    def with_projection(self, faceid: Adapter) -> RestorerIDAdapter:
        """This adapter with the projection of a FaceID-Plus file, which RestorerID's training kept frozen.

        Raises:
            EncoderMismatch: another kind of adapter.
        """
        projection = faceid.network.image_proj if isinstance(faceid, FaceIDAdapter) else None
        if not isinstance(projection, PlusProjection) or projection.width != self.context_dim:
            raise EncoderMismatch(
                "RestorerID's projection",
                expected="ip-adapter-faceid-plus_sd15.bin (FaceID-Plus for SD1.5, the first version)",
                found=f"{faceid.report.title} {faceid.report.variant or ''}".strip(),
                cure="load that file with Load Face Adapter and connect it",
            )
        old = self.network
        blocks = dict(old.named_blocks())
        network = RestorerNetwork(old.structure, blocks, old.reference_layers(), projection)
        digest = f"{self.digest}+{faceid.digest}"
        return RestorerIDAdapter(replace(self.report), digest, network, self.low_rank, self.context_dim, self.constant)

    def _projection(self) -> PlusProjection:
        if self.network.projection is None:
            raise MissingModelFile(
                self.report.title,
                expected="a file with the projection of the reference (Adapter.image_proj_model)",
                found="none inside",
                cure="connect ip-adapter-faceid-plus_sd15.bin from Load Face Adapter as faceid_plus",
            )
        return self.network.projection

    def _features(self, identity: Identity, projection: PlusProjection) -> tuple[Tensor, Tensor, Tensor]:
        """Embedding (N, 512), patches (N, T, 1280) and unconditional patches (1, T, 1280)."""
        wanted = {
            EMBEDDING: (2, projection.embedding_dim),
            IMAGE_TOKENS_BGR: (3, projection.image_dim),
            IMAGE_TOKENS_ZERO: (3, projection.image_dim),
        }
        found = [identity.features.get(name) for name in wanted]
        fits = all(
            feature is not None and (feature.ndim, feature.shape[-1]) == shape
            for feature, shape in zip(found, wanted.values(), strict=True)
        )
        embedding, patches, zero = found
        if identity.encoder != ENCODER or not fits or embedding is None or patches is None or zero is None:
            raise EncoderMismatch(
                self.report.title,
                expected=f"{', '.join(wanted)} of the encoder {ENCODER}",
                found=f"{identity.shapes} of the encoder {identity.encoder}",
                cure="make the reference with Encode Restoration Reference, the encoder of buffalo_l and CLIP-ViT-H-14",
            )
        return embedding, patches, zero
