"""MTCNN: reference numbers of facenet-pytorch, batches, sizes, and safe reading of the package's weights."""

from __future__ import annotations

import importlib.util
import io
import json
import pickle
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from likeness_pack.adapters.detectors.mtcnn import weights
from likeness_pack.adapters.detectors.mtcnn.detector import LONGEST_SIDE, MtcnnDetector
from likeness_pack.adapters.detectors.mtcnn.joblib_arrays import read_arrays
from likeness_pack.adapters.errors import BadCheckpoint, MissingPackage, UnsafeCheckpoint
from PIL import Image
from skimage import data

# facenet-pytorch 2.6.0 (MIT), MTCNN with its default settings: score, box, five points, in pixels.
T1 = """
[[0.99964,[464.97,261.78,570.38,405.17],[[492.84,318.96],[543.42,331.64],[510.61,362.9],[482.52,369.62],[529.86,380.46]]],
 [0.99994,[54.62,262.77,165.26,397.31],[[84.08,330.31],[128.07,303.48],[118.45,337.72],[114.53,373.15],[149.71,349.03]]],
 [0.99999,[908.18,61.96,1013.65,201.54],[[919.23,119.08],[954.6,112.04],[926.25,151.13],[933.23,176.52],[961.53,169.95]]],
 [0.99988,[268.18,149.75,375.05,272.43],[[292.5,209.05],[323.08,187.37],[311.4,224.18],[315.09,244.27],[344.24,228.16]]],
 [0.99989,[742.99,346.03,843.51,473.85],[[761.19,397.22],[803.45,401.44],[773.64,431.76],[761.57,438.98],[808.74,442.4]]],
 [0.97547,[1134.53,276.29,1227.67,395.42],[[1150.07,326.33],[1193.67,324.64],[1164.12,349.49],[1155.26,367.57],[1196.49,365.44]]],
 [0.86943,[690.72,539.34,741.39,599.7],[[719.91,563.55],[735.48,563.2],[734.08,575.92],[720.0,583.32],[732.74,582.45]]],
 [0.8632,[1093.9,691.59,1135.36,741.5],[[1107.87,709.91],[1128.05,709.1],[1119.7,721.42],[1108.96,731.53],[1127.12,731.41]]]]
"""  # noqa: E501
ASTRONAUT = """
[[1.0,[181.05,62.16,267.75,172.05],[[205.01,101.73],[246.76,103.71],[224.67,128.96],[201.72,139.25],[245.27,141.86]]]]
"""


@pytest.fixture(scope="module")
def detector() -> MtcnnDetector:
    return MtcnnDetector(weights.load_mtcnn())


def as_image(pixels) -> torch.Tensor:
    return torch.from_numpy(np.asarray(pixels).copy()).float() / 255


def astronaut() -> torch.Tensor:
    return as_image(data.astronaut())


def assert_like_reference(detector, image, reference, least):
    faces = detector(image[None], least)[0]
    wanted = [face for face in json.loads(reference) if face[0] >= least]
    assert len(faces) == len(wanted)
    for score, box, points in wanted:
        index = int((faces.boxes - torch.tensor(box)).abs().amax(dim=1).argmin())
        assert (faces.boxes[index] - torch.tensor(box)).abs().max() < 0.05
        assert (faces.landmarks5[index] - torch.tensor(points)).norm(dim=1).max() < 0.05
        assert abs(float(faces.scores[index]) - score) < 1e-4
    assert (faces.scores.diff() <= 0).all()


def test_astronaut_has_the_face_of_the_reference(detector):
    assert_like_reference(detector, astronaut(), ASTRONAUT, 0.9)


@pytest.mark.parametrize(("least", "count"), [(0.9, 6), (0.0, 8)])
def test_group_picture_has_the_faces_of_the_reference(detector, least, count):
    spec = importlib.util.find_spec("insightface")
    if spec is None:
        pytest.skip("the picture comes with insightface")
    picture = Path(next(iter(spec.submodule_search_locations))) / "data" / "images" / "t1.jpg"
    image = as_image(Image.open(picture).convert("RGB"))
    assert sum(face[0] >= least for face in json.loads(T1)) == count
    assert_like_reference(detector, image, T1, least)


def test_a_batch_gives_what_its_pictures_give_alone(detector):
    one = astronaut()
    batch = torch.stack([one, torch.zeros_like(one), one.flip(1), one.roll(40, dims=1), one * 0.4])
    together = detector(batch, 0.9)
    assert [len(faces) for faces in together] == [len(detector(one[None], 0.9)[0]) for one in batch]
    assert len(together[0]) == 1 and len(together[1]) == 0
    for image, faces in zip(batch, together, strict=True):
        alone = detector(image[None], 0.9)[0]
        torch.testing.assert_close(faces.boxes, alone.boxes, atol=1e-3, rtol=0)
        torch.testing.assert_close(faces.landmarks5, alone.landmarks5, atol=1e-3, rtol=0)


def test_forty_faces_are_forty(detector):
    crop = astronaut()[20:200, 135:315]
    tiles = crop.repeat(5, 8, 1)
    faces = detector(tiles[None], 0.9)[0]
    centres = (faces.boxes[:, :2] + faces.boxes[:, 2:]) / 2
    assert len(faces) == 40
    assert len({(int(x // 180), int(y // 180)) for x, y in centres.tolist()}) == 40


@pytest.mark.parametrize("size", [(1, 1), (5, 300), (19, 19), (300, 1)])
def test_tiny_pictures_have_no_faces(detector, size):
    assert [len(faces) for faces in detector(torch.rand(2, *size, 3), 0.9)] == [0, 0]


def test_no_pictures_no_faces(detector):
    assert detector(torch.zeros(0, 64, 64, 3), 0.9) == []


def test_huge_pictures_come_back_in_their_own_pixels(detector):
    small = astronaut()
    factor = 5
    large = small.repeat_interleave(factor, 0).repeat_interleave(factor, 1)
    assert large.shape[0] > LONGEST_SIDE
    expected = torch.tensor(json.loads(ASTRONAUT)[0][2]) * factor
    faces = detector(large[None], 0.9)[0]
    assert len(faces) == 1
    assert (faces.landmarks5[0] - expected).norm(dim=1).max() < 2.5 * factor


def test_the_network_may_be_half_precision(detector):
    own = MtcnnDetector(weights.load_mtcnn().to(torch.bfloat16))
    faces = own(astronaut()[None], 0.9)[0]
    assert len(faces) == 1 and faces.boxes.dtype == torch.float32
    expected = torch.tensor(json.loads(ASTRONAUT)[0][2])
    assert (faces.landmarks5[0] - expected).norm(dim=1).max() < 4


def test_weights_need_neither_tensorflow_nor_the_package_itself():
    assert "tensorflow" not in sys.modules and "mtcnn" not in sys.modules


def test_a_missing_package_names_the_interpreter(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingPackage) as caught:
        weights.load_mtcnn()
    assert sys.executable in str(caught.value) and "mtcnn" in str(caught.value)


def test_a_missing_file_is_told(monkeypatch, tmp_path):
    monkeypatch.setattr(weights, "_weight_folder", lambda: tmp_path)
    with pytest.raises(BadCheckpoint, match="pnet.lz4"):
        weights.load_mtcnn()


def test_other_arrays_are_refused():
    with pytest.raises(BadCheckpoint, match="14 arrays|13 arrays"):
        weights._fill(weights.Mtcnn().pnet, [np.zeros(3, np.float32)], "pnet.lz4")


class Bomb:
    def __reduce__(self):
        return (Path.touch, (Path("bomb"),))


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_a_pickle_that_calls_something_is_refused_and_not_run(tmp_path, monkeypatch, protocol):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UnsafeCheckpoint):
        read_arrays(pickle.dumps([Bomb()], protocol=protocol), "bomb")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("raw", [b"", b"\x80", b"not a pickle", pickle.dumps([1, 2]), pickle.dumps({"a": None}, 4)])
def test_what_is_no_list_of_arrays_is_refused(raw):
    with pytest.raises(UnsafeCheckpoint):
        read_arrays(raw, "broken")


def test_arrays_of_joblib_are_read_as_joblib_reads_them():
    joblib = pytest.importorskip("joblib")
    arrays = [np.arange(6, dtype=np.float32).reshape(2, 3), np.asfortranarray(np.random.RandomState(0).rand(3, 4))]
    file = io.BytesIO()
    joblib.dump(arrays, file)
    for got, expected in zip(read_arrays(file.getvalue(), "file"), arrays, strict=True):
        np.testing.assert_array_equal(got, expected)
    with pytest.raises(UnsafeCheckpoint, match="bytes for an array"):
        read_arrays(file.getvalue()[:-60], "file")
