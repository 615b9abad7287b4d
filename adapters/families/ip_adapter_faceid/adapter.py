"""A loaded FaceID file: from an ArcFace identity to face tokens, their keys and values, and the LoRA."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from ...adapter import CrossAttentionAdapter, IdentityTokens, LowRank, TokenOptions, module_device_dtype
from ...errors import EncoderMismatch
from ...identity import EMBEDDING, IMAGE_TOKENS, IMAGE_TOKENS_ZERO, Identity
from ...report import DetectionReport
from .arch import EmbeddingProjection, FaceKeysValues, PlusProjection

# The recognition model the FaceID files were trained with. Embeddings of other models, even other ArcFace models of
# the same width, live in other spaces.
ENCODER = "arcface_buffalo_l"
PLUS_V2 = "plus_v2"


class FaceIDNetwork(nn.Module):
    """Projection and face keys and values, in one place for the memory manager.

    Args:
        image_proj: the projection, in float32.
        keys_values: the extra maps of each attn2 layer in the order of the file.
    """

    image_proj: EmbeddingProjection
    keys_values: nn.ModuleList

    def __init__(self, image_proj: EmbeddingProjection, keys_values: Sequence[FaceKeysValues]) -> None:
        super().__init__()
        self.image_proj = image_proj
        self.keys_values = nn.ModuleList(keys_values)


class FaceIDAdapter(CrossAttentionAdapter):
    """IP-Adapter-FaceID: plain, Plus, PlusV2 and Portrait.

    One photo gives the official tokens (4; Portrait 16). Several photos give the tokens of each, one after the other
    in the order of the photos, which is what the authors do for Portrait; their other pipelines take one photo. To mix
    photos into one set of tokens, average the identity first.

    The negative rows get the projection of a zero embedding; Plus and PlusV2 see with it the CLIP patches of a picture
    that is zero after normalisation.

    Args:
        report: what was recognised.
        digest: identifies the file.
        network: projection, keys and values.
        low_rank: the LoRA of the file by attention index and projection; tensors on the CPU, in the file's dtype.
        encoder: id of the face encoder the file was trained with.
    """

    network: FaceIDNetwork

    def __init__(
        self,
        report: DetectionReport,
        digest: str,
        network: FaceIDNetwork,
        low_rank: Mapping[tuple[int, str], LowRank],
        encoder: str = ENCODER,
    ) -> None:
        self.report = report
        self.digest = digest
        self.encoder = encoder
        self.network = network.eval().requires_grad_(False)
        self.base = report.base
        self.context_dim = network.image_proj.width
        self._low_rank = MappingProxyType(dict(low_rank))

    @property
    def layer_widths(self) -> Sequence[int]:
        """Width of each attn2 layer: down blocks, up blocks, middle block."""
        return [layer.width for layer in self._layers()]

    def tokens(self, identity: Identity, options: TokenOptions) -> IdentityTokens:
        """Face tokens (1, N * tokens, context_dim) of N photos, in float32.

        The embedding is brought to unit length here. ``options.shortcut_scale`` acts on PlusV2 only.

        Raises:
            EncoderMismatch: no embedding of the right model and width; or a Plus file and no CLIP patches.
        """
        projection = self.network.image_proj
        device, dtype = module_device_dtype(projection)
        embedding = self._feature(identity, EMBEDDING, (None, projection.embedding_dim)).to(device, dtype)
        embedding = normalize(embedding, dim=-1)
        shortcut = options.shortcut_scale if self.report.variant == PLUS_V2 else None
        patches = self._patches(identity, IMAGE_TOKENS)
        cond = self._project(embedding, patches, shortcut).flatten(0, 1)[None]
        if not options.negative:
            return IdentityTokens(cond, None)
        patches = self._patches(identity, IMAGE_TOKENS_ZERO)
        negative = self._project(torch.zeros_like(embedding[:1]), patches, shortcut)
        return IdentityTokens(cond, negative.repeat(1, len(embedding), 1))

    def keys_values(self, tokens: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Tokens (B, T, context_dim) to keys and values (B, T, width) of every attn2 layer, in file order."""
        return [layer(tokens) for layer in self._layers()]

    def _layers(self) -> list[FaceKeysValues]:
        return [layer for layer in self.network.keys_values if isinstance(layer, FaceKeysValues)]

    def _project(self, embedding: Tensor, patches: Tensor | None, shortcut: float | None) -> Tensor:
        projection = self.network.image_proj
        if isinstance(projection, PlusProjection) and patches is not None:
            return projection.refined(embedding, patches, shortcut)
        return projection(embedding)

    def _patches(self, identity: Identity, name: str) -> Tensor | None:
        projection = self.network.image_proj
        if not isinstance(projection, PlusProjection):
            return None
        count = 1 if name == IMAGE_TOKENS_ZERO else len(identity.features[EMBEDDING])
        patches = self._feature(identity, name, (count, None, projection.image_dim))
        return patches.to(*module_device_dtype(projection))

    def _feature(self, identity: Identity, name: str, shape: tuple[int | None, ...]) -> Tensor:
        feature = identity.features.get(name)
        right_model = identity.encoder == self.encoder
        if right_model and feature is not None and _fits(feature.shape, shape):
            return feature
        if name != EMBEDDING and feature is None and right_model:
            cure = "encode the face with a CLIP vision model (ViT-H/14) connected, which Plus files need"
        elif self.encoder == ENCODER:
            cure = "encode the face with the ArcFace encoder of insightface's pack buffalo_l"
        else:
            cure = "encode the face with that encoder"
        sizes = ", ".join("N" if size is None else str(size) for size in shape)
        raise EncoderMismatch(
            self.report.title,
            expected=f"{name} ({sizes}) of the encoder {self.encoder}",
            found=f"{identity.shapes} of the encoder {identity.encoder}",
            cure=cure,
        )


def _fits(shape: tuple[int, ...], wanted: tuple[int | None, ...]) -> bool:
    return len(shape) == len(wanted) and all(size in (None, got) for got, size in zip(shape, wanted, strict=True))
