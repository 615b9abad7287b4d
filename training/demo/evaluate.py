"""What the small models' figures are: identity, attributes, what changes outside the face, and what leaks.

Persons, attributes and noise of the evaluation are drawn from seeds that no training stage uses. The judge measures,
which shares no weights with the adapter's encoder.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from ...adapters.encoders.transface.arch import TransFace
from ..drawn_faces import Attributes, IdentityParameters, draw, sample_identities
from ..fact.models import FactModel
from ..seeds import generator_for
from .autoencoder import Autoencoder
from .base import BaseModel
from .portrait_data import encode_references
from .portraits import portrait_attributes
from .recognition import JUDGE_SIZE, Judge, attribute_targets
from .sampling import pictures, sample_latents, start_noise

# Attributes count as shown when the judge reads them within this distance of what was asked for (0..1).
TOLERANCE = 0.2
# Attributes that the judge reads rightly on fewer true drawings say nothing about a model and are left out.
READABLE = 0.7


@dataclass(frozen=True, eq=False)
class Cases:
    """N held-out persons: a reference of each, and what is asked for.

    Attributes:
        identities: the persons.
        reference: attributes of the reference pictures.
        asked: attributes of the new pictures.
        noise: (N, 4, h, w) starting noise, the same for all models.
        conditions: (N, S, D) the encoder's tokens of the references.
        seed: of all this.
    """

    identities: IdentityParameters
    reference: Attributes
    asked: Attributes
    noise: Tensor
    conditions: Tensor
    seed: int

    @staticmethod
    def of(encoder: TransFace, count: int, size: int, seed: int) -> Cases:
        """Draw them."""
        generator = generator_for("evaluation", seed)
        identities = sample_identities(count, generator)
        reference, asked = portrait_attributes(count, generator), portrait_attributes(count, generator)
        conditions = encode_references(encoder, identities, reference)
        return Cases(identities, reference, asked, start_noise(count, size, generator), conditions, seed)


class Measure:
    """Figures of a model over cases.

    Args:
        judge: measures identity and attributes.
        autoencoder: decodes latents.
        base: the base model.
        cases: on which.
    """

    def __init__(self, judge: Judge, autoencoder: Autoencoder, base: BaseModel, cases: Cases) -> None:
        self._judge, self._autoencoder, self._base, self.cases = judge, autoencoder, base, cases
        self._references = self._embedding(draw(cases.identities, cases.reference, JUDGE_SIZE).images)
        truth = self._right(draw(cases.identities, cases.asked, JUDGE_SIZE).images)
        self.readable = truth.mean(dim=0) >= READABLE
        self._plain_latents = sample_latents(base, cases.asked, cases.noise)
        self.plain = pictures(autoencoder, self._plain_latents)
        face = draw(cases.identities, cases.asked, JUDGE_SIZE).head_mask
        self._outside = 1 - face
        self._face_latents = functional.adaptive_max_pool2d(face[:, None], cases.noise.shape[-2:]).ceil()
        self._plain_attributes = self._read(self.plain)

    def images(self, fact: FactModel, strength: float = 1.0, *, only_face: bool = False) -> Tensor:
        """(N, H, W, 3) of the model with the adapter.

        With ``only_face`` every latent that shows none of the face is the plain model's afterwards: what an adapter
        would give that acts on the face alone.
        """
        cases, plain = self.cases, self._plain_latents
        latents = sample_latents(self._base, cases.asked, cases.noise, fact, cases.conditions, strength)
        if only_face:
            latents = plain + (latents - plain) * self._face_latents
        return pictures(self._autoencoder, latents)

    def figures(self, images: Tensor) -> dict[str, float]:
        """Mean figures of pictures (N, H, W, 3).

        ``identity_distance``: 1 - cosine to the reference. ``attribute_accuracy``: share of readable attributes that
        are as asked. ``outside_change``: mean absolute difference to the plain model outside face and hair (where a
        drawing of that person under the asked attributes has them). ``leak``: how much of the way from what was asked
        to the reference's attributes the pictures go, by regression.
        """
        read, asked = self._read(images), attribute_targets(self.cases.asked)
        reference = attribute_targets(self.cases.reference)
        distance = 1 - functional.cosine_similarity(self._embedding(images), self._references, dim=1)
        change = ((images - self.plain).abs().mean(dim=3) * self._outside).sum() / self._outside.sum()
        return {
            "identity_distance": float(distance.mean()),
            "attribute_accuracy": float(self._right(images)[:, self.readable].mean()),
            "attribute_error": float((read - asked)[:, self.readable].abs().mean()),
            "outside_change": float(change),
            "leak": leak((read - self._plain_attributes)[:, self.readable], (reference - asked)[:, self.readable]),
        }

    def of_decoded_truth(self) -> dict[str, float]:
        """Figures of true drawings of the persons as asked, through the autoencoder: the best that can be reached."""
        drawn = draw(self.cases.identities, self.cases.asked, JUDGE_SIZE).images
        with torch.no_grad():
            return self.figures(self._autoencoder.decode(self._autoencoder.encode(drawn)))

    def _right(self, images: Tensor) -> Tensor:
        """(N, A) ones where the judge reads what was asked for."""
        return ((self._read(images) - attribute_targets(self.cases.asked)).abs() < TOLERANCE).float()

    def _embedding(self, images: Tensor) -> Tensor:
        with torch.no_grad():
            embedding: Tensor = self._judge(images).embedding
        return embedding

    def _read(self, images: Tensor) -> Tensor:
        with torch.no_grad():
            attributes: Tensor = self._judge(images).attributes
        return attributes


def leak(moved: Tensor, towards: Tensor) -> float:
    """Slope of what moved (N, A) on where the reference lies (N, A), both from what was asked for; 0 is no leak."""
    return float((moved * towards).sum() / towards.square().sum())


def at_distance(curve: Mapping[float, Mapping[str, float]], distance: float, name: str) -> float:
    """A figure at a given identity distance, along strengths, by linear interpolation; the nearest end beyond them."""
    points = sorted((figures["identity_distance"], figures[name]) for figures in curve.values())
    if distance <= points[0][0]:
        return points[0][1]
    for (low, first), (high, second) in zip(points, points[1:], strict=False):
        if low <= distance <= high:
            part = (distance - low) / max(high - low, 1e-9)
            return first + part * (second - first)
    return points[-1][1]
