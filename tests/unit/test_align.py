"""Similarity transforms and the warp through them."""

from __future__ import annotations

import math

import pytest
import torch
from likeness_pack.faces import warp as warp_module
from likeness_pack.faces.align import (
    align_matrix,
    box_matrix,
    centre_matrix,
    compose,
    crop_faces,
    invert,
    rotation,
    template_points,
    transform_points,
    umeyama,
    warp,
)
from likeness_pack.faces.errors import BadLandmarks


def similarity(degrees: float, scale: float, x: float, y: float) -> torch.Tensor:
    a, b = scale * math.cos(math.radians(degrees)), scale * math.sin(math.radians(degrees))
    return torch.tensor([[a, -b, x], [b, a, y]], dtype=torch.float64)


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("degrees", [0, 33, 90, 180, -120])
def test_umeyama_finds_a_known_similarity(degrees: float) -> None:
    truth = similarity(degrees, 2.7, -300, 45)
    source = noise(1, 5, 2).double() * 100
    torch.testing.assert_close(umeyama(source, transform_points(source, truth)), truth[None])


def test_umeyama_never_reflects() -> None:
    source = noise(1, 5, 2).double() * 100
    matrix = umeyama(source, source * torch.tensor([-1.0, 1.0]))
    assert float(torch.linalg.det(matrix[0, :, :2])) > 0


def test_umeyama_is_the_least_squares_solution() -> None:
    source, target = noise(1, 5, 2).double() * 100, noise(1, 5, 2, seed=1).double() * 100
    rows = [[x, -y, 1, 0] for x, y in source[0].tolist()] + [[y, x, 0, 1] for x, y in source[0].tolist()]
    values = torch.cat([target[0, :, 0], target[0, :, 1]])
    a, b, x, y = torch.linalg.lstsq(torch.tensor(rows, dtype=torch.float64), values[:, None]).solution[:, 0]
    torch.testing.assert_close(
        umeyama(source, target)[0], torch.stack([torch.stack([a, -b, x]), torch.stack([b, a, y])])
    )


def test_umeyama_in_a_batch_is_one_by_one_and_keeps_dtype() -> None:
    source, target = noise(7, 5, 2) * 4000, noise(7, 5, 2, seed=1) * 112
    together = umeyama(source, target)
    assert together.dtype == torch.float32
    assert torch.equal(together, torch.cat([umeyama(s[None], t[None]) for s, t in zip(source, target, strict=True)]))
    assert umeyama(source[:0], target[:0]).shape == (0, 2, 3)


def test_points_in_one_place_are_refused() -> None:
    with pytest.raises(BadLandmarks, match="one place"):
        align_matrix(torch.full((1, 5, 2), 7.0), "arcface", 112)


def test_align_matrix_carries_a_moved_template_home() -> None:
    home = template_points("arcface", 112).float()[None]
    away = transform_points(home, similarity(-70, 3, 500, 200))
    torch.testing.assert_close(transform_points(away, align_matrix(away, "arcface", 112)), home, atol=1e-3, rtol=0)


def test_invert_and_compose() -> None:
    matrix = similarity(20, 0.3, 900, -40)
    identity = torch.tensor([[1.0, 0, 0], [0, 1, 0]]).double()
    torch.testing.assert_close(compose(invert(matrix), matrix), identity)
    points = noise(4, 2).double()
    torch.testing.assert_close(transform_points(transform_points(points, matrix), invert(matrix)), points)


IDENTITY = torch.tensor([[[1.0, 0, 0], [0, 1, 0]]])


@pytest.mark.parametrize("padding", ["zeros", "border"])
def test_identity_warp_gives_the_picture_back(padding: str) -> None:
    image = noise(1, 3, 40, 53)
    torch.testing.assert_close(warp(image, IDENTITY, (40, 53), padding), image, atol=1e-5, rtol=0)


def test_whole_pixel_moves_are_slices_and_outside_is_padding() -> None:
    image = noise(1, 3, 20, 30)
    move = torch.tensor([[[1.0, 0, -4], [0, 1, -18]]])
    black, repeated = warp(image, move, 6, "zeros"), warp(image, move, 6, "border")
    torch.testing.assert_close(black[..., :2, :], image[..., 18:20, 4:10], atol=1e-5, rtol=0)
    assert float(black[..., 3:, :].abs().max()) == 0
    torch.testing.assert_close(repeated[..., 5, :], image[..., 19, 4:10], atol=1e-5, rtol=0)


def test_half_pixel_moves_are_means_and_fade_at_the_rim_like_a_constant_border() -> None:
    image = noise(1, 1, 1, 8)
    half = torch.tensor([[[1.0, 0, 0.5], [0, 1, 0]]])
    crop = warp(image, half, (1, 9), "zeros")[0, 0, 0]
    row = torch.nn.functional.pad(image[0, 0, 0], (1, 1))
    torch.testing.assert_close(crop, (row[:-1] + row[1:]) / 2, atol=1e-6, rtol=0)
    crop = warp(image, half, (1, 9), "border")[0, 0, 0]
    assert float((crop[0] - image[0, 0, 0, 0]).abs()) < 1e-6


def test_positions_hold_in_large_pictures() -> None:
    ramp = torch.arange(8192, dtype=torch.float32).expand(1, 1, 2, -1)
    move = torch.tensor([[[1.0, 0, -8000.25], [0, 1, 0]]])
    expected = torch.arange(64) + 8000.25
    assert float((warp(ramp, move, (1, 64))[0, 0, 0] - expected).abs().max()) < 2e-3


@pytest.mark.parametrize("padding", ["zeros", "border"])
def test_a_picture_of_one_pixel(padding: str) -> None:
    crop = warp(torch.full((1, 3, 1, 1), 0.8), IDENTITY, 3, padding)
    assert float(crop[0, 0, 0, 0]) == pytest.approx(0.8)
    assert float(crop[0, 0, 2, 2]) == pytest.approx(0.8 if padding == "border" else 0)


def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    images = noise(5, 3, 24, 24)
    matrices = torch.stack([similarity(10 * n, 1 + n / 5, n, -n) for n in range(5)])
    whole = warp(images, matrices, 16)
    monkeypatch.setattr(warp_module, "_CHUNK_VALUES", 1)
    assert torch.equal(warp(images, matrices, 16), whole)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_warp_keeps_dtype(dtype: torch.dtype) -> None:
    image = noise(1, 3, 16, 16)
    crop = warp(image.to(dtype), similarity(30, 1.5, 2, -3)[None], 12)
    assert crop.dtype == dtype
    torch.testing.assert_close(crop.float(), warp(image, similarity(30, 1.5, 2, -3)[None], 12), atol=1e-2, rtol=0)


def test_gradients_flow_to_the_picture() -> None:
    image = noise(1, 3, 16, 16).requires_grad_()
    warp(image, similarity(30, 1, 0, 0)[None], 8).sum().backward()
    assert image.grad is not None and float(image.grad.abs().sum()) > 0


def test_crop_faces_in_a_batch_is_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    images = noise(3, 60, 80, 3)
    index = torch.tensor([2, 0, 2, 1])
    home = template_points("arcface", 112).float()
    moves = torch.stack([similarity(40 * n, 0.3, 20 + n, 10) for n in range(4)])
    faces = transform_points(home.expand(4, 5, 2), moves)
    crops = crop_faces(images, index, faces, "arcface", 112)
    assert crops.shape == (4, 3, 112, 112)
    singly = [
        crop_faces(images[i : i + 1], torch.zeros(1).long(), f[None], "arcface", 112)
        for i, f in zip(index, faces, strict=True)
    ]
    assert torch.equal(crops, torch.cat(singly))
    monkeypatch.setattr(warp_module, "_CHUNK_VALUES", 1)
    assert torch.equal(crop_faces(images, index, faces, "arcface", 112), crops)


def test_no_faces_give_no_crops() -> None:
    crops = crop_faces(noise(2, 8, 8, 3), torch.zeros(0).long(), torch.zeros(0, 5, 2), "arcface", 112)
    assert crops.shape == (0, 3, 112, 112)


def test_box_matrix_puts_the_corners_on_the_crop() -> None:
    boxes = torch.tensor([[10.0, 20, 50, 100], [-5, 0, 5, 30]])
    corners = transform_points(boxes.reshape(2, 2, 2), box_matrix(boxes, 64))
    torch.testing.assert_close(corners, torch.tensor([[[0.0, 0], [64, 64]]]).expand(2, 2, 2))


def test_centre_matrix_puts_the_centre_in_the_middle() -> None:
    matrix = centre_matrix((160.5, 121), 96, 0.7, 20)
    torch.testing.assert_close(
        transform_points(torch.tensor([[160.5, 121]]).double(), matrix), torch.full((1, 2), 48.0).double()
    )
    assert float(torch.linalg.det(matrix[:, :2])) == pytest.approx(0.49)


@pytest.mark.parametrize("degrees", [0, 30, 90, 180, 270])
def test_rotation_keeps_the_whole_picture(degrees: float) -> None:
    matrix, (width, height) = rotation(degrees, 320, 240)
    corners = transform_points(torch.tensor([[0.0, 0], [320, 0], [320, 240], [0, 240]]).double(), matrix)
    low, high = corners.amin(0), corners.amax(0)
    assert bool((low.abs() < 1e-6).all())
    assert abs(float(high[0]) - width) < 1 and abs(float(high[1]) - height) < 1


def test_rotation_turns_anticlockwise() -> None:
    matrix, size = rotation(90, 320, 240)
    assert size == (240, 320)
    torch.testing.assert_close(
        transform_points(torch.tensor([[320.0, 0]]).double(), matrix), torch.zeros(1, 2).double(), atol=1e-6, rtol=0
    )
