"""Verification: are two pictures of one person? Accuracy as on LFW (Huang et al. 2007), with its uncertainty."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

FOLDS = 10
_NORMAL_95 = 1.959964


@dataclass(frozen=True)
class Verification:
    """The result on a set of pairs.

    Attributes:
        accuracy: part of the pairs that are told right, each fold by the threshold that is best on the other folds.
        low, high: Wilson's 95 % interval of the accuracy, as if pairs were independent.
        equal_error: error rate at the threshold where both kinds of error are equally frequent.
        pairs: number of pairs.
    """

    accuracy: float
    low: float
    high: float
    equal_error: float
    pairs: int


def verify(first: Tensor, second: Tensor, same: Tensor, folds: int = FOLDS) -> Verification:
    """Judge pairs of embeddings.

    Args:
        first, second: (N, D) embeddings of any length.
        same: (N,) bool.
        folds: parts of the pairs, taken in turn.
    """
    scores = functional.cosine_similarity(first.double(), second.double())
    # Dealt out within each kind of pair, so that every fold holds both in the same proportion.
    fold = torch.where(same, same.cumsum(0), (~same).cumsum(0)) % folds
    right = 0
    for number in range(folds):
        held = fold == number
        threshold = best_threshold(scores[~held], same[~held])
        right += int(((scores[held] >= threshold) == same[held]).sum())
    low, high = wilson(right, len(scores))
    return Verification(right / len(scores), low, high, equal_error_rate(scores, same), len(scores))


def best_threshold(scores: Tensor, same: Tensor) -> float:
    """The score from which calling a pair the same person is right most often."""
    ordered, order = scores.sort(descending=True)
    gained = torch.where(same[order], 1, -1).cumsum(0)
    best = int(gained.argmax())
    if int(gained[best]) <= 0:
        return float(ordered[0]) + 1e-9
    after = ordered[best + 1] if best + 1 < len(ordered) else ordered[best] - 1e-9
    return float((ordered[best] + after) / 2)


def equal_error_rate(scores: Tensor, same: Tensor) -> float:
    """Where the part of strangers that are let in meets the part of persons that are turned away."""
    order = scores.argsort(descending=True)
    mine = same[order]
    let_in = (~mine).cumsum(0) / (~mine).sum().clamp(min=1)
    turned_away = 1 - mine.cumsum(0) / mine.sum().clamp(min=1)
    crossing = int((let_in - turned_away).abs().argmin())
    return float((let_in[crossing] + turned_away[crossing]) / 2)


def wilson(right: int, count: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a part ``right`` of ``count``."""
    part, square = right / count, _NORMAL_95**2
    middle = (part + square / (2 * count)) / (1 + square / count)
    half = _NORMAL_95 / (1 + square / count) * math.sqrt(part * (1 - part) / count + square / (4 * count**2))
    return middle - half, middle + half
