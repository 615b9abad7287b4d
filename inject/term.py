"""What every identity term has in common, whichever layers it acts in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .masks import LatentMask
from .row_values import RowKeysValues
from .schedule import StepRange
from .shared import Shared


@dataclass(frozen=True, eq=False, kw_only=True)
class Term(Shared):
    """One identity's contribution to a model.

    Attributes:
        key: what the term is; a second term with the same key takes its place.
        keys_values: keys and values of the identity by layer.
        strength: factor of the term.
        steps: the steps in which it acts.
        mask: where it acts, or None for everywhere.
        positive_only: leave the negative rows as they are.
    """

    key: str
    keys_values: RowKeysValues
    strength: float
    steps: StepRange
    mask: LatentMask | None = None
    positive_only: bool = False

    def acts(self, extra: Mapping[str, Any]) -> bool:
        """Whether anything is added at this step."""
        return self.strength != 0.0 and self.steps.active(extra)
