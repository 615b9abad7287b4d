"""The parsing nodes one after the other in a real engine: file, parser, parts, masks, and FACT's head mask."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from host_inprocess import engine
from likeness_pack.adapters.encoders.base import FaceEncoder
from likeness_pack.adapters.errors import AmbiguousCheckpoint, MissingModelFile
from likeness_pack.adapters.parsers.segface.family import FAMILY
from likeness_pack.faces.errors import FaceChoice
from likeness_pack.faces.parts import ParsedFaces
from likeness_pack.inject import model_folders
from likeness_pack.inject.host import folder_paths, model_management
from likeness_pack.inject.loaded_networks import LoadedEncoder
from likeness_pack.inject.loaded_parser import LoadedParser
from likeness_pack.nodes import parse
from likeness_pack.nodes.encoder import LikenessEncodeIdentity
from module_folders import ModuleFolders
from tiny_parser import PICTURE, pictures, two_and_one, write_trained
from torch import Tensor

NODES: dict[str, Any] = {node.__name__: node for node in parse.NODES}


@pytest.fixture(scope="module")
def folder(module_folders: ModuleFolders) -> Iterator[Path]:
    """A folder of parsers as the publisher names them: one name for all files."""
    engine()
    model_folders.register_model_folders()
    path = module_folders.mktemp("parsers") / "My models 模型"
    for name in ("celeba", "lapa"):
        (path / f"swinb_{name}_224").mkdir(parents=True)
        write_trained(path / f"swinb_{name}_224" / "model_299.pt", name)
    table = folder_paths()
    table.add_model_folder_path("face_parsers", str(path))
    yield path
    table.folder_names_and_paths["face_parsers"][0].remove(str(path))


@pytest.fixture(scope="module")
def parser(folder: Path) -> LoadedParser:
    return load("swinb_celeba_224/model_299.pt", resolution="224")[0]


@pytest.fixture(scope="module")
def found(parser: LoadedParser) -> dict[str, Any]:
    return parse.LikenessParseFaces().parse(pictures(), parser, 0.1, two_and_one())


def load(file: str, variant: str = "auto", resolution: str = "auto") -> tuple[LoadedParser, str]:
    result = parse.LikenessLoadParser().load(file, variant, resolution)
    assert result["ui"]["text"] == [result["result"][1]]
    return result["result"]


class Recorder(FaceEncoder):
    """An encoder of masked faces that keeps what it is given."""

    id, title, licence, uses_masks, unmasked_note = "recorder", "Recorder", FAMILY.licence, True, "face not masked"

    def __init__(self) -> None:
        self.masks: list[Tensor | None] = []

    def encode_faces(
        self, images: Tensor, index: Sequence[int], boxes: Tensor, landmarks5: Tensor, masks: Tensor | None
    ) -> dict[str, Tensor]:
        self.masks.append(masks)
        return {"embedding": torch.ones(len(index), 4)}


def test_the_loader_lists_and_tells_the_file(parser: LoadedParser, folder: Path) -> None:
    listed = parse.LikenessLoadParser.INPUT_TYPES()["required"]["file"][0]
    assert {str(Path(name)) for name in listed} >= {
        str(Path(f"swinb_{name}_224/model_299.pt")) for name in ("celeba", "lapa")
    }
    report = load("swinb_celeba_224/model_299.pt")[1]
    assert "family: SegFace (segface)" in report and "necklace" in report and "resolution: 512" in report
    assert parser.resolution == 224 and parser.licence.weights == "MIT"


def test_the_loader_asks_which_of_the_two_it_is(folder: Path) -> None:
    with pytest.raises(AmbiguousCheckpoint, match="lapa or helen"):
        load("swinb_lapa_224/model_299.pt")
    assert load("swinb_lapa_224/model_299.pt", "lapa", "224")[0].needs_points
    with pytest.raises(MissingModelFile, match="models/face_parsers"):
        load("nothing.pt")


def test_the_hosts_memory_manager_owns_the_network(parser: LoadedParser, found: dict[str, Any]) -> None:
    """Loaded for the call, unloaded when the host says so, and good for another call."""
    manager = model_management()
    again = parse.LikenessParseFaces().parse(pictures(), parser, 0.1, two_and_one())
    assert any(loaded.model is parser.managed.patcher for loaded in manager.current_loaded_models)
    manager.unload_all_models()
    third = parse.LikenessParseFaces().parse(pictures(), parser, 0.1, two_and_one())
    for other in (again, third):
        for first, second in zip(found["result"][0].labels, other["result"][0].labels, strict=True):
            assert torch.equal(first, second)


def test_parse_gives_pictures_masks_and_a_table(found: dict[str, Any]) -> None:
    faces, overlay, label_map, masks, report = found["result"]
    assert isinstance(faces, ParsedFaces) and faces.counts == (2, 1, 0)
    assert overlay.shape == label_map.shape == (3, *PICTURE, 3) and masks.shape == (3, *PICTURE)
    assert not label_map[2].any() and torch.equal(overlay[2], pictures()[2])
    assert len(report.splitlines()) == 3 and found["ui"]["text"] == [report]


def test_masks_of_named_parts(found: dict[str, Any]) -> None:
    faces = found["result"][0]
    make = parse.LikenessMaskFromClasses().make
    face, each = make(faces, "face", 0, 0)
    assert face.shape == each.shape == (3, *PICTURE) and torch.equal(each, found["result"][3])
    assert torch.equal(face[0], torch.maximum(each[0], each[1])) and not face[2].any()
    wide, _ = make(faces, "face", 5, 0)
    soft, _ = make(faces, "face", 5, 8)
    assert float(wide.sum()) > float(face.sum()) and len(soft.unique()) > len(wide.unique())
    whole, _ = make(faces, "background, person", 0, 0)
    rest, _ = make(faces, "background, person, -skin", 0, 0)
    assert float(rest.sum()) <= float(whole.sum())
    with pytest.raises(FaceChoice, match="choose among"):
        make(faces, "beard", 0, 0)


def test_face_masks_need_no_parser() -> None:
    for shape in parse.LikenessFaceMask.INPUT_TYPES()["required"]["shape"][0]:
        mask, each = parse.LikenessFaceMask().make(two_and_one(), shape, 1.0, 0, 3)
        assert mask.shape == (3, *PICTURE) and each.shape == (3, *PICTURE)
        assert 0 < float(mask[0].mean()) < 0.5 and not mask[2].any()
    with pytest.raises(FaceChoice, match="Parse Faces"):
        parse.LikenessHeadMask().make(two_and_one(), "best")


def test_encode_identity_takes_the_head_masks(found: dict[str, Any]) -> None:
    """With them the identity is no longer unmasked; a picture without a head stays whole."""
    result = parse.LikenessHeadMask().make(found["result"][0], "best")
    masks, report = result["result"]
    assert masks.shape == (3, *PICTURE) and set(masks.unique().tolist()) <= {0.0, 1.0}
    assert "image 2: no head found, left whole" in report and bool((masks[2] == 1).all())
    recorder = Recorder()
    arguments = (pictures(), two_and_one(), LoadedEncoder(recorder), "best", "skip")
    identity, _, told = LikenessEncodeIdentity().encode(*arguments, masks)["result"]
    assert identity.masked and "not masked" not in told
    assert recorder.masks[0] is not None and torch.equal(recorder.masks[0], masks)
    plain, _, told = LikenessEncodeIdentity().encode(*arguments)["result"]
    assert not plain.masked and "face not masked" in told
