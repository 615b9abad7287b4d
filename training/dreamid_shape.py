"""Changes the outline of a face: moving-least-squares deformation (Schaefer et al. 2006), for DreamID's fine-tune.

Where the pseudo-target's outline is another one than the truth's, a model can learn the face's shape from the source
alone.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from ..faces.errors import BadLandmarks
from .seeds import generator_for, uniform

JAW = tuple(range(17))
# Points between which the picture's border is held.
_BORDER = 5
# In eye distances from the middle of the eyes, of an upright face whose five points alone are known: half the face's
# width, and how far the chin lies below.
_HALF_WIDTH, _CHIN = 1.25, 1.85


def deformed(picture: Tensor, sources: Tensor, targets: Tensor) -> Tensor:
    """Move points of a picture, and all else with them, as rigidly as may be.

    Args:
        picture: (3, H, W).
        sources, targets: (P, 2) pixels: what lies at a source comes to its target.

    Returns:
        (3, H, W); beyond the border the nearest pixel is taken.
    """
    height, width = picture.shape[-2:]
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    pixels = torch.complex(columns.flatten().double(), rows.flatten().double())
    # Backwards: for each pixel of the result its place in the picture.
    found = rigid_map(pixels, _complex(targets), _complex(sources))
    grid = torch.stack([found.real * 2 / (width - 1) - 1, found.imag * 2 / (height - 1) - 1], dim=-1)
    grid = grid.view(1, height, width, 2).to(picture)
    return functional.grid_sample(picture[None], grid, padding_mode="border", align_corners=True)[0]


def rigid_map(places: Tensor, handles: Tensor, moved: Tensor) -> Tensor:
    """Where places (N,) come to when handles (P,) come to ``moved`` (P,); all are complex numbers x + iy.

    At each place that rotation and shift is taken which carries the handles best, near ones counting most (weights of
    one over the squared distance). In the plane a rotation is one complex factor.
    """
    weights = 1 / ((places[:, None] - handles).abs().square() + 1e-8)
    weights = weights / weights.sum(dim=1, keepdim=True)
    middle, middle_moved = (weights * handles).sum(dim=1), (weights * moved).sum(dim=1)
    before, after = handles - middle[:, None], moved - middle_moved[:, None]
    turn = (weights * before.conj() * after).sum(dim=1)
    turn = torch.where(turn.abs() > 1e-12, turn / turn.abs().clamp(min=1e-12), torch.ones_like(turn))
    return turn * (places - middle) + middle_moved


def other_outline(picture: Tensor, points: Tensor, *seed: int | str, strength: float = 0.12) -> Tensor:
    """The picture with a wider or narrower, longer or shorter face; eyes, nose, mouth and border stay.

    Args:
        picture: (3, H, W).
        points: (68, 2) in the iBUG order, or landmarks5 (5, 2), of which the outline is guessed.
        seed: decides the outline.
        strength: largest share by which width and length change; half of it is the least.

    Raises:
        BadLandmarks: another number of points.
    """
    inner, outline = _parts(points)
    generator = generator_for(*seed)
    signs = torch.randint(2, (2,), generator=generator) * 2 - 1
    factors = 1 + signs * torch.tensor([uniform(generator, strength / 2, strength) for _ in range(2)])
    eyes = _eye_middle(points)
    moved = eyes + (outline - eyes) * factors.to(outline)
    fixed = torch.cat([inner, _border(*picture.shape[-2:])])
    return deformed(picture, torch.cat([fixed, outline]), torch.cat([fixed, moved]))


def _parts(points: Tensor) -> tuple[Tensor, Tensor]:
    """What stays, and the outline: (P, 2) each."""
    if tuple(points.shape) == (68, 2):
        return points[17:], points[list(JAW)]
    if tuple(points.shape) == (5, 2):
        return points, _guessed_outline(points)
    raise BadLandmarks(
        "outline of a face",
        expected="points (68, 2) or (5, 2)",
        found=f"{tuple(points.shape)}",
        cure="give the 68 points of the iBUG order, or landmarks5",
    )


def _guessed_outline(landmarks5: Tensor) -> Tensor:
    """Half an ellipse from temple to chin to temple, (17, 2)."""
    middle = _eye_middle(landmarks5)
    across = landmarks5[1] - landmarks5[0]
    down = torch.stack([-across[1], across[0]])
    angles = torch.linspace(torch.pi, 0, len(JAW))
    steps = torch.outer(angles.cos() * _HALF_WIDTH, across) + torch.outer(angles.sin() * _CHIN, down)
    return middle + steps


def _eye_middle(points: Tensor) -> Tensor:
    return points[36:48].mean(dim=0) if len(points) == 68 else points[:2].mean(dim=0)


def _border(height: int, width: int) -> Tensor:
    x, y = torch.linspace(0, width - 1, _BORDER), torch.linspace(0, height - 1, _BORDER)
    sides = [torch.stack([x, torch.full_like(x, edge)], dim=1) for edge in (0.0, height - 1.0)]
    sides += [torch.stack([torch.full_like(y, edge), y], dim=1) for edge in (0.0, width - 1.0)]
    return torch.cat(sides)


def _complex(points: Tensor) -> Tensor:
    return torch.complex(points[:, 0].double(), points[:, 1].double())
