"""Areas, overlap, suppression, clipping."""

from __future__ import annotations

import pytest
import torch
from likeness_pack.faces.boxes import area, box_of_points, clip, iou, nms, scale, square

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


def test_nms_equals_its_plain_definition() -> None:
    generator = torch.Generator().manual_seed(0)
    corner = torch.rand(60, 2, generator=generator) * 80
    boxes = torch.cat([corner, corner + 5 + torch.rand(60, 2, generator=generator) * 40], 1)
    scores = torch.rand(60, generator=generator)
    overlap, kept = iou(boxes, boxes), []
    for index in torch.argsort(scores, descending=True).tolist():
        if all(float(overlap[index, other]) <= 0.3 for other in kept):
            kept.append(index)
    assert nms(boxes, scores, 0.3).tolist() == kept
    assert 1 < len(kept) < 60


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
