"""FLR: recognition in the trainer's wrapping, the loose crop, and features that are no identity."""

from __future__ import annotations

import pytest
import torch
from likeness_pack.adapters import registry
from likeness_pack.adapters.checkpoint import read_header
from likeness_pack.adapters.encoders.base import encode_photos
from likeness_pack.adapters.encoders.face_representation.arch import (
    DEVIATION,
    IMAGE_SIZE,
    MEAN,
    FaceRepresentation,
    ReprConfig,
)
from likeness_pack.adapters.encoders.face_representation.encoder import loose_crops
from likeness_pack.adapters.encoders.face_representation.family import FAMILY
from likeness_pack.adapters.errors import KeyMismatch
from likeness_pack.faces.types import FaceBatch, Faces
from safetensors.torch import save_file
from sparse_files import write_sparse_safetensors

SMALL = ReprConfig(stem=4, blocks=(1, 1, 2, 1), hidden=16, projection=8, prototypes=12)


def small_state(seed=0):
    torch.manual_seed(seed)
    return dict(FaceRepresentation(SMALL).state_dict())


def trainer_file(path, state):
    moments = {"state": {0: {"momentum_buffer": torch.zeros(3)}}, "param_groups": [{"lr": 0.3, "params": [0]}]}
    wrapped = {f"module.{name}": tensor for name, tensor in state.items()}
    torch.save({"epoch": 400, "state_dict": wrapped, "optimizer": moments}, path)
    return path


def built(path):
    header = read_header(path)
    match = registry.recognise(header, "encoder")
    assert match.family is FAMILY
    return FAMILY.build(header, match)


def faces(*boxes):
    boxes = torch.tensor(boxes, dtype=torch.float32)
    points = (boxes[:, None, :2] + boxes[:, None, 2:]) / 2 + torch.eye(5, 2)
    return Faces(boxes, points, torch.ones(len(boxes)))


@pytest.mark.parametrize("prefix", ["", "module.", "state_dict.module."])
def test_the_published_layout_is_recognised_under_any_name(tmp_path, prefix):
    with torch.device("meta"):
        network = FaceRepresentation(ReprConfig(hidden=2048))
    assert sum(parameter.numel() for parameter in network.parameters()) == pytest.approx(28.4e6, rel=0.01)
    shapes = {prefix + name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    match = registry.recognise(read_header(write_sparse_safetensors(tmp_path / "x.bin", shapes)))
    assert match.family is FAMILY and match.hyper["width"] == 2048


def test_only_the_body_is_read_from_a_trainer_file(tmp_path):
    state = small_state()
    encoder = built(trainer_file(tmp_path / "flr.pth", state))
    assert encoder.id == "flr_1x1x2x1"
    assert {name.split(".")[0] for name in encoder.network.state_dict()} == {"base_net"}
    whole = FaceRepresentation(SMALL).eval()
    whole.load_state_dict(state)
    image = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(encoder.network(image), whole(image))
    assert any("not for adapters" in note for note in encoder.notes)


def test_official_depth_has_a_name(tmp_path):
    torch.manual_seed(0)
    save_file(FaceRepresentation(ReprConfig(stem=2)).state_dict(), tmp_path / "a")
    assert built(tmp_path / "a").id == "flr_r50"


def test_every_refusal_has_a_reason(tmp_path):
    def refused(state):
        save_file(state, tmp_path / "a")
        return FAMILY.recognise(read_header(tmp_path / "a"))

    plain = {name.removeprefix("base_net."): tensor for name, tensor in small_state().items()}
    assert refused(plain) == "no base_net.conv1.weight"
    assert "bottleneck" in refused(small_state() | {"base_net.conv1.weight": torch.zeros(4, 3, 3, 3)})
    shallow = {name: tensor for name, tensor in small_state().items() if ".layer3.0.conv3" not in name}
    assert refused(shallow) == "no base_net.layer3.0.conv3.weight"


def test_missing_and_leftover_keys_are_told(tmp_path):
    state = small_state() | {"base_net.fc.weight": torch.zeros(2, 2)}
    del state["base_net.layer3.1.bn2.bias"]
    save_file(state, tmp_path / "a")
    with pytest.raises(KeyMismatch, match=r"layer3.*fc"):
        built(tmp_path / "a")


def test_the_stride_is_on_the_3x3_convolution():
    block = FaceRepresentation(SMALL).base_net.layer2[0]
    assert (block.conv1.stride, block.conv2.stride) == ((1, 1), (2, 2))


def gradient(height, width):
    """A picture whose red is x and green is y, in parts of the size."""
    red = ((torch.arange(width) + 0.5) / width).expand(height, width)
    green = ((torch.arange(height) + 0.5) / height)[:, None].expand(height, width)
    return torch.stack([red, green, torch.full((height, width), 0.5)], dim=-1)[None]


@pytest.mark.parametrize("side", [60.0, 172.0, 700.0])
def test_the_crop_is_a_square_thirty_per_cent_larger_than_the_box(side):
    size = 1400
    box = torch.tensor([[400.0, 350.0, 400.0 + side, 350.0 + side / 2]])
    crop = loose_crops(gradient(size, size), [0], box)[0] * size
    assert crop.shape == (3, IMAGE_SIZE, IMAGE_SIZE)
    step = 1.3 * side / IMAGE_SIZE
    left, top = 400 + side / 2 - 0.65 * side, 350 + side / 4 - 0.65 * side
    centres = (torch.arange(IMAGE_SIZE) + 0.5) * step
    assert torch.allclose(crop[0, 100], left + centres, atol=0.05)
    assert torch.allclose(crop[1, :, 100], (top + centres), atol=0.05)


def test_large_faces_do_not_alias():
    stripes = (torch.arange(1600) % 2).float().expand(1600, 1600)[None, :, :, None].expand(-1, -1, -1, 3)
    crop = loose_crops(stripes, [0], torch.tensor([[300.0, 300.0, 1300.0, 1300.0]]))
    assert float((crop - 0.5).abs().mean()) < 0.12


def test_a_box_without_extent_does_no_harm():
    assert torch.isfinite(loose_crops(torch.rand(1, 30, 30, 3), [0], torch.tensor([[9.0, 9.0, 9.0, 9.0]]))).all()
    assert loose_crops(torch.rand(1, 30, 30, 3), [], torch.zeros(0, 4)).shape == (0, 3, IMAGE_SIZE, IMAGE_SIZE)


def test_faces_are_normalised_as_in_training(tmp_path):
    save_file(small_state(), tmp_path / "a")
    encoder = built(tmp_path / "a")
    photo = torch.rand(2, 300, 300, 3, generator=torch.Generator().manual_seed(3))
    batch = FaceBatch((faces([50.0, 60.0, 200.0, 210.0]), faces([20.0, 20.0, 120.0, 140.0])), (300, 300), "user")
    identity = encode_photos(encoder, photo, batch)
    crops = loose_crops(photo, [0, 1], torch.tensor([[50.0, 60.0, 200.0, 210.0], [20.0, 20.0, 120.0, 140.0]]))
    mean, deviation = torch.tensor(MEAN)[:, None, None], torch.tensor(DEVIATION)[:, None, None]
    assert DEVIATION[0] == 0.228
    with torch.no_grad():
        expected = encoder.network((crops - mean) / deviation)
    assert identity.encoder == "flr_1x1x2x1" and len(identity) == 2
    assert torch.allclose(identity.features["embedding"], expected, atol=1e-5)
    assert not torch.equal(identity.features["embedding"][0], identity.features["embedding"][1])


def test_batches_change_nothing(tmp_path):
    save_file(small_state(), tmp_path / "a")
    encoder = built(tmp_path / "a")
    photos = torch.rand(3, 90, 80, 3, generator=torch.Generator().manual_seed(4))
    boxes = [[5.0 + 3 * i, 6.0, 60.0, 70.0 + i] for i in range(3)]
    together = encode_photos(encoder, photos, FaceBatch(tuple(faces(box) for box in boxes), (90, 80), "user"))
    for number, box in enumerate(boxes):
        alone = encode_photos(encoder, photos[number : number + 1], FaceBatch((faces(box),), (90, 80), "user"))
        rows = together.features["embedding"][number], alone.features["embedding"][0]
        assert torch.allclose(*rows, atol=1e-5)
