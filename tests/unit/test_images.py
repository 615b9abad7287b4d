"""The checks of pictures."""

from __future__ import annotations

import pytest
import torch
from likeness_pack.faces.errors import BadImage
from likeness_pack.faces.images import as_rgb


def test_rgb_comes_back_as_it_is() -> None:
    images = torch.rand(2, 4, 5, 3)
    assert as_rgb(images) is images


def test_values_outside_0_1_are_kept() -> None:
    images = torch.tensor([-0.5, 0.5, 1.5]).expand(1, 2, 2, 3)
    assert torch.equal(as_rgb(images), images)


def test_grey_is_repeated() -> None:
    grey = torch.rand(2, 4, 5, 1)
    assert torch.equal(as_rgb(grey), torch.cat([grey] * 3, -1))


def test_alpha_is_flattened_over_black() -> None:
    images = torch.rand(2, 4, 5, 4)
    assert torch.equal(as_rgb(images), images[..., :3] * images[..., 3:])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_floats_become_float32(dtype: torch.dtype) -> None:
    assert as_rgb(torch.rand(1, 2, 2, 3).to(dtype)).dtype == torch.float32


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64, torch.bool])
def test_whole_numbers_are_refused_with_the_cure(dtype: torch.dtype) -> None:
    with pytest.raises(BadImage, match="divide 8-bit pixels by 255"):
        as_rgb(torch.ones(1, 2, 2, 3, dtype=dtype))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_pixels_that_are_not_finite_name_the_picture(value: float) -> None:
    images = torch.rand(3, 4, 5, 3)
    images[2, 1, 1, 0] = value
    with pytest.raises(BadImage, match="photo number 2.*NaN or infinity"):
        as_rgb(images, "photo")


@pytest.mark.parametrize("shape", [(0, 4, 4, 3), (1, 0, 4, 3), (1, 4, 0, 3)])
def test_empty_pictures_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(BadImage, match="empty picture"):
        as_rgb(torch.zeros(shape))


@pytest.mark.parametrize("shape", [(4, 4, 3), (4, 4), (1, 3, 4, 4, 3), (1, 4, 4, 2), (1, 3, 4, 8), (1, 4, 4, 0)])
def test_other_shapes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(BadImage, match="channels"):
        as_rgb(torch.zeros(shape))


def test_what_is_no_picture_is_refused() -> None:
    with pytest.raises(BadImage, match="NoneType"):
        as_rgb(None)
