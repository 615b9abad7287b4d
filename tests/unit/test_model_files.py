"""Which published files are there: by name and size in the folders that the host searches, or as a package."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from likeness_pack.adapters.model_table import published_file, published_files
from likeness_pack.inject import model_files, model_folders
from likeness_pack.inject.model_files import model_rows

SIZED = "faceid_plusv2_sd15"  # its exact size is known
UNSIZED = "transface_s_ms1mv2_fact"


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The models folder of a host that knows every folder of the table, and those of other packs."""
    names = {row.folder for row in published_files()} | {"ipadapter", "unet"}
    table = {name: ([str(tmp_path / name)], set()) for name in names}
    monkeypatch.setattr(model_folders, "folder_paths", lambda: SimpleNamespace(folder_names_and_paths=table))
    return tmp_path


def row(name: str) -> dict[str, Any]:
    (found,) = (each for each in model_rows() if each["id"] == name)
    return found


def put(path: Path, size: int) -> None:
    """A file of a size that takes no room."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.truncate(size)


def test_an_empty_host_has_none_but_packages(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> str:
        raise model_files.importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(model_files.importlib.metadata, "version", missing)
    rows = model_rows()
    assert [each["id"] for each in rows] == [each.id for each in published_files()]
    assert not any(each["present"] or each["found"] for each in rows)
    monkeypatch.setattr(model_files.importlib.metadata, "version", lambda name: "1.2")
    there = [each for each in model_rows() if each["present"]]
    assert {each["source"].split()[0] for each in there} == {"pypi"}
    assert {each["found"] for each in there} == {f"package {each['source'].split()[1]} 1.2" for each in there}
    assert {each["folder"] for each in there} == {""}


def test_a_file_is_found_by_its_name_and_exact_size(models: Path) -> None:
    published = published_file(SIZED)
    assert published.size is not None
    path = models / "face_adapters" / "below" / Path(published.file).name.upper()
    put(path, published.size - 1)
    assert row(SIZED)["found"] is None, "an unfinished download is not the file"
    put(path, published.size)
    assert row(SIZED)["present"]
    assert row(SIZED)["found"] == f"face_adapters/below/{path.name}"


def test_a_renamed_file_is_found_by_its_size_in_another_packs_folder(models: Path) -> None:
    size = published_file(SIZED).size
    assert size is not None
    put(models / "ipadapter" / "mine.bin", size)
    assert row(SIZED)["found"] == "ipadapter/mine.bin"
    put(models / "face_encoders" / "mine.bin", size)
    put(models / "ipadapter" / "mine.bin", 1)
    assert row(SIZED)["found"] is None, "a file for another loader is not found"


def test_without_a_published_size_the_name_and_some_content_count(models: Path) -> None:
    path = models / "face_encoders" / Path(published_file(UNSIZED).file).name
    put(path, 0)
    assert not row(UNSIZED)["present"]
    put(path, 1)
    assert row(UNSIZED)["found"] == f"face_encoders/{path.name}"


def test_an_archive_is_found_unpacked(models: Path) -> None:
    archive = next(each for each in published_files() if each.file == "buffalo_l.zip")
    put(models / "insightface" / "buffalo_l.zip", 5)
    assert not row(archive.id)["present"]
    put(models / "insightface" / "models" / "buffalo_l" / "w600k_r50.onnx", 5)
    assert row(archive.id)["found"] == "insightface/models/buffalo_l/w600k_r50.onnx"


def test_a_row_tells_what_the_table_tells(models: Path) -> None:
    """Unknown facts stay unknown; only known hubs get an address."""
    for told, published in zip(model_rows(), published_files(), strict=True):
        assert told["file"] == published.file and told["needed_by"] == list(published.needed_by)
        assert told["exact"] == (published.size is not None)
        assert told["size"] == (published.size or published.approximate_size)
        assert (told["licence"], told["commercial"]) == (published.weight_licence, published.commercial)
        known = published.hub in ("huggingface", "modelscope", "github")
        assert (told["page"] is not None) == known
        assert not known or str(told["page"]).endswith(f"/{published.repo}")
        assert told["source"].startswith(f"{published.hub} {published.repo}")
