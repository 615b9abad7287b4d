"""What a run of adapter training is told, in plain values that its state file keeps."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, get_args

from .curriculum import Ramp
from .errors import BadOptions
from .fair import MaskRule, Norm, Reduction


@dataclass(frozen=True)
class AdapterOptions:
    """How an adapter is trained; defaults follow FaceChain-FACT where it states a value.

    Attributes:
        steps: of the whole run.
        persons, pictures: in one step, and of each person; the official trainer takes 1 and 3.
        seed: of everything random.
        fair_weight: weight of FAIR, 0 for none (suggested 0.01).
        fair_norm, fair_reduction, fair_mask: its open choices, see `fair.fair` and `fair.token_masks`.
        mask_growth: latent pixels by which face masks are enlarged for FAIR.
        drop: share of dropped face conditions; the official trainer drops 0.1.
        shuffle: probability that a person's conditions are exchanged.
        least_tokens: layers on grids of fewer tokens stay closed. The official setting has 64 tokens on its coarsest
            grid; small latents have grids of 4 and 1, which cannot tell the face from what is around it.
        gate_rate: factor of the learning rate of the gates, which start at 0.
        text_drop: share of the prompts that are replaced by zeros, for base models whose empty prompt is zeros.
        noise_bias: 0 draws timesteps evenly, as the official trainer does; 1 and more prefer noisy ones, where little
            of the face is visible yet and the conditions decide who it becomes.
    """

    steps: int = 10_000
    persons: int = 1
    pictures: int = 3
    seed: int = 0
    fair_weight: float = 0.01
    fair_norm: Norm = "l2"
    fair_reduction: Reduction = "mean"
    fair_mask: MaskRule = "largest"
    mask_growth: int = 1
    drop: Ramp = field(default_factory=lambda: Ramp(0.0, 0.1))
    shuffle: Ramp = field(default_factory=lambda: Ramp(0.0, 0.5))
    least_tokens: int = 1
    gate_rate: float = 1.0
    text_drop: float = 0.0
    noise_bias: float = 0.0

    def __post_init__(self) -> None:
        shares = [self.drop.start, self.drop.end, self.shuffle.start, self.shuffle.end, self.text_drop]
        if min(self.steps, self.persons, self.pictures) < 1 or min(shares) < 0 or max(shares) > 1:
            raise BadOptions(
                "training options",
                expected="one or more steps, persons and pictures, and shares of 0..1",
                found=f"{self.steps}, {self.persons}, {self.pictures} and {', '.join(f'{one:g}' for one in shares)}",
                cure="correct them",
            )
        chosen = (self.fair_norm, self.fair_reduction, self.fair_mask)
        if any(one not in known for one, known in zip(chosen, map(get_args, (Norm, Reduction, MaskRule)), strict=True)):
            raise BadOptions(
                "FAIR",
                expected="norm l1 or l2, reduction mean or sum, mask largest or share",
                found=", ".join(chosen),
                cure="choose one of these",
            )

    def plain(self) -> dict[str, Any]:
        """Plain values for state files and metadata."""
        return asdict(self)
