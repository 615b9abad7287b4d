"""The points of a drawn face that detectors look for."""

from __future__ import annotations

import torch
from torch import Tensor

from .features import mouth_height
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


def points(identities: IdentityParameters, attributes: Attributes, pose: Pose) -> Tensor:
    """(B, K, 2) pixels of `NAMES`; left and right are those of the picture."""
    eyes, height = identities["eye_distance"], identities["eye_height"]
    nose = identities["nose_length"] + height * 0.4
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
