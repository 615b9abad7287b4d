"""Masks on the token grids of a UNet: the right cells, each grid made once, one sentence for what does not fit."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from likeness_pack.faces.errors import BadMask
from likeness_pack.inject.masks import LatentMask, acting_mask, frame_window, token_grid
from torch import Tensor


def latent(height: int, width: int, **more: Any) -> dict[str, Any]:
    return {"original_shape": [2, 4, height, width], **more}


def tokens(rows: int, count: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.zeros(rows, count, 16, dtype=dtype)


def left_half(height: int = 64, width: int = 96) -> Tensor:
    mask = torch.zeros(height, width)
    mask[:, : width // 2] = 1.0
    return mask


@pytest.mark.parametrize(
    ("size", "count", "grid"),
    [
        ((64, 96), 64 * 96, (64, 96)),
        ((64, 96), 32 * 48, (32, 48)),
        ((64, 96), 8 * 12, (8, 12)),
        # Odd sizes are halved upwards, as convolutions of stride 2 with padding do.
        ((65, 91), 33 * 46, (33, 46)),
        ((65, 91), 17 * 23, (17, 23)),
        ((65, 91), 9 * 12, (9, 12)),
        ((1, 8), 1 * 4, (1, 4)),
        ((2, 2), 1, (1, 1)),
    ],
)
def test_grids_are_found(size: tuple[int, int], count: int, grid: tuple[int, int]) -> None:
    assert token_grid(latent(*size), count) == grid


@pytest.mark.parametrize(
    ("extra", "count"), [(latent(64, 96), 1000), (latent(64, 96), 64 * 96 + 1), ({}, 64), (latent(4, 4), 0)]
)
def test_a_grid_that_cannot_be_is_told(extra: dict[str, Any], count: int) -> None:
    with pytest.raises(BadMask, match="remove the mask"):
        token_grid(extra, count)


@pytest.mark.parametrize("level", [0, 1, 2, 3])
def test_a_half_picture_is_the_same_half_of_every_grid(level: int) -> None:
    height, width = 8 * 8 >> level, 12 * 8 >> level
    rows = LatentMask(left_half(512, 768)).rows(tokens(2, height * width), 2, latent(64, 96))
    grid = rows.reshape(height, width)
    assert torch.equal(grid, left_half(height, width))


def test_values_are_those_of_the_picture_between_pixels() -> None:
    ramp = torch.linspace(0, 1, 64).expand(64, 64)
    grid = LatentMask(ramp).rows(tokens(1, 64), 1, latent(8, 8)).reshape(8, 8)
    assert torch.equal(grid[0], grid[-1])
    assert torch.allclose(grid[0], torch.linspace(3.5, 59.5, 8) / 63, atol=1e-6)


def test_each_grid_is_made_once() -> None:
    mask = LatentMask(left_half())
    assert mask.rows(tokens(2, 64), 2, latent(8, 8)) is mask.rows(tokens(2, 64), 2, latent(8, 8))
    assert mask.rows(tokens(2, 64, torch.bfloat16), 2, latent(8, 8)).dtype == torch.bfloat16
    assert mask.rows(tokens(2, 64), 2, latent(8, 8)).dtype == torch.float32


def test_two_shapes_of_the_same_number_of_tokens_do_not_meet() -> None:
    mask = LatentMask(left_half())
    wide = mask.rows(tokens(1, 64), 1, latent(4, 16)).reshape(4, 16)
    tall = mask.rows(tokens(1, 64), 1, latent(16, 4)).reshape(16, 4)
    assert torch.equal(wide, left_half(4, 16))
    assert torch.equal(tall, left_half(16, 4))


def test_one_mask_serves_a_batch_and_several_go_row_by_row() -> None:
    one = LatentMask(left_half()).rows(tokens(6, 64), 2, latent(8, 8))
    assert one.shape == (1, 64, 1)
    stack = torch.stack([torch.full((8, 8), value) for value in (0.25, 0.5, 0.75)])
    rows = LatentMask(stack).rows(tokens(6, 64), 2, latent(8, 8))
    assert rows.shape == (6, 64, 1)
    # Chunks stand one behind the other, so that the masks repeat in whole.
    assert rows[:, 0, 0].tolist() == [0.25, 0.5, 0.75, 0.25, 0.5, 0.75]


def test_a_number_of_masks_that_fits_nothing_is_told() -> None:
    with pytest.raises(BadMask, match=r"each of the 3 pictures.*found 2 masks"):
        LatentMask(torch.ones(2, 8, 8)).rows(tokens(6, 64), 2, latent(8, 8))


@pytest.mark.parametrize(
    "extra",
    [{"context_window": SimpleNamespace(index_list=[2, 0])}, {"ad_params": {"sub_idxs": [2, 0]}}],
)
def test_a_window_of_frames_takes_its_own_masks(extra: dict[str, Any]) -> None:
    stack = torch.stack([torch.full((8, 8), value) for value in (0.25, 0.5, 0.75)])
    mask = LatentMask(stack)
    rows = mask.rows(tokens(4, 64), 2, latent(8, 8, **extra))
    assert rows[:, 0, 0].tolist() == [0.75, 0.25, 0.75, 0.25]
    assert mask.rows(tokens(6, 64), 2, latent(8, 8))[:3, 0, 0].tolist() == [0.25, 0.5, 0.75]
    (name,) = extra
    other = {name: {"sub_idxs": [1, 2]} if name == "ad_params" else SimpleNamespace(index_list=[1, 2])}
    assert mask.rows(tokens(4, 64), 2, latent(8, 8, **other))[:, 0, 0].tolist() == [0.5, 0.75, 0.5, 0.75]


def test_no_window_is_no_window() -> None:
    assert frame_window({}) is None
    assert frame_window({"context_window": None, "ad_params": {"sub_idxs": None}}) is None


@pytest.mark.parametrize(
    ("mask", "words"),
    [
        (torch.zeros(0, 8), "at least one pixel"),
        (torch.zeros(1, 8, 0), "at least one pixel"),
        (torch.zeros(1, 1, 8, 8), r"shape \(1, 1, 8, 8\)"),
        (torch.full((8, 8), float("nan")), "not finite"),
        (torch.full((8, 8), float("inf")), "not finite"),
    ],
)
def test_a_mask_of_no_use_is_told(mask: Tensor, words: str) -> None:
    with pytest.raises(BadMask, match=words):
        LatentMask(mask)


def test_a_mask_that_hides_everything_is_told() -> None:
    """A photo without transparency gives such a mask, and an identity would silently have no effect."""
    for mask in (torch.zeros(1, 64, 64), torch.full((2, 8, 8), -1.0)):
        with pytest.raises(BadMask, match=r"white somewhere, found one that is black everywhere"):
            acting_mask(mask, 1.0)
    some_frames = torch.stack([torch.zeros(8, 8), torch.full((8, 8), 0.01)])
    for mask, strength in ((torch.zeros(8, 8), 0.0), (some_frames, 1.0)):
        made = acting_mask(mask, strength)
        assert made is not None and made.digest == LatentMask(mask).digest
    assert acting_mask(None, 1.0) is None


def test_values_outside_are_clamped_and_the_users_mask_is_not_changed() -> None:
    mask = torch.tensor([[-1.0, 2.0]])
    assert LatentMask(mask).rows(tokens(1, 2), 1, latent(1, 2)).flatten().tolist() == [0.0, 1.0]
    assert mask.tolist() == [[-1.0, 2.0]]


def test_equal_masks_have_equal_digests() -> None:
    assert LatentMask(left_half()).digest == LatentMask(left_half().clone()[None]).digest
    assert LatentMask(left_half()).digest != LatentMask(1 - left_half()).digest
    assert LatentMask(torch.zeros(2, 8)).digest != LatentMask(torch.zeros(8, 2)).digest
