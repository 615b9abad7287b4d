"""Colour transfer of swapped crops."""

from __future__ import annotations

import pytest
import torch
from likeness_pack.faces.colour_transfer import (
    TRANSFERS,
    equalised,
    lab_to_rgb,
    local,
    reinhard,
    rgb_to_lab,
    shrunk,
    transfer,
    working_sizes,
)
from likeness_pack.faces.errors import BadImage


def crops(seed: int = 0, count: int = 2, size: int = 64) -> torch.Tensor:
    small = torch.rand(count, 3, 8, 8, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.interpolate(small, (size, size), mode="bilinear") * 0.6 + 0.2


def test_lab_of_known_colours() -> None:
    colours = torch.tensor([[1.0, 1, 1], [0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]])[:, :, None, None]
    expected = torch.tensor(
        [[100.0, 0, 0], [0, 0, 0], [53.24, 80.09, 67.20], [87.73, -86.18, 83.18], [32.30, 79.19, -107.86]]
    )
    torch.testing.assert_close(rgb_to_lab(colours)[..., 0, 0], expected, atol=0.05, rtol=0)


def test_lab_goes_there_and_back() -> None:
    images = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(lab_to_rgb(rgb_to_lab(images)), images, atol=1e-4, rtol=0)


def test_reinhard_brings_mean_and_spread_inside_the_mask() -> None:
    swapped, wanted = crops(0), crops(1) * 0.7 + 0.2
    masks = torch.zeros(2, 64, 64)
    masks[:, 16:48, 16:48] = 1
    found, target = rgb_to_lab(reinhard(swapped, wanted, masks)), rgb_to_lab(wanted)
    inner = (slice(None), slice(None), slice(16, 48), slice(16, 48))
    torch.testing.assert_close(found[inner].mean((2, 3)), target[inner].mean((2, 3)), atol=1.0, rtol=0)
    torch.testing.assert_close(found[inner].std((2, 3)), target[inner].std((2, 3)), atol=1.0, rtol=0)


def test_an_empty_mask_measures_the_whole_crop_and_flat_crops_stay_finite() -> None:
    swapped, wanted = crops(0), crops(1)
    assert torch.equal(reinhard(swapped, wanted, torch.zeros(2, 64, 64)), reinhard(swapped, wanted))
    flat = reinhard(torch.full((1, 3, 8, 8), 0.5), torch.full((1, 3, 8, 8), 0.25))
    torch.testing.assert_close(flat, torch.full((1, 3, 8, 8), 0.25), atol=1e-3, rtol=0)


@pytest.mark.parametrize("method", [name for name in TRANSFERS if name != "none"])
def test_every_method_brings_the_mean_nearer_and_leaves_equal_crops(method: str) -> None:
    swapped, wanted = crops(0), (crops(0) * 0.7 + 0.2).flip(1)
    found = transfer(swapped, wanted, method)  # type: ignore[arg-type]
    assert found.shape == swapped.shape and float(found.min()) >= 0 and float(found.max()) <= 1
    before, after = (float((one - wanted).mean((2, 3)).abs().mean()) for one in (swapped, found))
    assert after < 0.25 * before
    torch.testing.assert_close(transfer(swapped, swapped, method), swapped, atol=2e-3, rtol=0)  # type: ignore[arg-type]
    half = transfer(swapped, wanted, method, 0.5)  # type: ignore[arg-type]
    torch.testing.assert_close(half, swapped.lerp(found, 0.5), atol=1e-5, rtol=0)


def test_nothing_asked_is_the_same_object() -> None:
    swapped = crops()
    assert transfer(swapped, crops(1), "none") is swapped
    assert transfer(swapped, crops(1), "reinhard", 0.0) is swapped
    with pytest.raises(BadImage, match="reinhard"):
        transfer(swapped, crops(1), "histogram")  # type: ignore[arg-type]


def test_shrinking_takes_the_mean_of_what_a_pixel_covers() -> None:
    images = torch.arange(36.0).reshape(1, 1, 6, 6)
    assert torch.equal(shrunk(images, 3), torch.nn.functional.avg_pool2d(images, 2))
    thirds = shrunk(torch.tensor([0.0, 3.0, 6.0]).expand(1, 1, 3, 3), 2)
    torch.testing.assert_close(thirds[0, 0, 0], torch.tensor([1.0, 5.0]))
    torch.testing.assert_close(shrunk(images, 5).mean(), images.mean())


def test_local_differences_rise_in_size_and_keep_detail() -> None:
    assert working_sizes(64) == [16, 32, 48]
    grain = (torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(5)) - 0.5) * 0.1
    swapped = crops(0, 1) + grain
    wanted = crops(0, 1) * 0.8
    torch.testing.assert_close(equalised(wanted, swapped, 16).mean((2, 3)), wanted.mean((2, 3)), atol=5e-3, rtol=0)
    found = local(swapped, wanted)
    detail = found - torch.nn.functional.avg_pool2d(found, 3, 1, 1)
    assert float((detail * grain).mean()) > 0.25 * float(grain.square().mean())
