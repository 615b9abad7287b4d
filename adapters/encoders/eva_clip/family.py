"""Recognises the picture half of EVA02-CLIP-L-14-336, and encodes faces with it as PuLID does."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import interpolate, normalize

from ....faces.align import crop_faces
from ...adapter import module_device_dtype
from ...checkpoint import CheckpointHeader, load_strictly, load_tensors
from ...family import Family, Kind, Licence, Match
from ...identity import EMBEDDING, EVA_HIDDEN, EVA_POOLED
from ..base import NetworkEncoder
from .arch import HEAD_DIM, HIDDEN_AFTER, EvaConfig, EvaVision

ENCODER_ID = "eva02_clip_l_336"
IMAGE_SIZE = 336
CROP_SIZE, TEMPLATE = 512, "face_restore_512"
# OpenAI's statistics, which EVA-CLIP was trained with.
MEAN = (0.48145466, 0.4578275, 0.40821073)
DEVIATION = (0.26862954, 0.26130258, 0.27577711)
GREY = (0.299, 0.587, 0.114)

PREFIXES = ("visual.", "")
NEEDED = (
    "cls_token",
    "pos_embed",
    "patch_embed.proj.weight",
    "blocks.0.attn.q_proj.weight",
    "blocks.0.attn.inner_attn_ln.weight",
    "blocks.0.mlp.w1.weight",
    "blocks.0.mlp.ffn_ln.weight",
    "head.weight",
)
UNMASKED = (
    "no face mask: PuLID was trained on faces with background, clothes, hat, ears and neck in white; "
    "expect more of the photo's surroundings in the picture"
)


class EvaClipEncoder(NetworkEncoder):
    """Features: ``eva_pooled`` and ``eva_hidden`` for PuLID; ``embedding`` is the picture vector as it is.

    The face is cut out at 512 pixels as facexlib does; what no mask covers becomes white, the rest grey; then it is
    brought to 336 pixels, bicubic without antialiasing (torchvision 0.15, which the authors pin).
    """

    network: EvaVision
    uses_masks = True
    unmasked_note = UNMASKED

    def __init__(self, title: str, licence: Licence, network: EvaVision, notes: tuple[str, ...] = ()) -> None:
        super().__init__(ENCODER_ID, title, licence, network, notes)

    def encode_faces(
        self, images: Tensor, index: Sequence[int], boxes: Tensor, landmarks5: Tensor, masks: Tensor | None
    ) -> dict[str, Tensor]:
        rows = torch.as_tensor(list(index), dtype=torch.long)
        pictures = face_feature_pictures(images, rows, landmarks5, masks)
        device, _ = module_device_dtype(self.network)
        with torch.no_grad():
            pooled, hidden = self.network(pictures.to(device, torch.float32))
        features = {EMBEDDING: pooled, EVA_POOLED: normalize(pooled, dim=-1), EVA_HIDDEN: hidden}
        return {name: tensor.float().cpu() for name, tensor in features.items()}


def face_feature_pictures(images: Tensor, rows: Tensor, landmarks5: Tensor, masks: Tensor | None) -> Tensor:
    """The normalised pictures (N, 3, 336, 336) that PuLID shows to EVA-CLIP.

    Args:
        images: (B, H, W, 3), 0..1.
        rows: (N,) number of the picture of each face.
        landmarks5: (N, 5, 2) pixels.
        masks: (B, H, W), 1 where skin, brows, eyes, glasses, nose, mouth, lips and hair are, or None for everywhere.
    """
    kept = images.new_ones(images.shape[:3]) if masks is None else masks.to(images)
    # What lies outside the photo is no face either, so it is warped in as 0 with or without a mask.
    planes = torch.cat((images, kept[..., None]), dim=-1)
    crops = crop_faces(planes, rows, landmarks5, TEMPLATE, CROP_SIZE, padding="zeros")
    colours, kept = crops[:, :3], crops[:, 3:] > 0.5
    grey = (colours * torch.tensor(GREY, device=colours.device)[:, None, None]).sum(1, keepdim=True)
    pictures = torch.where(kept, grey, torch.ones_like(grey))
    pictures = interpolate(pictures, (IMAGE_SIZE, IMAGE_SIZE), mode="bicubic", align_corners=False)
    mean, deviation = (torch.tensor(values, device=pictures.device)[:, None, None] for values in (MEAN, DEVIATION))
    return (pictures - mean) / deviation


class EvaClipFamily(Family):
    """EVA02-CLIP-L-14-336, of which PuLID uses the picture half."""

    id = "eva_clip"
    kind: Kind = "encoder"
    title = "EVA02-CLIP-L-14-336"
    folder = "face_encoders"
    links = ("https://github.com/baaivision/EVA/tree/master/EVA-CLIP", "https://huggingface.co/QuanSun/EVA-CLIP")
    licence = Licence(code="MIT", weights="MIT", commercial=True)

    def recognise(self, header: CheckpointHeader) -> Match | str:
        prefix = _prefix(header)
        if prefix is None:
            return f"no {NEEDED[0]} and {NEEDED[4]}, with or without visual."
        config = _config(header, prefix)
        if isinstance(config, str):
            return config
        hyper: dict[str, int | str | float] = {
            "width": config.width,
            "depth": config.depth,
            "feed_forward": config.feed_forward,
            "patch": config.patch,
            "grid": config.grid,
            "output": config.output,
        }
        return Match(self, None, hyper)

    def build(self, header: CheckpointHeader, match: Match) -> EvaClipEncoder:
        prefix = _prefix(header) or ""
        sizes = {name: int(value) for name, value in match.hyper.items()}
        with torch.device("meta"):
            network = EvaVision(EvaConfig(**sizes)).to(header.tensors[f"{prefix}pos_embed"].dtype)
        tables = {"rope.": "rotary positions, which are computed"}
        tables |= {f"blocks.{number}.attn.rope.": "the same, once for each block" for number in range(sizes["depth"])}
        if not prefix:
            tables |= {"text.": "the text half", "logit_scale": "the weight between both halves"}
        load_strictly(network, load_tensors(header, prefix), what=header.path.name, ignorable=tables)
        note = f"encoder file {header.path.name} ({header.digest[:12]})"
        return EvaClipEncoder(self.title, self.licence, network, (note,))


def _prefix(header: CheckpointHeader) -> str | None:
    for prefix in PREFIXES:
        if header.has(*(prefix + name for name in NEEDED)):
            return prefix
    return None


def _config(header: CheckpointHeader, prefix: str) -> EvaConfig | str:
    """Sizes from shapes, or the reason why the shapes are not those of the network PuLID needs."""
    sizes = [header.shape(prefix + name) or () for name in ("pos_embed", *NEEDED[2:3], NEEDED[5], "head.weight")]
    if [len(shape) for shape in sizes] != [3, 4, 2, 2]:
        return "shapes of another vision transformer"
    positions, patches, inner, head = sizes
    blocks = {name.split(".")[1] for name in header.with_prefix(f"{prefix}") if name.startswith("blocks.")}
    config = EvaConfig(positions[2], len(blocks), inner[0], patches[2], math.isqrt(positions[1] - 1), head[0])
    if config.image_size != IMAGE_SIZE:
        return f"for pictures of {config.image_size} pixels, where PuLID needs the model for {IMAGE_SIZE}"
    if config.depth <= HIDDEN_AFTER[-1] or config.width % HEAD_DIM:
        return f"{config.depth} blocks of width {config.width}, where PuLID needs more than {HIDDEN_AFTER[-1]} blocks"
    return config


FAMILY = EvaClipFamily()
