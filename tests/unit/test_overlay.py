"""The picture of what was found."""

from __future__ import annotations

import pytest
import torch
from likeness_pack.faces.overlay import draw_faces, text_bitmap
from likeness_pack.faces.types import FaceBatch, Faces


def found(*boxes: tuple[float, float, float, float]) -> Faces:
    corners = torch.tensor(boxes)
    points = (corners[:, None, :2] + corners[:, None, 2:]) / 2 + torch.zeros(len(boxes), 5, 1)
    return Faces(corners, points, torch.full((len(boxes),), 0.97))


def test_drawing_leaves_the_input_and_pictures_without_faces_alone() -> None:
    images = torch.rand(2, 90, 120, 3, generator=torch.Generator().manual_seed(0))
    before = images.clone()
    result = draw_faces(images, FaceBatch((found((30, 30, 80, 80)), Faces.none()), (90, 120), "user"))
    assert result.shape == images.shape
    assert torch.equal(images, before)
    assert torch.equal(result[1], images[1])
    assert not torch.equal(result[0], images[0])


def test_box_and_points_are_where_they_should_be() -> None:
    images = torch.zeros(1, 90, 120, 3)
    result = draw_faces(images, FaceBatch((found((30, 30, 80, 80)),), (90, 120), "user"))[0]
    assert bool((result[79, 30:80].sum(-1) > 0).all()) and bool((result[30:80, 79].sum(-1) > 0).all())
    assert float(result[70, 40].sum()) == 0 and float(result[85, 100].sum()) == 0
    assert float(result[55, 55].sum()) > 0


def test_every_face_has_its_own_label() -> None:
    images = torch.zeros(1, 200, 400, 3)
    one = draw_faces(images, FaceBatch((found((20, 60, 90, 150)),), (200, 400), "user"))
    two = draw_faces(images, FaceBatch((found((20, 60, 90, 150), (220, 60, 300, 150)),), (200, 400), "user"))
    assert torch.equal(one[0, :, :200], two[0, :, :200])
    assert float(two[0, 30:58, 225:300].max()) > 0


@pytest.mark.parametrize(
    "box", [(-50.0, -50.0, 500.0, 500.0), (200.0, 200.0, 210.0, 210.0), (-30.0, -30.0, -20.0, -20.0)]
)
@pytest.mark.parametrize("size", [(1, 1), (20, 30), (64, 64)])
def test_faces_beyond_the_picture_and_tiny_pictures(box: tuple[float, ...], size: tuple[int, int]) -> None:
    result = draw_faces(torch.zeros(1, *size, 3), FaceBatch((found(box),), size, "user"))
    assert result.shape == (1, *size, 3)
    assert bool(torch.isfinite(result).all())


def test_lines_grow_with_the_picture() -> None:
    images = torch.zeros(1, 1280, 1280, 3)
    result = draw_faces(images, FaceBatch((found((300, 300, 900, 900)),), (1280, 1280), "user"))[0]
    assert int((result[700, 280:320].sum(-1) > 0).sum()) == 4


def test_an_empty_batch() -> None:
    assert draw_faces(torch.zeros(0, 8, 8, 3), FaceBatch((), (8, 8), "user")).shape == (0, 8, 8, 3)


def test_signs_are_five_by_seven_and_differ() -> None:
    assert text_bitmap("#0 97").shape == (7, 29)
    signs = [tuple(text_bitmap(char).flatten().tolist()) for char in "0123456789#.x- "]
    assert len(set(signs)) == 15
    assert not text_bitmap("?").any()
    assert text_bitmap("1").int()[6].tolist() == [0, 1, 1, 1, 0]
