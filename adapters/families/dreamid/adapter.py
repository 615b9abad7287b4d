"""A loaded DreamID file: identity tokens and pose maps; its two UNets are read when they are asked for."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from ....faces.embeddings import average
from ...adapter import Adapter, IdentityTokens, TokenOptions, module_device_dtype
from ...checkpoint import CheckpointHeader, load_tensors
from ...errors import EncoderMismatch
from ...identity import EMBEDDING, Identity
from ...report import DetectionReport
from ...unet_shapes import unet_shapes
from .arch import DreamIdNetwork
from .layout import FACENET, SWAPNET, DreamIdFacts, Sizes


class DreamIdAdapter(Adapter):
    """A face swapper of two UNets. Guidance is not part of it, so that every row gets the same tokens.

    Args:
        report: what was recognised.
        header: the file, from which the UNets are read.
        network: all but the UNets.
        facts: the file's metadata.
        sizes: what its shapes tell.
    """

    network: DreamIdNetwork
    apply_node = "'Apply DreamID'"

    def __init__(
        self,
        report: DetectionReport,
        header: CheckpointHeader,
        network: DreamIdNetwork,
        facts: DreamIdFacts,
        sizes: Sizes,
    ) -> None:
        self.report = report
        self.digest = header.digest
        self.network = network.eval().requires_grad_(False)
        self.facts = facts
        self.sizes = sizes
        self.base = report.base
        self.context_dim = sizes.context
        self._header = header

    def tokens(self, identity: Identity, options: TokenOptions) -> IdentityTokens:
        """Tokens (1, T, context) of the mean of the identity's unit embeddings, in float32.

        Raises:
            EncoderMismatch: embeddings of another encoder or width, or a row without a face.
        """
        return IdentityTokens(self.network.image_proj(self.embedding(identity)), None)

    def embedding(self, identity: Identity) -> Tensor:
        """The unit embedding (1, D) of an identity, on the network's device. Raises EncoderMismatch, see `tokens`."""
        rows = identity.features.get(EMBEDDING)
        fits = rows is not None and rows.ndim == 2 and rows.shape[1] == self.sizes.embedding
        if rows is None or not fits or identity.encoder != self.facts.face_encoder:
            width = "no embedding" if rows is None else f"embeddings of {rows.shape[-1]} numbers"
            raise EncoderMismatch(
                self.report.title,
                expected=f"embeddings of {self.sizes.embedding} numbers of the encoder {self.facts.face_encoder}",
                found=f"{width} of the encoder {identity.encoder}",
                cure="encode the source face with the encoder that the file was trained with",
            )
        if bool((rows.abs().sum(dim=1) == 0).any()):
            raise EncoderMismatch(
                self.report.title,
                expected="a face in every row of the identity",
                found="a row without one",
                cure='encode the photos with on_missing_face "skip" or "error"',
            )
        device, _ = module_device_dtype(self.network)
        return functional.normalize(average(rows.float())[1], dim=0)[None].to(device)

    def keys_values(self, tokens: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Tokens (B, T, context) to one (B, T, width) pair of keys and values per cross-attention, in file order."""
        return [layer(tokens) for layer in self.network.layers()]

    def pose_maps(self, pictures: Tensor) -> Tensor:
        """Landmark pictures (B, 3, 8h, 8w), 0..1, to maps (B, width, h, w) in float32, on the network's device."""
        device, _ = module_device_dtype(self.network)
        maps: Tensor = self.network.pose_guider(pictures.to(device, torch.float32))
        return maps

    def swapnet_tensors(self) -> dict[str, Tensor]:
        """Read SwapNet's weights. Raises BadCheckpoint where the file changed since it was recognised."""
        return self._unet(SWAPNET, 8)

    def facenet_tensors(self) -> dict[str, Tensor]:
        """Read FaceNet's weights; those that the file leaves out, which nothing reads, are zeros."""
        return self._unet(FACENET, 4)

    def _unet(self, prefix: str, inputs: int) -> dict[str, Tensor]:
        tensors = load_tensors(self._header, prefix)
        like = next(iter(tensors.values()))
        for name, shape in unet_shapes(self.sizes.levels, inputs, self.sizes.context).items():
            tensors.setdefault(name, like.new_zeros(shape))
        return tensors
