"""A small world of drawn faces in which DreamID's training can be proved: exact triplets, a linear VAE and encoder.

Source and truth are one drawn person with other attributes; the pseudo-target has the truth's attributes, hair and
outline, and another person's face. So every pixel of a right answer is known. Codec and encoder are solved in closed
form on persons of their own.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from .drawn_faces.draw import draw
from .drawn_faces.parameters import (
    ATTRIBUTES,
    IDENTITY,
    Attributes,
    IdentityParameters,
    sample_attributes,
    sample_identities,
)
from .dreamid_data import TripletBatch, TripletRows
from .dreamid_losses import encoder_crops
from .seeds import generator_for

SIZE = 32
PATCH = 4
CHANNELS = 4
# What a swap leaves as it is in the target: outline and hair.
KEPT = (
    *("head_width", "crown", "chin", "jaw_taper", "ear_size"),
    *(one.name for one in IDENTITY if one.name.startswith(("hair", "parting", "fringe", "bald"))),
)
POSE = ("yaw", "pitch", "roll")
# Held still, so that a few hundred small pictures tell what there is to learn.
STILL = {"glasses": 0.0, "shift_x": 0.0, "shift_y": 0.0, "zoom": 1.0}
FACE = tuple(place for place, one in enumerate(IDENTITY) if one.name not in KEPT)


@dataclass(frozen=True, eq=False)
class DrawnTriplets:
    """Triplets and what they were drawn from.

    Attributes:
        triplets: the pictures.
        people, others: the sources' persons, and the pseudo-targets' (with the sources' hair and outline).
        attributes: of truth and pseudo-target.
    """

    triplets: TripletBatch
    people: IdentityParameters
    others: IdentityParameters
    attributes: Attributes


def drawn_triplets(count: int, *seed: int | str, size: int = SIZE) -> DrawnTriplets:
    """``count`` triplets of as many persons; ``seed`` alone decides them."""
    generator = generator_for(*seed)
    people, strangers = sample_identities(count, generator), sample_identities(count, generator)
    kept = [place for place in range(len(IDENTITY)) if place not in FACE]
    values = strangers.values.clone()
    values[:, kept] = people.values[:, kept]
    others = IdentityParameters(values)
    first, second = (sample_attributes(count, generator).replaced(**STILL) for _ in range(2))
    source, truth, target = draw(people, first, size), draw(people, second, size), draw(others, second, size)
    a1, b_, a2 = (one.images.movedim(-1, 1).contiguous() for one in (source, target, truth))
    rows = TripletRows(a1, b_, a2, source.landmarks5, truth.landmarks5, target.landmarks)
    return DrawnTriplets(TripletBatch(rows), people, others, second)


class PatchCodec:
    """A linear VAE: the four principal components of patches of 4 x 4 pixels, of unit spread; see `losses.Codec`.

    Args:
        pictures: (N, 3, S, S) that the components are measured on.
    """

    def __init__(self, pictures: Tensor) -> None:
        patches = functional.unfold(pictures * 2 - 1, PATCH, stride=PATCH).movedim(1, 2).flatten(0, 1).double()
        mean = patches.mean(dim=0)
        spread, vectors = torch.linalg.eigh((patches - mean).T @ (patches - mean) / len(patches))
        vectors, spread = vectors[:, -CHANNELS:].flip(1), spread[-CHANNELS:].flip(0)
        # A sign for each component that does not depend on the machine.
        vectors = vectors * vectors.sum(dim=0).sign()
        shape = (CHANNELS, 3, PATCH, PATCH)
        self._mean = mean.float().view(3, PATCH, PATCH)
        self._down = (vectors / spread.sqrt()).T.float().reshape(shape)
        self._up = (vectors * spread.sqrt()).T.float().reshape(shape)

    def encode(self, pictures: Tensor) -> Tensor:
        """(B, 3, S, S), 0..1, to (B, 4, S / 4, S / 4)."""
        return functional.conv2d(pictures * 2 - 1 - self._tiled(pictures), self._down, stride=PATCH)

    def decode(self, latents: Tensor) -> Tensor:
        """The way back, with gradients."""
        plain = functional.conv_transpose2d(latents, self._up, stride=PATCH)
        return (plain + self._tiled(plain) + 1) / 2

    def _tiled(self, like: Tensor) -> Tensor:
        return self._mean.repeat(1, like.shape[-2] // PATCH, like.shape[-1] // PATCH)


class LinearEncoder:
    """A face encoder in closed form: directions in which persons differ most, measured by how one person varies.

    Args:
        crops: (P, V, 3, 112, 112) aligned crops of -1..1, V pictures of each of P persons.
        width: of the embeddings.
        side: crops are made this small first.
    """

    def __init__(self, crops: Tensor, width: int = 32, side: int = 14) -> None:
        self.width = width
        self._side = side
        persons, views = crops.shape[:2]
        rows = self._small(crops.flatten(0, 1)).double().view(persons, views, -1)
        means = rows.mean(dim=1)
        self._centre = means.mean(dim=0)
        within = (rows - means[:, None]).flatten(0, 1)
        scatter = within.T @ within / len(within)
        ridge = 0.05 * scatter.diagonal().mean() * torch.eye(len(scatter), dtype=torch.float64)
        spread, vectors = torch.linalg.eigh(scatter + ridge)
        whitened = vectors / spread.sqrt()
        between = (means - self._centre) @ whitened
        _, _, directions = torch.linalg.svd(between, full_matrices=False)
        self._weight = (whitened @ directions[:width].T).float()
        self._centre = self._centre.float()

    def __call__(self, crops: Tensor) -> Tensor:
        """(B, 3, 112, 112), -1..1, to (B, width); gradients flow through."""
        return (self._small(crops) - self._centre) @ self._weight

    def _small(self, crops: Tensor) -> Tensor:
        return functional.adaptive_avg_pool2d(crops, self._side).flatten(1)


@dataclass(frozen=True, eq=False)
class Reading:
    """What pictures show, read off them by drawing.

    Attributes:
        face: (B, F) identity numbers of the face, from -1 to 1.
        pose: (B, 3) yaw, pitch, roll in degrees.
    """

    face: Tensor
    pose: Tensor


def read_faces(
    pictures: Tensor, codec: PatchCodec, people: IdentityParameters, attributes: Attributes, rounds: int = 3
) -> Reading:
    """Find the numbers whose drawing is most like each picture: damped Gauss-Newton over face and pose.

    No network and no encoder takes part. Every drawing goes through the codec, so that its blur is not taken for a
    difference. What a picture does not show stays at the middle of its range.

    Args:
        pictures: (B, 3, S, S), 0..1.
        codec: what the pictures came out of.
        people: their hair and outline are taken as known, their faces are not looked at.
        attributes: everything but pose is taken as known; the search for the pose starts there.
        rounds: of the search.
    """
    face, turned = _start(people, attributes)
    places = [Attributes.names().index(name) for name in POSE]
    known = attributes.values[:, places]
    wanted = pictures.flatten(1).double()
    for _ in range(rounds):
        drawn = _drawn(people, attributes, face, turned, codec)
        slopes = _slopes(people, attributes, face, turned, codec, drawn)
        # Noise of a hundredth; numbers spread over their ranges, poses around the target's.
        inverse = torch.cat([torch.full((len(FACE),), 12.0), torch.full((len(POSE),), 50.0)]).double()
        left = slopes @ slopes.mT * _PRECISION + torch.diag(inverse)
        now, middle = torch.cat([face, turned], dim=1).double(), torch.full_like(face, 0.5)
        prior = torch.cat([middle, known], dim=1).double() - now
        right = (slopes @ (wanted - drawn)[..., None])[..., 0] * _PRECISION + prior * inverse
        step = torch.linalg.solve(left, right).clamp(-0.4, 0.4)
        found = (now + step).clamp(0, 1).float()
        face, turned = found[:, : len(FACE)], found[:, len(FACE) :]
    spans = torch.tensor([ATTRIBUTES[place].high - ATTRIBUTES[place].low for place in places])
    lows = torch.tensor([ATTRIBUTES[place].low for place in places])
    return Reading(face * 2 - 1, lows + turned * spans)


_PRECISION = 1 / 0.03**2
_DELTA = 0.04


def _start(people: IdentityParameters, attributes: Attributes) -> tuple[Tensor, Tensor]:
    places = [Attributes.names().index(name) for name in POSE]
    return torch.full((len(people), len(FACE)), 0.5), attributes.values[:, places].clone()


def _drawn(
    people: IdentityParameters, attributes: Attributes, face: Tensor, turned: Tensor, codec: PatchCodec
) -> Tensor:
    """Pictures (B, pixels) of these numbers, as the codec gives them back."""
    values, state = people.values.clone(), attributes.values.clone()
    values[:, list(FACE)] = face
    state[:, [Attributes.names().index(name) for name in POSE]] = turned
    images = draw(IdentityParameters(values), Attributes(state), SIZE).images.movedim(-1, 1)
    return codec.decode(codec.encode(images)).flatten(1).double()


def _slopes(
    people: IdentityParameters, attributes: Attributes, face: Tensor, turned: Tensor, codec: PatchCodec, drawn: Tensor
) -> Tensor:
    """Derivatives (B, F + 3, pixels) by small steps towards the middle of each range."""
    numbers = torch.cat([face, turned], dim=1)
    slopes = []
    for place in range(numbers.shape[1]):
        moved = numbers.clone()
        side = torch.where(moved[:, place] > 0.5, -_DELTA, _DELTA)
        moved[:, place] += side
        pictures = _drawn(people, attributes, moved[:, : len(FACE)], moved[:, len(FACE) :], codec)
        slopes.append((pictures - drawn) / side[:, None].double())
    return torch.stack(slopes, dim=1)


def face_similarity(reading: Reading, people: IdentityParameters) -> Tensor:
    """(B,) cosine of the numbers read and those of persons, both from the middle of their ranges."""
    return functional.cosine_similarity(reading.face, people.values[:, list(FACE)] * 2 - 1, dim=1)


def pose_error(reading: Reading, attributes: Attributes) -> Tensor:
    """(B,) length of the difference of yaw, pitch and roll, in degrees."""
    wanted = torch.stack([attributes[name] for name in POSE], dim=1)
    return (reading.pose - wanted).norm(dim=1)


def encoder_of(persons: int, views: int, *seed: int | str) -> LinearEncoder:
    """The encoder of drawn faces, made of ``views`` pictures of each of ``persons``; ``seed`` alone decides them."""
    generator = generator_for(*seed)
    people = sample_identities(persons, generator).repeated(views)
    faces = draw(people, sample_attributes(persons * views, generator).replaced(**STILL), SIZE)
    crops = encoder_crops(faces.images.movedim(-1, 1), faces.landmarks5)
    return LinearEncoder(crops.unflatten(0, (persons, views)))
