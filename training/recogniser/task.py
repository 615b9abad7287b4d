"""One training step of a recogniser by a recipe: plain margin softmax, TransFace's or TopoFR's additions to it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from ...adapters.encoders.transface.arch import TransFaceOutput
from ..loop import TOTAL, TrainingFailed
from ..seeds import generator_for
from .entropy_weights import sample_weights, weighted_margin_loss
from .margins import arcface_logits, constant_margin_logits, cosines
from .networks import Recogniser
from .patch_amplitude import perturb_dominant_patches
from .people import People
from .structure_damage import structure_damage_loss
from .structure_perturbation import perturb_structure
from .topology import Scale, topological_loss

Recipe = Literal["plain", "transface", "topofr"]
FLIP = 0.5


@dataclass(frozen=True)
class RecipeOptions:
    """How a recogniser is trained.

    Attributes:
        recipe: ``plain`` is the margin softmax alone, in the form of the network's kind (the transformer's margin has
            no gradient of its own, the resnet's has), so that nothing but the recipe's additions differs.
        batch: pictures of a step.
        seed: of everything that is drawn at random.
        chance: probability that a picture is perturbed (DPAP, RSP).
        topology: factor of TopoFR's topological loss.
        topology_scale: how its distances are compared, see `topology.topological_loss`; ``raw`` as published.
        gamma: of TransFace's sample weights.
        focal: TopoFR's second weight as in the paper; False as in the published code, where it is 1.
    """

    recipe: Recipe = "plain"
    batch: int = 48
    seed: int = 0
    chance: float = 0.2
    topology: float = 0.1
    topology_scale: Scale = "raw"
    gamma: float = 1.0
    focal: bool = False


class RecogniserTask:
    """A task of `training.loop`: a recogniser, its people and a recipe.

    Raises:
        TrainingFailed: TransFace's recipe on a network that has no patches, or fewer than two persons.
    """

    def __init__(self, recogniser: Recogniser, people: People, options: RecipeOptions) -> None:
        self.recogniser = recogniser.train()
        self.people = people
        self.recipe = options
        gated = getattr(recogniser.encoder.config, "gated", False)
        if options.recipe == "transface" and not gated:
            raise TrainingFailed(
                "TransFace's recipe", expected="a gated transformer", found="another network", cure="choose one"
            )
        if people.count < 2 or people.count > len(recogniser.centres):
            raise TrainingFailed(
                "training a recogniser",
                expected=f"2 to {len(recogniser.centres)} persons",
                found=f"{people.count}",
                cure="give one folder for each person, two or more, and a recogniser made for as many",
            )

    @property
    def network(self) -> nn.Module:
        """See `loop.Task`."""
        return self.recogniser

    @property
    def options(self) -> Mapping[str, Any]:
        """See `loop.Task`."""
        return {**asdict(self.recipe), "people": self.people.count}

    def parameter_groups(self) -> list[dict[str, Any]]:
        """All weights at one rate."""
        return [{"params": [one for one in self.recogniser.parameters() if one.requires_grad]}]

    def losses(self, step: int) -> dict[str, Tensor]:
        """The losses of one step; see the recipes."""
        generator = generator_for("recogniser step", self.recipe.seed, step)
        labels = torch.randint(self.people.count, (self.recipe.batch,), generator=generator)
        images = self.people.pictures(labels, generator)
        turned = torch.rand(len(images), generator=generator) < FLIP
        images = torch.where(turned[:, None, None, None], images.flip(-1), images)
        # Pictures and random numbers are made on the CPU, so that every device draws the same.
        labels = labels.to(self.recogniser.centres.device)
        if self.recipe.recipe == "transface":
            return self._transface(images, labels, generator)
        if self.recipe.recipe == "topofr":
            return self._topofr(images, labels, generator)
        return self._plain(images, labels)

    def after_step(self, step: int) -> None:
        """Nothing follows."""

    def extra_state(self) -> dict[str, Tensor]:
        """Nothing beside the network."""
        return {}

    def load_extra(self, tensors: Mapping[str, Tensor]) -> None:
        """Nothing beside the network."""

    def _plain(self, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        found = self.recogniser(images.to(labels.device))
        if isinstance(found, TransFaceOutput):
            logits = constant_margin_logits(cosines(found.embedding, self.recogniser.centres), labels)
            return {TOTAL: weighted_margin_loss(logits, labels, torch.ones_like(labels, dtype=logits.dtype))}
        logits = arcface_logits(cosines(found, self.recogniser.centres), labels)
        return {TOTAL: functional.cross_entropy(logits, labels)}

    def _transface(self, images: Tensor, labels: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        # In training mode, as the authors do it: the first look moves the batch statistics too.
        with torch.no_grad():
            weight = self.recogniser(images.to(labels.device)).weight.cpu()
        changed = perturb_dominant_patches(images, weight, generator, self.recipe.chance)
        found = self.recogniser(changed.to(labels.device))
        weights = sample_weights(found.patch_entropy, self.recipe.gamma)
        logits = constant_margin_logits(cosines(found.embedding, self.recogniser.centres), labels)
        return {TOTAL: weighted_margin_loss(logits, labels, weights), "weight": weights.mean()}

    def _topofr(self, images: Tensor, labels: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        perturbed = perturb_structure(images, generator, self.recipe.chance)
        embeddings = self.recogniser.embeddings(perturbed.to(labels.device))
        logits = arcface_logits(cosines(embeddings, self.recogniser.centres), labels)
        told = structure_damage_loss(logits, labels, focal=self.recipe.focal)
        topology = topological_loss(images, embeddings, self.recipe.topology_scale)
        return {TOTAL: told + self.recipe.topology * topology, "topology": topology}
