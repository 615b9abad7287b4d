"""A graph that names a file which is not there: one sentence with file, size, licence, source and folder."""

from __future__ import annotations

import inspect
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from host_inprocess import engine
from likeness_pack import nodes as ours
from likeness_pack.inject import model_folders
from likeness_pack.inject.host import folder_paths
from workflow_files import api_workflow, workflows

CLASSES = ours.NODE_CLASS_MAPPINGS
GRAPHS = {name: api_workflow(name) for name in workflows()}
# Never published: trained by whoever has them.
UNPUBLISHED = {"matcher-25000.pth", "controlnext.safetensors", "avatar_emotion.safetensors"}


@pytest.fixture(scope="module", autouse=True)
def folders() -> None:
    engine()
    model_folders.register_model_folders()


def choices() -> list[tuple[str, str, str]]:
    """(node, input, file) of every model file that a shipped graph names in a node of ours."""
    found = set()
    for graph in GRAPHS.values():
        for node in graph.values():
            checked = getattr(CLASSES.get(node["class_type"]), "VALIDATE_INPUTS", None)
            for name in inspect.getfullargspec(checked).args if checked else ():
                value = node["inputs"].get(name)
                if isinstance(value, str) and Path(value).suffix in model_folders.EXTENSIONS | {".onnx"}:
                    found.add((node["class_type"], name, value))
    return sorted(found)


def test_every_loader_looks_at_its_files() -> None:
    """A node whose dropdown lists model files says itself what is missing."""
    silent = []
    for name, kind in CLASSES.items():
        source = inspect.getsource(kind)
        if "find_file(" in source and "VALIDATE_INPUTS" not in source:
            silent.append(name)
    assert silent == []
    assert len(choices()) > 20


@contextmanager
def gone(file: str) -> Iterator[None]:
    """Files of that name, which other tests wrote into model folders, are elsewhere for a while."""
    roots = {root for name in (*model_folders.OURS, "audio_encoders") for root in model_folders.folder_roots(name)}
    found = {path for root in (engine().models, *roots) for path in root.rglob(Path(file).name)}
    for path in found:
        path.rename(path.with_suffix(".aside"))
    # The host still lists files of folders that another test took away again; hosts call the table by two names.
    paths = folder_paths()
    getattr(paths, "filename_list_cache", getattr(paths, "_filename_list_cache", {})).clear()
    try:
        yield
    finally:
        for path in found:
            path.with_suffix(".aside").rename(path)


@pytest.mark.parametrize(("node", "name", "file"), choices())
def test_a_missing_file_is_one_sentence_with_everything(node: str, name: str, file: str) -> None:
    with gone(file):
        sentence = CLASSES[node].VALIDATE_INPUTS(**{name: file})
    if "drawn_" in file:
        assert sentence is True
        return
    assert isinstance(sentence, str) and sentence.endswith(".") and "\n" not in sentence
    assert "in models/" in sentence
    if file not in UNPUBLISHED:
        assert "under any name or sub-folder" in sentence and (
            "MB" in sentence or "bytes" in sentence or "size unknown" in sentence
        )
        assert (
            "icen" in sentence
            or "Apache" in sentence
            or "MIT" in sentence
            or "commercial" in sentence
            or "RAIL" in sentence
        )


def test_what_is_there_is_taken_with_either_slash(tmp_path: Path) -> None:
    kind = model_folders.FileKind("face_parsers")
    folder = engine().models / "face_parsers" / "swinb_celeba_512"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model_299.pt").write_bytes(b"x")
    try:
        for choice in ("swinb_celeba_512/model_299.pt", "swinb_celeba_512\\model_299.pt"):
            assert model_folders.listed(kind, choice) is True
            assert model_folders.find_file(kind, choice) == folder / "model_299.pt"
        assert "SegFace Swin V2" in str(model_folders.listed(kind, "swinv2b_celeba_512/model_299.pt"))
    finally:
        (folder / "model_299.pt").unlink()


@pytest.mark.parametrize("choice", ["../../secret.pt", "a\nb.pt", "x" * 5000, 7, {"a": 1}, ""])
def test_values_that_are_no_files_are_one_sentence(choice: Any) -> None:
    for node in ("LikenessLoadAdapter", "LikenessLoadParser"):
        sentence = CLASSES[node].VALIDATE_INPUTS(file=choice)
        assert isinstance(sentence, str) and "\n" not in sentence and len(sentence) < 1500
    assert CLASSES["LikenessLoadEncoder"].VALIDATE_INPUTS(encoder="dlib_resnet") is True
    assert CLASSES["LikenessLoadDetector"].VALIDATE_INPUTS(detector="mtcnn") is True
    # The value of a wire is not known before the run.
    assert CLASSES["LikenessLoadAdapter"].VALIDATE_INPUTS(file=None) is True


def test_a_folder_that_was_removed_meanwhile_hides_no_other_file(tmp_path: Path) -> None:
    """The host remembers each sub-folder's time, and trips over one that is gone."""
    table = folder_paths().folder_names_and_paths
    table["face_adapters"][0].append(str(tmp_path))
    for name in ("kept/a.safetensors", "old 旧/b.safetensors"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_bytes(b"")
    listed = {Path(name) for name in model_folders.list_files(model_folders.ADAPTERS)}
    assert {Path("kept/a.safetensors"), Path("old 旧/b.safetensors")} <= listed
    shutil.rmtree(tmp_path / "old 旧")
    listed = {Path(name) for name in model_folders.list_files(model_folders.ADAPTERS)}
    assert Path("kept/a.safetensors") in listed and Path("old 旧/b.safetensors") not in listed
