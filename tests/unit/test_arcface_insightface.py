"""ArcFace of the insightface packs: files before constructors, the crop, and the numbers through onnxruntime."""

from __future__ import annotations

import sys

import pytest
import torch
from likeness_pack.adapters.encoders import packages
from likeness_pack.adapters.encoders.arcface_insightface.encoder import PACKS, ArcFaceEncoder, find_pack, load_arcface
from likeness_pack.adapters.encoders.base import encode_photos
from likeness_pack.adapters.errors import BadCheckpoint, MissingModelFile, MissingPackage, UnknownCheckpoint
from likeness_pack.faces.templates import template_points
from likeness_pack.faces.types import FaceBatch, Faces

WIDTH = 512


class _Port:
    def __init__(self, name, shape):
        self.name, self.shape = name, shape


class _Session:
    """Stands in for an inference session: the embedding is the first 512 numbers of the blob."""

    def __init__(self, batch):
        self.batch, self.blobs = batch, []

    def get_inputs(self):
        return [_Port("input.1", [self.batch, 3, 112, 112])]

    def run(self, outputs, feeds):
        blob = feeds["input.1"]
        self.blobs.append(blob)
        return [blob.reshape(len(blob), -1)[:, :WIDTH].copy()]


def _photo_and_face():
    photo = torch.rand(1, 112, 112, 3, generator=torch.Generator().manual_seed(1))
    points = template_points("arcface", 112).float()[None]
    return photo, FaceBatch((Faces(torch.tensor([[0.0, 0, 112, 112]]), points, torch.ones(1)),), (112, 112), "user")


def _place(root, name, content=b"", inner=()):
    folder = root.joinpath(*inner, name)
    folder.mkdir(parents=True)
    file = folder / PACKS[name].recognition
    file.write_bytes(content)
    return file


@pytest.mark.parametrize("name", ["buffalo_l", "antelopev2"])
@pytest.mark.parametrize("inner", ["", "models", "{name}", "models/{name}"])
def test_packs_are_found_where_peers_leave_them(tmp_path, name, inner):
    file = _place(tmp_path, name, inner=inner.format(name=name).split("/"))
    assert find_pack(name, [tmp_path / "elsewhere", tmp_path]) == file


def test_one_pack_does_not_stand_for_the_other(tmp_path):
    _place(tmp_path, "antelopev2")
    with pytest.raises(MissingModelFile, match=r"w600k_r50\.onnx"):
        find_pack("buffalo_l", [tmp_path])


def test_a_missing_pack_is_refused_before_anything_is_built(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    monkeypatch.setitem(sys.modules, "insightface", None)
    with pytest.raises(MissingModelFile) as raised:
        packages.load("arcface_buffalo_l", [tmp_path])
    for fact in ("w600k_r50.onnx", "buffalo_l.zip", " MB", "non-commercial", str(tmp_path), "deepinsight/insightface"):
        assert fact in str(raised.value)
    assert list(tmp_path.iterdir()) == []


def test_only_onnxruntime_is_needed(tmp_path, monkeypatch):
    _place(tmp_path, "buffalo_l", b"x")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingPackage, match="-m pip install onnxruntime") as raised:
        packages.load("arcface_buffalo_l", [tmp_path])
    assert "insightface" not in str(raised.value)


def test_another_file_name_is_refused(tmp_path):
    with pytest.raises(BadCheckpoint, match=r"w600k_r50\.onnx or glintr100\.onnx"):
        load_arcface(tmp_path / "w600k_mbf.onnx")


def test_names_are_the_same_on_every_machine():
    assert packages.names() == ["dlib_resnet", "arcface_buffalo_l", "arcface_antelopev2"]
    assert all(packages.is_package(name) for name in packages.names())
    assert not packages.is_package("arcface_model.safetensors")
    with pytest.raises(UnknownCheckpoint):
        packages.load("arcface_nothing", [])


@pytest.mark.parametrize("batch", [None, "N", 1])
def test_the_network_sees_rgb_from_minus_one_to_one(batch):
    photo, faces = _photo_and_face()
    session = _Session(batch)
    encoder = ArcFaceEncoder(PACKS["antelopev2"], session)
    identity = encode_photos(encoder, photo, faces)
    (blob,) = session.blobs
    expected = (photo.movedim(-1, 1) * 255 - 127.5) / 127.5
    assert torch.allclose(torch.from_numpy(blob), expected, atol=1e-4)
    assert identity.encoder == "arcface_antelopev2"
    assert set(identity.features) == {"embedding"} and identity.features["embedding"].shape == (1, WIDTH)
    assert float(identity.features["embedding"].norm()) > 2  # raw, not normalised


def test_a_network_of_fixed_batch_gets_face_by_face():
    photo, faces = _photo_and_face()
    three = FaceBatch(faces.images * 3, faces.image_size, "user")
    photos = torch.cat([photo, 1 - photo, photo / 2])
    fixed, free = _Session(1), _Session("None")
    one = encode_photos(ArcFaceEncoder(PACKS["buffalo_l"], fixed), photos, three)
    all_at_once = encode_photos(ArcFaceEncoder(PACKS["buffalo_l"], free), photos, three)
    assert [len(blob) for blob in fixed.blobs] == [1, 1, 1] and [len(blob) for blob in free.blobs] == [3]
    assert one.digest == all_at_once.digest


def test_the_report_forbids_commercial_use():
    text = packages.describe(ArcFaceEncoder(PACKS["buffalo_l"], _Session(1)))
    assert "commercial use: not allowed" in text and "arcface_buffalo_l" in text


class TestRealRuntime:
    """A tiny network of the published shapes, through onnxruntime."""

    @pytest.fixture
    def onnx(self):
        pytest.importorskip("onnxruntime")
        return pytest.importorskip("onnx")

    def _network(self, onnx, width=WIDTH, size=112) -> bytes:
        helper = onnx.helper
        weight = torch.randn(3, width, generator=torch.Generator().manual_seed(2))
        nodes = [
            helper.make_node("GlobalAveragePool", ["input.1"], ["pooled"]),
            helper.make_node("Flatten", ["pooled"], ["flat"]),
            helper.make_node("MatMul", ["flat", "weight"], ["683"]),
        ]
        graph = helper.make_graph(
            nodes,
            "stand-in",
            [helper.make_tensor_value_info("input.1", onnx.TensorProto.FLOAT, ["None", 3, size, size])],
            [helper.make_tensor_value_info("683", onnx.TensorProto.FLOAT, ["None", width])],
            [onnx.numpy_helper.from_array(weight.numpy(), "weight")],
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8).SerializeToString()

    def test_embedding(self, onnx, tmp_path):
        _place(tmp_path, "buffalo_l", self._network(onnx), inner=["models"])
        encoder = packages.load("arcface_buffalo_l", [tmp_path])
        photo, faces = _photo_and_face()
        identity = encode_photos(encoder, photo, faces)
        weight = torch.randn(3, WIDTH, generator=torch.Generator().manual_seed(2))
        expected = ((photo * 255 - 127.5) / 127.5).mean((1, 2)) @ weight
        assert torch.allclose(identity.features["embedding"], expected, atol=1e-4)
        assert identity.photos and not identity.masked

    def test_other_shapes_and_broken_files_are_refused(self, onnx, tmp_path):
        wrong = _place(tmp_path, "buffalo_l", self._network(onnx, width=128))
        with pytest.raises(BadCheckpoint, match=r"\[512\].*\[128\]"):
            load_arcface(wrong)
        wrong.write_bytes(self._network(onnx)[:-100])
        with pytest.raises(BadCheckpoint, match="cannot read"):
            load_arcface(wrong)
        wrong.write_bytes(b"")
        with pytest.raises(BadCheckpoint):
            load_arcface(wrong)
