"""Files, pictures and masks that are not what a node needs: one sentence with the cure, and no file is touched."""

from __future__ import annotations

import hashlib
import os
import pickle
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from host_inprocess import engine, tiny_model
from identities import arcface_identity, transface_identity
from likeness_pack.adapters import errors
from likeness_pack.faces.errors import BadImage, BadMask, FaceChoice, LikenessError, NoFaceFound
from likeness_pack.inject import model_folders
from likeness_pack.inject.host import folder_paths
from likeness_pack.nodes.adapter import LikenessApplyIdentity, LikenessLoadAdapter
from likeness_pack.nodes.detect import LikenessDetectFaces, LikenessFacesFromUser, LikenessLoadDetector
from likeness_pack.nodes.encoder import LikenessEncodeIdentity, LikenessLoadEncoder
from likeness_pack.nodes.select import LikenessSelectFaces
from likeness_pack.tools.standins.command import write_standin
from module_folders import ModuleFolders
from torch import Tensor

SENTENCE = re.compile(r"[^\n]+: expected [^\n]+, found [^\n]+; [^\n]+\.")
WIDTHS = (32, 64, 128, 128)


class Trap:
    """Leaves a file behind when it is unpickled by a careless reader."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, (str(self.mark),))


@pytest.fixture(scope="module")
def folder(module_folders: ModuleFolders) -> Iterator[Path]:
    """A further folder for adapters and encoders, with spaces and Chinese letters, as extra model paths bring it."""
    engine()
    model_folders.register_model_folders()
    path = module_folders.mktemp("models") / "My models 模型 文件夹"
    path.mkdir()
    table = folder_paths()
    for name in ("face_adapters", "face_encoders"):
        table.add_model_folder_path(name, str(path))
    yield path
    for name in ("face_adapters", "face_encoders"):
        table.folder_names_and_paths[name][0].remove(str(path))


@pytest.fixture(scope="module")
def good(folder: Path) -> Path:
    return write_standin("faceid-sd15", folder, WIDTHS)


@pytest.fixture(scope="module")
def fact(folder: Path) -> Path:
    return write_standin("fact-v1", folder, WIDTHS)


@pytest.fixture(scope="module")
def detector() -> Any:
    return LikenessLoadDetector().load("mtcnn")[0]


@pytest.fixture(scope="module")
def astronaut() -> Tensor:
    from skimage import data

    return torch.from_numpy(np.array(data.astronaut())).float()[None] / 255


def contents(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir() if path.is_file()}


def load_adapter(path: Path, variant: str = "auto") -> Any:
    return LikenessLoadAdapter().load(path.name, variant)["result"][0]


def refused(folder: Path, kind: type[LikenessError], path: Path, words: str | None = None) -> None:
    """The adapter loader refuses a file in one sentence that names it, and leaves everything as it was."""
    before = contents(folder)
    with pytest.raises(kind, match=words) as caught:
        load_adapter(path)
    assert SENTENCE.fullmatch(str(caught.value)), str(caught.value)
    assert path.name in str(caught.value)
    assert contents(folder) == before
    path.unlink()


def test_a_good_file_is_found_in_such_a_folder(good: Path) -> None:
    assert good.name in model_folders.list_files(model_folders.ADAPTERS)
    assert load_adapter(good).adapter.report.base == "sd15"


def test_a_renamed_file_is_still_known(folder: Path, good: Path) -> None:
    renamed = folder / "脸 renamed (1).pt"
    shutil.copyfile(good, renamed)
    assert load_adapter(renamed).adapter.report.as_text() == load_adapter(good).adapter.report.as_text()
    renamed.unlink()


@pytest.mark.parametrize("part", [0.0, 0.001, 0.5, 0.999])
def test_a_cut_file_is_told(folder: Path, good: Path, part: float) -> None:
    cut = folder / "cut.bin"
    content = good.read_bytes()
    cut.write_bytes(content[: int(part * len(content))])
    refused(folder, errors.BadCheckpoint, cut)


@pytest.mark.parametrize("suffix", [".safetensors", ".bin", ".pt", ".ckpt"])
def test_a_file_of_something_else_is_told(folder: Path, suffix: str) -> None:
    other = folder / f"page{suffix}"
    other.write_text("<!DOCTYPE html><html>sign in to download</html>" * 50, encoding="utf-8")
    refused(folder, errors.BadCheckpoint, other)


def test_a_pickle_with_code_is_refused_and_not_run(folder: Path, tmp_path: Path) -> None:
    trap, mark = folder / "trap.pt", tmp_path / "was here"
    torch.save({"image_proj": Trap(mark)}, trap)
    refused(folder, errors.UnsafeCheckpoint, trap)
    trap.write_bytes(pickle.dumps({"image_proj": Trap(mark)}))
    with pytest.raises(LikenessError) as caught:
        load_adapter(trap)
    assert SENTENCE.fullmatch(str(caught.value)), str(caught.value)
    trap.unlink()
    assert not mark.exists()


def test_another_network_is_told(folder: Path) -> None:
    other = folder / "other.bin"
    torch.save({"conv.weight": torch.zeros(4, 3, 3, 3)}, other)
    refused(folder, errors.UnknownCheckpoint, other)


def test_an_encoder_in_the_place_of_an_adapter_is_told(folder: Path) -> None:
    refused(folder, LikenessError, write_standin("transface-s", folder), "encoder")


def test_an_adapter_in_the_place_of_an_encoder_is_told(good: Path) -> None:
    with pytest.raises(LikenessError, match="adapter") as caught:
        LikenessLoadEncoder().load(good.name)
    assert SENTENCE.fullmatch(str(caught.value)), str(caught.value)


def test_an_encoder_of_another_width_is_told(folder: Path) -> None:
    path = write_standin("transface-s", folder)
    tensors = torch.load(path, weights_only=True)
    half = {
        name: (t if t.dim() == 0 else t[tuple(slice(0, max(1, n // 2)) for n in t.shape)])
        for name, t in tensors.items()
    }
    torch.save(half, path)
    with pytest.raises(LikenessError) as caught:
        LikenessLoadEncoder().load(path.name)
    assert SENTENCE.fullmatch(str(caught.value)), str(caught.value)
    path.unlink()


def test_a_file_that_is_gone_is_told(folder: Path) -> None:
    assert folder.is_dir()
    for load in (lambda: LikenessLoadAdapter().load("gone.bin", "auto"), lambda: LikenessLoadEncoder().load("gone.pt")):
        with pytest.raises(errors.MissingModelFile, match="gone") as caught:
            load()
        assert SENTENCE.fullmatch(str(caught.value)), str(caught.value)


def test_no_name_leads_out_of_the_model_folders(folder: Path) -> None:
    (folder.parent / "secret.bin").write_bytes(b"secret")
    for name in ("../secret.bin", "[face_adapters] ../secret.bin", str(folder.parent / "secret.bin")):
        with pytest.raises(LikenessError):
            LikenessLoadAdapter().load(name, "auto")


def apply(adapter: Any, identity: Any, model: Any = None, **options: Any) -> Any:
    values = {"strength": 1.0, "start_percent": 0.0, "end_percent": 1.0, **options}
    return LikenessApplyIdentity().apply(model or tiny_model("SD15"), adapter, identity, **values)


def test_an_sdxl_adapter_on_sd15_is_told(folder: Path) -> None:
    path = write_standin("faceid-sdxl", folder, (32, 64, 128))
    with pytest.raises(errors.BaseModelMismatch, match=r"SDXL.*70.*found 16") as caught:
        apply(load_adapter(path), arcface_identity())
    assert SENTENCE.fullmatch(str(caught.value)), str(caught.value)
    path.unlink()


def test_identities_of_other_encoders_are_told(good: Path, fact: Path) -> None:
    for path, identity in ((good, transface_identity()), (fact, arcface_identity())):
        with pytest.raises(errors.EncoderMismatch) as caught:
            apply(load_adapter(path), identity)
        assert SENTENCE.fullmatch(str(caught.value)), str(caught.value)


@pytest.mark.parametrize(
    "mask", [torch.zeros(0, 0), torch.zeros(1, 0, 8), torch.zeros(2, 3, 4, 5), torch.full((1, 8, 8), float("nan"))]
)
def test_a_mask_of_no_use_is_told(good: Path, mask: Tensor) -> None:
    with pytest.raises(BadMask) as caught:
        apply(load_adapter(good), arcface_identity(), mask=mask)
    assert SENTENCE.fullmatch(str(caught.value)), str(caught.value)


def test_a_range_that_ends_before_it_begins_is_told(good: Path) -> None:
    with pytest.raises(LikenessError, match="end_percent") as caught:
        apply(load_adapter(good), arcface_identity(), start_percent=0.6, end_percent=0.4)
    assert SENTENCE.fullmatch(str(caught.value)), str(caught.value)


@pytest.mark.parametrize("name", ["strength", "lora_strength"])
def test_a_strength_that_is_no_number_is_told(good: Path, name: str) -> None:
    """A node of mathematics may give one, and no range of a widget stops it."""
    with pytest.raises(LikenessError, match=f"{name}: expected a finite number, found nan") as caught:
        apply(load_adapter(good), arcface_identity(), **{name: float("nan")})
    assert SENTENCE.fullmatch(str(caught.value)), str(caught.value)


def detect(images: Tensor, detector: Any, policy: str = "error") -> tuple[Any, ...]:
    return LikenessDetectFaces().detect(images, detector, 0.0, policy)["result"]


def test_no_face_under_each_policy(detector: Any, astronaut: Tensor) -> None:
    pair = torch.cat([torch.full_like(astronaut, 0.5), astronaut])
    with pytest.raises(NoFaceFound, match=r"image.* 0\b") as caught:
        detect(pair, detector)
    assert SENTENCE.fullmatch(str(caught.value)), str(caught.value)
    faces, images, overlay, report, count = detect(pair, detector, "skip")
    assert (len(faces), images.shape[0], overlay.shape[0], count) == (1, 1, 1, 1)
    assert "0" in report
    faces, images, overlay, report, count = detect(pair, detector, "keep")
    assert (faces.counts, images.shape[0], overlay.shape[0], count) == ((0, 1), 2, 2, 1)
    chosen, overlay, report = LikenessSelectFaces().select(images, faces, "largest", "0")["result"]
    assert (chosen.counts, overlay.shape[0]) == ((0, 1), 2)
    assert "no face in image 0" in report


@pytest.mark.parametrize("policy", ["error", "skip"])
def test_no_face_in_any_picture_is_told(detector: Any, policy: str) -> None:
    with pytest.raises(NoFaceFound) as caught:
        detect(torch.full((1, 96, 96, 3), 0.5), detector, policy)
    assert SENTENCE.fullmatch(str(caught.value)), str(caught.value)


@pytest.mark.parametrize("policy", ["error", "skip", "keep"])
def test_pictures_kept_without_a_face_make_no_identity(detector: Any, policy: str) -> None:
    faces, images, *_ = detect(torch.full((1, 96, 96, 3), 0.5), detector, "keep")
    assert (faces.counts, images.shape[0]) == ((0,), 1)
    encoder = LikenessLoadEncoder().load("dlib_resnet")[0]
    with pytest.raises(NoFaceFound) as caught:
        LikenessEncodeIdentity().encode(images, faces, encoder, "best", policy)
    assert SENTENCE.fullmatch(str(caught.value)), str(caught.value)


def test_forty_faces(detector: Any, astronaut: Tensor) -> None:
    head = astronaut[:, 0:256, 120:376]
    crowd = head.repeat(1, 5, 8, 1)
    faces, _, _, report, count = detect(crowd, detector)
    assert (count, len(report.splitlines())) == (40, 41)
    chosen, _, report = LikenessSelectFaces().select(crowd, faces, "left-right", "0,39")["result"]
    assert chosen.counts == (2,)
    assert chosen.images[0].boxes[0, 0] < 256 < 7 * 256 < chosen.images[0].boxes[1, 0]
    with pytest.raises(FaceChoice, match="40") as caught:
        LikenessSelectFaces().select(crowd, faces, "left-right", "40")
    assert SENTENCE.fullmatch(str(caught.value)), str(caught.value)


def test_one_pixel_is_told(detector: Any) -> None:
    with pytest.raises(NoFaceFound) as caught:
        detect(torch.rand(1, 1, 1, 3, generator=torch.Generator().manual_seed(0)), detector)
    assert SENTENCE.fullmatch(str(caught.value)), str(caught.value)


def test_a_picture_of_8k(detector: Any, astronaut: Tensor) -> None:
    large = torch.full((1, 4320, 7680, 3), 0.5)
    large[0, 2000:2512, 5000:5512] = astronaut[0]
    faces, _, overlay, _, count = detect(large, detector)
    assert (count, tuple(overlay.shape)) == (1, (1, 4320, 7680, 3))
    left, top, right, bottom = faces.images[0].boxes[0].tolist()
    assert 5150 < left < right < 5350 and 2000 < top < bottom < 2250


def test_alpha_and_grey_pictures(detector: Any, astronaut: Tensor) -> None:
    opaque = torch.cat([astronaut, torch.ones_like(astronaut[..., :1])], dim=-1)
    boxes = [detect(images, detector)[0].images[0].boxes for images in (astronaut, opaque)]
    assert torch.equal(*boxes)
    assert detect(astronaut.mean(-1, keepdim=True), detector)[4] == 1
    with pytest.raises(NoFaceFound):
        detect(torch.cat([astronaut, torch.zeros_like(astronaut[..., :1])], dim=-1), detector)
    for images in (opaque, astronaut.mean(-1, keepdim=True)):
        faces = detect(images, detector)[0]
        chosen, overlay, _ = LikenessSelectFaces().select(images, faces, "largest", "0")["result"]
        assert (chosen.counts, tuple(overlay.shape)) == ((1,), tuple(astronaut.shape))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_picture_that_is_not_finite_is_told(detector: Any, astronaut: Tensor, value: float) -> None:
    broken = torch.cat([astronaut, astronaut])
    broken[1, 3, 3, 0] = value
    for run in (
        lambda: detect(broken, detector),
        lambda: LikenessFacesFromUser().make(broken, "10,10,60,60", "", None),
    ):
        with pytest.raises(BadImage, match="number 1") as caught:
            run()
        assert SENTENCE.fullmatch(str(caught.value)), str(caught.value)


def test_an_empty_batch_is_told(detector: Any) -> None:
    for shape in ((0, 64, 64, 3), (1, 0, 64, 3), (1, 64, 64, 2), (64, 64, 3)):
        with pytest.raises(BadImage) as caught:
            detect(torch.zeros(shape), detector)
        assert SENTENCE.fullmatch(str(caught.value)), str(caught.value)


def test_pictures_that_are_not_those_of_the_faces_are_told(detector: Any, astronaut: Tensor) -> None:
    faces = detect(astronaut, detector)[0]
    encoder = LikenessLoadEncoder().load("dlib_resnet")[0]
    with pytest.raises(BadImage, match="512 x 512") as caught:
        LikenessEncodeIdentity().encode(astronaut[:, :256], faces, encoder, "best", "error")
    assert SENTENCE.fullmatch(str(caught.value)), str(caught.value)
    with pytest.raises(BadImage, match="found 2 of 512 x 512") as caught:
        LikenessSelectFaces().select(torch.cat([astronaut, astronaut]), faces, "largest", "0")
    assert SENTENCE.fullmatch(str(caught.value)), str(caught.value)


@pytest.mark.parametrize("shape", [(0, 0), (1, 0, 4), (3, 512, 512)])
def test_a_head_mask_of_no_use_is_told(detector: Any, astronaut: Tensor, shape: tuple[int, ...]) -> None:
    faces = detect(astronaut, detector)[0]
    encoder = LikenessLoadEncoder().load("dlib_resnet")[0]
    with pytest.raises(BadMask) as caught:
        LikenessEncodeIdentity().encode(astronaut, faces, encoder, "best", "error", mask=torch.zeros(shape))
    assert SENTENCE.fullmatch(str(caught.value)), str(caught.value)
