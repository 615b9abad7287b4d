"""Choosing faces, and the arithmetic of embeddings it rests on."""

from __future__ import annotations

import pytest
import torch
from likeness_pack.faces import embeddings as arithmetic
from likeness_pack.faces.errors import FaceChoice
from likeness_pack.faces.select import (
    ORDERS,
    choose,
    choose_in_batch,
    filter_age,
    filter_gender,
    nearest_face,
    order_faces,
    parse_indices,
    rank_by_similarity,
)
from likeness_pack.faces.types import FaceBatch, Faces

FACES = Faces(
    boxes=torch.tensor([[50.0, 40, 70, 60], [10, 60, 60, 110], [30, 20, 40, 30]]),
    landmarks5=torch.arange(30).reshape(3, 5, 2).float(),
    scores=torch.tensor([0.9, 0.7, 0.8]),
    embeddings=torch.tensor([[3.0, 0, 0], [3, 4, 0], [0, 0, 2]]),
)


def batch(*images: Faces) -> FaceBatch:
    return FaceBatch(images, (120, 120), "user")


@pytest.mark.parametrize(
    ("order", "expected"),
    [
        ("largest", [1, 0, 2]),
        ("smallest", [2, 0, 1]),
        ("left-right", [1, 2, 0]),
        ("right-left", [0, 2, 1]),
        ("top-bottom", [2, 0, 1]),
        ("bottom-top", [1, 0, 2]),
        ("best score", [0, 2, 1]),
        ("worst score", [1, 2, 0]),
    ],
)
def test_orders(order: str, expected: list[int]) -> None:
    assert order in ORDERS
    assert order_faces(FACES, order) == expected


@pytest.mark.parametrize("order", ORDERS)
def test_equal_faces_keep_their_places(order: str) -> None:
    same = Faces(torch.tensor([[0.0, 0, 5, 5]]).expand(6, 4), torch.zeros(6, 5, 2), torch.ones(6))
    assert order_faces(same, order) == [0, 1, 2, 3, 4, 5]
    assert order_faces(Faces.none(), order) == []


def test_unknown_order_lists_the_orders() -> None:
    with pytest.raises(FaceChoice, match="left-right"):
        order_faces(FACES, "loudest")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", [0, 1, 2, 3]),
        ("  ", [0, 1, 2, 3]),
        ("2", [2]),
        ("0,2", [0, 2]),
        ("1-3", [1, 2, 3]),
        ("3, 0-1 ,3", [3, 0, 1, 3]),
        ("３，０－１、２", [3, 0, 1, 2]),
    ],
)
def test_lists_of_numbers(text: str, expected: list[int]) -> None:
    assert parse_indices(text, 4) == expected


@pytest.mark.parametrize("text", ["a", "-1", "1-", "2-1", "1.5", "0;1", "1--2", "²", "0-9999999999", "9" * 5000])
def test_what_is_no_list_of_numbers(text: str) -> None:
    with pytest.raises(FaceChoice, match="rising ranges"):
        parse_indices(text, 4)


@pytest.mark.parametrize(
    ("count", "message"), [(0, "this one has 0"), (1, "there is 1 face"), (3, "there are 3 faces")]
)
def test_a_number_beyond_the_faces_says_how_many_there_are(count: int, message: str) -> None:
    with pytest.raises(FaceChoice, match=message):
        parse_indices("0-5", count)


def test_a_huge_range_is_refused_quickly() -> None:
    with pytest.raises(FaceChoice, match="there are 3 faces"):
        parse_indices("0-999999999", 3)


def test_choose_orders_first_and_takes_everything_along() -> None:
    chosen = choose(FACES, "left-right", "2,0")
    assert chosen.scores.tolist() == pytest.approx([0.9, 0.7])
    assert torch.equal(chosen.landmarks5, FACES.landmarks5[[0, 1]])
    assert chosen.embeddings is not None and torch.equal(chosen.embeddings, FACES.embeddings[[0, 1]])
    assert len(choose(Faces.none())) == 0


def test_batches_stop_at_the_picture_that_lacks_a_face() -> None:
    with pytest.raises(FaceChoice, match="image 1.*this one has 0"):
        choose_in_batch(batch(FACES, Faces.none(), FACES), indices="0")


def test_batches_keep_every_picture_and_say_what_was_lacking() -> None:
    got = choose_in_batch(batch(FACES, Faces.none(), FACES.take([0])), indices="0,2", on_missing_face="keep")
    assert got.counts == (2, 0, 1)
    assert got.notes == ("faces 0,2 not all present in images 1, 2",)
    assert choose_in_batch(batch(FACES, Faces.none())).counts == (3, 0)
    assert choose_in_batch(batch()).counts == ()


def test_pictures_that_detection_kept_without_a_face_stay() -> None:
    got = choose_in_batch(batch(FACES, Faces.none()), "largest", "0", keep_empty=True)
    assert got.counts == (1, 0)
    assert got.notes == ()
    with pytest.raises(FaceChoice, match="image 0.*there are 3 faces"):
        choose_in_batch(batch(FACES, Faces.none()), "largest", "3", keep_empty=True)
    with pytest.raises(FaceChoice, match="rising ranges"):
        choose_in_batch(batch(Faces.none()), indices="first", keep_empty=True)
    with pytest.raises(FaceChoice, match="left-right"):
        choose_in_batch(batch(Faces.none()), "loudest", "0", keep_empty=True)


def test_keep_does_not_hide_mistakes_in_the_list() -> None:
    with pytest.raises(FaceChoice, match="rising ranges"):
        choose_in_batch(batch(FACES), indices="first", on_missing_face="keep")
    with pytest.raises(FaceChoice, match="order"):
        choose_in_batch(batch(FACES), order="loudest", on_missing_face="keep")


def test_nearest_face_by_cosine_not_by_length() -> None:
    reference = torch.tensor([100.0, 0, 0])
    indices, similarity = rank_by_similarity(FACES, reference, 0.5)
    assert indices == [0, 1]
    torch.testing.assert_close(similarity, torch.tensor([1, 0.6, 0]))
    assert nearest_face(FACES, reference).scores.tolist() == pytest.approx([0.9])


def test_the_best_of_several_references_counts() -> None:
    assert rank_by_similarity(FACES, torch.tensor([[0.0, 1, 0], [0, 0, 1]]), 0.9)[0] == [2]


def test_no_match_names_the_best() -> None:
    with pytest.raises(FaceChoice, match="3 faces, the nearest at 0.80"):
        nearest_face(FACES, torch.tensor([0.0, 5, 0]), 0.9)
    with pytest.raises(FaceChoice, match="0 faces"):
        nearest_face(Faces.none(), torch.ones(3))


def test_faces_without_fitting_embeddings_are_refused() -> None:
    bare = Faces(FACES.boxes, FACES.landmarks5, FACES.scores)
    with pytest.raises(FaceChoice, match="found none"):
        rank_by_similarity(bare, torch.ones(3))
    with pytest.raises(FaceChoice, match="embeddings of 3 numbers"):
        rank_by_similarity(FACES, torch.ones(512))


def test_filters() -> None:
    assert filter_gender(["female", "male", "female"], "female") == [0, 2]
    assert filter_age([range(20, 29), range(30, 39)], range(25, 31)) == [0, 1]
    assert filter_age([range(20, 29), range(30, 39)], range(29, 30)) == []


def test_balance_is_neutral_in_the_middle_and_monotone() -> None:
    source, target = torch.tensor([[1.0, 0]]), torch.tensor([[0.0, 1]])
    torch.testing.assert_close(arithmetic.balance(source, target, 0.5), source)
    torch.testing.assert_close(arithmetic.balance(source, target, 0), torch.tensor([[0.65, 0.35]]))
    torch.testing.assert_close(arithmetic.balance(source, target, 1), torch.tensor([[1.35, -0.35]]))


def test_average_and_distances() -> None:
    mean, mean_of_units = arithmetic.average(torch.tensor([[2.0, 0], [0, 4]]))
    assert mean.tolist() == [1, 2] and mean_of_units.tolist() == [0.5, 0.5]
    pair = torch.tensor([[1.0, 0], [0, 3]])
    torch.testing.assert_close(arithmetic.cosine_distance(pair, pair), 1 - torch.eye(2))
    assert arithmetic.same_face(pair, pair, 0.5).tolist() == [[True, False], [False, True]]
    assert float(arithmetic.cosine_similarity(torch.zeros(1, 2), pair).abs().max()) == 0
