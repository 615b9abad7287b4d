"""Masks of swapped crops."""

from __future__ import annotations

import pytest
import torch
from likeness_pack.faces.errors import BadMask
from likeness_pack.faces.masks import box_mask
from likeness_pack.faces.swap_masks import (
    AREAS,
    area_mask,
    ellipse_mask,
    hull_mask,
    joined_mask,
    occlusion_mask,
    padded_box,
    parse_mask,
    pulled_in,
    region_mask,
)


def test_pulled_in_masks_stay_inside() -> None:
    mask = torch.zeros(1, 64, 64)
    mask[:, 16:48, 16:48] = 1
    soft = pulled_in(mask)
    assert float(soft[mask == 0].max()) < 0.02
    assert float(soft[0, 32, 32]) > 0.95 and 0 < float(soft[0, 20, 32]) < 1
    assert torch.equal(pulled_in(torch.zeros(1, 32, 32)), torch.zeros(1, 32, 32))


def test_hull_of_a_square_a_line_and_a_point() -> None:
    square = torch.tensor([[2, 3], [10, 3], [10, 9], [2, 9], [5, 5]])
    mask = hull_mask(square, 16)
    assert int(mask.sum()) == 9 * 7 and bool(mask[3, 2]) and not bool(mask[2, 2])
    assert int(hull_mask(torch.tensor([[2, 5], [9, 5]]), 16).sum()) == 8
    assert int(hull_mask(torch.tensor([[4, 4], [4, 4]]), 16).sum()) == 1


def test_an_area_lies_around_its_points() -> None:
    points = torch.zeros(68, 2)
    points[48:] = torch.stack([40 + torch.arange(20.0) * 3, 100 + 20 * torch.sin(torch.arange(20.0))], -1)
    mask = area_mask(points, ["mouth"], 128)
    assert float(mask[100, 70]) > 0.5 and float(mask[:60].max()) == 0
    assert set(AREAS) == {"upper-face", "lower-face", "mouth"}


def test_regions_and_occlusion_follow_their_maps() -> None:
    labels = torch.zeros(2, 32, 32).long()
    labels[0, 8:24, 8:24] = 1
    labels[1] = 17
    mask = region_mask(labels, (1,), 128)
    assert mask.shape == (2, 128, 128)
    assert float(mask[0, 64, 64]) > 0.99 and float(mask[1].max()) == 0 and float(mask[0, 10, 10]) == 0
    seen = torch.full((1, 32, 32), 3.0)
    seen[:, :, 16:] = -2
    visible = occlusion_mask(seen, 64)
    assert float(visible[0, 32, 8]) == pytest.approx(1, abs=1e-4) and float(visible[0, :, 40:].max()) == 0


def test_parse_mask_keeps_the_picture_where_hair_is() -> None:
    labels = torch.ones(1, 512, 512).long()
    labels[:, :200] = 17
    mask = parse_mask(labels)
    assert float(mask[0, 60, 256]) < 1e-3 and float(mask[0, 400, 256]) > 0.99
    assert float(mask[0, :, :10].max()) == 0 and float(mask[0, -10:].max()) == 0


def test_ellipse_is_upright() -> None:
    mask = ellipse_mask(256)
    assert float(mask[128, 128]) == pytest.approx(1)
    assert float(mask[128 - 95, 128]) > 0.5 > float(mask[128, 128 - 95])


def test_masks_are_joined_by_their_minimum() -> None:
    first, second = torch.rand(3, 16, 16), torch.rand(1, 16, 16)
    joined = joined_mask(16, 3, [first, None, second], box_mask(16, 0))
    assert torch.equal(joined, torch.minimum(torch.minimum(first, second), box_mask(16, 0)))
    assert torch.equal(joined_mask(8, 2, []), torch.ones(2, 8, 8))
    with pytest.raises(BadMask, match="2 masks"):
        joined_mask(16, 3, [torch.ones(2, 16, 16)])


def test_padding_cuts_its_side() -> None:
    mask = padded_box(100, (10, 20, 30, 40))
    assert mask is not None
    rows, columns = torch.nonzero(mask.amax(1)).flatten(), torch.nonzero(mask.amax(0)).flatten()
    assert (int(rows[0]), int(rows[-1]), int(columns[0]), int(columns[-1])) == (10, 69, 40, 79)
    assert padded_box(100, (0, 0, 0, 0)) is None
    with pytest.raises(BadMask, match="100 percent"):
        padded_box(100, (60, 0, 60, 0))
