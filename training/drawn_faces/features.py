"""Eyes, brows, glasses, nose, moles and mouth, in face coordinates; both sides are drawn at once, mirrored."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from . import colours
from .canvas import Box, Canvas, box_around
from .layers import Subject
from .parameters import IdentityParameters

_MARGIN = 0.12


@dataclass(frozen=True, eq=False)
class Part:
    """The box of B pictures in which a part of the face lies.

    Attributes:
        box: rows and columns.
        u, v: face coordinates (B, R, C).
        inside: coverage of the head (B, R, C).
    """

    box: Box
    u: Tensor
    v: Tensor
    inside: Tensor


def part_of(subject: Subject, inside: Tensor, half_width: Tensor, top: Tensor, bottom: Tensor) -> Part:
    """Cut out a part of the face by its half width and heights (B,); inside: coverage of the head box (B, R, C)."""
    u = torch.stack([-half_width, half_width, -half_width, half_width], dim=1)
    v = torch.stack([top, top, bottom, bottom], dim=1)
    box = box_around(subject.pose.picture_points(u, v), subject.pose.scale * _MARGIN, subject.pose.size)
    grid = subject.head.part(box)
    rows, columns = (
        slice(one.start - own.start, one.stop - own.start) for one, own in zip(grid.box, subject.head.box, strict=True)
    )
    return Part(grid.box, grid.u, grid.v, inside[:, rows, columns])


def eyes_and_brows(canvas: Canvas, subject: Subject, inside: Tensor) -> None:
    """Brows, then eyes with iris, pupil and lid line."""
    people = subject.identities
    reach = people["eye_distance"] + people["brow_length"] + 0.05
    part = part_of(subject, inside, reach, people["eye_height"] - 0.45, people["eye_height"] + 0.25)
    across = part.u.abs() - subject.plane("eye_distance")
    down = part.v - subject.plane("eye_height")
    _brows(canvas, subject, part, across, down)
    _eyes(canvas, subject, part, across, down)


def _brows(canvas: Canvas, subject: Subject, part: Part, across: Tensor, down: Tensor) -> None:
    length = subject.plane("brow_length")
    middle = -subject.plane("brow_gap") - 0.07 * subject.plane("brow_raise")
    line = (across * subject.plane("brow_arch")).add_(subject.plane("brow_angle")).mul_(across).add_(middle)
    away = (down - line).abs_().sub_(subject.plane("brow_thickness"))
    distance = torch.maximum(away, across.abs().sub_(length))
    canvas.paint(canvas.coverage(distance).mul_(part.inside), subject.hair * 0.55, part.box)


def _eyes(canvas: Canvas, subject: Subject, part: Part, across: Tensor, down: Tensor) -> None:
    size = subject.plane("eye_size")
    height = size * subject.plane("eye_shape") * (1 - subject.plane("eye_closed"))
    tilted = (across * subject.plane("eye_tilt")).add_(down)
    # Two parabolas make an almond: |v| = height * (1 - (u / size)^2).
    almond = (across / size).square_().add_((tilted / height).abs_()).sub_(1)
    distance = almond.mul_(height * 0.75)
    white = canvas.coverage(distance.clone()).mul_(part.inside)
    lid = canvas.coverage(distance.abs_().sub_(0.014)).mul_(part.inside)
    canvas.paint(white, torch.full_like(subject.skin, 0.93), part.box, "eyes")
    gaze = across - part.u.sign() * (subject.plane("gaze") * size * 0.28)
    from_iris = gaze.square_().addcmul_(down, down).sqrt_()
    radius = size * subject.plane("iris_size")
    iris = canvas.coverage(from_iris - radius).mul_(white)
    canvas.paint(iris, colours.iris(subject.identities), part.box)
    pupil = canvas.coverage(from_iris.sub_(radius * 0.45)).mul_(white)
    canvas.paint(pupil, torch.full_like(subject.skin, 0.04), part.box)
    canvas.paint(lid, subject.skin * 0.32, part.box)


def glasses(canvas: Canvas, subject: Subject, inside: Tensor) -> None:
    """Frames: two rims, and a line for bridge and temples."""
    worn = (subject.plane("glasses") >= 0.5).float()
    if not bool(worn.any()):
        return
    people = subject.identities
    part = part_of(subject, inside, people["head_width"], people["eye_height"] - 0.25, people["eye_height"] + 0.3)
    centre = subject.plane("eye_distance") + 0.01
    across = (part.u.abs() - centre) / 0.235
    down = (part.v - subject.plane("eye_height") - 0.03) / 0.18
    round_, square = (across * across).addcmul_(down, down).sqrt_(), torch.maximum(across.abs(), down.abs())
    rim = torch.lerp(round_, square, 0.8 * subject.plane("glasses_shape")).sub_(1).mul_(0.2)
    # Bridge and temples are one line through both eyes, seen outside the rims.
    line = torch.maximum((down * 0.18 + 0.04).abs_().sub_(0.016), -rim)
    frame = torch.minimum(rim.abs().sub_(0.020), line)
    canvas.paint(canvas.coverage(frame).mul_(worn).mul_(part.inside), subject.skin * 0 + 0.10, part.box, "glasses")


def nose(canvas: Canvas, subject: Subject, inside: Tensor) -> None:
    """Bridge shadow, tip and nostrils; the tip stands out, so it moves with the yaw."""
    people = subject.identities
    length = subject.plane("nose_length") + subject.plane("eye_height") * 0.4
    width = subject.plane("nose_width")
    low = people["nose_length"] + people["eye_height"] * 0.4
    part = part_of(subject, inside, people["nose_width"] + 0.15, people["eye_height"] - 0.05, low + 0.1)
    moved = part.u - subject.turn * 0.10
    down = part.v - length
    side = moved.abs()
    bridge = torch.maximum((side - width * 0.55).abs_().sub_(0.014), (down + 0.16).abs_().sub_(0.17))
    strength = 0.10 + 0.30 * subject.plane("nose_bridge")
    canvas.paint(canvas.coverage(bridge).mul_(part.inside).mul_(strength), subject.skin * 0.45, part.box)
    tip = (moved / width).square_().addcmul_(down / (width * 0.7), down / (width * 0.7)).sqrt_().sub_(1).mul_(width)
    canvas.paint(canvas.coverage(tip).mul_(part.inside).mul_(0.5), (subject.skin * 1.06).clamp(max=1), part.box)
    across, up = side.sub_(width * 0.5).div_(0.045), (down - 0.45 * width) / 0.030
    nostrils = across.square_().addcmul_(up, up).sqrt_().sub_(1).mul_(0.035)
    canvas.paint(canvas.coverage(nostrils).mul_(part.inside).mul_(0.8), subject.skin * 0.30, part.box)


def moles(canvas: Canvas, subject: Subject, inside: Tensor) -> None:
    """Up to two moles; a size below zero means none."""
    for number in (1, 2):
        centre_u, centre_v = subject.identities[f"mole_{number}_u"], subject.identities[f"mole_{number}_v"]
        size = subject.identities[f"mole_{number}_size"]
        part = part_of(subject, inside, centre_u.abs(), centre_v, centre_v)
        from_centre = (part.u - centre_u[:, None, None]).square_()
        down = part.v - centre_v[:, None, None]
        distance = from_centre.addcmul_(down, down).sqrt_().sub_(size.clamp(min=0)[:, None, None])
        seen = canvas.coverage(distance).mul_(part.inside).mul_((size > 0).float()[:, None, None])
        canvas.paint(seen, subject.skin * 0.28, part.box)


def mouth(canvas: Canvas, subject: Subject, inside: Tensor) -> None:
    """Lips between two parabolas, and teeth and dark where it is open."""
    people = subject.identities
    height = mouth_height(people)
    part = part_of(subject, inside, people["mouth_width"] + 0.1, height - 0.22, height + 0.36)
    half = subject.plane("mouth_width") * (1 + 0.18 * subject.plane("smile"))
    place = (part.u / half).square_()
    envelope = (1 - place).clamp_(min=-0.3)
    corners = 0.10 * subject.plane("smile")
    down = (place * corners).add_(part.v).sub_(height[:, None, None] + corners * 0.5)
    gap = envelope * (0.01 + 0.11 * subject.plane("mouth_open"))
    above = (envelope * subject.plane("lip_upper")).add_(gap)
    below = (envelope * subject.plane("lip_lower")).add_(gap)
    lips = canvas.coverage(torch.maximum(-down - above, down - below)).mul_(part.inside)
    canvas.paint(lips, colours.lips(subject.identities), part.box, "mouth")
    opening = canvas.coverage(down.abs() - gap).mul_(lips)
    canvas.paint(opening, torch.tensor([[0.22, 0.05, 0.06]]).expand(len(lips), 3), part.box)
    teeth = canvas.coverage(torch.maximum(-down - gap + 0.006, down + 0.012)).mul_(opening)
    canvas.paint(teeth, torch.full_like(subject.skin, 0.92), part.box)


def mouth_height(identities: IdentityParameters) -> Tensor:
    """(B,) v of the mouth: below the nose."""
    low = identities["nose_length"] + identities["eye_height"] * 0.4
    return torch.minimum(low + identities["mouth_height"], 0.78 * identities["chin"])
