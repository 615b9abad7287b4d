"""RetinaFace: recognition, strict loading, and what the detector does around the network."""

from __future__ import annotations

import pytest
import torch
from likeness_pack.adapters.checkpoint import read_header
from likeness_pack.adapters.detectors.retinaface.arch import RetinaFace, Shape, priors
from likeness_pack.adapters.detectors.retinaface.detector import RetinaFaceDetector
from likeness_pack.adapters.detectors.retinaface.family import FAMILY
from likeness_pack.adapters.errors import KeyMismatch
from likeness_pack.adapters.family import Match
from safetensors.torch import save_file

TINY = Shape(stem=4, blocks=(1, 2, 1, 1), pyramid=16)


def tiny_state():
    torch.manual_seed(5)
    return {name: value.clone() for name, value in RetinaFace(TINY).state_dict().items()}


def detector_from(path):
    header = read_header(path)
    match = FAMILY.recognise(header)
    assert isinstance(match, Match), match
    return FAMILY.build(header, match)


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("wrapped", [False, True])
def test_a_file_is_recognised_by_its_shapes(tmp_path, prefix, wrapped):
    state = {prefix + name: value for name, value in tiny_state().items()}
    torch.save({"state_dict": state} if wrapped else state, tmp_path / "any name.pt")
    detector = detector_from(tmp_path / "any name.pt")
    assert detector.licence.commercial is None and detector.default_score == 0.9
    for name, value in tiny_state().items():
        torch.testing.assert_close(detector.network.state_dict()[name], value)
    assert not detector.network.training
    assert not any(parameter.requires_grad for parameter in detector.network.parameters())


def test_missing_and_leftover_keys_are_told(tmp_path):
    state = tiny_state()
    del state["ssh2.conv3X3.0.weight"]
    state["ssh9.extra"] = torch.zeros(2)
    save_file(state, tmp_path / "broken.safetensors")
    with pytest.raises(KeyMismatch, match="ssh9") as caught:
        detector_from(tmp_path / "broken.safetensors")
    assert "ssh2" in str(caught.value)


def refused(tmp_path, state):
    save_file(state, tmp_path / "other.safetensors")
    return FAMILY.recognise(read_header(tmp_path / "other.safetensors"))


def test_other_files_get_a_reason(tmp_path):
    assert "MobileNet" in refused(tmp_path, {"body.stage1.0.0.weight": torch.zeros(8, 3, 3, 3)} | tiny_state())
    assert "body.conv1.weight" in refused(tmp_path, {"conv1.weight": torch.zeros(8, 3, 3, 3)})
    wrong = tiny_state() | {"LandmarkHead.0.conv1x1.weight": torch.zeros(30, 16, 1, 1)}
    assert "landmark head" in refused(tmp_path, wrong)


class OneFace(torch.nn.Module):
    """Answers with a face at the anchor nearest to a place (in parts of the picture) and a weaker copy beside it."""

    def __init__(self, x, y):
        super().__init__()
        self.place = torch.nn.Parameter(torch.tensor([x, y]))
        self.seen = []

    def forward(self, images):
        self.seen.append(images.clone())
        anchors = priors(*images.shape[2:])
        count, anchor_count = images.shape[0], len(anchors)
        scores = torch.zeros(count, anchor_count, 2)
        distance = (anchors[:, :2] - self.place).norm(dim=1) + anchors[:, 2]
        near = torch.argsort(distance)[:2]
        scores[:, near[0], 1], scores[:, near[1], 1] = 0.99, 0.95
        shifts = torch.zeros(count, anchor_count, 4)
        shifts[..., 2:] = 10.0
        return shifts, scores, torch.zeros(count, anchor_count, 10)


def test_means_are_subtracted_in_rgb_order():
    network = OneFace(0.5, 0.5)
    image = torch.tensor([104.0, 117.0, 123.0]).div(255).expand(64, 64, 3)
    RetinaFaceDetector(network)(image[None], 0.9)
    assert network.seen[0].abs().max() == 0


@pytest.mark.parametrize(
    ("size", "inner"), [((320, 480), (320, 480)), ((1500, 800), (1500, 800)), ((800, 1600), (500, 1000))]
)
def test_large_pictures_are_shrunk_and_faces_come_back(size, inner):
    network = OneFace(0.25, 0.75)
    faces = RetinaFaceDetector(network)(torch.zeros(2, *size, 3), 0.9)
    assert network.seen[0].shape[2:] == inner
    assert [len(one) for one in faces] == [1, 1]
    centre = (faces[0].boxes[0, :2] + faces[0].boxes[0, 2:]) / 2
    torch.testing.assert_close(centre, torch.tensor([size[1] * 0.25, size[0] * 0.75]), atol=9.0, rtol=0)
    torch.testing.assert_close(faces[0].landmarks5[0], centre.expand(5, 2), atol=1e-2, rtol=0)
    side = 16 * torch.exp(torch.tensor(2.0)) * size[0] / inner[0]
    torch.testing.assert_close(faces[0].boxes[0, 2:] - faces[0].boxes[0, :2], side.expand(2), atol=0.05, rtol=0)
    assert faces[0].scores.tolist() == pytest.approx([0.99])


def test_scores_at_the_threshold_are_left_out():
    assert len(RetinaFaceDetector(OneFace(0.5, 0.5))(torch.zeros(1, 64, 64, 3), 0.995)[0]) == 0


def test_a_batch_gives_what_its_pictures_give_alone():
    torch.manual_seed(5)
    detector = RetinaFaceDetector(RetinaFace(TINY).eval())
    images = torch.rand(3, 70, 90, 3)
    together = detector(images, 0.5)
    assert any(len(faces) for faces in together)
    for image, faces in zip(images, together, strict=True):
        alone = detector(image[None], 0.5)[0]
        torch.testing.assert_close(alone.boxes, faces.boxes, atol=1e-2, rtol=1e-4)
        torch.testing.assert_close(alone.scores, faces.scores)


@pytest.mark.parametrize("size", [(1, 1), (7, 33)])
def test_tiny_pictures_do_no_harm(size):
    detector = RetinaFaceDetector(RetinaFace(TINY).eval())
    assert len(detector(torch.rand(1, *size, 3), 0.9)) == 1
    assert detector(torch.zeros(0, *size, 3), 0.9) == []
