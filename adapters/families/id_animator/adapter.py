"""A loaded ID-Animator file: from CLIP patches of face crops to face tokens, their keys and values, and the LoRA."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from torch import Tensor

from ...adapter import CrossAttentionAdapter, IdentityTokens, LowRank, TokenOptions, module_device_dtype
from ...errors import EncoderMismatch
from ...identity import IMAGE_TOKENS, IMAGE_TOKENS_ZERO, Identity
from ...report import DetectionReport
from .arch import FaceMaps, IDAnimatorNetwork


class IDAnimatorAdapter(CrossAttentionAdapter):
    """Sixteen face tokens in every attn2 of SD1.5, and a LoRA on the same layers.

    Several photos: the tokens of each are averaged after the resampler, as the authors do. The negative rows get the
    tokens of a picture that is zero after normalisation. Nothing depends on the number of frames: the tokens are the
    same for each, so any motion model may act on the same MODEL.

    Args:
        report: what was recognised.
        digest: identifies the file.
        network: resampler and face maps.
        context_dim: width of the base model's text context.
        low_rank: the file's LoRA by attention index and projection; it acts whatever the strength is.
    """

    network: IDAnimatorNetwork

    def __init__(
        self,
        report: DetectionReport,
        digest: str,
        network: IDAnimatorNetwork,
        context_dim: int,
        low_rank: Mapping[tuple[int, str], LowRank],
    ) -> None:
        self.report = report
        self.digest = digest
        self.network = network.eval().requires_grad_(False)
        self.base = report.base
        self.context_dim = context_dim
        self._low_rank = MappingProxyType(dict(low_rank))

    @property
    def layer_widths(self) -> Sequence[int]:
        """Width of each attn2 layer: down blocks, up blocks, middle block."""
        return [maps.width for maps in self._maps()]

    def tokens(self, identity: Identity, options: TokenOptions) -> IdentityTokens:
        """Face tokens (1, 16, context_dim), the mean over photos, in float32.

        Raises:
            EncoderMismatch: an identity without CLIP patches, or with patches of another width.
        """
        patches = self._patches(identity, IMAGE_TOKENS)
        # Rows of zeros stand for pictures without a face.
        found = patches[patches.flatten(1).ne(0).any(dim=1)]
        cond = self.network.resampler(found if len(found) else patches).mean(dim=0, keepdim=True)
        if not options.negative:
            return IdentityTokens(cond, None)
        return IdentityTokens(cond, self.network.resampler(self._patches(identity, IMAGE_TOKENS_ZERO)))

    def keys_values(self, tokens: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Tokens (B, T, context_dim) to keys and values (B, T, width) of every attn2 layer, in file order."""
        return [maps(tokens) for maps in self._maps()]

    def _maps(self) -> list[FaceMaps]:
        return [maps for maps in self.network.maps if isinstance(maps, FaceMaps)]

    def _patches(self, identity: Identity, name: str) -> Tensor:
        width = self.network.image_dim
        found = identity.features.get(name)
        if found is None or found.ndim != 3 or found.shape[-1] != width:
            raise EncoderMismatch(
                self.report.title,
                expected=f"{name} (N, patches, {width}) of CLIP ViT-H/14",
                found=identity.shapes,
                cure="encode the face with 'Encode Aligned Face (CLIP)' and CLIP-ViT-H-14-laion2B-s32B-b79K",
            )
        return found.to(*module_device_dtype(self.network.resampler))
