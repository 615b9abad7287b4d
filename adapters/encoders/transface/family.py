"""Recognises TransFace checkpoints (S, B, L) and the arcface_torch vision transformer, and encodes faces with them.

Crop and normalisation follow the official recognition code; the black background follows FaceChain-FACT, which was
trained on masked faces.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ....faces.align import crop_faces
from ...adapter import module_device_dtype
from ...checkpoint import CheckpointHeader, load_strictly, load_tensors
from ...family import Family, Hyper, Kind, Licence, Match
from ...identity import EMBEDDING, TOKENS
from ..base import NetworkEncoder, masked_images
from .arch import IMAGE_SIZE, TransFace, TransFaceConfig

if TYPE_CHECKING:
    from ...family import Ambiguity

HEADS = 8
GATED, UNGATED = "transface", "arcface_vit"
# (width, depth) of the official configurations; other sizes are legal and named by their numbers.
SIZES = {(256, 12): "t", (512, 12): "s", (512, 24): "b", (768, 24): "l"}
NEEDED = (
    "pos_embed",
    "patch_embed.proj.weight",
    "blocks.0.attn.qkv.weight",
    "blocks.0.mlp.fc1.weight",
    "norm.weight",
    "feature.0.weight",
    "feature.2.weight",
)
UNMASKED = "unmasked: expect weaker identity (FACT was trained on faces with a black background)"


class TransFaceEncoder(NetworkEncoder):
    """Features: ``embedding`` (N, E) not normalised, ``tokens`` (N, T, D) before the gate.

    Runs in the dtype of its weights; float32 is the reference (the official code turns half precision on by itself
    on CUDA, which moves the third digit).
    """

    network: TransFace
    uses_masks = True
    unmasked_note = UNMASKED

    def encode_faces(
        self, images: Tensor, index: Sequence[int], boxes: Tensor, landmarks5: Tensor, masks: Tensor | None
    ) -> dict[str, Tensor]:
        rows = torch.as_tensor(list(index), dtype=torch.long)
        if masks is not None:
            # The background goes before the warp: the official crop interpolates between the face and black.
            needed, rows = torch.unique(rows, return_inverse=True)
            images = masked_images(images[needed.to(images.device)], masks[needed.to(masks.device)])
        crops = crop_faces(images, rows, landmarks5, "arcface", IMAGE_SIZE, padding="zeros")
        device, dtype = module_device_dtype(self.network)
        with torch.no_grad():
            out = self.network(((crops - 0.5) / 0.5).to(device, dtype))
        return {EMBEDDING: out.embedding.float().cpu(), TOKENS: out.tokens.float().cpu()}


class TransFaceFamily(Family):
    """Vision transformers over 112 px faces with 9 px patches."""

    id = "transface"
    kind: Kind = "encoder"
    title = "TransFace"
    folder = "face_encoders"
    variants = (GATED, UNGATED)
    links = ("https://github.com/DanJun6737/TransFace", "https://modelscope.cn/models/yucheng1996/FaceChain-FACT")
    licence = Licence(
        code="none in the authors' repository; the identical copy in modelscope/facechain is Apache-2.0",
        weights="none stated",
        commercial=None,
        note="trained on MS1MV2 or Glint360K, data for research",
    )

    def recognise(self, header: CheckpointHeader) -> Match | Ambiguity | str:
        missing = [name for name in NEEDED if not header.has(name)]
        if missing:
            return f"no {missing[0]}"
        hyper = _hyper_parameters(header)
        if isinstance(hyper, str):
            return hyper
        return Match(family=self, variant=GATED if hyper["gated"] else UNGATED, hyper=hyper)

    def build(self, header: CheckpointHeader, match: Match) -> TransFaceEncoder:
        config = _config(match)
        with torch.device("meta"):
            network = TransFace(config)
        network.to_empty(device="cpu")
        load_strictly(network, load_tensors(header), what=header.path.name)
        identifier = self.encoder_id(match.hyper)
        size = identifier.rpartition("_")[2].upper()
        title = f"TransFace-{size}" if config.gated else f"arcface_torch ViT-{size}"
        # Files of one size differ in training data; the note tells their identities apart.
        note = f"encoder file {header.path.name} ({header.digest[:12]})"
        return TransFaceEncoder(identifier, title, self.licence, network, (note,))

    @staticmethod
    def encoder_id(hyper: Hyper) -> str:
        """Id of the encoder with such sizes: ``transface_s``, ``arcface_vit_b``, or with numbers where no name fits."""
        width, depth = int(hyper["width"]), int(hyper["depth"])
        kind = GATED if hyper["gated"] else UNGATED
        return f"{kind}_{SIZES.get((width, depth), f'{width}x{depth}')}"


def _hyper_parameters(header: CheckpointHeader) -> dict[str, int | str | float] | str:
    """Sizes from shapes, or the reason why the shapes are not this network's."""
    position, patch = header.shape("pos_embed") or (), header.shape("patch_embed.proj.weight") or ()
    if len(position) != 3 or len(patch) != 4 or patch[1] != 3 or patch[2] != patch[3]:
        return f"pos_embed {position} and patch_embed.proj.weight {patch} are not (1, T, D) and (D, 3, p, p)"
    width = position[2]
    if patch[0] != width or width % HEADS or (IMAGE_SIZE // patch[2]) ** 2 != position[1]:
        return f"{position[1]} tokens of width {width} do not come from {patch[2]} px patches of a {IMAGE_SIZE} px face"
    if header.shape("feature.0.weight") != (width, position[1] * width):
        return f"feature.0.weight {header.shape('feature.0.weight')} is not {(width, position[1] * width)}"
    blocks = {name.split(".")[0] for name in header.with_prefix("blocks.")}
    return {
        "width": width,
        "depth": len(blocks),
        "patch": patch[2],
        "tokens": position[1],
        "embedding": math.prod((header.shape("feature.2.weight") or (0,))[:1]),
        "heads": HEADS,
        "hidden": math.prod((header.shape("blocks.0.mlp.fc1.weight") or (0,))[:1]),
        "gated": int(header.has("senet.0.weight")),
    }


def _config(match: Match) -> TransFaceConfig:
    sizes = {name: int(match.hyper[name]) for name in ("width", "depth", "patch", "embedding", "heads", "hidden")}
    return TransFaceConfig(**sizes, gated=bool(match.hyper["gated"]))


FAMILY = TransFaceFamily()
