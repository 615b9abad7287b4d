"""A loaded UnAvgLip file: from faces to tokens, their keys and values in MuseTalk's UNet, and the LoRA."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from torch import Tensor, nn
from torch.nn.functional import normalize

from ...adapter import CrossAttentionAdapter, IdentityTokens, LowRank, TokenOptions, module_device_dtype
from ...errors import EncoderMismatch
from ...identity import EMBEDDING, Identity
from ...layers.perceiver import Resampler
from ...report import DetectionReport
from ..ip_adapter_faceid.adapter import ENCODER
from ..ip_adapter_faceid.arch import FaceKeysValues
from .arch import IdentityPerceiver
from .layout import CONTEXT
from .layout import EMBEDDING as EMBEDDING_DIM


class UnAvgLipNetwork(nn.Module):
    """Projection, and face keys and values, in one place for the memory manager."""

    image_proj: Resampler | IdentityPerceiver
    keys_values: nn.ModuleList

    def __init__(self, image_proj: Resampler | IdentityPerceiver, keys_values: Sequence[FaceKeysValues]) -> None:
        super().__init__()
        self.image_proj = image_proj
        self.keys_values = nn.ModuleList(keys_values)


class UnAvgLipAdapter(CrossAttentionAdapter):
    """Four tokens of N faces, seen by every attn2 beside the sound; a LoRA on every attention.

    The official inference takes buffalo_l embeddings of unit length (its training code took another recogniser's, not
    normalised: a slip that no trained file can be told by).

    Args:
        report: what was recognised.
        digest: identifies the file.
        network: projection, keys and values.
        low_rank: the LoRA by attention index and projection; tensors on the CPU, in the file's dtype; no alpha.
    """

    apply_node = "'Apply Lip-Sync Identity'"
    network: UnAvgLipNetwork

    def __init__(
        self,
        report: DetectionReport,
        digest: str,
        network: UnAvgLipNetwork,
        low_rank: Mapping[tuple[int, str], LowRank],
    ) -> None:
        self.report = report
        self.digest = digest
        self.network = network.eval().requires_grad_(False)
        self.base = report.base
        self.context_dim = CONTEXT
        self._low_rank = MappingProxyType(dict(low_rank))

    @property
    def layer_widths(self) -> Sequence[int]:
        """Width of each attn2 layer: down blocks, up blocks, middle block."""
        return [layer.width for layer in self._layers()]

    def tokens(self, identity: Identity, options: TokenOptions) -> IdentityTokens:
        """Tokens (1, 4, 384) of all faces together, in float32. Frames have no unconditional rows.

        Raises:
            EncoderMismatch: no embedding (N, 512) of buffalo_l.
            NumberOfFaces: a number of faces that the repaired perceiver cannot take.
        """
        projection = self.network.image_proj
        embedding = identity.features.get(EMBEDDING)
        if identity.encoder != ENCODER or embedding is None or embedding.shape[1:] != (EMBEDDING_DIM,):
            raise EncoderMismatch(
                self.report.title,
                expected=f"{EMBEDDING} (N, {EMBEDDING_DIM}) of the encoder {ENCODER}",
                found=f"{identity.shapes} of the encoder {identity.encoder}",
                cure="encode the face with the ArcFace encoder of insightface's pack buffalo_l",
            )
        device, dtype = module_device_dtype(projection)
        faces = normalize(embedding.to(device, dtype), dim=-1)
        return IdentityTokens(projection(faces[None]), None)

    def keys_values(self, tokens: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Tokens (B, T, 384) to keys and values (B, T, width) of every attn2 layer, in file order."""
        return [layer(tokens) for layer in self._layers()]

    def _layers(self) -> list[FaceKeysValues]:
        return [layer for layer in self.network.keys_values if isinstance(layer, FaceKeysValues)]
