"""What counts as landmarks5, and what other point sets give."""

from __future__ import annotations

import math

import pytest
import torch
from likeness_pack.faces.errors import BadLandmarks
from likeness_pack.faces.landmarks import (
    check_landmarks5,
    face_angle,
    landmarks5_from_68,
    landmarks5_from_boxes,
    scale_about_nose,
)
from likeness_pack.faces.templates import template_points

IDS = ("crop", "tiny", "huge", "left", "right")
FACE = template_points("arcface_112_v2", 112).float()


def turned(points: torch.Tensor, degrees: float) -> torch.Tensor:
    angle = math.radians(degrees)
    turn = torch.tensor([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    return points @ turn.T + 300


def profile(side: int) -> torch.Tensor:
    """The mean face turned away: eyes 5 pixels apart, nose beside them."""
    face = FACE.clone()
    face[:, 0] = (face[:, 0] - 56) * 0.15 + 56
    face[2, 0] += 18 * side
    face[3:, 0] += 6 * side
    return face


def sixty_eight() -> torch.Tensor:
    """Sixty-eight points whose jaw, eyes, nose and mouth stand where they should."""
    points = torch.zeros(68, 2)
    points[:17, 0] = torch.linspace(0, 100, 17)
    points[:17, 1] = 60 + 40 * torch.sin(torch.linspace(0, math.pi, 17))
    eye = torch.tensor([[-8.0, 0], [-3, -3], [3, -3], [8, 0], [3, 3], [-3, 3]])
    points[36:42], points[42:48] = eye + torch.tensor([30.0, 40]), eye + torch.tensor([70.0, 40])
    points[30], points[33], points[48], points[54] = (
        torch.tensor(p) for p in ([50.0, 60], [50, 66], [35, 80], [65, 80])
    )
    return points


@pytest.mark.parametrize("degrees", range(0, 360, 15))
@pytest.mark.parametrize("face", [FACE, FACE * 0.05, FACE * 40, profile(1), profile(-1)], ids=IDS)
def test_faces_of_any_roll_size_and_side_pass(face: torch.Tensor, degrees: int) -> None:
    points = turned(face, degrees)
    assert torch.equal(check_landmarks5(points), points)


def test_detector_noise_passes() -> None:
    generator = torch.Generator().manual_seed(0)
    faces = FACE + 2 * torch.randn(500, 5, 2, generator=generator)
    assert check_landmarks5(faces).shape == (500, 5, 2)


def test_a_picture_without_faces_passes() -> None:
    assert check_landmarks5(torch.zeros(0, 5, 2)).shape == (0, 5, 2)


@pytest.mark.parametrize("shape", [(5,), (4, 2), (68, 2), (2, 5, 3), (1, 1, 5, 2)])
def test_wrong_shapes_are_named(shape: tuple[int, ...]) -> None:
    with pytest.raises(BadLandmarks, match="shape"):
        check_landmarks5(torch.zeros(shape))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_not_finite_name_the_face(value: float) -> None:
    faces = torch.stack([FACE, FACE])
    faces[1, 2, 0] = value
    with pytest.raises(BadLandmarks, match="face 1.*finite"):
        check_landmarks5(faces)


def test_points_in_one_place_are_refused() -> None:
    with pytest.raises(BadLandmarks, match="one place"):
        check_landmarks5(torch.full((5, 2), 3.0))


@pytest.mark.parametrize("order", [(1, 0, 2, 4, 3), (1, 0, 2, 3, 4), (0, 1, 2, 4, 3), (3, 4, 2, 0, 1)])
@pytest.mark.parametrize("degrees", [0, 60, 180])
def test_exchanged_points_are_refused_at_any_roll(order: tuple[int, ...], degrees: int) -> None:
    with pytest.raises(BadLandmarks, match="left and right"):
        check_landmarks5(turned(FACE, degrees)[list(order)])


@pytest.mark.parametrize("order", [(45, 42, 36, 39, 33), (36, 39, 42, 45, 33), (36, 39, 45, 42, 33)])
@pytest.mark.parametrize("degrees", [0, 45, 180])
def test_the_five_points_of_dlib_are_recognised_and_refused(order: tuple[int, ...], degrees: int) -> None:
    with pytest.raises(BadLandmarks, match="eye corners.*68-point"):
        check_landmarks5(turned(sixty_eight()[list(order)], degrees))


def test_sixty_eight_points_give_five() -> None:
    points = landmarks5_from_68(torch.stack([sixty_eight(), sixty_eight() + 5]))
    torch.testing.assert_close(points[0], torch.tensor([[30.0, 40], [70, 40], [50, 60], [35, 80], [65, 80]]))
    torch.testing.assert_close(points[1], points[0] + 5)
    check_landmarks5(points)
    with pytest.raises(BadLandmarks, match="68"):
        landmarks5_from_68(torch.zeros(5, 2))


def test_points_from_boxes_are_faces_inside_the_boxes() -> None:
    boxes = torch.tensor([[10.0, 20, 110, 160], [0, 0, 3, 4]])
    points = check_landmarks5(landmarks5_from_boxes(boxes))
    assert bool(((points > boxes[:, None, :2]) & (points < boxes[:, None, 2:])).all())
    assert landmarks5_from_boxes(boxes[:0]).shape == (0, 5, 2)


@pytest.mark.parametrize(
    ("degrees", "expected"), [(0, 0), (40, 0), (50, 90), (90, 90), (170, 180), (-90, 270), (-30, 0)]
)
def test_face_angle_is_the_nearest_quarter(degrees: float, expected: int) -> None:
    assert face_angle(turned(sixty_eight(), degrees)) == expected


def test_scaling_keeps_the_nose() -> None:
    scaled = scale_about_nose(FACE[None], 1.3)[0]
    assert torch.equal(scaled[2], FACE[2])
    torch.testing.assert_close(scaled[1] - scaled[0], (FACE[1] - FACE[0]) * 1.3)
