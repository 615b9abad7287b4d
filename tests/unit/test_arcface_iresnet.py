"""ArcFace residual networks from torch files: recognition apart from TopoFR, and the id in the metadata."""

from __future__ import annotations

import pytest
import torch
from likeness_pack.adapters import registry
from likeness_pack.adapters.checkpoint import read_header
from likeness_pack.adapters.encoders.arcface_iresnet.family import FAMILY
from likeness_pack.adapters.encoders.packages import describe
from likeness_pack.adapters.encoders.topofr.arch import IResNet, IResNetConfig
from safetensors.torch import save_file
from sparse_files import write_sparse_safetensors, write_zero_storage_torch

SMALL = IResNetConfig(blocks=(1, 1, 1, 1), widths=(4, 4, 4, 4, 4), embedding=8)


def shapes(config):
    with torch.device("meta"):
        return {name: tuple(tensor.shape) for name, tensor in IResNet(config).state_dict().items()}


def built(path):
    header = read_header(path)
    return FAMILY.build(header, registry.recognise(header, "encoder"))


@pytest.mark.parametrize(
    ("blocks", "name"),
    [((2, 2, 2, 2), "r18"), ((3, 4, 6, 3), "r34"), ((3, 4, 14, 3), "r50"), ((3, 13, 30, 3), "r100")],
)
def test_backbone_files_are_recognised_under_any_name(tmp_path, blocks, name):
    layout = shapes(IResNetConfig(blocks))
    for path in (
        write_sparse_safetensors(tmp_path / "x.safetensors", layout, torch.float16),
        write_zero_storage_torch(tmp_path / "y.pth", layout),
    ):
        match = registry.recognise(read_header(path))
        assert match.family is FAMILY
        assert match.hyper["layer3"] == blocks[2]
    del layout["layer1.0.bn1.num_batches_tracked"]
    assert registry.recognise(read_header(write_sparse_safetensors(tmp_path / "z", layout))).family is FAMILY


def test_class_centres_belong_to_topofr(tmp_path):
    path = write_sparse_safetensors(tmp_path / "x", shapes(IResNetConfig((1, 1, 1, 1), classes=5)))
    header = read_header(path)
    assert "5 class centres" in FAMILY.recognise(header)
    assert registry.recognise(header).family.id == "topofr"


@pytest.mark.parametrize(
    ("metadata", "identifier"),
    [
        ({}, "arcface_iresnet_1x1x1x1"),
        ({"likeness.encoder_id": "arcface_buffalo_l"}, "arcface_buffalo_l"),
        ({"likeness.encoder_id": "transface_s"}, "arcface_iresnet_1x1x1x1"),
        ({"likeness.encoder_id": "arcface_ \n evil"}, "arcface_iresnet_1x1x1x1"),
    ],
)
def test_the_id_comes_from_the_metadata_where_it_is_one(tmp_path, metadata, identifier):
    torch.manual_seed(0)
    save_file(IResNet(SMALL).state_dict(), tmp_path / "a.safetensors", {"likeness.source": "w.onnx"} | metadata)
    encoder = built(tmp_path / "a.safetensors")
    assert encoder.id == identifier
    assert "made of w.onnx" in encoder.notes[0]
    text = describe(encoder)
    assert "commercial use: not allowed" in text and identifier in text


def test_half_precision_file_runs_in_float32(tmp_path):
    torch.manual_seed(0)
    network = IResNet(SMALL)
    half = {name: t.half() if t.is_floating_point() else t for name, t in network.state_dict().items()}
    save_file(half, tmp_path / "a.safetensors")
    encoder = built(tmp_path / "a.safetensors")
    assert {parameter.dtype for parameter in encoder.network.parameters()} == {torch.float32}
    assert not encoder.network.training
