"""What a step does to the face conditions: drop some, exchange others among pictures of one person, ever more often.

Drop teaches the negative condition (zeros before the projector). Shuffle takes the condition from another picture of
the same person, so that nothing of the target's pose, expression or light can be copied. The official schedule is not
published; amounts grow linearly here.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Ramp:
    """An amount that grows linearly over the first part of a run.

    Attributes:
        start, end: amounts at the first step and from the end of the ramp on.
        over: part of the run that the ramp takes.
    """

    start: float
    end: float
    over: float = 0.5

    def at(self, step: int, steps: int) -> float:
        """The amount in step ``step`` (from 0) of ``steps``."""
        reach = max(1.0, self.over * steps)
        return self.start + (self.end - self.start) * min(1.0, step / reach)


def shuffled_rows(persons: Tensor, amount: float, generator: torch.Generator) -> Tensor:
    """For each row the row whose condition it gets; rows stay within their person.

    Args:
        persons: (B,) numbers; rows of a person need not be neighbours.
        amount: probability that a person's rows are exchanged in this step.
        generator: on the CPU.
    """
    rows = torch.arange(len(persons))
    for person in persons.unique(sorted=True):
        own = (persons == person).nonzero()[:, 0]
        if float(torch.rand((), generator=generator)) < amount:
            rows[own] = own[torch.randperm(len(own), generator=generator)]
    return rows


def kept_rows(count: int, drop: float, generator: torch.Generator) -> Tensor:
    """(B, 1, 1) of ones, and zeros with probability ``drop``."""
    return (torch.rand(count, 1, 1, generator=generator) >= drop).float()
