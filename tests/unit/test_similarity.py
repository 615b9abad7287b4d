"""Similarity matrices, thresholds and the table."""

from __future__ import annotations

import math

import pytest
import torch
from likeness_pack.adapters.encoders.packages import names
from likeness_pack.adapters.errors import IdentityMismatch
from likeness_pack.adapters.identity import Identity
from likeness_pack.evaluation.similarity import (
    THRESHOLDS,
    best_matches,
    best_similarity,
    same_person,
    select_by_reference,
    similarity_matrix,
    table_text,
    threshold_for,
)
from likeness_pack.faces.errors import NoFaceFound
from likeness_pack.faces.types import FaceBatch, Faces


def _people(encoder: str, *rows: tuple[float, ...]) -> Identity:
    return Identity(encoder, {"embedding": torch.tensor(rows)})


ARCFACE = "arcface_buffalo_l"


def test_cosine_ignores_length():
    matrix = similarity_matrix(_people(ARCFACE, (3, 0), (0, 5)), _people(ARCFACE, (9, 0), (1, 1), (-2, 0)))
    expected = torch.tensor([[1, math.sqrt(0.5), -1], [0, math.sqrt(0.5), 0]])
    assert matrix.metric == "cosine"
    assert torch.allclose(matrix.values, expected, atol=1e-6)
    assert same_person(matrix).tolist() == [[True, True, False], [False, True, False]]
    assert best_matches(matrix) == [0, 1]
    assert best_similarity(matrix) == pytest.approx(1)


def test_euclidean_is_exact_for_large_batches():
    rows = torch.randn(60, 128, generator=torch.Generator().manual_seed(0)) + 50
    identity = Identity("dlib_resnet", {"embedding": rows})
    matrix = similarity_matrix(identity, identity)
    assert float(matrix.values.diagonal().abs().max()) == 0
    assert float(matrix.values[0, 1]) == pytest.approx(float((rows[0] - rows[1]).norm()), rel=1e-5)


def test_distance_counts_from_below():
    matrix = similarity_matrix(_people("dlib_resnet", (1.0, 0)), _people("dlib_resnet", (1.59, 0), (1.61, 0), (3, 0)))
    assert same_person(matrix).tolist() == [[True, False, False]]
    assert same_person(matrix, 1.0).tolist() == [[True, True, False]]
    assert best_matches(matrix) == [0]
    assert best_similarity(matrix) == pytest.approx(0.59)


@pytest.mark.parametrize("encoder", ["dlib_resnet", ARCFACE])
def test_a_picture_without_a_face_is_nobody(encoder):
    blank, person = _people(encoder, (0.0, 0.0)), _people(encoder, (0.0, 0.0), (0.1, 0.1))
    matrix = similarity_matrix(blank, person)
    assert not same_person(matrix).any()
    assert best_matches(matrix) == [None]
    with pytest.raises(NoFaceFound):
        best_similarity(matrix)
    assert "no face" in table_text(matrix)


def test_every_encoder_has_a_threshold_with_a_source():
    for encoder in [*names(), "transface_s", "transface_b", "transface_l", "transface_16x2", "arcface_vit_b"]:
        assert threshold_for(encoder).source
    assert not THRESHOLDS["dlib_resnet"].convention
    with pytest.raises(IdentityMismatch, match="clip_only"):
        threshold_for("clip_only")


def test_what_cannot_be_compared_is_named():
    with pytest.raises(IdentityMismatch, match=r"arcface_buffalo_l.*arcface_antelopev2"):
        similarity_matrix(_people(ARCFACE, (1.0,)), _people("arcface_antelopev2", (1.0,)))
    with pytest.raises(IdentityMismatch, match=r"width 2.*width 1"):
        similarity_matrix(_people(ARCFACE, (1.0, 2.0)), _people(ARCFACE, (1.0,)))
    with pytest.raises(IdentityMismatch, match="no embedding"):
        similarity_matrix(_people(ARCFACE, (1.0,)), Identity(ARCFACE, {"tokens": torch.zeros(1, 2, 3)}))


def test_the_table_names_the_best_match():
    matrix = similarity_matrix(_people(ARCFACE, (1, 0), (0, 1)), _people(ARCFACE, (1, 0.1), (-1, 0.2)))
    lines = table_text(matrix, ["Ann", "Bob"], ["x", "y"]).splitlines()
    assert "0.4" in lines[0] and "facefusion" in lines[0]
    assert lines[1].split() == ["x", "y", "best", "match"]
    assert lines[2].startswith("Ann") and lines[2].endswith("x (same person)") and "0.995" in lines[2]
    assert lines[3].startswith("Bob") and lines[3].endswith("y (another person)")
    with pytest.raises(IdentityMismatch, match="2 names"):
        table_text(matrix, ["Ann"])


def _crowd(*rows: tuple[float, ...]) -> Faces:
    count = len(rows)
    boxes = torch.arange(count, dtype=torch.float32)[:, None].expand(count, 4)
    return Faces(boxes, torch.zeros(count, 5, 2), torch.ones(count), torch.tensor(rows))


def test_the_reference_chooses_one_face_in_each_picture():
    batch = FaceBatch((_crowd((1, 0), (0, 1)), Faces.none(), _crowd((-1, 0.0))), (8, 8), "user", ARCFACE)
    chosen = select_by_reference(batch, _people(ARCFACE, (-1, -1.0), (0.1, 2.0)), limit=None)
    assert chosen.counts == (1, 0, 1)
    assert chosen.images[0].boxes[0, 0] == 1
    strict = select_by_reference(batch, _people(ARCFACE, (0.1, 2.0)), limit=0.9999)
    assert strict.counts == (0, 0, 0)
    assert [note[:7] for note in strict.notes] == ["image 0", "image 2"]
    masked = Identity(ARCFACE, {"embedding": torch.tensor([[0.1, 2.0]])}, masked=True)
    assert any("without background" in note for note in select_by_reference(batch, masked).notes)
    with pytest.raises(IdentityMismatch, match=r"dlib_resnet.*arcface_buffalo_l"):
        select_by_reference(batch, _people("dlib_resnet", (1.0, 0)))
