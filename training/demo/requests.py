"""From what a user asks for to attributes, pictures, tokens, and the place of faces."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from ...adapters.checkpoint import load_strictly
from ...faces.types import FaceBatch, Faces
from ..drawn_faces import Attributes, draw, sample_identities
from ..drawn_faces.parameters import BadParameters
from ..seeds import generator_for
from .conditioning import AttributeTokens
from .portraits import PORTRAIT_ZOOM, portrait_attributes
from .recognition import expected_landmarks

DRAWN = "drawn"
MOST_PICTURES = 1024
# Beyond every attribute's scale, and small enough to be drawn.
LARGEST = 360


def asked_attributes(numbers: Mapping[str, float | bool], pictures: int, variety: float, seed: int) -> Attributes:
    """Attributes of ``pictures`` portraits.

    Args:
        numbers: by name; the others are neutral.
        pictures: how many.
        variety: 0 takes the numbers as they are, 1 random ones for every picture, between mixes both.
        seed: of the random ones.

    Raises:
        BadParameters: a value that is no number or out of range, or a number of pictures that nobody means.
    """
    if not 1 <= pictures <= MOST_PICTURES:
        raise BadParameters(
            "portrait", expected=f"1 to {MOST_PICTURES} pictures", found=str(pictures), cure="ask for fewer"
        )
    asked: dict[str, object] = {**numbers, "variety": variety}
    wrong = [name for name, value in asked.items() if not isinstance(value, (int, float)) or not abs(value) <= LARGEST]
    if wrong:
        raise BadParameters(
            "portrait",
            expected=f"a number for {wrong[0]}, at most {LARGEST} from 0",
            found=repr(asked[wrong[0]])[:40],
            cure="write a number",
        )
    if not 0 <= variety <= 1:
        raise BadParameters("portrait", expected="a variety of 0 to 1", found=str(variety), cure="choose one between")
    told = {name: float(value) for name, value in numbers.items()}
    given = Attributes.neutral(pictures).replaced(**told, zoom=PORTRAIT_ZOOM)
    chance = portrait_attributes(pictures, generator_for("requests", seed))
    return Attributes(torch.lerp(given.values, chance.values, variety))


def drawn_person(person: int, attributes: Attributes, size: int) -> tuple[Tensor, Tensor, FaceBatch]:
    """Pictures (B, H, W, 3), head masks (B, H, W) and faces of one person."""
    faces = draw(sample_identities(1, generator_for("person", person)), attributes, size)
    return faces.images, faces.head_mask, _batch(faces.boxes, faces.landmarks5, size)


def expected_faces(attributes: Attributes, size: int) -> FaceBatch:
    """Where the average person's face lies in pictures with such attributes."""
    landmarks = expected_landmarks(attributes, size)
    low, high = landmarks.amin(dim=1), landmarks.amax(dim=1)
    margin = (high - low) * 0.6
    return _batch(torch.cat([low - margin, high + margin], dim=1).clamp(0, size), landmarks, size)


def prompt_network(weights: Mapping[str, Tensor], context: int, tokens: int) -> AttributeTokens:
    """The network that turns attributes into tokens. Raises KeyMismatch."""
    network = AttributeTokens(context, tokens)
    load_strictly(network, weights, what="prompt of the drawn faces model")
    return network.eval().requires_grad_(False)


def prompt_tokens(prompt: AttributeTokens, attributes: Attributes) -> Tensor:
    """(B, T, C)."""
    with torch.no_grad():
        tokens: Tensor = prompt(attributes)
    return tokens


def _batch(boxes: Tensor, landmarks5: Tensor, size: int) -> FaceBatch:
    images = tuple(Faces(box[None], points[None], torch.ones(1)) for box, points in zip(boxes, landmarks5, strict=True))
    return FaceBatch(images, (size, size), DRAWN)
