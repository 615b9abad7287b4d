"""A loaded IP-Adapter: from the CLIP features of pictures to tokens, and their keys and values."""

from __future__ import annotations

import torch
from torch import Tensor

from ...errors import EncoderMismatch
from ...identity import IMAGE_EMBEDS, IMAGE_TOKENS, IMAGE_TOKENS_ZERO, Identity
from ...report import DetectionReport
from .arch import ImageProjection, ProjectedAttention
from .projected import ProjectedAdapter, fits

# What the widths of the two CLIP features are called, for the message.
_ENCODERS = {
    (IMAGE_TOKENS, 1280): "CLIP ViT-H/14",
    (IMAGE_TOKENS, 1664): "CLIP ViT-bigG/14",
    (IMAGE_EMBEDS, 1024): "CLIP ViT-H/14",
    (IMAGE_EMBEDS, 1280): "CLIP ViT-bigG/14",
}


class IPAdapter(ProjectedAdapter):
    """IP-Adapter plain (and light), plus, plus-face and full-face.

    Plain files take the image embedding, the others the hidden state before the last layer. The unconditional rows get
    the projection of zero (plain), or of the patches of a picture that is zero after normalisation. Several pictures
    give their tokens side by side; average the identity to mix them into one set.

    Args:
        report, digest, network: see `ProjectedAdapter`.
        image_dim: channels of the CLIP feature that the file takes.
    """

    def __init__(self, report: DetectionReport, digest: str, network: ProjectedAttention, image_dim: int) -> None:
        super().__init__(report, digest, network)
        self.image_dim = image_dim

    def positive(self, identity: Identity) -> Tensor:
        """Image embeddings (N, C) of a plain file, patches (N, S, C) of the others."""
        return self._feature(identity, *((IMAGE_EMBEDS, (None,)) if self._plain else (IMAGE_TOKENS, (None, None))))

    def negative(self, identity: Identity, positive: Tensor) -> Tensor:
        """Zeros (1, C) for a plain file, the patches (1, S, C) of the zero picture for the others."""
        if self._plain:
            return torch.zeros_like(positive[:1])
        return self._feature(identity, IMAGE_TOKENS_ZERO, (1, None))

    @property
    def _plain(self) -> bool:
        return isinstance(self.network.image_proj, ImageProjection)

    def _feature(self, identity: Identity, name: str, leading: tuple[int | None, ...]) -> Tensor:
        feature = identity.features.get(name)
        wanted = (*leading, self.image_dim)
        if feature is not None and fits(feature.shape, wanted):
            return feature
        encoder = _ENCODERS.get((IMAGE_TOKENS if name == IMAGE_TOKENS_ZERO else name, self.image_dim), "CLIP vision")
        sizes = ", ".join("N" if size is None else str(size) for size in wanted)
        raise EncoderMismatch(
            self.report.title,
            expected=f"{name} ({sizes}) of {encoder}",
            found=f"{identity.shapes} of the encoder {identity.encoder}",
            cure=f"encode the pictures with 'Encode Image' and the {encoder} model",
        )
