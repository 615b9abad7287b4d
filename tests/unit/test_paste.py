"""Putting crops back: what changes, and what must not."""

from __future__ import annotations

import pytest
import torch
from likeness_pack.faces.align import align_matrix, crop_faces, invert, template_points, transform_points
from likeness_pack.faces.masks import box_mask, region_of, soft_square
from likeness_pack.faces.paste import paste, paste_in_region


def waves(height: int, width: int) -> torch.Tensor:
    """A smooth picture (H, W, 3), so that resampling twice loses little."""
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return torch.stack([0.5 + 0.4 * torch.sin(x / (14 + c) + y / (17 - c) + c) for c in range(3)], -1)


def face_at(x: float, y: float, size: float, degrees: float = 0) -> torch.Tensor:
    """Landmarks5 (5, 2) of a face ``size`` pixels wide."""
    angle = torch.deg2rad(torch.tensor(float(degrees)))
    turn = torch.stack([torch.stack([angle.cos(), -angle.sin()]), torch.stack([angle.sin(), angle.cos()])])
    home = (template_points("arcface_128", 1).float() - 0.5) * size
    return home @ turn.T + torch.tensor([x, y])


@pytest.mark.parametrize("degrees", [0, 25, 180])
def test_crop_and_paste_gives_the_picture_back(degrees: float) -> None:
    image = waves(160, 200)
    points = face_at(100, 80, 96, degrees)[None]
    matrix = align_matrix(points, "arcface_128", 128)[0]
    crop = crop_faces(image[None], torch.zeros(1).long(), points, "arcface_128", 128, "border")[0]
    assert float((paste(image, crop, matrix, box_mask(128)) - image).abs().max()) < 0.02


def test_three_faces_change_three_regions_and_nothing_else() -> None:
    image = torch.rand(120, 300, 3, generator=torch.Generator().manual_seed(0))
    points = torch.stack([face_at(50, 60, 60), face_at(150, 60, 50, 40), face_at(250, 60, 70, -100)])
    matrices = align_matrix(points, "arcface_128", 64)
    before, result = image.clone(), image
    for matrix in matrices:
        result = paste(result, torch.full((3, 64, 64), 2.0), matrix, box_mask(64))
    assert torch.equal(image, before)
    outside = torch.ones(120, 300, dtype=torch.bool)
    for matrix in matrices:
        x1, y1, x2, y2 = region_of(invert(matrix.double()), 64, 120, 300)
        assert float(result[y1:y2, x1:x2].max()) > 1.9
        outside[y1:y2, x1:x2] = False
    assert int(outside.sum()) > 10000
    assert torch.equal(result[outside], image[outside])


def test_an_empty_mask_changes_nothing_even_for_a_broken_crop() -> None:
    image = waves(50, 50)
    matrix = align_matrix(face_at(25, 25, 30)[None], "arcface_128", 64)[0]
    assert torch.equal(paste(image, torch.full((3, 64, 64), float("nan")), matrix, torch.zeros(64, 64)), image)


def test_a_full_mask_gives_exactly_the_crop_inside() -> None:
    image, crop = waves(64, 64), torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(0))
    matrix = torch.tensor([[1.0, 0, 0], [0, 1, 0]])
    torch.testing.assert_close(paste(image, crop, matrix, torch.ones(64, 64)), crop.movedim(0, -1), atol=1e-5, rtol=0)


def test_a_face_outside_the_picture_changes_nothing() -> None:
    image = waves(40, 40)
    matrix = align_matrix(face_at(500, 500, 30)[None], "arcface_128", 64)[0]
    assert torch.equal(paste(image, torch.ones(3, 64, 64), matrix, box_mask(64)), image)
    box, mask = soft_square(invert(matrix.double()), 64, 40, 40)
    assert mask.numel() == 0
    assert torch.equal(paste_in_region(image, torch.ones(3, 64, 64), matrix, box, mask), image)


@pytest.mark.parametrize("centre", [(0, 0), (119, 60), (60, 60)])
def test_soft_square_fades_inside_the_square(centre: tuple[float, float]) -> None:
    image = torch.zeros(120, 120, 3)
    matrix = align_matrix(face_at(*centre, 70, 30)[None], "arcface_128", 128)[0]
    backward = invert(matrix.double())
    box, mask = soft_square(backward, 128, 120, 120)
    result = paste_in_region(image, torch.ones(3, 128, 128), matrix, box, mask)[..., 0]
    assert float(result.max()) > 0.99
    y, x = torch.nonzero(result > 0.01, as_tuple=True)
    inside = transform_points(torch.stack([x, y], -1).double(), matrix.double())
    assert bool(((inside > -3) & (inside < 131)).all())


def test_soft_square_obeys_its_sizes() -> None:
    matrix = torch.tensor([[1.0, 0, 20], [0, 1, 20]]).double()
    box, mask = soft_square(matrix, 40, 100, 100, shrink=0, feather=0)
    x1, y1, _, _ = box
    assert int(mask.sum()) == 1600 and float(mask[20 - y1, 20 - x1]) == 1
    _, small = soft_square(matrix, 40, 100, 100, shrink=9, feather=0)
    assert int(small.sum()) == 32 * 32
    _, soft = soft_square(matrix, 40, 100, 100, shrink=9, feather=4)
    assert float(soft.sum()) == pytest.approx(32 * 32, rel=1e-4)
    assert int(((soft > 0.1) & (soft < 0.9)).sum()) > 100


def test_a_picture_of_one_pixel() -> None:
    matrix = torch.tensor([[1.0, 0, 4], [0, 1, 4]])
    result = paste(torch.zeros(1, 1, 3), torch.ones(3, 9, 9), matrix, torch.ones(9, 9))
    assert torch.equal(result, torch.ones(1, 1, 3))
