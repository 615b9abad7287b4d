"""How well voice factors come apart: the held-out accuracy of every factor on every label.

A linear head (`few_shot.train_head`) learns each label from each factor on the clips that were trained on, and is tried
on combinations of voice, emotion and content that were not. On a factor's own label a high number is good; on another
label everything above chance is leakage. A head finds traces however faint they are, so the size of the leakage stands
beside it: the part of a factor's spread within its own labels that another label explains.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import fmean

import torch
from torch import Tensor
from torch.nn import functional

from ..adapters.families.imagineid.arch import FACTORS, VoiceFactors
from ..adapters.identity import EMBEDDING, Identity
from .few_shot import best_labels, train_head
from .imagineid import left_over
from .imagineid_clips import LABELS, VoiceClips


@dataclass(frozen=True)
class FactorProbe:
    """What was measured.

    Attributes:
        accuracy: by factor and by the factor whose label was asked: the part of held-out clips told right.
        chance: by factor: the accuracy of always naming the label that most held-out clips have.
        spread: by factor and by another factor: the part (0..1) of the spread of held-out vectors within their own
            labels that the other's label explains.
        clips: how many were held out.
    """

    accuracy: dict[tuple[str, str], float]
    chance: dict[str, float]
    spread: dict[tuple[str, str], float]
    clips: int

    @property
    def own(self) -> dict[str, float]:
        """Each factor's accuracy on its own label."""
        return {factor: self.accuracy[factor, factor] for factor in FACTORS}

    @property
    def leakage(self) -> dict[tuple[str, str], float]:
        """For each factor and each other label: accuracy above chance, as a part of what there is above chance."""
        return {
            (factor, other): max(0.0, self.accuracy[factor, other] - self.chance[other]) / (1 - self.chance[other])
            for factor in FACTORS
            for other in FACTORS
            if other != factor and self.chance[other] < 1
        }

    def line(self) -> str:
        """All of it as one line, as the file's metadata hold it."""
        own = ", ".join(
            f"{LABELS[factor]} from {factor} {self.own[factor]:.0%} (chance {self.chance[factor]:.0%})"
            for factor in FACTORS
        )
        leaks = ", ".join(
            f"{LABELS[other]} from {factor} {part:.0%} (of its spread {self.spread[factor, other]:.0%})"
            for (factor, other), part in self.leakage.items()
        )
        return f"{own}; leakage above chance: {leaks}; {self.clips} clips"


def clip_vectors(network: VoiceFactors, clips: VoiceClips) -> dict[str, Tensor]:
    """(N, D) float32 of every factor, one row for each clip; content and emotion are means over frames."""
    found: dict[str, list[Tensor]] = {factor: [] for factor in FACTORS}
    device = next(network.parameters()).device
    with torch.no_grad():
        for mel in clips.mels:
            factors = network(mel[None].to(device))
            for factor in FACTORS:
                rows = getattr(factors, factor)
                found[factor].append((rows if rows.ndim == 2 else rows.mean(dim=1))[0].float().cpu())
    return {factor: torch.stack(rows) for factor, rows in found.items()}


def probe(network: VoiceFactors, learnt: VoiceClips, held_out: VoiceClips) -> FactorProbe:
    """Measure a trained network.

    Args:
        network: in evaluation mode.
        learnt: the clips that it and the heads learn from.
        held_out: other ones, with labels among those of ``learnt``.
    """
    known, asked = clip_vectors(network, learnt), clip_vectors(network, held_out)
    accuracy = {
        (factor, label): _accuracy(known[factor], learnt.labels[label], asked[factor], held_out.labels[label])
        for factor in FACTORS
        for label in FACTORS
    }
    chance = {
        label: max(names.count(name) for name in set(names)) / len(names) for label, names in held_out.labels.items()
    }
    spread = {
        (factor, other): float(
            left_over(functional.normalize(asked[factor], dim=1), held_out.numbers(factor), held_out.numbers(other))
        )
        for factor in FACTORS
        for other in FACTORS
        if other != factor
    }
    return FactorProbe(accuracy, chance, spread, len(held_out))


def _accuracy(known: Tensor, names: tuple[str, ...], asked: Tensor, wanted: tuple[str, ...]) -> float:
    head = train_head(Identity("voice_factor", {EMBEDDING: known}), names)
    found = best_labels(head, head.probabilities(Identity("voice_factor", {EMBEDDING: asked})))
    return fmean(float(label == name) for (label, _), name in zip(found, wanted, strict=True))
