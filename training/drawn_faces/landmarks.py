"""The points of a drawn face that detectors look for."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from .geometry import Pose
from .parameters import Attributes, IdentityParameters

NAMES = (
    "eye_left",
    "eye_right",
    "nose",
    "mouth_left",
    "mouth_right",
    "crown",
    "chin",
    "side_left",
    "side_right",
    "brow_left",
    "brow_right",
    "mouth",
)


class Numbers(Protocol):
    """Anything that knows the numbers of faces by their names."""

    def __getitem__(self, name: str) -> Tensor:
        """The number of all faces."""


def nose_height(numbers: Numbers) -> Tensor:
    """v of the nose's tip."""
    return numbers["nose_length"] + numbers["eye_height"] * 0.4


def mouth_height(numbers: Numbers) -> Tensor:
    """v of the mouth: below the nose."""
    return torch.minimum(nose_height(numbers) + numbers["mouth_height"], 0.78 * numbers["chin"])


def points(identities: IdentityParameters, attributes: Attributes, pose: Pose) -> Tensor:
    """(B, K, 2) pixels of `NAMES`; left and right are those of the picture."""
    eyes, height = identities["eye_distance"], identities["eye_height"]
    nose = nose_height(identities)
    mouth = mouth_height(identities)
    corner = identities["mouth_width"] * (1 + 0.18 * attributes["smile"])
    corners = mouth - 0.05 * attributes["smile"]
    brow = height - identities["brow_gap"] - 0.07 * attributes["brow_raise"]
    none = torch.zeros_like(eyes)
    u = torch.stack([-eyes, eyes, 0.10 * pose.sin[:, 0] / pose.cos[:, 0], -corner, corner, -eyes, eyes, none], dim=1)
    v = torch.stack([height, height, nose, corners, corners, brow, brow, mouth], dim=1)
    inner = pose.picture_points(u, v)
    outline = _outline(identities, pose)
    return torch.cat([inner[:, :5], outline, inner[:, 5:]], dim=1)


def _outline(identities: IdentityParameters, pose: Pose) -> Tensor:
    """(B, 4, 2) pixels of crown, chin and both sides, which stay on the outline however the head turns."""
    width, none = identities["head_width"], torch.zeros_like(identities["chin"])
    x = torch.stack([none, 0.14 * pose.sin[:, 0], -width, width], dim=1)
    y = torch.stack([-identities["crown"], identities["chin"], none, none], dim=1)
    return pose.rolled_points(x, y)
