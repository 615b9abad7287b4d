"""SCRFD of an InsightFace pack: files, packages, providers, decoding; a stand-in graph where onnxruntime is there."""

from __future__ import annotations

import importlib
import sys

import numpy as np
import pytest
import torch
from likeness_pack.adapters.detectors.insightface import sessions
from likeness_pack.adapters.detectors.insightface.detector import InsightFaceDetector, load_insightface_detector
from likeness_pack.adapters.detectors.insightface.files import detector_candidates, pack_folder
from likeness_pack.adapters.detectors.insightface.scrfd import STRIDES, decode, fit, resize_bilinear
from likeness_pack.adapters.errors import BadCheckpoint, MissingModelFile, MissingPackage
from likeness_pack.faces.detect import detect_faces


def onnx_like(path, size=2048):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"\x08" + bytes(size))
    return path


@pytest.mark.parametrize("place", ["models/pack", "pack", "models/pack/pack", "pack/pack"])
def test_a_pack_is_found_one_level_too_deep_too(tmp_path, place):
    onnx_like(tmp_path / place / "det_10g.onnx")
    assert pack_folder([tmp_path / "elsewhere", tmp_path], "pack") == tmp_path / place


def test_the_folder_may_be_the_pack_itself(tmp_path):
    onnx_like(tmp_path / "pack" / "det_10g.onnx")
    assert pack_folder([tmp_path / "pack"], "pack") == tmp_path / "pack"


def test_a_missing_pack_names_what_was_expected_and_found(tmp_path):
    onnx_like(tmp_path / "models" / "other" / "scrfd.onnx")
    with pytest.raises(MissingModelFile) as caught:
        load_insightface_detector([tmp_path], "pack")
    message = str(caught.value)
    assert str(tmp_path / "models" / "pack") in message and "scrfd.onnx" in message and "non-commercial" in message


def test_likely_detectors_come_first(tmp_path):
    for name, size in (("w600k.onnx", 2000), ("det_10g.onnx", 9000), ("genderage.onnx", 1500)):
        onnx_like(tmp_path / name, size)
    assert [path.name for path in detector_candidates(tmp_path)] == ["det_10g.onnx", "genderage.onnx", "w600k.onnx"]


@pytest.mark.parametrize("content", [b"", b"\x08\x01", b"<html>" + bytes(5000)])
def test_broken_files_are_refused_before_anything_opens_them(tmp_path, monkeypatch, content):
    (tmp_path / "pack").mkdir()
    (tmp_path / "pack" / "det.onnx").write_bytes(content)
    monkeypatch.setattr(sessions, "runtime", lambda: pytest.fail("onnxruntime was asked"))
    with pytest.raises(BadCheckpoint, match="det.onnx"):
        load_insightface_detector([tmp_path], "pack")


def without(monkeypatch, name):
    real = importlib.import_module

    def import_module(asked, package=None):
        if asked.split(".")[0] == name:
            raise ImportError(f"No module named {name!r}")
        return real(asked, package)

    monkeypatch.setattr(importlib, "import_module", import_module)


def test_missing_onnxruntime_names_exactly_one_of_two(tmp_path, monkeypatch):
    onnx_like(tmp_path / "pack" / "det.onnx")
    without(monkeypatch, "onnxruntime")
    with pytest.raises(MissingPackage) as caught:
        load_insightface_detector([tmp_path], "pack")
    message = str(caught.value)
    assert sys.executable in message and "onnxruntime-gpu, never both" in message


def test_providers_and_their_notes():
    assert sessions.wanted_providers("auto", ["CUDAExecutionProvider", "CPUExecutionProvider"]) == (
        ["CUDAExecutionProvider", "CPUExecutionProvider"],
        (),
    )
    assert sessions.wanted_providers("auto", ["AzureExecutionProvider", "CPUExecutionProvider"])[0] == [
        "CPUExecutionProvider"
    ]
    assert sessions.wanted_providers("cpu", ["CPUExecutionProvider"]) == (["CPUExecutionProvider"], ())
    providers, notes = sessions.wanted_providers("cuda", ["CPUExecutionProvider"])
    assert providers == ["CPUExecutionProvider"] and "CUDAExecutionProvider" in notes[0] and "CPU" in notes[0]


class Port:
    def __init__(self, name, shape):
        self.name, self.shape = name, shape


class FakeSession:
    """One face: in the square, at cell (4, 6) of stride 8, box 20 px around, five points on the centre."""

    def __init__(self, side):
        self.side = side

    def get_inputs(self):
        return [Port("input.1", [1, 3, self.side, self.side])]

    def run(self, _, feeds):
        assert feeds["input.1"].shape == (1, 3, self.side, self.side)
        counts = [(self.side // stride) ** 2 * 2 for stride in STRIDES]
        outputs = [np.zeros((count, width), np.float32) for width in (1, 4, 10) for count in counts]
        row = (4 * (self.side // 8) + 6) * 2
        outputs[0][row], outputs[3][row] = 0.8, 2.5
        return outputs


def test_faces_come_back_in_picture_pixels():
    detector = InsightFaceDetector(FakeSession(64), "fake")
    batch, _ = detect_faces(torch.rand(2, 32, 128, 3), detector)
    for faces in batch.images:
        assert faces.scores.tolist() == pytest.approx([0.8])
        assert faces.boxes.tolist() == [[(48 - 20) * 2, (32 - 20) * 2, (48 + 20) * 2, (32 + 20) * 2]]
        assert faces.landmarks5[0].tolist() == [[96, 64]] * 5
    assert detector(torch.rand(1, 32, 128, 3), 0.9)[0].boxes.shape == (0, 4)


def test_a_picture_sits_top_left_on_black():
    fitted = fit(torch.full((50, 100, 3), 255, dtype=torch.uint8), (64, 64))
    assert fitted.scale == 32 / 50
    assert (fitted.blob[0, :, :32] == 127.5 / 128).all() and (fitted.blob[0, :, 32:] == -127.5 / 128).all()


@pytest.mark.parametrize("size", [(1, 1), (1, 900), (900, 1)])
def test_thin_pictures_do_no_harm(size):
    assert len(InsightFaceDetector(FakeSession(64), "fake")(torch.rand(1, *size, 3), 0.5)) == 1


def test_nothing_above_the_score():
    outputs = [torch.zeros((64 // stride) ** 2 * 2, width) for width in (1, 4, 10) for stride in STRIDES]
    boxes, points, scores = decode(outputs, (64, 64), 0.5)
    assert boxes.shape == (0, 4) and points.shape == (0, 5, 2) and scores.shape == (0,)


@pytest.mark.parametrize("sizes", [(240, 320, 48, 64), (480, 640, 240, 320), (33, 57, 370, 640), (7, 3, 128, 54)])
def test_resizing_is_that_of_opencv(sizes):
    cv2 = pytest.importorskip("cv2")
    pixels = np.random.RandomState(1).randint(0, 256, (*sizes[:2], 3), dtype=np.uint8)
    expected = cv2.resize(pixels, (sizes[3], sizes[2]), interpolation=cv2.INTER_LINEAR)
    np.testing.assert_array_equal(resize_bilinear(torch.from_numpy(pixels), *sizes[2:]).numpy(), expected)


def write_scrfd(path, outputs=9):
    """A graph with SCRFD's inputs and outputs: pooled pixels through random 1x1 convolutions."""
    onnx = pytest.importorskip("onnx")
    helper, random = onnx.helper, np.random.RandomState(2)
    nodes, weights, names = [], [], {}
    for stride in STRIDES:
        nodes.append(
            helper.make_node(
                "AveragePool", ["input.1"], [f"p{stride}"], kernel_shape=[stride] * 2, strides=[stride] * 2
            )
        )
        for kind, width in (("score", 1), ("box", 4), ("kps", 10)):
            name = f"{kind}{stride}"
            kernel = random.standard_normal((2 * width, 3, 1, 1)).astype(np.float32) * (2 if kind == "score" else 0.5)
            bias = np.full(2 * width, {"score": -1.0, "box": 2.0, "kps": 0.0}[kind], np.float32)
            weights += [
                onnx.numpy_helper.from_array(kernel, f"w{name}"),
                onnx.numpy_helper.from_array(bias, f"b{name}"),
            ]
            weights.append(onnx.numpy_helper.from_array(np.array([-1, width], np.int64), f"s{name}"))
            nodes.append(helper.make_node("Conv", [f"p{stride}", f"w{name}", f"b{name}"], [f"c{name}"]))
            nodes.append(helper.make_node("Transpose", [f"c{name}"], [f"t{name}"], perm=[0, 2, 3, 1]))
            last = f"r{name}" if kind == "score" else name
            nodes.append(helper.make_node("Reshape", [f"t{name}", f"s{name}"], [last]))
            if kind == "score":
                nodes.append(helper.make_node("Sigmoid", [last], [name]))
            names[name] = helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [f"n{stride}", width])
    order = [f"{kind}{stride}" for kind in ("score", "box", "kps") for stride in STRIDES][:outputs]
    picture = helper.make_tensor_value_info("input.1", onnx.TensorProto.FLOAT, [1, 3, "h", "w"])
    graph = helper.make_graph(nodes, "scrfd", [picture], [names[name] for name in order], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, str(path))


def smooth(count, height, width):
    generator = torch.Generator().manual_seed(4)
    coarse = torch.rand(count, 3, 6, 8, generator=generator)
    return torch.nn.functional.interpolate(coarse, size=(height, width), mode="bicubic").clamp(0, 1).permute(0, 2, 3, 1)


def test_a_real_session_and_the_notes_of_its_provider(tmp_path):
    pytest.importorskip("onnxruntime")
    write_scrfd(tmp_path / "models" / "pack" / "pack" / "scrfd_10g.onnx")
    detector = load_insightface_detector([tmp_path], "pack", provider="directml")
    assert "DmlExecutionProvider" in detector.notes[0] and "CPU" in detector.notes[0]
    assert detector.network is None and detector.licence.commercial is False
    assert detector.sizes == ((128, 128), (640, 640))
    images = smooth(2, 150, 200)
    together = detector(images, 0.5)
    assert all(len(faces) for faces in together)
    torch.testing.assert_close(together[1].boxes, detector(images[1:], 0.5)[0].boxes)


def test_our_decoding_gives_what_insightface_gives(tmp_path):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("insightface.model_zoo.scrfd")
    write_scrfd(tmp_path / "pack" / "det.onnx")
    ours = load_insightface_detector([tmp_path], "pack", provider="cpu")
    theirs = load_insightface_detector([tmp_path], "pack", provider="cpu", decoder="insightface")
    for mine, official in zip(ours(smooth(2, 150, 200), 0.5), theirs(smooth(2, 150, 200), 0.5), strict=True):
        assert len(mine)
        torch.testing.assert_close(mine.boxes, official.boxes, atol=1e-3, rtol=1e-5)
        torch.testing.assert_close(mine.landmarks5, official.landmarks5, atol=1e-3, rtol=1e-5)
        torch.testing.assert_close(mine.scores, official.scores)


def test_missing_insightface_has_its_own_pip_line(tmp_path, monkeypatch):
    pytest.importorskip("onnxruntime")
    write_scrfd(tmp_path / "pack" / "det.onnx")
    without(monkeypatch, "insightface")
    with pytest.raises(MissingPackage, match="--no-deps insightface"):
        load_insightface_detector([tmp_path], "pack", provider="cpu", decoder="insightface")


def test_a_pack_without_a_detector_and_a_broken_graph(tmp_path):
    pytest.importorskip("onnxruntime")
    write_scrfd(tmp_path / "pack" / "w600k.onnx", outputs=1)
    with pytest.raises(BadCheckpoint, match="1 outputs"):
        load_insightface_detector([tmp_path], "pack", provider="cpu")
    onnx_like(tmp_path / "torn" / "det.onnx")
    with pytest.raises(BadCheckpoint, match="det.onnx"):
        load_insightface_detector([tmp_path], "torn", provider="cpu")
