"""TopoFR: recognition by keys and shapes, loading without class centres, the crop that reaches the network."""

from __future__ import annotations

import pytest
import torch
from likeness_pack.adapters import registry
from likeness_pack.adapters.checkpoint import read_header
from likeness_pack.adapters.encoders.base import encode_photos
from likeness_pack.adapters.encoders.topofr.arch import IBasicBlock, IResNet, IResNetConfig, class_cosines
from likeness_pack.adapters.encoders.topofr.family import FAMILY
from likeness_pack.adapters.encoders.topofr.layout import depth_name
from likeness_pack.adapters.errors import KeyMismatch
from likeness_pack.adapters.family import Match
from likeness_pack.faces.templates import template_points
from likeness_pack.faces.types import FaceBatch, Faces
from safetensors.torch import save_file
from sparse_files import write_sparse_safetensors

SMALL = IResNetConfig(blocks=(1, 2, 3, 1), widths=(4, 4, 8, 8, 16), embedding=12, classes=7)
OFFICIAL = {"r50": (3, 4, 14, 3), "r100": (3, 13, 30, 3), "r200": (6, 26, 60, 6)}


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(3)
    network = IResNet(SMALL)
    with torch.no_grad():
        for name, tensor in network.state_dict().items():
            if tensor.is_floating_point():
                tensor.uniform_(0.5, 1.5) if name.endswith("running_var") else tensor.normal_(0.2, 0.3)
    return network.eval()


def header_of(path, tensors):
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)
    return read_header(path)


def shapes(config):
    with torch.device("meta"):
        return {name: tuple(tensor.shape) for name, tensor in IResNet(config).state_dict().items()}


@pytest.mark.parametrize("depth", OFFICIAL)
@pytest.mark.parametrize("classes", [85742, 360232])
def test_published_layouts_are_recognised_under_any_name(tmp_path, depth, classes):
    path = write_sparse_safetensors(tmp_path / "b7.bin", shapes(IResNetConfig(OFFICIAL[depth], classes=classes)))
    match = registry.recognise(read_header(path), "encoder")
    assert match.family is FAMILY and match.hyper["classes"] == classes
    assert depth_name(tuple(match.hyper[f"layer{number}"] for number in (1, 2, 3, 4))) == depth


@pytest.mark.parametrize("prefix", ["", "module."])
def test_sizes_come_from_shapes_and_class_centres_are_left(tmp_path, network, prefix):
    torch.save({prefix + name: tensor for name, tensor in network.state_dict().items()}, tmp_path / "a.pt")
    header = read_header(tmp_path / "a.pt")
    match = FAMILY.recognise(header)
    built = FAMILY.build(header, match)
    assert built.id == "topofr_1x2x3x1" and "7 classes" in built.notes[0]
    assert "weight" not in built.network.state_dict()
    assert not any(parameter.requires_grad for parameter in built.network.parameters())
    image = torch.rand(2, 3, 112, 112) * 2 - 1
    with torch.no_grad():
        assert torch.equal(built.network(image), network(image))


def test_class_centres_are_not_read_from_the_disk(tmp_path, network, monkeypatch):
    from likeness_pack.adapters.encoders.topofr import layout

    asked = []
    real = layout.load_tensors
    monkeypatch.setattr(layout, "load_tensors", lambda header: asked.append(header) or real(header))
    header = header_of(tmp_path / "a", network.state_dict())
    FAMILY.build(header, FAMILY.recognise(header))
    assert "weight" not in asked[0].raw_names and "weight" in header.raw_names


def test_every_refusal_has_a_reason(tmp_path, network):
    tensors = dict(network.state_dict())
    without = {name: tensor for name, tensor in tensors.items() if name != "weight"}
    assert "no class centres" in FAMILY.recognise(header_of(tmp_path / "a", without))
    other_side = tensors | {"fc.weight": torch.zeros(12, 16 * 64)}
    assert "112 px face" in FAMILY.recognise(header_of(tmp_path / "b", other_side))
    other_centres = tensors | {"weight": torch.zeros(7, 11)}
    assert "(classes, 12)" in FAMILY.recognise(header_of(tmp_path / "c", other_centres))
    other_stem = tensors | {"conv1.weight": torch.zeros(4, 3, 7, 7)}
    assert "3x3" in FAMILY.recognise(header_of(tmp_path / "d", other_stem))
    flat = tensors | {"layer2.0.conv2.weight": torch.zeros(8)}
    assert "3x3" in FAMILY.recognise(header_of(tmp_path / "e", flat))
    assert FAMILY.recognise(header_of(tmp_path / "f", {"x": torch.zeros(1)})) == "no conv1.weight"


def test_leftover_and_missing_keys_are_told(tmp_path, network):
    tensors = dict(network.state_dict()) | {"head.extra": torch.zeros(2)}
    del tensors["layer3.2.bn3.bias"]
    header = header_of(tmp_path / "a", tensors)
    with pytest.raises(KeyMismatch, match=r"layer3\.2.*head"):
        FAMILY.build(header, FAMILY.recognise(header))


def test_stride_is_on_the_second_convolution_and_nothing_follows_the_sum():
    block = IBasicBlock(4, 8, 2)
    assert block.conv1.stride == (1, 1) and block.conv2.stride == (2, 2) and block.downsample[0].stride == (2, 2)
    assert IBasicBlock(8, 8, 1).downsample is None
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.zero_()
        block.bn3.bias.fill_(-2.0)
        block.downsample[1].bias.fill_(-1.0)
        assert torch.equal(block.eval()(torch.rand(1, 4, 6, 6)), torch.full((1, 8, 3, 3), -3.0))


def test_cosines_are_of_length_one():
    embedding, centres = torch.randn(3, 12) * 100, torch.randn(7, 12)
    cosines = class_cosines(embedding, centres)
    assert torch.allclose(cosines, class_cosines(embedding * 0.01, centres * 9), atol=1e-6)
    assert float(class_cosines(centres, centres).diagonal().min()) == pytest.approx(1.0)


def face(x, y):
    points = template_points("arcface", 112).float() + torch.tensor([x, y])
    return Faces(torch.tensor([[x, y, x + 112.0, y + 112.0]]), points[None], torch.ones(1))


def test_faces_are_cropped_as_insightface_does(tmp_path, network):
    header = header_of(tmp_path / "a", network.state_dict())
    encoder = FAMILY.build(header, FAMILY.recognise(header))
    photos = torch.rand(2, 130, 140, 3, generator=torch.Generator().manual_seed(1))
    batch = FaceBatch((face(0.0, 0.0), face(9.0, 5.0)), (130, 140), "user")
    identity = encode_photos(encoder, photos, batch)
    crops = torch.stack([photos[0, :112, :112], photos[1, 5:117, 9:121]]).movedim(-1, 1)
    with torch.no_grad():
        expected = network(crops * 2 - 1)
    assert identity.encoder == "topofr_1x2x3x1"
    assert torch.allclose(identity.features["embedding"], expected, rtol=1e-3, atol=1e-3)


def test_a_mask_is_told_to_be_unused(tmp_path, network):
    header = header_of(tmp_path / "a", network.state_dict())
    encoder = FAMILY.build(header, FAMILY.recognise(header))
    batch = FaceBatch((face(0.0, 0.0),), (112, 112), "user")
    photo = torch.rand(1, 112, 112, 3)
    masked, plain = (encode_photos(encoder, photo, batch, mask) for mask in (torch.zeros(1, 112, 112), None))
    assert masked.digest == plain.digest and not masked.masked
    assert any("mask not used" in note for note in masked.notes)


def test_the_report_tells_licences(tmp_path, network):
    header = header_of(tmp_path / "a", network.state_dict())
    report = FAMILY.describe(header, registry.recognise(header)).as_text()
    assert "weight licence: none stated" in report and "Apache-2.0" in report
    assert isinstance(FAMILY.recognise(header), Match)
