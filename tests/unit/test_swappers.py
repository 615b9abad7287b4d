"""Face swappers: files, latent, batches, pixel boost, whom each face becomes, and the whole path with a stand-in."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from identities import arcface_identity, transface_identity
from likeness_pack.adapters import registry
from likeness_pack.adapters.errors import (
    AmbiguousCheckpoint,
    BadCheckpoint,
    EncoderMismatch,
    MissingModelFile,
    UnknownCheckpoint,
)
from likeness_pack.adapters.identity import EMBEDDING, Identity
from likeness_pack.adapters.swappers.base import describe, latents, source_embeddings
from likeness_pack.adapters.swappers.onnx_swapper.swapper import ONE_BY_ONE, load_onnx_swapper
from likeness_pack.adapters.swappers.pipeline import SwapOptions, require_some, swap_faces
from likeness_pack.adapters.swappers.pixel_boost import join_pixels, split_pixels
from likeness_pack.faces.errors import BadImage, FaceChoice, NoFaceFound
from likeness_pack.faces.swap_paste import PasteOptions, paste_swaps
from likeness_pack.faces.tracking import track_faces
from likeness_pack.faces.types import Faces
from swap_standins import StandIn, batch_of, faces_at, write_onnx_swapper, write_reswapper
from torch import Tensor
from torch.nn.functional import normalize


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def test_latents_are_unit_and_do_not_know_the_embeddings_length() -> None:
    emap = torch.randn(512, 512, generator=torch.Generator().manual_seed(1))
    source = torch.randn(3, 512, generator=torch.Generator().manual_seed(2))
    found = latents(source, emap)
    torch.testing.assert_close(found.norm(dim=-1), torch.ones(3))
    torch.testing.assert_close(found, latents(source * 17, emap))
    torch.testing.assert_close(found, normalize(source @ emap, dim=-1), atol=1e-6, rtol=0)


def test_an_identity_of_another_encoder_or_without_a_face_is_refused() -> None:
    with pytest.raises(EncoderMismatch, match="transface_s"):
        source_embeddings(StandIn(), transface_identity())
    empty = Identity("arcface_buffalo_l", {EMBEDDING: torch.stack([torch.ones(512), torch.zeros(512)])})
    with pytest.raises(EncoderMismatch, match="row 1"):
        source_embeddings(StandIn(), empty)


@pytest.mark.parametrize("factor", [1, 2, 3, 8])
def test_pixel_boost_goes_there_and_back(factor: int) -> None:
    crops = noise(2, 3, 4 * factor, 4 * factor)
    parts = split_pixels(crops, factor)
    assert parts.shape == (2 * factor * factor, 3, 4, 4)
    assert torch.equal(parts[factor * factor], crops[1, :, ::factor, ::factor])
    assert torch.equal(join_pixels(parts, factor), crops)


def test_reswapper_needs_its_variant_and_map(tmp_path: Path) -> None:
    path = write_reswapper(tmp_path / "any name.pth", emap=False)
    with pytest.raises(AmbiguousCheckpoint, match="128 or 256"):
        registry.load(path, kind="swapper")
    with pytest.raises(MissingModelFile, match=r"emap\.npy"):
        registry.load(path, kind="swapper", variant="128")
    np.save(tmp_path / "emap.npy", np.zeros((4, 4), dtype=np.float32))
    with pytest.raises(BadCheckpoint, match="512 x 512"):
        registry.load(path, kind="swapper", variant="128")
    np.save(tmp_path / "emap.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(BadCheckpoint, match="emap"):
        registry.load(path, kind="swapper", variant="128")


@pytest.mark.parametrize("size", [128, 256])
def test_reswapper_swaps_by_the_latent(tmp_path: Path, size: int) -> None:
    swapper = registry.load(write_reswapper(tmp_path / "x.pth"), kind="swapper", variant=str(size))
    assert (swapper.size, swapper.offset) == (size, size / 256 - 0.5)
    crops, source = noise(2, 3, 32, 32), torch.randn(2, 512, generator=torch.Generator().manual_seed(3))
    found = swapper.swap(crops, source)
    emap = torch.from_numpy(np.load(tmp_path / "emap.npy"))
    with torch.no_grad():
        assert torch.equal(found, swapper.network.swapper(crops, latents(source, emap)))
    assert float(found.min()) >= 0 and float(found.max()) <= 1
    assert float((found[0] - swapper.swap(crops[:1], source[1:])[0]).abs().max()) > 1e-3
    assert "non-commercial" in describe(swapper)


def test_a_batch_of_reswapper_is_the_same_as_one_by_one(tmp_path: Path) -> None:
    swapper = registry.load(write_reswapper(tmp_path / "x.pth"), kind="swapper", variant="128")
    crops, source = noise(5, 3, 32, 32), torch.randn(5, 512, generator=torch.Generator().manual_seed(3))
    single = torch.cat([swapper.swap(crops[i : i + 1], source[i : i + 1]) for i in range(5)])
    torch.testing.assert_close(swapper.swap(crops, source), single, atol=1e-5, rtol=0)


def onnx_file(path: Path, **settings: object) -> Path:
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    return write_onnx_swapper(path, **settings)  # type: ignore[arg-type]


EMAP = torch.randn(512, 512, generator=torch.Generator().manual_seed(9))


def test_inswapper_is_known_by_its_unused_map_wherever_it_stands(tmp_path: Path) -> None:
    swapper = load_onnx_swapper(onnx_file(tmp_path / "a.onnx", emap=EMAP), "cpu")
    assert (swapper.id, swapper.size, swapper.at_once, swapper.licence.commercial) == ("inswapper", 128, None, False)
    crops, source = noise(3, 3, 128, 128) * 0.5 + 0.25, torch.randn(3, 512, generator=torch.Generator().manual_seed(4))
    expected = crops + latents(source, EMAP)[:, :3, None, None]
    torch.testing.assert_close(swapper.swap(crops, source), expected.clamp(0, 1), atol=1e-5, rtol=0)


def test_exports_of_reswapper_are_told_apart_and_shifted(tmp_path: Path) -> None:
    swapper = load_onnx_swapper(onnx_file(tmp_path / "a.onnx", size=256, emap=EMAP, torch_names=True), "cpu")
    assert (swapper.id, swapper.size, swapper.offset) == ("reswapper_onnx", 256, 0.5)


def test_hyperswap_takes_unit_embeddings_and_signed_pixels(tmp_path: Path) -> None:
    swapper = load_onnx_swapper(onnx_file(tmp_path / "a.onnx", size=256), "cpu")
    assert (swapper.id, swapper.size) == ("hyperswap", 256)
    crops, source = noise(2, 3, 256, 256) * 0.5 + 0.25, torch.randn(2, 512, generator=torch.Generator().manual_seed(4))
    expected = crops + normalize(source, dim=-1)[:, :3, None, None] / 2
    torch.testing.assert_close(swapper.swap(crops, source), expected.clamp(0, 1), atol=1e-5, rtol=0)


def test_a_file_that_fixes_its_batch_goes_one_by_one_and_says_so(tmp_path: Path) -> None:
    single = load_onnx_swapper(onnx_file(tmp_path / "a.onnx", emap=EMAP, batch=1), "cpu")
    free = load_onnx_swapper(onnx_file(tmp_path / "b.onnx", emap=EMAP), "cpu")
    crops, source = noise(3, 3, 128, 128), torch.randn(3, 512, generator=torch.Generator().manual_seed(4))
    assert single.at_once == 1 and ONE_BY_ONE in describe(single) and ONE_BY_ONE not in describe(free)
    torch.testing.assert_close(single.swap(crops, source), free.swap(crops, source), atol=1e-6, rtol=0)


def test_a_provider_that_is_not_there_falls_back_and_says_so(tmp_path: Path) -> None:
    swapper = load_onnx_swapper(onnx_file(tmp_path / "a.onnx", emap=EMAP), "rocm")
    assert "face swapper runs on the CPU" in " ".join(swapper.notes)


def test_other_networks_are_refused(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    onnx = pytest.importorskip("onnx")
    value = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Identity", ["x"], ["y"])],
        "recogniser",
        [value("x", 1, ["n", 3, 112, 112])],
        [value("y", 1, ["n", 3, 112, 112])],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, str(tmp_path / "inswapper_128.onnx"))
    with pytest.raises(UnknownCheckpoint, match=r"x \['n', 3, 112, 112\]"):
        load_onnx_swapper(tmp_path / "inswapper_128.onnx", "cpu")
    (tmp_path / "cut.onnx").write_bytes((tmp_path / "inswapper_128.onnx").read_bytes()[:40])
    with pytest.raises(BadCheckpoint, match="cut"):
        load_onnx_swapper(tmp_path / "cut.onnx", "cpu")


def waves(count: int, height: int, width: int) -> Tensor:
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    planes = [0.5 + 0.4 * torch.sin(x / (14 + c) + y / (17 - c) + c) for c in range(3)]
    return torch.stack([torch.stack(planes, -1).roll(7 * shift, 1) for shift in range(count)])


def test_the_whole_path_with_an_unchanging_swapper_changes_next_to_nothing() -> None:
    images = waves(1, 120, 320)
    batch = batch_of(faces_at((60, 60, 90), (160, 60, 80), (260, 60, 100)))
    done = swap_faces(images, batch, StandIn(), arcface_identity())
    result, mask = paste_swaps(images, done.faces, done.crops)
    assert torch.equal(result[mask == 0], images[mask == 0])
    assert int((mask > 0).sum()) > 5000
    assert float((result - images).abs()[mask > 0].mean()) * 255 <= 2


def test_a_photo_keeps_its_faces_within_two_levels() -> None:
    data = pytest.importorskip("skimage").data
    from likeness_pack.adapters.detectors import packages
    from likeness_pack.faces.detect import detect_faces

    image = torch.from_numpy(data.astronaut()).float()[None] / 255
    batch, _ = detect_faces(image, packages.load("mtcnn", []))
    for boost in (1, 2):
        done = swap_faces(image, batch, StandIn(), arcface_identity(), SwapOptions(boost=boost))
        result, mask = paste_swaps(image, done.faces, done.crops)
        assert torch.equal(result[mask == 0], image[mask == 0])
        assert float((result - image).abs()[mask > 0].mean()) * 255 <= 2


def test_three_people_in_three_regions_changed() -> None:
    images = noise(1, 120, 320, 3)
    batch = batch_of(faces_at((60, 60, 70), (160, 60, 60), (260, 60, 80)))
    done = swap_faces(images, batch, StandIn(change=lambda crops, _: 1 - crops), arcface_identity())
    result, mask = paste_swaps(images, done.faces, done.crops)
    changed = (result != images).any(-1)[0]
    for x in (60, 160, 260):
        assert bool(changed[60, x])
    columns = changed.any(0).int()
    assert int((columns.diff() == 1).sum()) + int(columns[0]) == 3
    assert torch.equal(result[mask == 0], images[mask == 0])


@pytest.mark.parametrize("boost", [1, 2])
def test_faces_go_through_in_batches_over_frames(boost: int) -> None:
    images = waves(10, 60, 80)
    one = faces_at((40, 30, 40))
    frames = [one if number % 3 else Faces.none() for number in range(10)]
    swapper = StandIn(32)
    told: list[tuple[int, int]] = []
    done = swap_faces(
        images,
        batch_of(*frames, size=(60, 80)),
        swapper,
        arcface_identity(),
        SwapOptions(boost=boost),
        lambda number, total: told.append((number, total)),
    )
    assert done.crops.shape == (6, 32 * boost, 32 * boost, 3)
    assert sum(swapper.calls) == 6 * boost * boost and len(swapper.calls) <= 2
    assert told[-1] == (6, 6)
    result, mask = paste_swaps(images, done.faces, done.crops)
    assert len(result) == 10
    for number, faces in enumerate(frames):
        assert torch.equal(result[number], images[number]) == (not len(faces))


@pytest.mark.parametrize("missing", [set(), {0, 7, 49}, set(range(50))])
def test_fifty_frames_in_and_out(missing: set[int]) -> None:
    images = waves(50, 32, 40)
    batch = batch_of(*(Faces.none() if n in missing else faces_at((20, 16, 24)) for n in range(50)), size=(32, 40))
    done = swap_faces(images, batch, StandIn(16, lambda crops, _: 1 - crops), arcface_identity())
    result, _ = paste_swaps(images, done.faces, done.crops)
    assert result.shape == images.shape
    assert {n for n in range(50) if torch.equal(result[n], images[n])} == missing
    if missing:
        with pytest.raises(NoFaceFound, match="49"):
            require_some(batch)
    else:
        require_some(batch)


def painted(crops: Tensor, source: Tensor) -> Tensor:
    """The first number of the source as a grey level."""
    return (source[:, :1, None, None] / 2 + 0.5).expand_as(crops).contiguous()


def test_rows_are_blended_or_given_one_each() -> None:
    images = noise(1, 120, 320, 3)
    batch = batch_of(faces_at((60, 60, 70), (160, 60, 60), (260, 60, 80)))
    identity = arcface_identity(photos=2)
    rows = normalize(identity.features[EMBEDDING], dim=-1)
    blended = swap_faces(images, batch, StandIn(change=painted), identity)
    expected = float(normalize(rows.mean(0), dim=-1)[0] / 2 + 0.5)
    torch.testing.assert_close(blended.crops[:, 0, 0, 0], torch.full((3,), expected))
    each = swap_faces(images, batch, StandIn(change=painted), identity, SwapOptions(rows="one each"))
    torch.testing.assert_close(each.crops[:, 0, 0, 0], rows[:, 0] / 2 + 0.5)
    assert "1 faces left as they are" in each.notes[0] and each.faces.counts == (2,)


def test_tracked_persons_get_their_own_rows_when_they_cross() -> None:
    left, right = torch.eye(512)[:1], torch.eye(512)[1:2]
    frames = [
        faces_at((60, 60, 60), (200, 60, 60), embeddings=torch.cat([left, right])),
        faces_at((60, 60, 60), (200, 60, 60), embeddings=torch.cat([right, left])),
    ]
    tracks = track_faces(batch_of(*frames, encoder="arcface_buffalo_l"))
    identity = arcface_identity(photos=2)
    rows = normalize(identity.features[EMBEDDING], dim=-1)[:, 0] / 2 + 0.5
    done = swap_faces(waves(2, 120, 320), tracks, StandIn(change=painted), identity, SwapOptions(rows="one each"))
    torch.testing.assert_close(done.crops[:, 0, 0, 0], rows.repeat(2))
    assert float(done.faces.images[1].landmarks5[0, :, 0].mean()) > 150


def test_weight_moves_along_the_line_to_the_face_that_was_there() -> None:
    images = noise(1, 120, 320, 3)
    target = torch.zeros(1, 512)
    target[0, 0] = 30.0
    known = batch_of(faces_at((60, 60, 70), embeddings=target), encoder="arcface_buffalo_l")
    identity = Identity("arcface_buffalo_l", {EMBEDDING: torch.eye(512)[1:2] * 20})
    level = {
        weight: float(
            swap_faces(images, known, StandIn(change=painted), identity, SwapOptions(weight=weight)).crops.mean()
        )
        for weight in (0.0, 0.5, 1.0)
    }
    mixed = normalize(torch.tensor([0.35, 0.65]), dim=0)[0]
    assert level[0.5] == 0.5
    assert level[0.0] == pytest.approx(float(mixed) / 2 + 0.5, abs=1e-5)
    assert level[1.0] < 0.5
    unknown = batch_of(faces_at((60, 60, 70)))
    with pytest.raises(FaceChoice, match="weight"):
        swap_faces(images, unknown, StandIn(), identity, SwapOptions(weight=0.2))


def test_pictures_and_crops_that_do_not_belong_are_refused() -> None:
    images = noise(1, 120, 320, 3)
    batch = batch_of(faces_at((60, 60, 70)))
    with pytest.raises(BadImage, match="320 x 120"):
        swap_faces(images[:, :60], batch, StandIn(), arcface_identity())
    done = swap_faces(images, batch, StandIn(), arcface_identity())
    with pytest.raises(FaceChoice, match="Swap Faces"):
        paste_swaps(images, batch, done.crops)
    with pytest.raises(BadImage, match="1 crops"):
        paste_swaps(images, done.faces, done.crops.repeat(2, 1, 1, 1))


def test_masks_and_strength_bound_what_changes() -> None:
    images = noise(2, 120, 320, 3)
    batch = batch_of(faces_at((60, 60, 90)), faces_at((160, 60, 90)))
    done = swap_faces(images, batch, StandIn(change=lambda crops, _: 1 - crops), arcface_identity())
    half = torch.zeros(2, 64, 64)
    half[:, :32] = 1
    allowed = torch.zeros(2, 120, 320)
    allowed[:, :, :60] = 1
    options = PasteOptions(shrink=0, feather=12)
    result, mask = paste_swaps(images, done.faces, done.crops, options, half, allowed)
    changed = (result != images).any(-1)
    assert bool(changed[0, 40, 40]) and not bool(changed[0, 75:].any())
    assert not bool(changed[0, :, 60:].any()) and torch.equal(result[1], images[1])
    assert torch.equal(result[mask == 0], images[mask == 0])
    nothing, mask = paste_swaps(images, done.faces, done.crops, PasteOptions(strength=0.0))
    assert torch.equal(nothing, images) and float(mask.max()) == 0


def test_shrink_and_feather_are_pixels_of_the_picture() -> None:
    images = noise(1, 240, 640, 3)
    for side in (80, 160):
        batch = batch_of(faces_at((320, 120, side)), size=(240, 640))
        done = swap_faces(images, batch, StandIn(32, lambda crops, _: 1 - crops), arcface_identity())
        _, mask = paste_swaps(images, done.faces, done.crops, PasteOptions(shrink=21, feather=0))
        assert abs(int((mask[0, 120] > 0).sum()) - (side - 18)) <= 2
        _, soft = paste_swaps(images, done.faces, done.crops, PasteOptions(shrink=21, feather=5))
        assert 8 <= int(((soft[0, 120] > 0) & (soft[0, 120] < 1)).sum()) <= 22


def test_a_restored_crop_of_another_size_is_pasted_at_the_same_place() -> None:
    images = waves(1, 120, 320)
    batch = batch_of(faces_at((60, 60, 90)))
    done = swap_faces(images, batch, StandIn(), arcface_identity())
    wide = torch.nn.functional.interpolate(done.crops.movedim(-1, 1), scale_factor=2, mode="bilinear").movedim(1, -1)
    first, _ = paste_swaps(images, done.faces, done.crops)
    second, _ = paste_swaps(images, done.faces, wide)
    assert float((first - second).abs().max()) < 0.02


def test_wide_layers_on_the_cpu_are_the_same_convolutions() -> None:
    from likeness_pack.adapters.swappers.reswapper.winograd import convolve, kernels_for
    from torch import nn

    layer = nn.Conv2d(512, 520, 3).requires_grad_(False)
    features = torch.randn(3, 512, 8, 10, generator=torch.Generator().manual_seed(5))
    with torch.inference_mode():
        kernels = kernels_for(layer, features, 6, 8)
        assert kernels is not None and kernels.shape == (16, 520, 512)
        torch.testing.assert_close(convolve(layer, kernels, features), layer(features), atol=1e-5, rtol=1e-5)
        assert kernels_for(layer, features, 7, 8) is None and kernels_for(layer, features, 128, 64) is None
        assert kernels_for(nn.Conv2d(256, 512, 3), features, 6, 8) is None
        assert kernels_for(nn.Conv2d(512, 512, 3, stride=2), features, 6, 8) is None
    assert kernels_for(layer, features, 6, 8) is None


def test_batches_of_a_wide_network_are_the_same_as_one_by_one() -> None:
    from likeness_pack.adapters.swappers.reswapper.arch import SwapNetwork

    torch.manual_seed(0)
    network = SwapNetwork((4, 8, 512, 512), blocks=1).eval().requires_grad_(False)
    crops, source = (
        noise(3, 3, 32, 32),
        normalize(torch.randn(3, 512, generator=torch.Generator().manual_seed(3)), dim=-1),
    )
    slow = network(crops, source)
    with torch.inference_mode():
        together = network(crops, source)
        single = torch.cat([network(crops[i : i + 1], source[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(together, slow, atol=1e-5, rtol=0)
    torch.testing.assert_close(together, single, atol=1e-5, rtol=0)
