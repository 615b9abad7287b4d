"""Areas, overlap, suppression, clipping."""

from __future__ import annotations

import pytest
import torch
from likeness_pack.faces.boxes import Overlap, area, box_of_points, clip, iou, nms, scale, square
from torch import Tensor

BOXES = torch.tensor([[0.0, 0, 10, 10], [1, 1, 11, 11], [50, 50, 60, 60], [0, 0, 0, 0]])


def test_area_counts_the_last_pixel_where_asked() -> None:
    assert area(BOXES).tolist() == [100, 100, 100, 0]
    assert area(BOXES, inclusive=True).tolist() == [121, 121, 121, 1]
    assert area(torch.tensor([[5.0, 5, 1, 9]])).tolist() == [0]


def test_iou_is_symmetric_and_one_with_itself() -> None:
    overlap = iou(BOXES, BOXES)
    assert torch.equal(overlap, overlap.T)
    assert overlap.diagonal().tolist() == [1, 1, 1, 0]
    assert float(overlap[0, 1]) == pytest.approx(81 / 119)
    assert float(overlap[0, 2]) == 0
    assert float(iou(BOXES, BOXES, inclusive=True)[0, 1]) == pytest.approx(100 / 142)


def test_nms_keeps_the_better_box_best_first() -> None:
    scores = torch.tensor([0.5, 0.9, 0.7, 0.1])
    assert nms(BOXES, scores, 0.4).tolist() == [1, 2, 3]
    assert nms(BOXES, scores, 0.7).tolist() == [1, 2, 0, 3]


def test_nms_of_equal_scores_keeps_the_earlier_and_threshold_is_not_suppressed() -> None:
    same = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 10], [0, 0, 10, 5]])
    assert nms(same, torch.ones(3), 0.5).tolist() == [0, 2]


def slow_nms(boxes: list[list[float]], scores: Tensor, threshold: float, smaller: bool, plus: float) -> list[int]:
    kept: list[int] = []
    for index in sorted(range(len(boxes)), key=lambda i: -float(scores[i])):
        if all(slow_overlap(boxes[index], boxes[other], smaller, plus) <= threshold for other in kept):
            kept.append(index)
    return kept


def slow_overlap(a: list[float], b: list[float], smaller: bool, plus: float) -> float:
    def covered(low_x: float, low_y: float, high_x: float, high_y: float) -> float:
        return max(0.0, high_x - low_x + plus) * max(0.0, high_y - low_y + plus)

    shared = covered(max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3]))
    areas = covered(*a), covered(*b)
    return shared / (min(areas) if smaller else sum(areas) - shared)


@pytest.mark.parametrize("overlap", ["union", "min"])
@pytest.mark.parametrize("inclusive", [False, True])
def test_nms_equals_its_plain_definition(overlap: Overlap, inclusive: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("likeness_pack.faces.boxes.BLOCK", 16)
    generator = torch.Generator().manual_seed(3)
    low = torch.randint(0, 60, (150, 2), generator=generator).float()
    boxes = torch.cat([low, low + torch.randint(5, 40, (150, 2), generator=generator)], dim=1)
    scores = torch.rand(150, generator=generator)
    kept = nms(boxes, scores, 0.4, overlap=overlap, inclusive=inclusive).tolist()
    assert kept == slow_nms(boxes.tolist(), scores, 0.4, overlap == "min", float(inclusive))
    assert 3 < len(kept) < 100


@pytest.mark.parametrize("overlap", ["union", "min"])
def test_boxes_without_area_overlap_nothing(overlap: Overlap) -> None:
    odd = torch.tensor([[0.0, 0, 10, 10], [10, 10, 0, 0], [3, 3, 3, 3], [5, 2, 1, 9], [3, 3, 3, 3]])
    assert nms(odd, torch.linspace(1, 0, 5), 0.0, overlap=overlap).tolist() == [0, 1, 2, 3, 4]


def test_nothing_gives_nothing() -> None:
    none = torch.zeros(0, 4)
    assert nms(none, torch.zeros(0), 0.4).shape == (0,)
    assert iou(none, BOXES).shape == (0, 4)
    assert clip(none, 5, 5).shape == (0, 4)


def test_clip_scale_square() -> None:
    assert clip(torch.tensor([[-5.0, -5, 30, 30]]), 20, 25).tolist() == [[0, 0, 25, 20]]
    assert scale(torch.tensor([[10.0, 10, 20, 30]]), 2).tolist() == [[5, 0, 25, 40]]
    assert square(torch.tensor([[10.0, 10, 20, 30]])).tolist() == [[5, 10, 25, 30]]


def test_box_of_points() -> None:
    points = torch.tensor([[[3.0, 9], [7, 1], [5, 5]], [[0, 0], [1, 1], [2, -2]]])
    assert box_of_points(points).tolist() == [[3, 1, 7, 9], [0, -2, 2, 1]]
