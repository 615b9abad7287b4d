"""From which step to which step a patch acts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..faces.errors import LikenessError
from .call_state import call_state, read_sigma


@dataclass(frozen=True)
class StepRange:
    """Acts while ``end_sigma <= sigma <= start_sigma``, as the host's own ControlNet ranges do.

    Attributes:
        start_percent, end_percent: the user's fractions of the schedule, 0..1.
        start_sigma, end_sigma: the same as noise levels of the model at hand.
    """

    start_percent: float
    end_percent: float
    start_sigma: float
    end_sigma: float

    @property
    def full(self) -> bool:
        """True when the patch acts at every step, so that no sigma need be read from the device."""
        return self.start_percent <= 0.0 and self.end_percent >= 1.0

    def active(self, extra: Mapping[str, Any]) -> bool:
        """Whether the patch acts in this forward pass."""
        if self.full:
            return True
        state = call_state(extra)
        sigma = read_sigma(extra) if state is None else state.sigma(extra)
        return self.end_sigma <= sigma <= self.start_sigma


def step_range(model: Any, start_percent: float, end_percent: float) -> StepRange:
    """The range of steps for a MODEL, from fractions of its schedule.

    Raises:
        LikenessError: for a range that ends before it starts.
    """
    if not 0.0 <= start_percent <= end_percent <= 1.0:
        raise LikenessError(
            "step range",
            expected="0 <= start_percent <= end_percent <= 1",
            found=f"start_percent {start_percent:g}, end_percent {end_percent:g}",
            cure="set end_percent no smaller than start_percent",
        )
    sampling = model.get_model_object("model_sampling")
    start, end = (float(sampling.percent_to_sigma(percent)) for percent in (start_percent, end_percent))
    return StepRange(start_percent, end_percent, start, end)
