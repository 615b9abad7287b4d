"""Attributes from few labelled faces: closed form against brute force, honesty with few faces, refusals, the node."""

from __future__ import annotations

import pytest
import torch
from likeness_pack.adapters.errors import IdentityMismatch
from likeness_pack.adapters.identity import Identity
from likeness_pack.training import few_shot
from likeness_pack.training.few_shot import BadLabels, attributes_text, best_labels, parse_labels, train_head


def identity(rows, encoder="flr_r50"):
    return Identity(encoder, {"embedding": rows.float()})


def faces(labels, width=64, distance=3.0, seed=0):
    """Features that differ by label in one direction and by chance in all others."""
    generator = torch.Generator().manual_seed(seed)
    kinds = sorted(set(labels))
    axes = torch.eye(width)[: len(kinds)] * distance
    rows = torch.stack([axes[kinds.index(label)] for label in labels])
    return identity(rows + torch.randn(len(labels), width, generator=generator) * 0.4 + 1.0)


FIVE = ["smile", "calm", "smile", "calm", "smile"]


def test_five_faces_make_a_classifier():
    head = train_head(faces(FIVE), FIVE)
    assert head.classes == ("smile", "calm") and head.right == 5 and head.left_out == tuple(FIVE)
    others = ["calm", "smile", "smile", "calm", "calm", "smile"]
    probabilities = head.probabilities(faces(others, seed=9))
    assert [label for label, _ in best_labels(head, probabilities)] == others
    assert torch.allclose(probabilities.sum(dim=1), torch.ones(6))
    # Five faces are no ground for certainty.
    assert 0.6 < float(probabilities.max()) < 0.99


def test_three_labels_with_uneven_counts():
    labels = ["young"] * 9 + ["old"] * 2 + ["middle"] * 4
    head = train_head(faces(labels), labels)
    others = ["old", "young", "middle"] * 5
    found = best_labels(head, head.probabilities(faces(others, seed=3)))
    assert [label for label, _ in found] == others


def test_more_faces_give_more_certainty():
    few, many = ["a", "b"] * 3, ["a", "b"] * 30
    tops = [float(train_head(faces(one), one).probabilities(faces(few, seed=5)).amax(1).mean()) for one in (few, many)]
    assert tops[0] + 0.05 < tops[1]


def test_noise_is_told_to_be_noise():
    labels = ["a", "b"] * 4
    rows = torch.randn(8, 200, generator=torch.Generator().manual_seed(2))
    head = train_head(identity(rows), labels)
    text = attributes_text(head, labels, head.probabilities(identity(rows)))
    assert head.right <= 6
    assert ("no better than guessing" in text) == (head.right <= 4)
    same = train_head(identity(torch.ones(8, 5)), labels)
    assert torch.allclose(same.probabilities(identity(torch.ones(1, 5))), torch.full((1, 2), 0.5))
    assert "no better than guessing" in attributes_text(same, labels, torch.zeros(0, 2))


@pytest.mark.parametrize("width", [3, 40])
def test_closed_form_is_the_ridge_with_each_face_left_out(width, monkeypatch):
    labels = ["a", "b", "a", "c", "b", "c", "a"]
    monkeypatch.setattr(few_shot, "_PENALTIES", torch.tensor([0.37], dtype=torch.float64))
    captured = []
    real = few_shot._left_out
    monkeypatch.setattr(few_shot, "_left_out", lambda *arguments: captured.append(real(*arguments)) or captured[-1])
    people = faces(labels, width=width, distance=1.0)
    head = train_head(people, labels)

    rows = torch.nn.functional.normalize(people.features["embedding"].double(), dim=1)
    targets = torch.tensor([[float(label == name) for name in "abc"] for label in labels], dtype=torch.float64)
    share = torch.tensor([1 / (3 * labels.count(label)) for label in labels], dtype=torch.float64)
    centre = share @ rows
    penalty = 0.37 * float(share @ (rows - centre).square().sum(1)) / len(labels)

    def ridge(chosen):
        ones = torch.cat([rows[chosen], torch.ones(len(chosen), 1, dtype=torch.float64)], dim=1)
        weighted = ones * share[chosen, None]
        square = ones.T @ weighted + penalty * torch.diag(torch.tensor([1.0] * width + [0.0], dtype=torch.float64))
        return torch.linalg.solve(square, weighted.T @ targets[chosen])

    whole = ridge(list(range(7)))
    assert torch.allclose(head.weight.T, whole[:-1], atol=1e-9)
    assert torch.allclose(head.bias - head.mean @ head.weight.T, whole[-1], atol=1e-9)
    for number in range(7):
        solved = ridge([other for other in range(7) if other != number])
        assert torch.allclose(captured[0][number], rows[number] @ solved[:-1] + solved[-1], atol=1e-9)


def test_the_same_faces_give_the_same_head_and_order_does_not_matter():
    people = faces(FIVE)
    first, second = train_head(people, FIVE), train_head(people, FIVE)
    assert torch.equal(first.weight, second.weight) and first.sharpness == second.sharpness
    turned = [4, 2, 0, 3, 1]
    other = train_head(identity(people.features["embedding"][turned]), [FIVE[number] for number in turned])
    seen = faces(FIVE, seed=8)
    assert torch.allclose(first.probabilities(seen), other.probabilities(seen), atol=1e-6)


def test_length_of_a_feature_decides_nothing():
    head = train_head(faces(FIVE), FIVE)
    seen = faces(FIVE, seed=4).features["embedding"]
    assert torch.allclose(head.probabilities(identity(seen)), head.probabilities(identity(seen * 50)), atol=1e-6)


def test_pictures_without_a_face_get_no_label():
    head = train_head(faces(FIVE), FIVE)
    rows = faces(FIVE, seed=4).features["embedding"].clone()
    rows[1] = 0
    probabilities = head.probabilities(identity(rows))
    assert torch.isnan(probabilities[1]).all() and torch.isfinite(probabilities[0]).all()
    assert best_labels(head, probabilities)[1] == ("", 0.0)
    assert "face 1: no face" in attributes_text(head, FIVE, probabilities)


@pytest.mark.parametrize(
    ("labels", "reason"),
    [
        (["a", "b", "a", "b"], "5 or more.*a: 2, b: 2"),
        (["a"] * 5, "at least two labels"),
        (["a", "a", "a", "a", "b"], "2 or more faces of each.*b: 1"),
    ],
)
def test_too_few_labelled_faces_are_refused(labels, reason):
    with pytest.raises(BadLabels, match=reason):
        train_head(faces(labels), labels)


def test_other_refusals():
    with pytest.raises(BadLabels, match="one for each of the 5 labelled faces, found 4"):
        train_head(faces(FIVE), FIVE[:4])
    rows = faces(FIVE).features["embedding"].clone()
    rows[3] = 0
    with pytest.raises(IdentityMismatch, match="none in rows 3"):
        train_head(identity(rows), FIVE)
    head = train_head(faces(FIVE), FIVE)
    with pytest.raises(IdentityMismatch, match="encoder flr_r50.*dlib_resnet, 64"):
        head.probabilities(Identity("dlib_resnet", dict(faces(FIVE).features)))
    with pytest.raises(IdentityMismatch, match="32 numbers"):
        head.probabilities(faces(FIVE, width=32))
    with pytest.raises(IdentityMismatch, match="found tokens"):
        train_head(Identity("flr_r50", {"tokens": torch.zeros(5, 2, 2)}), FIVE)


def test_labels_are_read_from_commas_lines_and_other_alphabets():
    assert parse_labels(" smile, calm\n\nsmile ;  笑顔,") == ["smile", "calm", "smile", "笑顔"]
    assert parse_labels("是，否；是、否") == ["是", "否", "是", "否"]
    assert parse_labels(" \n") == []


def test_the_node_gives_report_and_lists():
    from likeness_pack.nodes.attributes import LikenessFewShotAttributes

    people, others = faces(FIVE), faces(["calm", "smile"], seed=7)
    result = LikenessFewShotAttributes().classify(people, "smile, calm, smile, calm\nsmile", others)
    report, labels, parts = result["result"]
    assert result["ui"]["text"] == [report]
    assert labels == ["calm", "smile"] and all(0.5 < part < 1 for part in parts)
    assert "right when left out: 5 of 5" in report and "face 1: smile" in report
    spec = LikenessFewShotAttributes.INPUT_TYPES()["required"]
    assert list(spec) == ["labelled", "labels", "faces"] and all(options[1]["tooltip"] for options in spec.values())
