"""Masks of users, soft squares, OpenCV's filters, connected parts and the head mask."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from likeness_pack.faces.components import fill_holes, label, largest_solid, outline_area
from likeness_pack.faces.errors import BadMask
from likeness_pack.faces.filters import dilate, erode, float_kernel_size, gaussian_blur, gaussian_kernel
from likeness_pack.faces.masks import as_mask, box_mask, head_mask, head_mask_of_parts, resize


def drawing(*rows: str) -> np.ndarray:
    return np.array([[char == "#" for char in row] for row in rows])


def test_masks_of_every_shape_give_the_same() -> None:
    mask = torch.rand(12, 16, generator=torch.Generator().manual_seed(0))
    for given in (mask, mask[None], mask.expand(3, -1, -1), mask.double()):
        torch.testing.assert_close(as_mask(given, 3, 12, 16), mask.expand(3, -1, -1))


def test_another_size_is_stretched_bilinearly() -> None:
    mask = torch.tensor([[0.0, 1.0]])
    got = as_mask(mask, 2, 1, 4)
    torch.testing.assert_close(got, torch.tensor([0, 0.25, 0.75, 1]).expand(2, 1, 4))
    torch.testing.assert_close(as_mask(mask[None], 2, 1, 4), got)
    assert resize(mask[None], 5, 7).shape == (1, 5, 7)


def test_values_are_clipped_and_types_converted() -> None:
    assert as_mask(torch.tensor([[-1.0, 3.0]]), 1, 1, 2).tolist() == [[[0, 1]]]
    assert as_mask(torch.tensor([[True, False]]), 1, 1, 2).tolist() == [[[1, 0]]]
    assert as_mask(torch.ones(1, 1), 1, 1, 1).shape == (1, 1, 1)


@pytest.mark.parametrize(
    ("shape", "message"),
    [((0, 4), "pixels"), ((1, 4, 0), "pixels"), ((2, 4, 4), "2 masks"), ((1, 1, 4, 4), "shape"), ((4,), "shape")],
)
def test_masks_that_do_not_fit_are_refused(shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(BadMask, match=message):
        as_mask(torch.ones(shape), 3, 4, 4)


def test_nan_in_a_mask_is_refused() -> None:
    with pytest.raises(BadMask, match="NaN"):
        as_mask(torch.full((2, 2), float("nan")), 1, 2, 2)


@pytest.mark.parametrize("size", [1, 2, 3, 4, 7])
def test_morphology_anchors_kernels_at_half_their_size(size: int) -> None:
    point = torch.zeros(15, 15)
    point[7, 7] = 1
    grown = torch.zeros(15, 15)
    low = 7 - (size - 1 - size // 2)
    grown[low : low + size, low : low + size] = 1
    assert torch.equal(dilate(point, size), grown)
    assert torch.equal(erode(1 - point, size), 1 - grown)


def test_the_border_of_the_picture_does_not_erode() -> None:
    assert torch.equal(erode(torch.ones(2, 5, 5), 4), torch.ones(2, 5, 5))


def test_morphology_with_kernels_beyond_the_picture() -> None:
    mask = torch.tensor([[0.0, 1.0, 0.0]])
    assert torch.equal(dilate(mask, 9), torch.ones(1, 3))
    assert torch.equal(erode(mask, 9), torch.zeros(1, 3))


def test_blur_keeps_constants_and_the_sum() -> None:
    assert float((gaussian_blur(torch.ones(2, 6, 5), 31) - 1).abs().max()) < 1e-6
    point = torch.zeros(41, 41)
    point[20, 20] = 1
    blurred = gaussian_blur(point, 15, 2.0)
    assert float(blurred.sum()) == pytest.approx(1, abs=1e-5)
    torch.testing.assert_close(blurred[20], blurred[:, 20])
    assert float(gaussian_blur(torch.full((1, 1), 0.7), 11)[0, 0]) == pytest.approx(0.7)


def test_blur_mirrors_without_repeating_the_edge() -> None:
    row = torch.tensor([[0.0, 1.0, 0.0, 0.0]])
    torch.testing.assert_close(gaussian_blur(row, 3), torch.tensor([[0.5, 0.5, 0.25, 0.0]]))


def test_kernel_sizes_and_sigma() -> None:
    assert [float_kernel_size(sigma) for sigma in (0.5, 1.0, 4.75)] == [5, 9, 39]
    centre = gaussian_kernel(15)
    assert float(centre[7] / centre[8]) == pytest.approx(np.exp(1 / (2 * 2.6**2)), rel=1e-5)


def test_box_mask_pads_top_right_bottom_left() -> None:
    mask = box_mask(100, 0, (10, 20, 30, 40))
    assert torch.nonzero(mask).amin(0).tolist() == [10, 40]
    assert torch.nonzero(mask).amax(0).tolist() == [69, 79]
    soft = box_mask(100, 0.3)
    assert float(soft[50, 50]) == pytest.approx(1)
    assert float(soft[0, 50]) < 0.1 < float(soft[8, 50]) < 0.95
    torch.testing.assert_close(soft, soft.flip(0).flip(1))


def flooded(mask: np.ndarray, diagonal: bool) -> list[frozenset[tuple[int, int]]]:
    """Connected parts by flooding, the plain definition."""
    left, parts = set(zip(*np.nonzero(mask), strict=True)), []
    while left:
        todo = [left.pop()]
        part = set(todo)
        while todo:
            y, x = todo.pop()
            for dy in (-1, 0, 1):
                for dx in (-1, 0, 1):
                    near = (y + dy, x + dx)
                    if near in left and (diagonal or not dy or not dx):
                        left.remove(near)
                        part.add(near)
                        todo.append(near)
        parts.append(frozenset(part))
    return parts


@pytest.mark.parametrize("diagonal", [False, True])
@pytest.mark.parametrize("density", [0.2, 0.5, 0.8])
def test_labels_are_the_flooded_parts(diagonal: bool, density: float) -> None:
    random = np.random.RandomState(0)
    for height, width in ((1, 1), (1, 20), (20, 1), (25, 31)):
        mask = random.rand(height, width) < density
        labels, count = label(mask, diagonal)
        got = [frozenset(zip(*np.nonzero(labels == number), strict=True)) for number in range(1, count + 1)]
        assert set(got) == set(flooded(mask, diagonal))
        assert np.array_equal(labels > 0, mask)


def test_holes_open_only_by_edges() -> None:
    closed = drawing(".##.", "#..#", "#..#", ".##.")
    assert np.array_equal(fill_holes(closed), drawing(".##.", "####", "####", ".##."))
    opened = drawing(".##.", "#..#", "....", ".##.")
    assert np.array_equal(fill_holes(opened), opened)


def test_outline_area_is_that_of_the_polygon_through_centres() -> None:
    assert outline_area(drawing("####", "####", "####")) == 6
    assert outline_area(drawing(".#.", "###", ".#.")) == 2
    assert outline_area(drawing("#####")) == 0


def test_the_largest_outline_wins_not_the_most_pixels() -> None:
    picture = np.zeros((40, 60), dtype=bool)
    picture[2:17, 2:17] = True
    picture[5:38, 22], picture[5:38, 58] = True, True
    picture[5, 22:59], picture[37, 22:59] = True, True
    solid = largest_solid(picture)
    assert int(picture[:, 22:].sum()) < int(picture[:, :22].sum())
    assert solid[5:38, 22:59].all() and int(solid.sum()) == 33 * 37


def test_part_in_a_hole_belongs_to_the_filled_outline() -> None:
    picture = np.pad(np.zeros((9, 9), dtype=bool), 1, constant_values=True)
    picture[5, 5] = True
    assert largest_solid(picture).all()


def test_nothing_is_the_largest_part_of_nothing() -> None:
    assert not largest_solid(np.zeros((3, 4), dtype=bool)).any()
    assert largest_solid(np.ones((1, 1), dtype=bool)).all()


def parts(size: int = 100) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    face, hair, human = torch.zeros(3, size, size)
    face[40:80, 35:65] = 1
    face[55:58, 45:50] = 0
    hair[20:38, 30:70] = 1
    hair[2:5, 2:5] = 1
    human[15:, 10:90] = 1
    return face, hair, human


def test_head_mask_joins_fills_and_drops() -> None:
    face, hair, human = parts()
    mask = head_mask_of_parts(face, hair, human)
    assert set(mask.unique().tolist()) == {0.0, 1.0}
    assert float(mask[56, 47]) == 1, "a hole in the face is filled"
    assert float(mask[3, 3]) == 0, "hair elsewhere is dropped"
    assert float(mask[25, 50]) == 0, "hair two rows away stays apart: the kernel is one pixel here"
    hair[38:40, 40:60] = 1
    assert float(head_mask_of_parts(face, hair, human)[25, 50]) == 1


def test_head_mask_takes_the_largest_sure_candidate_of_each_label() -> None:
    face, hair, human = parts()
    small = torch.zeros(100, 100)
    small[50:52, 50:52] = 1
    candidates = torch.stack([small, face, torch.ones(100, 100), hair, human])
    labels = ["Face", "Face", "Face", "Hair", "Human"]
    got = head_mask(candidates, labels, [0.99, 0.9, 0.8, 0.9, 0.9])
    assert torch.equal(got, head_mask_of_parts(face, hair, human))
    got = head_mask(candidates, labels, [0.99, 0.1, 0.1, 0.1, 0.9])
    assert torch.equal(got, small)


def test_head_mask_without_a_person_says_so() -> None:
    with pytest.raises(BadMask, match="Human.*found Face 0.90, Human 0.80"):
        head_mask(torch.ones(2, 4, 4), ["Face", "Human"], [0.9, 0.8])
    with pytest.raises(BadMask, match="no part"):
        head_mask(torch.ones(0, 4, 4), [], [])
