"""The table of published files: complete, consistent, and the sentence for a missing file."""

from __future__ import annotations

import pytest
from likeness_pack.adapters.model_table import (
    find_by_size_or_hash,
    missing_file_error,
    published_file,
    published_files,
    published_variant,
)

FOLDERS = {
    "face_adapters",
    "face_encoders",
    "face_detectors",
    "face_parsers",
    "face_swappers",
    "clip_vision",
    "insightface",
    "controlnet",
    "diffusion_models",
}


def test_ids_are_unique_and_fields_are_sound():
    rows = published_files()
    assert len({row.id for row in rows}) == len(rows) > 25
    for row in rows:
        assert row.hub in ("huggingface", "modelscope", "github", "google_drive", "pypi"), row.id
        assert row.folder in FOLDERS, row.id
        assert row.file and row.repo and row.used_for, row.id
        assert row.size is None or row.size > 0, row.id
        assert row.size is None or row.approximate_size is None, row.id
        assert row.sha256 is None or (len(row.sha256) == 64 and int(row.sha256, 16) >= 0), row.id
        assert row.variant is None or row.family is not None, row.id
        assert row.commercial in (True, False, None), row.id


def test_non_commercial_weights_are_marked():
    for row in published_files():
        if "non-commercial" in (row.weight_licence or ""):
            assert row.commercial is False, row.id


def test_every_system_of_this_version_has_its_files():
    needed = {name for row in published_files() for name in row.needed_by}
    assert {"fact", "ip_adapter_faceid", "transface", "retinaface", "mtcnn", "dlib_resnet"} <= needed


def test_files_are_found_by_size_and_by_hash():
    assert [row.id for row in find_by_size_or_hash(156_558_509)] == ["faceid_plusv2_sd15"]
    known = published_file("faceid_plus_sd15").sha256
    assert known is not None
    assert [row.id for row in find_by_size_or_hash(1, known.upper())] == ["faceid_plus_sd15"]
    assert find_by_size_or_hash(1) == ()
    assert find_by_size_or_hash() == ()


@pytest.mark.parametrize(
    ("size", "variant"), [(156_558_503, "plus"), (156_558_509, "plus_v2"), (1_487_555_181, "plus_v2"), (5, None)]
)
def test_six_bytes_tell_plus_from_plus_v2(tmp_path, size, variant):
    path = tmp_path / "any name.bin"
    path.write_bytes(b"12345")
    assert published_variant(path, size, "ip_adapter_faceid") == variant
    assert published_variant(path, size, "fact") is None


@pytest.mark.parametrize("row", published_files(), ids=lambda row: row.id)
def test_missing_file_sentence_has_everything(row):
    sentence = str(missing_file_error(row.id))
    assert row.file in sentence and row.repo in sentence and row.hub in sentence
    assert f"models/{row.folder}" in sentence
    assert row.size_text in sentence
    assert (row.weight_licence or "licence not stated") in sentence
    assert sentence.count("; ") <= 3 and sentence.endswith(".") and "None" not in sentence


def test_unknown_ids_are_an_error():
    with pytest.raises(KeyError):
        published_file("nothing")
