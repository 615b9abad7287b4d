"""SegFace: recognition, strict loading, what the network is shown, and parts back in the picture."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from likeness_pack.adapters import registry
from likeness_pack.adapters.checkpoint import read_header
from likeness_pack.adapters.errors import AmbiguousCheckpoint, KeyMismatch, UnknownCheckpoint
from likeness_pack.adapters.parsers.base import parse_faces
from likeness_pack.adapters.parsers.segface import views
from likeness_pack.adapters.parsers.segface.arch import SegFace, Shape
from likeness_pack.adapters.parsers.segface.family import FAMILY
from likeness_pack.adapters.parsers.segface.labels import CELEBA, FEW, LABEL_SETS, labels_of
from likeness_pack.adapters.parsers.segface.tanh_warp import POINTS, TanhWarp
from likeness_pack.faces.errors import BadImage, BadLandmarks, FaceChoice, NoFaceFound
from likeness_pack.faces.parts import GROUPS
from likeness_pack.faces.templates import template_points
from likeness_pack.faces.types import FaceBatch, Faces
from module_folders import ModuleFolders
from pack import ROOT
from PIL import Image
from safetensors.torch import save_file
from tiny_parser import PICTURE, TINY, pictures, tiny_network, tiny_parser, trained, two_and_one, write_trained

sys.path.append(str(ROOT / "tools"))

import convert_segface  # noqa: E402 (a script of the tools folder)

OTHERS = (
    Shape("swin_v2", (32, 64, 128, 256), (1, 2, 1, 1), window=8, dim=32, inside=32),
    Shape("convnext", (8, 16, 32, 64), (1, 1, 2, 1), dim=32, inside=32),
    Shape("resnet", (16, 32, 64, 128), (1, 1, 2, 1), dim=32, inside=32, depth=1),
)


def tensors(network: SegFace) -> dict[str, torch.Tensor]:
    return {name: tensor.clone().contiguous() for name, tensor in network.state_dict().items()}


@pytest.fixture(scope="module")
def published(module_folders: ModuleFolders) -> Path:
    return write_trained(module_folders.mktemp("files") / "model_299.pt")


def test_the_trainers_file_gives_the_model_alone(published: Path) -> None:
    """Weights under their wrapper, moments of the same shapes beside them left alone."""
    parser = registry.load(published, "parser")
    expected = tiny_network()
    assert parser.title == "SegFace Swin CelebAMask-HQ" and parser.resolution == 512
    for name, tensor in parser.network.state_dict().items():
        assert torch.equal(tensor, expected.state_dict()[name]), name
    assert not parser.network.training and not any(each.requires_grad for each in parser.network.parameters())


def test_the_report_counts_what_is_read(published: Path) -> None:
    report = registry.describe(published, "parser")
    own = sum(tensor.numel() * tensor.element_size() for tensor in tiny_network().state_dict().values())
    assert (report.family, report.variant, report.weight_bytes) == ("segface", "celeba", own)
    assert any("trainer's state are not read" in note for note in report.notes)
    assert "non-commercial research" in report.as_text()


@pytest.mark.parametrize("shape", [TINY, *OTHERS], ids=lambda shape: shape.backbone)
def test_sizes_come_from_shapes(tmp_path: Path, shape: Shape) -> None:
    """A converted file of any width and depth gives the same numbers."""
    network = tiny_network("celeba", shape)
    save_file(tensors(network), tmp_path / "a.safetensors", metadata={"likeness.resolution": "96"})
    parser = registry.load(tmp_path / "a.safetensors")
    assert parser.resolution == 96
    image = torch.rand(2, 3, 64, 96, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        found = parser.network(image)
        assert found.shape == (2, len(CELEBA), 64, 96)
        assert torch.equal(found, network(image))


def test_lapa_and_helen_must_be_told_apart_by_the_user(tmp_path: Path) -> None:
    path = write_trained(tmp_path / "swinb_lapa_224.pt", "lapa")
    with pytest.raises(AmbiguousCheckpoint, match="set the option variant to lapa or helen") as caught:
        registry.load(path, "parser")
    assert caught.value.candidates == ("lapa", "helen")
    assert registry.load(path, "parser", "lapa").needs_points
    assert not registry.load(path, "parser", "helen").needs_points
    with pytest.raises(AmbiguousCheckpoint):
        registry.load(path, "parser", "celeba")


def test_a_converted_file_may_say_which_it_is(tmp_path: Path) -> None:
    save_file(tensors(tiny_network("helen")), tmp_path / "a.safetensors", metadata={"likeness.variant": "helen"})
    assert registry.load(tmp_path / "a.safetensors").title == "SegFace Swin Helen"


def test_swins_last_norm_is_ignored_and_nothing_else(tmp_path: Path) -> None:
    weights = tensors(tiny_network())
    norm = {"backbone.1.weight": torch.ones(256), "backbone.1.bias": torch.zeros(256)}
    save_file(weights | norm, tmp_path / "a.safetensors")
    registry.load(tmp_path / "a.safetensors")
    save_file(weights | {"backbone.1.extra": torch.ones(1)}, tmp_path / "b.safetensors")
    with pytest.raises(KeyMismatch, match=r"1 left over: backbone\.1"):
        registry.load(tmp_path / "b.safetensors")


@pytest.mark.parametrize(
    "name",
    [
        "linear_c.3.proj.bias",
        "face_decoder.norm_final_attn.bias",
        "backbone.0.5.0.attn.qkv.weight",
        "face_decoder.transformer.layers.1.norm4.weight",
    ],
)
def test_a_lost_tensor_is_named(tmp_path: Path, name: str) -> None:
    weights = tensors(tiny_network())
    name = name.replace("face_decoder.norm_final", "face_decoder.transformer.norm_final")
    del weights[name]
    save_file(weights, tmp_path / "a.safetensors")
    with pytest.raises(KeyMismatch, match="1 missing"):
        registry.load(tmp_path / "a.safetensors")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"pe_layer.positional_encoding_gaussian_matrix": None}, "no pe_layer"),
        ({"face_decoder.hat_token.weight": None}, "tokens of no known label set"),
        ({"face_decoder.background_token.weight": (1, 40)}, "40 channels"),
        ({"backbone.0.1.0.attn.relative_position_index": None}, "windows of 0"),
        ({"linear_c.2.proj.weight": (32, 100)}, "widths"),
        ({"backbone.0.1.0.attn.relative_position_bias_table": None}, "unknown kind"),
    ],
)
def test_what_does_not_fit_is_refused_with_its_reason(
    tmp_path: Path, change: dict[str, tuple[int, ...] | None], reason: str
) -> None:
    weights = tensors(tiny_network())
    for name, shape in change.items():
        del weights[name]
        if shape is not None:
            weights[name] = torch.zeros(shape)
    save_file(weights, tmp_path / "a.safetensors")
    with pytest.raises(UnknownCheckpoint) as caught:
        registry.load(tmp_path / "a.safetensors", "parser")
    assert reason in caught.value.reasons["segface"]


def test_names_follow_the_channels() -> None:
    """Sides and lips as the data sets name them, whatever the tokens are called."""
    names = [label.name for label in CELEBA]
    assert [names.index(name) for name in ("hair", "glasses", "hat", "earring", "necklace")] == [14, 15, 16, 17, 18]
    assert (CELEBA[4].token, CELEBA[4].name) == ("rightear", "left ear")
    assert (CELEBA[12].token, CELEBA[12].name) == ("lowerlip", "lower lip")
    assert [label.name for label in FEW][-4:] == ["upper lip", "inner mouth", "lower lip", "hair"]
    for label_set in LABEL_SETS:
        assert labels_of(label_set)[0].name == "background"
    assert {name for members in GROUPS.values() for name in members} <= set(names)


def test_an_aligned_view_puts_the_points_on_the_template() -> None:
    points = template_points(views.TEMPLATE, 100) * 1.7 + 12.0
    view = views.aligned(pictures(1)[0], points, 0.0, 128)
    assert torch.allclose(view.landmarks5, template_points(views.TEMPLATE, 128), atol=1e-6)
    wide = views.aligned(pictures(1)[0], points, 0.25, 128)
    assert torch.allclose(wide.landmarks5 - 63.5, (view.landmarks5 - 63.5) / 1.5, atol=1e-6)


def test_a_large_face_is_averaged_not_skipped() -> None:
    """Stripes of one pixel become grey; the map keeps the picture's detail."""
    stripes = (torch.arange(900) % 2).float()[None, :, None].expand(900, 900, 3)
    view = views.aligned(stripes, template_points(views.TEMPLATE, 900), 0.0, 128)
    inner = view.pixels[:, 16:-16, 16:-16].float()
    assert view.detail == 8
    assert float((inner - 127.5).abs().max()) < 30


def test_a_whole_picture_is_resized_as_pillow_does() -> None:
    image = (pictures(1)[0] * 255).round() / 255
    view = views.squashed(image, (0, 0, PICTURE[1], PICTURE[0]), torch.zeros(5, 2), 96)
    array = (image * 255).round().to(torch.uint8).numpy()
    expected = np.asarray(Image.fromarray(array).resize((96, 96), Image.Resampling.BICUBIC))
    assert np.array_equal(view.pixels.movedim(0, -1).numpy(), expected)
    # The corners of the picture are those of the view, measured at the edges of pixels.
    corner = view.matrix @ torch.tensor([PICTURE[1] - 0.5, PICTURE[0] - 0.5, 1.0], dtype=torch.float64)
    assert torch.allclose(corner, torch.tensor([95.5, 95.5], dtype=torch.float64))


def test_regions_stay_inside_the_picture() -> None:
    assert views.lapa_region(torch.tensor([100.0, 80.0, 220.0, 240.0]), 240, 320) == (0, 0, 320, 240)
    assert views.lapa_region(torch.tensor([100.0, 100.0, 110.0, 120.0]), 1000, 1000) == (75, 80, 135, 140)
    x1, y1, x2, y2 = views.helen_region(torch.tensor([300.0, 300.0, 400.0, 420.0]), 1000, 1000)
    assert x2 - x1 == y2 - y1 == 120 and (x1 + x2) // 2 == 350 and y2 > 420
    for region in (views.helen_region, views.lapa_region):
        x1, y1, x2, y2 = region(torch.tensor([-900.0, -900.0, -800.0, -800.0]), 240, 320)
        assert 0 <= x1 < x2 <= 320 and 0 <= y1 < y2 <= 240


def test_the_warp_carries_points_to_the_mean_face_and_back() -> None:
    points = torch.tensor(POINTS)[None].double() / 512 * 224 * 0.6 + 30
    way = TanhWarp(points, 224)
    target = torch.tensor(POINTS).double() / 256 * (224 - 1) / 2
    warped = way._forward(points[0])[0]
    # The middle of the square is left alone; beyond it the picture is pressed together.
    assert torch.allclose(warped[2], target[2], atol=0.3)
    assert torch.allclose(way._inverse(warped)[0], points[0], atol=1e-6)
    far = way._forward(torch.tensor([[-1e4, 1e4]], dtype=torch.float64))[0, 0]
    assert float(far[0]) > -1e-6 and float(far[1]) < 224 + 1e-6


def test_the_warp_leaves_the_callers_pictures_alone() -> None:
    """The authors' code writes the warped picture into its input."""
    parser = tiny_parser("lapa")
    face = two_and_one().images[0]
    image = pictures(1)[0]
    view = parser.view(image, face.boxes[0], face.landmarks5[0], 0.0)
    kept, before = view.pixels.clone(), image.clone()
    first, second = parser.labels([view])[0], parser.labels([view])[0]
    assert torch.equal(first, second) and torch.equal(view.pixels, kept) and torch.equal(image, before)


@pytest.mark.parametrize("label_set", LABEL_SETS)
def test_several_faces_at_once_are_as_one_by_one(label_set: str) -> None:
    parser, faces, images = tiny_parser(label_set), two_and_one(), pictures()
    done: list[tuple[int, int]] = []
    found = parse_faces(parser, images, faces, 0.1, lambda *step: done.append(step))
    assert (found.counts, found.index, found.parts) == ((2, 1, 0), [0, 0, 1], parser.parts)
    assert done == [(3, 3)] and found.images is faces.images
    for row, (picture, face) in enumerate(((0, 0), (0, 1), (1, 0))):
        one = FaceBatch((faces.images[picture].take([face]),), PICTURE, "test")
        alone = parse_faces(parser, images[picture : picture + 1], one, 0.1)
        assert torch.allclose(alone.matrices[0], found.matrices[row])
        assert (alone.labels[0] != found.labels[row]).float().mean() < 1e-3
    assert len({int(number) for labels in found.labels for number in labels.unique()}) > 3


def test_every_face_is_parsed_in_chunks() -> None:
    face = two_and_one().images[1]
    many = FaceBatch((face,) * 9, PICTURE, "test")
    done: list[int] = []
    found = parse_faces(tiny_parser(), pictures(1).expand(9, -1, -1, -1), many, 0.0, lambda n, _: done.append(n))
    assert done == [4, 8, 9] and len(found.labels) == 9
    assert all(torch.equal(labels, found.labels[0]) for labels in found.labels)


def test_logits_not_labels_are_enlarged() -> None:
    """A face larger than the network's picture gets a map in its own detail, with edges between the coarse pixels."""
    parser = tiny_parser(resolution=64)
    view = views.squashed(pictures(1)[0], (0, 0, PICTURE[1], PICTURE[0]), torch.zeros(5, 2), 64)
    assert view.detail == 5
    labels = parser.labels([view])[0]
    assert labels.shape == (320, 320)
    coarse = parser.logits([view])[0].argmax(0).to(torch.uint8)
    repeated = coarse.repeat_interleave(5, 0).repeat_interleave(5, 1)
    share = (labels != repeated).float().mean()
    assert 0 < share < 0.5 and (labels[2::5, 2::5] == coarse).float().mean() > 0.99


def test_pictures_that_are_crops_need_no_faces() -> None:
    found = parse_faces(tiny_parser(), pictures(2), None)
    assert found.counts == (1, 1) and "each picture taken as the crop" in found.notes[0]
    with pytest.raises(BadLandmarks, match="five points"):
        parse_faces(tiny_parser("lapa"), pictures(2), None)


def test_bad_wires_are_told() -> None:
    faces = two_and_one()
    with pytest.raises(BadImage, match="the 3 pictures of 320 x 240"):
        parse_faces(tiny_parser(), pictures(2), faces)
    with pytest.raises(NoFaceFound):
        parse_faces(tiny_parser(), pictures(1), FaceBatch((Faces.none(),), PICTURE, "test"))
    found = parse_faces(tiny_parser(), pictures(), faces)
    with pytest.raises(FaceChoice, match="select faces before they are parsed"):
        found.with_images([each.take(range(min(1, len(each)))) for each in found.images])


def test_progress_may_cancel() -> None:
    class Stop(Exception):
        pass

    def stop(*_: Any) -> None:
        raise Stop

    with pytest.raises(Stop):
        parse_faces(tiny_parser(), pictures(), two_and_one(), 0.0, stop)


def test_an_untrained_file_of_another_kind_is_no_parser(tmp_path: Path) -> None:
    """The optimizer alone, as some trainers save it, is nothing to parse with."""
    state = trained(tiny_network())
    torch.save({"optimizer": state["optimizer"]}, tmp_path / "a.pt")
    assert isinstance(FAMILY.recognise(read_header(tmp_path / "a.pt")), str)


def test_the_converter_keeps_the_model_and_says_what_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write_trained(tmp_path / "model_299.pt", "lapa")
    assert convert_segface.main([str(source)]) == 1
    assert "lapa or helen" in capsys.readouterr().err and not (tmp_path / "model_299.safetensors").exists()
    assert convert_segface.main([str(source), "--variant", "lapa", "--resolution", "224"]) == 0
    written = tmp_path / "model_299.safetensors"
    assert written.stat().st_size < 0.4 * source.stat().st_size
    parser = registry.load(written)
    assert (parser.label_set, parser.resolution) == ("lapa", 224)
    for name, tensor in registry.load(source, variant="lapa").network.state_dict().items():
        assert torch.equal(parser.network.state_dict()[name], tensor), name
    assert convert_segface.main([str(source), "--variant", "lapa"]) == 1
    save_file({"a": torch.ones(1)}, tmp_path / "b.safetensors")
    assert convert_segface.main([str(tmp_path / "b.safetensors"), str(tmp_path / "c.safetensors")]) == 1
