"""DamoFD: recognition, strict loading, and what the detector does around the network."""

from __future__ import annotations

import pytest
import torch
from likeness_pack.adapters import registry
from likeness_pack.adapters.checkpoint import read_header
from likeness_pack.adapters.detectors.damofd.arch import STRIDES, Block, DamoFD, Shape, decode
from likeness_pack.adapters.detectors.damofd.detector import SIDE, DamoFDDetector, fitted
from likeness_pack.adapters.detectors.damofd.family import FAMILY
from likeness_pack.adapters.errors import KeyMismatch
from likeness_pack.adapters.family import Match
from likeness_pack.faces.detect import detect_faces
from safetensors.torch import save_file
from sparse_files import write_sparse_safetensors


def stage(width_in, inside, out, kernel, pairs=1):
    blocks = []
    for _ in range(pairs):
        blocks += [Block(width_in, inside, inside, kernel, True), Block(inside, inside, out, kernel, inside != out)]
        width_in = out
    return tuple(blocks)


def official_stage(width_in, inside, out, kernel, pairs=1):
    """The two halves of a super-block: the second works at the width of its output."""
    blocks = []
    for _ in range(pairs):
        blocks += [Block(width_in, inside, inside, kernel, True), Block(inside, out, out, kernel, inside != out)]
        width_in = out
    return tuple(blocks)


OFFICIAL = Shape(
    32,
    (
        official_stage(32, 8, 32, 3),
        official_stage(32, 40, 64, 7),
        official_stage(64, 40, 120, 7, 2),
        official_stage(120, 120, 160, 5),
    ),
    16,
    64,
    2,
)
TINY = Shape(4, (stage(4, 4, 4, 3), stage(4, 4, 8, 5), stage(8, 4, 8, 3, 2), stage(8, 8, 8, 3)), 16, 16, 1)


def tiny_state():
    torch.manual_seed(5)
    return {name: value.clone() for name, value in DamoFD(TINY).state_dict().items()}


def detector_from(path):
    header = read_header(path)
    match = registry.recognise(header, "detector")
    assert isinstance(match, Match) and match.family is FAMILY
    return FAMILY.build(header, match)


def test_the_published_layout_is_recognised_under_any_name(tmp_path):
    with torch.device("meta"):
        network = DamoFD(OFFICIAL)
    assert sum(parameter.numel() for parameter in network.parameters()) == 269_729
    shapes = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    header = read_header(write_sparse_safetensors(tmp_path / "q.bin", shapes))
    assert registry.recognise(header).family is FAMILY
    assert FAMILY.build(header, registry.recognise(header)).network.state_dict().keys() == shapes.keys()


@pytest.mark.parametrize("prefix", ["", "module."])
def test_a_trainer_file_is_loaded_from_its_shapes(tmp_path, prefix):
    state = {prefix + name: value for name, value in tiny_state().items()}
    torch.save({"meta": {"epoch": 640, "CLASSES": ("face",)}, "state_dict": state}, tmp_path / "any name.pt")
    detector = detector_from(tmp_path / "any name.pt")
    for name, value in tiny_state().items():
        assert torch.equal(detector.network.state_dict()[name], value), name
    assert not detector.network.training and detector.default_score == 0.3
    assert not any(parameter.requires_grad for parameter in detector.network.parameters())


def test_missing_and_leftover_keys_are_told(tmp_path):
    state = tiny_state() | {"neck.extra.weight": torch.zeros(2)}
    del state["bbox_head.stride_reg.0.bias"]
    save_file(state, tmp_path / "a")
    header = read_header(tmp_path / "a")
    with pytest.raises(KeyMismatch, match=r"bbox_head\.stride_reg.*neck\.extra"):
        FAMILY.build(header, FAMILY.recognise(header))


@pytest.mark.parametrize(
    ("without", "reason"),
    [
        ("bbox_head.stride_kps.", "without key points"),
        ("bbox_head.cls_stride_convs.0.0.depthwise_conv.", "another size than 0.5G"),
        ("backbone.module_list.4.", r"stages \[1, 2, 3\]"),
        ("backbone.module_list.2.module_list.0.module_list.3.", "stage 2 is not made of"),
        ("backbone.module_list.3.module_list.2.", "stage 3 is not made of"),
        ("neck.", "no neck.lateral_convs"),
    ],
)
def test_other_files_get_a_reason(tmp_path, without, reason):
    state = {name: value for name, value in tiny_state().items() if not name.startswith(without)}
    save_file(state, tmp_path / "a")
    assert isinstance(FAMILY.recognise(read_header(tmp_path / "a")), str)
    with pytest.raises(Exception, match=reason):
        registry.recognise(read_header(tmp_path / "a"), "detector")


def test_pictures_are_fitted_top_left_in_both_directions():
    for size, inner, scale in (((320, 480), (427, 640), 640 / 480), ((1280, 900), (640, 450), 0.5)):
        square, found, limit = fitted(torch.full((2, 3, *size), 255.0))
        assert square.shape == (2, 3, SIDE, SIDE) and found == pytest.approx(scale)
        assert limit == (inner[1], inner[0])
        assert torch.allclose(square[:, :, : inner[0], : inner[1]], torch.tensor(127.5 / 128))
        assert not square[:, :, inner[0] :].any() and not square[:, :, :, inner[1] :].any()


def test_decoding_puts_centres_at_the_corner_of_a_cell():
    levels = []
    for stride in STRIDES:
        side = 64 // stride
        scores = torch.full((1, 2, side, side), -9.0)
        levels.append((scores, torch.ones(1, 8, side, side), torch.zeros(1, 20, side, side)))
    levels[1][0][0, 1, 2, 3] = 9.0
    levels[1][1][0, 4:] = torch.tensor([1.0, 2.0, 3.0, 0.5])[:, None, None]
    levels[1][2][0, 10:] = torch.arange(10.0)[:, None, None] / 10
    boxes, points, scores = decode(levels, (64.0, 40.0))
    best = int(scores[0].argmax())
    assert best == 64 * 2 + (2 * 4 + 3) * 2 + 1
    # x 48 and y 32 are the cell's corner; the lower edge is cut at the picture's height.
    assert boxes[0, best].tolist() == [48 - 16, 32 - 32, 64, 40]
    expected = torch.tensor([48.0, 32.0]) + torch.arange(10.0).view(5, 2) * 1.6
    assert torch.allclose(points[0, best], expected)


class OneFace(torch.nn.Module):
    """Answers with one face in the cell of stride 32 that is brightest, and a weaker copy in the same place."""

    def __init__(self):
        super().__init__()
        self.place = torch.nn.Parameter(torch.zeros(()))
        self.batches = []

    def forward(self, images):
        self.batches.append(len(images))
        levels = []
        for stride in STRIDES:
            side = SIDE // stride
            scores = torch.full((len(images), 2, side, side), -9.0)
            if stride == 32:
                bright = torch.nn.functional.avg_pool2d(images.mean(1), 32).flatten(1).argmax(1)
                for number, cell in enumerate(bright.tolist()):
                    scores[number, :, cell // side, cell % side] = torch.tensor([3.0, 2.0])
            levels.append(
                (scores, torch.full((len(images), 8, side, side), 1.5), torch.zeros(len(images), 20, side, side))
            )
        return levels


def spot(x, y, size=(400, 600)):
    picture = torch.zeros(*size, 3)
    picture[y - 25 : y + 25, x - 25 : x + 25] = 1
    return picture


def test_each_picture_of_a_batch_gets_its_own_face_in_its_own_pixels():
    network = OneFace()
    images = torch.stack([spot(100, 100), spot(500, 300), spot(300, 50)] * 4)
    found = DamoFDDetector(network)(images, 0.3)
    assert sum(network.batches) == 12 and max(network.batches) > 1
    for faces, (x, y) in zip(found, [(100, 100), (500, 300), (300, 50)] * 4, strict=True):
        assert len(faces) == 1
        assert (faces.landmarks5[0, 0] - torch.tensor([x, y])).abs().max() < 40
        assert faces.scores.tolist() == pytest.approx([torch.tensor(3.0).sigmoid().item()])
        side = faces.boxes[0, 2:] - faces.boxes[0, :2]
        assert (side - 2 * 1.5 * 32 * 600 / 640).abs().max() < 20


def test_scores_at_the_threshold_are_left_out():
    assert len(DamoFDDetector(OneFace())(spot(100, 100)[None], 0.96)[0]) == 0


def test_a_batch_gives_what_its_pictures_give_alone():
    torch.manual_seed(5)
    detector = DamoFDDetector(DamoFD(TINY).eval())
    images = torch.rand(2, 70, 90, 3)
    with torch.no_grad():
        levels = detector.network(torch.cat([fitted(image.movedim(-1, 0)[None] * 255)[0] for image in images]))
    best = decode(levels, (SIDE, SIDE))[2].flatten().sort(descending=True).values
    least = float(best[60:62].mean())
    together = detector(images, least)
    assert any(len(faces) for faces in together)
    for image, faces in zip(images, together, strict=True):
        alone = detector(image[None], least)[0]
        torch.testing.assert_close(alone.boxes, faces.boxes, atol=1e-2, rtol=1e-3)


@pytest.mark.parametrize("size", [(1, 1), (3, 700)])
def test_odd_pictures_do_no_harm(size):
    detector = DamoFDDetector(DamoFD(TINY).eval())
    assert len(detector(torch.rand(1, *size, 3), 0.99)) == 1
    assert detector(torch.zeros(0, *size, 3), 0.9) == []


def test_it_serves_as_the_detector_of_a_batch():
    batch, kept = detect_faces(torch.stack([spot(100, 100), spot(500, 300)]), DamoFDDetector(OneFace()))
    assert kept == [0, 1] and batch.counts == (1, 1) and batch.detector == "damofd"
