"""Segmentation maps as the nodes get them: brought to the size of the picture; and the choice of an exemplar."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from ..adapters.families.am_adapter.maps import Resize, overlap
from ..faces.errors import BadImage, LikenessError


def map_picture(image: Tensor, side: int, resize: Resize) -> Tensor:
    """One map (1, H, W, 3) of 0..1 as (1, 3, side, side).

    ``official`` is Lanczos, which the authors use for pictures and maps alike; ``labels`` takes nearest pixels, so that
    no colours mix.

    Raises:
        BadImage: several maps, or no RGB.
    """
    if image.dim() != 4 or image.shape[0] != 1 or image.shape[3] < 3 or image.numel() == 0:
        raise BadImage(
            "segmentation map",
            expected="one RGB picture with a colour for each class",
            found=f"the shape {tuple(image.shape)}",
            cure="connect a single map",
        )
    rgb = image[..., :3].movedim(-1, 1).float().cpu()
    if rgb.shape[-2:] == (side, side):
        return rgb.contiguous()
    if resize == "labels":
        return functional.interpolate(rgb, size=(side, side), mode="nearest-exact")
    resized: Tensor = importlib.import_module("comfy.utils").common_upscale(rgb, side, side, "lanczos", "disabled")
    return resized


def map_scores(target: Tensor, exemplars: Tensor) -> list[float]:
    """Mean intersection over union of a target map (1, H, W, 3) with each of the exemplars' maps (N, H, W, 3)."""
    wanted = target[0, ..., :3].movedim(-1, 0).float().cpu()
    return [overlap(wanted, one[..., :3].movedim(-1, 0).float().cpu()) for one in exemplars]


def picture_scores(clip_vision: Any, picture: Tensor, exemplars: Tensor) -> list[float]:
    """Cosine of the image embeddings of a picture (1, H, W, 3) and of each exemplar (N, H, W, 3)."""
    embeds = [clip_vision.encode_image(images)["image_embeds"].float().cpu() for images in (picture[:1], exemplars)]
    return [float(value) for value in functional.cosine_similarity(embeds[0].flatten(1), embeds[1].flatten(1))]


def check_pairs(target: Tensor, exemplars: Tensor, maps: Tensor) -> None:
    """One target, and a map for each exemplar.

    Raises:
        LikenessError: they do not match in number.
    """
    if target.shape[0] != 1 or exemplars.shape[0] != maps.shape[0] or not len(exemplars):
        raise LikenessError(
            "Retrieve Exemplar",
            expected="one target map, and as many exemplar maps as exemplars",
            found=f"{target.shape[0]} target maps, {exemplars.shape[0]} exemplars and {maps.shape[0]} exemplar maps",
            cure="batch exemplars and their maps in the same order",
        )


def score_table(scores: Sequence[float], best: int, kind: str) -> str:
    """The scores as text, the chosen one marked."""
    lines = [f"{'>' if i == best else ' '} {i}: {score:.3f}" for i, score in enumerate(scores)]
    return "\n".join([f"{kind}; exemplar {best} was chosen", *lines])


def best_of(scores: Sequence[float]) -> int:
    """Index of the highest score; the first of equals."""
    return int(torch.tensor(scores).argmax())
