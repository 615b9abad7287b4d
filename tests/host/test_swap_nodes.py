"""The nodes that swap faces and follow persons, in the host's process: files, policies, clips, masks, memory."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from host_inprocess import engine
from identities import arcface_identity, transface_identity
from likeness_pack.adapters.encoders.base import FaceEncoder
from likeness_pack.adapters.errors import EncoderMismatch, MissingModelFile
from likeness_pack.adapters.identity import EMBEDDING, Identity
from likeness_pack.faces.errors import BadMask, FaceChoice, NoFaceFound
from likeness_pack.faces.tracking import TrackedFaces
from likeness_pack.faces.types import FaceBatch, Faces
from likeness_pack.inject import model_folders
from likeness_pack.inject.host import folder_paths, model_management
from likeness_pack.inject.loaded_swapper import LoadedSwapper
from likeness_pack.nodes.swap import LikenessLoadSwapper, LikenessPasteSwap, LikenessSwapFaces, LikenessSwapMask
from likeness_pack.nodes.tracks import LikenessSelectPersons, LikenessTrackFaces
from module_folders import ModuleFolders
from swap_standins import StandIn, batch_of, faces_at, write_reswapper
from torch import Tensor

FRAMES = 50


@pytest.fixture(scope="module")
def folder(module_folders: ModuleFolders) -> Iterator[Path]:
    """A folder of swappers with a blank and Chinese letters in its name."""
    engine()
    model_folders.register_model_folders()
    path = module_folders.mktemp("swappers") / "My models 模型"
    path.mkdir()
    table = folder_paths().folder_names_and_paths
    table["face_swappers"][0].append(str(path))
    yield path
    table["face_swappers"][0].remove(str(path))


def refreshed() -> list[str]:
    """The names the loader offers, read anew from the disk."""
    folder_paths().filename_list_cache.clear() if hasattr(folder_paths(), "filename_list_cache") else None
    return list(LikenessLoadSwapper.INPUT_TYPES()["required"]["swapper"][0])


def defaults(node: type, **given: Any) -> dict[str, Any]:
    """Every input with its default, and those given."""
    schema = node.INPUT_TYPES()["required"]  # type: ignore[attr-defined]
    return {name: spec[1]["default"] for name, spec in schema.items() if "default" in spec[1]} | given


def swap(images: Tensor, faces: FaceBatch, swapper: Any = None, **given: Any) -> tuple[Any, ...]:
    """Run Swap Faces and return its outputs."""
    loaded = LoadedSwapper(swapper or StandIn(32, lambda crops, _: 1 - crops))
    inputs = {"images": images, "faces": faces, "swapper": loaded, "identity": arcface_identity(), **given}
    return tuple(LikenessSwapFaces().swap(**defaults(LikenessSwapFaces, **inputs))["result"])


def clip(missing: set[int], size: tuple[int, int] = (48, 64)) -> tuple[Tensor, FaceBatch]:
    """Fifty frames with a face in each that is not missing."""
    chance = torch.Generator().manual_seed(0)
    images = torch.rand(FRAMES, *size, 3, generator=chance)
    frames = [Faces.none() if number in missing else faces_at((32, 24, 30)) for number in range(FRAMES)]
    return images, batch_of(*frames, size=size)


def test_a_reswapper_file_is_listed_loaded_and_run(folder: Path) -> None:
    write_reswapper(folder / "my swap.pth")
    assert "my swap.pth" in refreshed()
    swapper, report = LikenessLoadSwapper().load("my swap.pth", "auto", "128")
    assert "ReSwapper 128" in report and "commercial use: not allowed" in report
    images, faces = clip(set(range(1, FRAMES)))
    result = swap(images, faces, swapper.swapper)[0]
    assert not torch.equal(result[0], images[0]) and torch.equal(result[1:], images[1:])
    assert swapper.managed is not None and model_management().loaded_models() is not None
    with pytest.raises(MissingModelFile, match="other"):
        LikenessLoadSwapper().load("other.pth", "auto", "128")


def test_a_swap_that_nobody_sees_is_told() -> None:
    """An empty mask, a crop mask or a shrink that eats the face: the report names the pictures."""
    images, faces = clip({1})
    images, faces = images[:3], faces.with_images(faces.images[:3])
    empty = torch.zeros(1, 64, 64)
    for hidden in ({"mask": empty}, {"crop_mask": empty}, {"shrink": 512}, {"strength": 0.0}):
        result = swap(images, faces, **hidden)
        assert torch.equal(result[0], images) and "note: nothing is seen of the swap" in result[4]
        assert "in: 0, 2 (counted from 0)" in result[4]
    only = torch.ones(3, 48, 64)
    only[0] = 0
    assert "strength) in: 0 (counted from 0)" in swap(images, faces, mask=only)[4]
    assert "nothing is seen" not in swap(images, faces)[4]


def test_onnx_files_are_listed_and_packs_of_detectors_are_not(folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    from swap_standins import write_onnx_swapper

    write_onnx_swapper(folder / "hyper.onnx", 256)
    pack = tmp_path / "insightface"
    (pack / "models" / "buffalo_l").mkdir(parents=True)
    shutil.copy(folder / "hyper.onnx", pack / "models" / "buffalo_l" / "det_10g.onnx")
    shutil.copy(folder / "hyper.onnx", pack / "inswapper_128.onnx")
    places = folder_paths().folder_names_and_paths["insightface"][0]
    places.append(str(pack))
    try:
        names = refreshed()
        assert "hyper.onnx" in names and "[insightface] inswapper_128.onnx" in names
        assert not [name for name in names if "det_10g" in name]
        swapper, report = LikenessLoadSwapper().load("[insightface] inswapper_128.onnx", "cpu", "auto")
    finally:
        places.remove(str(pack))
    assert "HyperSwap 256" in report and swapper.managed is None


@pytest.mark.parametrize("policy", ["keep", "skip", "error"])
@pytest.mark.parametrize("missing", [set(), {0, 20, 49}])
def test_fifty_frames_in_fifty_out_under_each_policy(policy: str, missing: set[int]) -> None:
    images, faces = clip(missing)
    if missing and policy == "error":
        with pytest.raises(NoFaceFound, match="0, 20, 49"):
            swap(images, faces, on_missing_face=policy)
        return
    result, cropped, crops, mask, report = swap(images, faces, on_missing_face=policy)
    assert result.shape == images.shape and mask.shape == images.shape[:3]
    assert len(crops) == FRAMES - len(missing) == sum(cropped.counts)
    assert {number for number in range(FRAMES) if torch.equal(result[number], images[number])} == missing
    assert f"{FRAMES - len(missing)} of {FRAMES} pictures" in report
    assert ("0, 20, 49" in report) == (bool(missing) and policy == "keep")


def test_a_clip_without_any_face_passes_and_can_be_pasted() -> None:
    images, faces = clip(set(range(FRAMES)))
    result, cropped, crops, mask, _ = swap(images, faces)
    assert torch.equal(result, images) and float(mask.max()) == 0 and crops.shape == (1, 32, 32, 3)
    pasted, _ = LikenessPasteSwap().paste(**defaults(LikenessPasteSwap, images=images, faces=cropped, crops=crops))
    assert torch.equal(pasted, images)


def test_alpha_is_kept_and_colours_outside_are_untouched() -> None:
    images, faces = clip(set(range(2, FRAMES)))
    images = torch.cat([images, torch.rand(FRAMES, 48, 64, 1, generator=torch.Generator().manual_seed(1))], -1)
    result, _, _, mask, _ = swap(images, faces)
    assert result.shape == images.shape
    assert torch.equal(result[mask == 0], images[mask == 0])
    assert not torch.equal(result[0], images[0])


def test_swap_and_paste_apart_are_the_same_as_in_one() -> None:
    images, faces = clip(set(range(3, FRAMES)))
    chosen = {"shrink": 2, "feather": 3, "colour": "reinhard", "strength": 0.7}
    result, cropped, crops, mask, _ = swap(images, faces, **chosen)
    again, same = LikenessPasteSwap().paste(
        **defaults(LikenessPasteSwap, images=images, faces=cropped, crops=crops, **chosen)
    )
    assert torch.equal(result, again) and torch.equal(mask, same)


def test_masks_of_crops_and_pictures() -> None:
    images, faces = clip(set(range(2, FRAMES)))
    _, cropped, crops, _, _ = swap(images, faces)
    right = torch.zeros(32, 32)
    right[:, 16:] = 1
    (joined,) = LikenessSwapMask().make(**defaults(LikenessSwapMask, crops=crops, top=50.0, soften=False, region=right))
    assert joined.shape == (2, 32, 32) and float(joined[:, :16].max()) == 0 and float(joined[:, :, :16].max()) == 0
    assert float(joined[:, 20, 20].min()) == 1
    result, _ = LikenessPasteSwap().paste(
        **defaults(LikenessPasteSwap, images=images, faces=cropped, crops=crops, shrink=0, feather=0), crop_mask=joined
    )
    changed = (result != images).any(-1)
    assert bool(changed[0, 30, 38]) and not bool(changed[:, :, :30].any()) and not bool(changed[:, :22].any())
    with pytest.raises(BadMask, match="crop_mask"):
        LikenessPasteSwap().paste(
            **defaults(LikenessPasteSwap, images=images, faces=cropped, crops=crops), crop_mask=torch.ones(5, 32, 32)
        )


class Known(FaceEncoder):
    """Says that every face is person 3."""

    id, title, licence = "arcface_buffalo_l", "Known", StandIn.licence

    def encode_faces(self, images: Tensor, index: Any, boxes: Tensor, landmarks5: Tensor, masks: Any) -> Any:
        return {EMBEDDING: torch.eye(512)[3].expand(len(index), -1) * 20}


def test_a_weight_asks_for_the_encoder() -> None:
    images, faces = clip(set(range(2, FRAMES)))
    seen: list[Tensor] = []

    def look(crops: Tensor, source: Tensor) -> Tensor:
        seen.append(source)
        return crops

    with pytest.raises(FaceChoice, match="encoder arcface_buffalo_l"):
        swap(images, faces, StandIn(32, look), weight=0.0)
    swap(images, faces, StandIn(32, look), weight=0.0, encoder=Known())
    swap(images, faces, StandIn(32, look), weight=1.0, encoder=Known())
    assert float(seen[0][0, 3]) > 0.2 > -0.2 > float(seen[1][0, 3])
    with pytest.raises(EncoderMismatch, match="transface_s"):
        swap(images, faces, identity=transface_identity())


def walking() -> tuple[Tensor, FaceBatch]:
    """Two persons who change places, told apart by their embeddings; one frame in which the first is lost."""
    frames = []
    for number in range(10):
        places = [(40.0 + 8 * number, 60.0, 50.0), (120.0 - 8 * number, 60.0, 50.0)]
        chosen = [1] if number == 3 else [number % 2, 1 - number % 2]
        rows = torch.eye(512)[chosen] * 20
        frames.append(faces_at(*(places[index] for index in chosen), embeddings=rows))
    images = torch.rand(10, 120, 160, 3, generator=torch.Generator().manual_seed(0))
    return images, batch_of(*frames, size=(120, 160), encoder="arcface_buffalo_l")


def tracked(**given: Any) -> tuple[Any, ...]:
    """The outputs of Track Faces."""
    images, faces = walking()
    node = LikenessTrackFaces().track(**defaults(LikenessTrackFaces, images=images, faces=faces, **given))
    return tuple(node["result"])


def test_tracks_give_each_person_one_identity_through_a_clip() -> None:
    tracks, faces, overlay, report, count = tracked()
    images, _ = walking()
    assert count == 2 and faces is tracks and isinstance(tracks, TrackedFaces) and tracks.counts == (2,) * 10
    assert overlay.shape == images.shape and "1 of them filled in" in report
    people = Identity("arcface_buffalo_l", {EMBEDDING: torch.eye(512)[[5, 6]]})

    def painted(crops: Tensor, source: Tensor) -> Tensor:
        return source[:, 5, None, None, None].expand_as(crops).contiguous()

    _, cropped, crops, _, _ = swap(images, faces, StandIn(32, painted), identity=people, rows="one each")
    assert crops[:, 0, 0, 0].tolist() == [1.0, 0.0] * 10
    assert cropped.counts == (2,) * 10


def test_smoothing_off_keeps_every_point() -> None:
    _, given = walking()
    tracks = tracked(fill=False)[0]
    for found, faces in zip(tracks.images, given.images, strict=True):
        assert {tuple(one) for one in found.boxes.tolist()} == {tuple(one) for one in faces.boxes.tolist()}
    moved = tracked(fill=False, smooth=2, min_overlap=0.2)[0]
    assert moved.counts == tracks.counts


def test_persons_are_chosen_by_number_or_reference() -> None:
    tracks = tracked()[0]
    chosen, same, report = LikenessSelectPersons().select(tracks, "1", -1.0)
    assert chosen is same and chosen.people == (1,) and "person 1" in report
    reference = Identity("arcface_buffalo_l", {EMBEDDING: torch.eye(512)[:1]})
    found = LikenessSelectPersons().select(tracks, "", -1.0, reference)[0]
    # The first frame shows the second person last, so that the reference is person 0 by its own embedding alone.
    assert found.people == (0,) and float(found.images[0].boxes[0, 0]) < float(found.images[9].boxes[0, 0])
    assert LikenessSelectPersons().select(tracks, "", -1.0)[0].people == (0, 1)
    with pytest.raises(FaceChoice, match="number 2"):
        LikenessSelectPersons().select(tracks, "2", -1.0)
