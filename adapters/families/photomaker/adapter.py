"""A loaded PhotoMaker file: from photos to identity tokens, and from a text conditioning to a fused one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import torch
from torch import Tensor

from ....faces.images import as_rgb
from ...adapter import IdentityTokens, LowRank, TokenOptions, module_device_dtype
from ...encoders.base import photo_hash
from ...errors import EncoderMismatch
from ...identity import EMBEDDING, Identity
from ...report import DetectionReport
from ...text_adapter import TextAdapter
from .arch import IDEncoder
from .pictures import clip_pixels

# v2's face encoder; the embedding goes in as it is, not normalised.
EMBEDDING_ENCODER = "arcface_buffalo_l"
ID_TOKENS = "id_tokens"
PHOTOS_AT_ONCE = 4
V2 = "v2"


class PhotoMakerAdapter(TextAdapter):
    """PhotoMaker v1 (one token a photo) and v2 (two tokens a photo, from photo and face embedding).

    Args:
        report: what was recognised.
        digest: identifies the file.
        network: the id_encoder part.
        low_rank: LoRA of the UNet by diffusers module name; tensors on the CPU, in the file's dtype.
        tokens_per_photo: see `TextAdapter`.
    """

    network: IDEncoder

    def __init__(
        self,
        report: DetectionReport,
        digest: str,
        network: IDEncoder,
        low_rank: Mapping[str, LowRank],
        tokens_per_photo: int,
    ) -> None:
        self.report = report
        self.digest = digest
        self.network = network.eval().requires_grad_(False)
        self.base = report.base
        self.context_dim = network.width
        self.tokens_per_photo = tokens_per_photo
        self.needs_embedding = report.variant == V2
        self.encoder = f"photomaker_{report.variant}"
        self._low_rank = MappingProxyType(dict(low_rank))

    def encode(self, images: Tensor, identity: Identity | None = None) -> Identity:
        """Identity tokens (N, T, 2048) of N whole photos (N, H, W, 3), 0..1; v2 leaves out those without a face.

        Args:
            images: the photos; the whole picture counts, as in the authors' pipeline.
            identity: v2 only: the raw buffalo_l embeddings of the same photos, one each, in the same order.

        Raises:
            EncoderMismatch: v2 without embeddings, or embeddings of another model, width or number.
        """
        images = as_rgb(images)
        device, _ = module_device_dtype(self.network)
        embedding = self._embedding(identity, len(images)) if self.needs_embedding else None
        notes: tuple[str, ...] = ()
        if identity is not None and not self.needs_embedding:
            notes = ("face identity not used: version 1 takes none",)
        if embedding is not None:
            known = embedding.ne(0).any(dim=1)
            missing = torch.nonzero(~known).flatten().tolist()
            notes = tuple(f"no face in image {number} (counted from 0): left out" for number in missing)
            images, embedding = images[known.to(images.device)], embedding[known]
        chunks = []
        for start in range(0, len(images), PHOTOS_AT_ONCE):
            part = slice(start, start + PHOTOS_AT_ONCE)
            pixels = clip_pixels(images[part].to(device), self.network.vision_model.image_size)
            faces = None if embedding is None else embedding[part].to(device, torch.float32)
            with torch.no_grad():
                chunks.append(self.network(pixels, faces).float().cpu())
        features = {ID_TOKENS: torch.cat(chunks)}
        return Identity(self.encoder, features, photos=tuple(map(photo_hash, images)), notes=notes)

    def tokens(self, identity: Identity, options: TokenOptions) -> IdentityTokens:
        """Tokens (1, N * T, 2048) of an identity that `encode` made; nothing is added to negative rows."""
        tokens = identity.features.get(ID_TOKENS)
        if identity.encoder != self.encoder or tokens is None or tokens.shape[-1] != self.context_dim:
            raise EncoderMismatch(
                self.report.title,
                expected=f"{ID_TOKENS} (N, T, {self.context_dim}) of {self.encoder}",
                found=f"an identity of the encoder {identity.encoder}",
                cure="make the identity with 'PhotoMaker Encode' and this adapter",
            )
        return IdentityTokens(tokens.flatten(0, 1)[None], None)

    def fuse(self, prompt: Tensor, tokens: Tensor, rows: Sequence[int]) -> Tensor:
        """The text conditioning (B, T, 2048) with the class word's ``rows`` fused with tokens (1, len(rows), 2048)."""
        device, _ = module_device_dtype(self.network)
        with torch.no_grad():
            fused = self.network.fuse_module.fused(prompt.to(device, torch.float32), tokens[0].to(device), rows)
        return fused.to(prompt.device)

    def low_rank_modules(self) -> Mapping[str, LowRank]:
        """The file's LoRA, the same mapping at every call; empty where the file has none."""
        return self._low_rank

    def _embedding(self, identity: Identity | None, count: int) -> Tensor:
        width = self.network.qformer_perceiver.embedding_dim
        embedding = None if identity is None else identity.features.get(EMBEDDING)
        right = identity is not None and identity.encoder == EMBEDDING_ENCODER
        if right and embedding is not None and tuple(embedding.shape) == (count, width) and bool(embedding.any()):
            return embedding
        found = "no identity" if identity is None else f"an identity of the encoder {identity.encoder}"
        if embedding is not None:
            found += f" with embedding {tuple(embedding.shape)}"
        raise EncoderMismatch(
            f"{self.report.title} v2",
            expected=f"embedding ({count}, {width}) of the encoder {EMBEDDING_ENCODER}, one for each photo",
            found=found,
            cure="connect an identity of the same photos, encoded with insightface's pack buffalo_l, best face of each",
        )
