"""The keypoint picture: equal to OpenCV's drawing, pixel by pixel, and honest about sizes and numbers of faces."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from likeness_pack.faces.errors import BadLandmarks
from likeness_pack.faces.keypoints_picture import COLOURS, draw_keypoints, keypoints_pictures
from likeness_pack.faces.types import FaceBatch, Faces

FACE = torch.tensor([[40.0, 50], [90, 48], [66, 80], [45, 110], [88, 108]])


def opencv_drawing(points: Any, height: int, width: int) -> Any:
    """What the authors' function draws, with OpenCV."""
    cv2 = pytest.importorskip("cv2", reason="the comparison needs OpenCV; the golden part does not")
    canvas = np.zeros((height, width, 3))
    for start in (0, 1, 3, 4):
        x, y = points[[start, 2], 0], points[[start, 2], 1]
        length = math.hypot(x[0] - x[1], y[0] - y[1])
        angle = math.degrees(math.atan2(y[0] - y[1], x[0] - x[1]))
        centre = (int(x.mean()), int(y.mean()))
        limb = cv2.ellipse2Poly(centre, (int(length / 2), 4), int(angle), 0, 360, 1)
        canvas = cv2.fillConvexPoly(canvas.copy(), limb, COLOURS[start])
    canvas = (canvas * 0.6).astype(np.uint8)
    for (x, y), colour in zip(points, COLOURS, strict=True):
        canvas = cv2.circle(canvas.copy(), (int(x), int(y)), 10, colour, -1)
    return canvas


@pytest.mark.parametrize("rounded", [False, True])
def test_every_pixel_is_opencvs(rounded: bool) -> None:
    numbers = np.random.default_rng(7)
    for _ in range(60):
        side = int(numbers.uniform(60, 300))
        points = numbers.uniform(15, side - 15, (5, 2))
        points = np.round(points) if rounded else points
        expected = opencv_drawing(points, side, side + 9)
        got = draw_keypoints(torch.from_numpy(points)[None], side, side + 9)
        assert np.array_equal(got.numpy(), expected)


def test_limbs_are_dimmed_and_dots_are_not() -> None:
    picture = draw_keypoints(FACE[None], 160, 128)
    for (x, y), colour in zip(FACE.long().tolist(), COLOURS, strict=True):
        assert tuple(picture[y, x].tolist()) == colour
    middle = (FACE[0] + FACE[2]).div(2).long()
    assert tuple(picture[middle[1], middle[0]].tolist()) == (153, 0, 0)
    assert int((picture.sum(-1) > 0).sum()) < 160 * 128 // 2


def test_several_faces_share_the_canvas() -> None:
    other = FACE + torch.tensor([120.0, 30])
    both = draw_keypoints(torch.stack((FACE, other)), 200, 260)
    alone = [draw_keypoints(face[None], 200, 260) for face in (FACE, other)]
    assert torch.equal(both, torch.maximum(*alone))


def test_points_outside_are_drawn_as_far_as_they_reach() -> None:
    picture = draw_keypoints(FACE[None] - 60, 60, 60)
    assert int(picture.sum()) > 0
    assert int(draw_keypoints(FACE[None] + 1000, 60, 60).sum()) == 0


def batch(*faces: torch.Tensor) -> FaceBatch:
    images = tuple(
        Faces(torch.zeros(len(one), 4), one, torch.ones(len(one))) if len(one) else Faces.none() for one in faces
    )
    return FaceBatch(images, (160, 128), "user")


def test_one_picture_for_each_picture_of_the_batch() -> None:
    pictures = keypoints_pictures(batch(FACE[None], torch.zeros(0, 5, 2)))
    assert tuple(pictures.shape) == (2, 160, 128, 3)
    assert torch.equal(pictures[0], draw_keypoints(FACE[None], 160, 128).float() / 255)
    assert float(pictures[1].abs().sum()) == 0.0


def test_another_size_moves_the_points_without_stretching_them() -> None:
    pictures = keypoints_pictures(batch(FACE[None]), height=320, width=384)
    expected = draw_keypoints(FACE[None] * 3 - torch.tensor([0.0, 80]), 320, 384)
    assert torch.equal(pictures[0], expected.float() / 255)


@pytest.mark.parametrize("points", [torch.zeros(1, 4, 2), torch.zeros(5, 2), torch.full((1, 5, 2), math.nan)])
def test_other_points_are_refused(points: torch.Tensor) -> None:
    with pytest.raises(BadLandmarks, match="landmarks5"):
        draw_keypoints(points, 10, 10)
