"""The parts of a drawn face outside eyes, nose and mouth: background, body, ears, head, beard, hair, light."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from . import colours
from .canvas import Box, Canvas, box_around
from .geometry import Pose
from .parameters import Attributes, IdentityParameters

# From this value on a person is bald.
BALD = 0.92
LONG_HAIR = 0.35


@dataclass(frozen=True, eq=False)
class Grid:
    """A box of B pictures and where its pixels lie on the heads.

    Attributes:
        box: rows and columns of the pictures.
        x, y: head coordinates (B, R, C).
        u, v: face coordinates (B, R, C).
    """

    box: Box
    x: Tensor
    y: Tensor
    u: Tensor
    v: Tensor

    @staticmethod
    def over(pose: Pose, box: Box) -> Grid:
        """The grid of a box."""
        x, y = pose.head_grid(*box)
        return Grid(box, x, y, *pose.face_grid(x, y))

    def part(self, box: Box) -> Grid:
        """The part of this grid inside another box."""
        inner, kept = [], []
        for wanted, own in zip(box, self.box, strict=True):
            first = min(max(wanted.start, own.start), own.stop - 1)
            last = max(first + 1, min(wanted.stop, own.stop))
            inner.append(slice(first - own.start, last - own.start))
            kept.append(slice(first, last))
        place = (slice(None), *inner)
        return Grid((kept[0], kept[1]), self.x[place], self.y[place], self.u[place], self.v[place])


@dataclass(frozen=True, eq=False)
class Subject:
    """B faces to draw, with what several layers need.

    Attributes:
        identities, attributes: the numbers.
        pose: where the heads stand.
        head: the box that holds heads and hair, without the hair below the chin.
        skin, hair: colours (B, 3).
    """

    identities: IdentityParameters
    attributes: Attributes
    pose: Pose
    head: Grid
    skin: Tensor
    hair: Tensor
    planes: Mapping[str, Tensor]

    @staticmethod
    def of(identities: IdentityParameters, attributes: Attributes, size: int) -> Subject:
        """Prepare B faces for pictures of ``size``."""
        pose = Pose.of(identities, attributes, size)
        x = identities["head_width"] + 0.9 * identities["hair_volume"] + 0.16
        top, bottom = -identities["crown"] - identities["hair_volume"], identities["chin"]
        points = pose.rolled_points(torch.stack([-x, x, -x, x], dim=1), torch.stack([top, top, bottom, bottom], dim=1))
        head = Grid.over(pose, box_around(points, pose.scale * 0.06, size))
        planes: dict[str, Tensor] = {}
        for numbers in (identities, attributes):
            planes |= zip(numbers.names(), numbers.numbers.T[:, :, None, None].unbind(0), strict=True)
        return Subject(identities, attributes, pose, head, colours.skin(identities), colours.hair(identities), planes)

    def plane(self, name: str) -> Tensor:
        """(B, 1, 1) a number of identities or attributes."""
        return self.planes[name]

    @property
    def turn(self) -> Tensor:
        """(B, 1, 1) sine of the yaw."""
        return self.pose.sin[:, :1, None]


def background(subject: Subject) -> Tensor:
    """Pictures (B, 3, H, W) of a wall that grows darker downwards."""
    size = subject.pose.size
    ramp = torch.linspace(1.06, 0.80, size)[None, None, :, None]
    wall = colours.background(subject.attributes)[:, :, None, None] * ramp
    return wall.clamp(0, 1).expand(-1, -1, -1, size).contiguous()


def body(canvas: Canvas, subject: Subject) -> None:
    """Shoulders and neck; they do not turn with the head and are lit as a flat thing."""
    size, pose = subject.pose.size, subject.pose
    box = (slice(int(size * 0.55), size), slice(0, size))
    grid = torch.arange(size, dtype=torch.float32) + 0.5
    x = ((grid[None] - pose.centre[:, :1]) / pose.scale[:, None])[:, None, :]
    y = ((grid[None, box[0]] - pose.centre[:, 1:]) / pose.scale[:, None])[:, :, None]
    angle = subject.attributes["light_angle"] * (math.pi / 180)
    lit = (1 + subject.attributes["light_strength"] * (0.35 * angle.sin() - 0.15))[:, None]
    shoulders = (x / 1.45).square() + ((y - 2.0) / 0.78).square()
    colour = (colours.clothes(subject.attributes) * lit).clamp(max=1)
    canvas.paint(canvas.coverage(shoulders.sqrt_().sub_(1).mul_(0.9)), colour, box, "body")
    neck = x.abs() - (0.45 * subject.plane("head_width") + 0.04)
    canvas.paint(
        canvas.coverage(torch.maximum(neck, y - 1.38 + 0.5 * x.square())), subject.skin * 0.86 * lit, box, "body"
    )


def back_hair(canvas: Canvas, subject: Subject) -> None:
    """The hair behind head and shoulders."""
    size, head = subject.pose.size, subject.head
    box = (slice(head.box[0].start, size), head.box[1])
    x, y = subject.pose.head_grid(*box)
    volume, length = subject.plane("hair_volume"), subject.plane("hair_length")
    across = x.add_(subject.turn * 0.10)
    # One wave for a whole row: a sine for each pixel costs as much as the rest of the hair.
    middle = y[:, :, y.shape[2] // 2, None]
    across.add_((middle * 9).sin_().mul_(subject.plane("hair_wave") * (length > LONG_HAIR)))
    up = y.clamp(max=0).div_(subject.plane("crown") + volume)
    outline = across.div_(subject.plane("head_width") + 0.8 * volume).square_().addcmul_(up, up).sqrt_()
    distance = torch.maximum(outline.sub_(1).mul_(0.85), y.sub_(length))
    canvas.paint(canvas.coverage(distance).mul_(_haired(subject)), subject.hair * 0.72, box, "hair")


@dataclass(frozen=True, eq=False)
class Outline:
    """The head's outline before its size: what distances to it, and to larger ones, are made of.

    Attributes:
        across, up, down: (B, R, C) squares of the three directions.
    """

    across: Tensor
    up: Tensor
    down: Tensor

    @staticmethod
    def of(subject: Subject) -> Outline:
        """The outline over the subject's head box; the jaw tapers, and the chin moves with the yaw."""
        grid = subject.head
        down = grid.y.clamp(min=0).div_(subject.plane("chin"))
        across = (down * (-0.14 * subject.turn)).add_(grid.x)
        down.square_()
        taper = (down * -subject.plane("jaw_taper")).add_(1).clamp_(min=0.2)
        return Outline(across.div_(taper).square_(), grid.y.clamp(max=0).square_(), down)

    def distance(self, subject: Subject, extra: Tensor | float = 0.0) -> Tensor:
        """Distance (B, R, C) to the outline, ``extra`` larger; negative inside."""
        width, crown = subject.plane("head_width") + extra, subject.plane("crown") + extra
        distance = (self.across * width.square().reciprocal()).add_(self.down)
        return distance.addcmul_(self.up, crown.square().reciprocal()).sqrt_().sub_(1).mul_(0.8)


def ears(canvas: Canvas, subject: Subject) -> None:
    """Both ears, behind the head."""
    size, nod = subject.plane("ear_size"), subject.pose.sin[:, 1:2, None] * 0.3
    across = subject.head.x.abs().sub_(subject.plane("head_width") * 0.98).div_(size * 0.62)
    along = (subject.head.y - (0.04 + nod)).div_(size)
    distance = across.square_().addcmul_(along, along).sqrt_().sub_(1).mul_(size)
    canvas.paint(canvas.coverage(distance), subject.skin * 0.88, subject.head.box, "face")


def head(canvas: Canvas, subject: Subject, outline: Outline) -> Tensor:
    """The head; returns its coverage (B, R, C) of the subject's head box."""
    coverage = canvas.coverage(outline.distance(subject))
    canvas.paint(coverage, subject.skin, subject.head.box, "face")
    return coverage


def beard(canvas: Canvas, subject: Subject, inside: Tensor) -> None:
    """A beard that fades in below the cheeks; half of all persons have none."""
    strength = (subject.plane("beard") - 0.5).clamp(min=0) * 1.7
    part = subject.head.u.abs().mul_(-1.4).add_(subject.head.v, alpha=4).sub_(0.5).clamp_(0, 1)
    canvas.paint(part.mul_(strength).mul_(inside), subject.hair * 0.8, subject.head.box)


def front_hair(canvas: Canvas, subject: Subject, outline: Outline) -> None:
    """The hair over the forehead, down to a hairline that arches about the parting."""
    across = subject.head.u - subject.plane("parting")
    line = (across * subject.plane("hairline_arch")).add_(subject.plane("fringe_tilt")).mul_(across)
    line.sub_(subject.plane("hairline"))
    distance = torch.maximum(
        outline.distance(subject, 0.7 * subject.plane("hair_volume")),
        # Sideburns end at the ears; below, only the hair behind the head goes on.
        subject.head.v - line.clamp_(max=0.05),
    )
    coverage = canvas.coverage(distance).mul_(_haired(subject))
    canvas.paint(coverage, subject.hair, subject.head.box, "hair")


def light(canvas: Canvas, subject: Subject, share: Tensor) -> None:
    """Lambert's law on an ellipsoid, for the head's and hair's share (B, R, C) of the head box."""
    angle = subject.plane("light_angle") * (math.pi / 180)
    across = subject.head.x / (subject.plane("head_width") + 0.15)
    down = subject.head.y / 1.15
    facing = (across * across).addcmul_(down, down).neg_().add_(1).clamp_(min=0).sqrt_().mul_(0.45)
    towards = facing.add_(across.mul_(0.8 * angle.cos())).add_(down.mul_(0.8 * angle.sin()))
    strength = share * subject.plane("light_strength")
    factor = towards.clamp_(-0.9, 1.0).sub_(0.15).mul_(0.75).mul_(strength).add_(1)
    warm = strength.mul_(subject.plane("light_warmth") * 0.10)
    canvas.shade(0, factor * (1 + warm), subject.head.box)
    canvas.shade(1, factor, subject.head.box)
    canvas.shade(2, factor.mul_(1 - warm), subject.head.box)


def _haired(subject: Subject) -> Tensor:
    return (subject.plane("bald") < BALD).float()
