"""Networks that know drawn persons: a face encoder in TransFace's layout, and a judge for measurements.

Both learn from pairs of pictures of the same person, never seen before and never seen again: the two pictures must find
each other among all pictures of the batch (InfoNCE, van den Oord et al. 2018), and the person's numbers, which are
known, must be readable from the embedding. The judge also reads the attributes. It is another architecture, sees whole
pictures and shares no weights with the encoder, so that an adapter trained on the encoder's tokens is not measured by
the encoder.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from ...adapters.encoders.transface.arch import TransFace, TransFaceConfig
from ...faces.align import crop_faces
from ..drawn_faces import (
    IDENTITY,
    Attributes,
    DrawnFaces,
    IdentityParameters,
    draw,
    sample_attributes,
    sample_identities,
)
from ..drawn_faces.geometry import Pose
from ..drawn_faces.landmarks import points
from ..loop import TOTAL
from ..seeds import generator_for, pick, uniform
from .autoencoder import channels_last
from .portraits import portrait_attributes

ENCODER_CONFIG = TransFaceConfig(width=128, depth=4, patch=16, embedding=128)
JUDGE_SIZE = 64
TEMPERATURE = 0.08
CROP = 112


def expected_landmarks(attributes: Attributes, size: int) -> Tensor:
    """(B, 5, 2) pixels where the average person's points lie under such attributes."""
    average = IdentityParameters(torch.full((len(attributes), len(IDENTITY)), 0.5))
    return points(average, attributes, Pose.of(average, attributes, size))[:, :5]


def encoder_crops(images: Tensor, landmarks5: Tensor) -> Tensor:
    """Pictures (B, H, W, 3), 0..1, to what the encoder sees (B, 3, 112, 112), -1..1."""
    crops = crop_faces(images, torch.arange(len(images)), landmarks5, "arcface", CROP, padding="zeros")
    return (crops - 0.5) / 0.5


def identity_targets(identities: IdentityParameters) -> Tensor:
    """(B, P) the persons' numbers with mean 0 and variance 1."""
    return (identities.values - 0.5) * math.sqrt(12)


# What the judge reads of a portrait, beside colours and light.
JUDGED = ("yaw", "pitch", "smile", "mouth_open", "glasses", "light_strength")
JUDGED_COLOURS = ("background_red", "background_green", "background_blue")


def attribute_targets(attributes: Attributes) -> Tensor:
    """(B, A) what the judge reads, 0..1: `JUDGED`, the light's direction times its strength, `JUDGED_COLOURS`."""
    names = Attributes.names()
    plain = [attributes.values[:, names.index(name)] for name in (*JUDGED, *JUDGED_COLOURS)]
    angle = attributes["light_angle"] * (math.pi / 180)
    strength = attributes["light_strength"]
    return torch.stack([*plain, 0.5 + 0.5 * strength * angle.cos(), 0.5 + 0.5 * strength * angle.sin()], dim=1)


def attribute_names() -> tuple[str, ...]:
    """The columns of `attribute_targets`."""
    return (*JUDGED, *JUDGED_COLOURS, "light_across", "light_down")


class _PairTask:
    """What both networks share: fresh persons, two pictures of each, InfoNCE, and the persons' numbers."""

    def __init__(self, network: nn.Module, batch: int, seed: int, options: Mapping[str, Any]) -> None:
        self._network: Any = network
        self._batch, self._seed = batch, seed
        self._options = {"batch": batch, "seed": seed, **options}

    @property
    def network(self) -> Any:
        """The network with its reading heads."""
        return self._network

    @property
    def options(self) -> Mapping[str, Any]:
        """What the run was started with."""
        return self._options

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Decay for matrices only."""
        matrices = [one for one in self._network.parameters() if one.ndim > 1]
        others = [one for one in self._network.parameters() if one.ndim < 2]
        return [{"params": matrices, "weight_decay": 0.02}, {"params": others, "weight_decay": 0.0}]

    def after_step(self, step: int) -> None:
        """Nothing follows."""

    def extra_state(self) -> dict[str, Tensor]:
        """Nothing further."""
        return {}

    def load_extra(self, tensors: Mapping[str, Tensor]) -> None:
        """Nothing further."""

    def _faces(self, generator: torch.Generator, size: int) -> DrawnFaces:
        people = sample_identities(self._batch // 2, generator).repeated(2)
        return draw(people, sample_attributes(len(people), generator), size)


def pair_loss(embeddings: Tensor) -> Tensor:
    """InfoNCE of embeddings (2 P, E) whose rows 2i and 2i + 1 are one person."""
    unit = functional.normalize(embeddings, dim=1)
    logits = unit @ unit.T / TEMPERATURE
    logits = logits - torch.eye(len(unit)) * 1e4
    partner = torch.arange(len(unit)) ^ 1
    return functional.cross_entropy(logits, partner)


class EncoderWithReader(nn.Module):
    """A TransFace and a linear map from its embedding to the persons' numbers, which only training uses."""

    def __init__(self, config: TransFaceConfig) -> None:
        super().__init__()
        self.encoder = TransFace(config)
        self.reader = nn.Linear(config.embedding, len(IDENTITY))
        for name in ("pos_embed", "mask_token"):
            nn.init.normal_(getattr(self.encoder, name), std=0.02)


class EncoderTask(_PairTask):
    """Train the face encoder on crops as it will see them: with and without background, of sharp and small pictures."""

    def __init__(self, batch: int, seed: int, config: TransFaceConfig = ENCODER_CONFIG) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(generator_for(seed, "encoder").initial_seed())
            network = EncoderWithReader(config)
        super().__init__(network, batch, seed, {"width": config.width, "depth": config.depth, "patch": config.patch})

    def losses(self, step: int) -> dict[str, Tensor]:
        """InfoNCE and the error of the persons' numbers."""
        generator = generator_for(self._seed, "pictures", step)
        size = (56, 64, 80, 112)[pick(generator, (1, 2, 2, 1))]
        faces = self._faces(generator, size)
        images, landmarks = faces.images, faces.landmarks5
        if uniform(generator, 0, 1) < 0.5:
            images = images * faces.head_mask[..., None]
        if uniform(generator, 0, 1) < 0.5:
            landmarks = expected_landmarks(faces.attributes, size)
        landmarks = landmarks + torch.randn(landmarks.shape, generator=generator) * (0.006 * size)
        # The fused attention's backward pass is slow in bfloat16 on processors.
        with sdpa_kernel(SDPBackend.MATH), torch.autocast("cpu", dtype=torch.bfloat16):
            embeddings = self._network.encoder(encoder_crops(images, landmarks)).embedding.float()
        pair = pair_loss(embeddings)
        numbers = functional.mse_loss(self._network.reader(embeddings), identity_targets(faces.identities))
        return {TOTAL: pair + numbers, "pair": pair, "numbers": numbers}


class Judgement(NamedTuple):
    """What the judge says of B pictures.

    Attributes:
        embedding: (B, E), not normalised.
        numbers: (B, P) the persons' numbers, as `identity_targets`.
        attributes: (B, A) as `attribute_targets`.
    """

    embedding: Tensor
    numbers: Tensor
    attributes: Tensor


class _Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.GroupNorm(8, width),
            nn.SiLU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.GroupNorm(8, width),
            nn.SiLU(),
            nn.Conv2d(width, width, 3, padding=1),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


class Judge(nn.Module):
    """A convolutional network over whole 64 px pictures (B, 64, 64, 3), 0..1."""

    def __init__(self, embedding: int = 64) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(3, 32, 4, 2, 1)]
        for inputs, outputs in ((32, 64), (64, 96), (96, 128)):
            layers += [_Residual(inputs), nn.Conv2d(inputs, outputs, 4, 2, 1)]
        self.trunk = nn.Sequential(*layers, _Residual(128), nn.Flatten(), nn.LayerNorm(2048), nn.Linear(2048, 256))
        self.embedding = nn.Sequential(nn.SiLU(), nn.Linear(256, embedding))
        self.numbers = nn.Linear(embedding, len(IDENTITY))
        self.attributes = nn.Sequential(nn.SiLU(), nn.Linear(256, len(attribute_names())))

    def forward(self, images: Tensor) -> Judgement:
        planes = (images * 2 - 1).movedim(-1, 1).contiguous(memory_format=torch.channels_last)
        features = self.trunk(planes).float()
        embedding = self.embedding(features)
        return Judgement(embedding, self.numbers(embedding), self.attributes(features))


class JudgeTask(_PairTask):
    """Train the judge on portraits, more than half of them after a blur as small autoencoders leave it."""

    def __init__(self, batch: int, seed: int) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(generator_for(seed, "judge").initial_seed())
            network = channels_last(Judge())
        super().__init__(network, batch, seed, {"judge": 3})

    def losses(self, step: int) -> dict[str, Tensor]:
        """InfoNCE, the persons' numbers, and the attributes."""
        generator = generator_for(self._seed, "pictures", step)
        people = sample_identities(self._batch // 2, generator).repeated(2)
        faces = draw(people, portrait_attributes(len(people), generator), JUDGE_SIZE)
        images = _blurred(faces.images, generator)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            told = self._network(images)
        pair = pair_loss(told.embedding.float())
        numbers = functional.mse_loss(told.numbers.float(), identity_targets(faces.identities))
        attributes = functional.mse_loss(told.attributes.float(), attribute_targets(faces.attributes))
        total = pair + numbers + 60 * attributes
        return {TOTAL: total, "pair": pair, "numbers": numbers, "attributes": attributes}


def _blurred(images: Tensor, generator: torch.Generator) -> Tensor:
    """Rows of (B, H, W, 3) at random through a smaller size and with a little noise."""
    planes = images.movedim(-1, 1)
    size = int(uniform(generator, 0.4, 0.9) * planes.shape[-1])
    small = functional.interpolate(planes, size=(size, size), mode="bilinear", antialias=True)
    soft = functional.interpolate(small, size=planes.shape[-2:], mode="bilinear")
    chosen = torch.rand(len(images), 1, 1, 1, generator=generator) < 0.6
    noise = torch.randn(planes.shape, generator=generator) * 0.015
    return (torch.where(chosen, soft, planes) + noise).clamp(0, 1).movedim(1, -1)
