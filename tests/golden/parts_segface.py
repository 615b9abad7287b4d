"""SegFace with every published backbone and label set against the official network."""

from __future__ import annotations

from typing import Any

import torch
from harness import Golden, part
from likeness_pack.adapters.parsers.segface.arch import SegFace
from likeness_pack.adapters.parsers.segface.family import UNUSED
from likeness_pack.adapters.parsers.segface.labels import labels_of
from likeness_pack.adapters.parsers.segface.layout import label_sets_of, shape_of
from likeness_pack.adapters.parsers.segface.tanh_warp import TanhWarp
from likeness_pack.adapters.tensor_info import TensorInfo

TOLERANCE = 1e-4
WARPED = 2e-4
TIES = 8
FACE = ((0.382, 0.441), (0.617, 0.441), (0.5, 0.558), (0.43, 0.704), (0.57, 0.704))


def _network(golden: Golden) -> SegFace:
    """Built from the key list alone, filled as the file says."""
    listed = {name: TensorInfo(tuple(shape), torch.float32) for name, shape in golden.keys.items()}
    shape = shape_of(listed)
    assert not isinstance(shape, str), shape
    dataset = {"celeb": "celeba"}.get(told := golden.metadata["hyper-parameters"]["dataset"], told)
    assert dataset in label_sets_of(listed)
    network = SegFace(shape, labels_of(dataset))
    ours = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    unused = UNUSED if shape.window else {}
    assert ours == {name: info.shape for name, info in listed.items() if name not in unused}
    golden.fill(network)
    for label in network.face_decoder.labels:
        network.face_decoder.get_parameter(f"{label.token}_token.weight").data.mul_(16.0)
    network.pe_layer.positional_encoding_gaussian_matrix.mul_(8.0)
    return network


def _check_maps(golden: Golden, network: SegFace, image: torch.Tensor) -> torch.Tensor:
    taps = network.backbone(image)
    for number, tap in enumerate(taps):
        golden.check(f"feat{number}_mean", tap.mean((0, 2, 3)), TOLERANCE)
        golden.check(f"feat{number}_std", tap.transpose(0, 1).flatten(1).std(1, unbiased=False), TOLERANCE)
    fused = network.fused(taps)
    golden.check("fused_grid", fused[:, :, 4::16, 4::16], TOLERANCE)
    places = network.pe_layer(*fused.shape[2:])
    golden.check("class_tokens_out", network.face_decoder.exchange(fused, places)[0], TOLERANCE)
    return network.decoded(fused)


def _check_logits(golden: Golden, logits: torch.Tensor) -> None:
    golden.check("logits_grid", logits[:, :, 2::15, 5::15], TOLERANCE)
    golden.check("logits_row", logits[:, :, logits.shape[2] // 2], TOLERANCE)
    golden.check("logits_mean", logits.mean((0, 2, 3)), TOLERANCE)
    golden.check("logits_std", logits.transpose(0, 1).flatten(1).std(1, unbiased=False), TOLERANCE)
    won = torch.bincount(logits.argmax(1).flatten(), minlength=logits.shape[1])
    assert (won - golden.tensors["argmax_hist"]).abs().max() <= TIES


@torch.no_grad()
def segface(golden: Golden) -> None:
    """Taps, fused map, tokens and logits; for LaPa with the warp around them."""
    network = _network(golden)
    inputs: dict[str, Any] = golden.metadata["inputs"]
    image = golden.input("image", inputs["image"])
    if "landmarks" not in inputs:
        _check_logits(golden, _check_maps(golden, network, image))
        return
    size = image.shape[-1]
    points = (torch.tensor(FACE) + 0.02 * golden.input("landmarks", inputs["landmarks"])) * size
    golden.check("landmarks_px", points[None])
    way = TanhWarp(points[None], size)
    seen = way.warp(image)
    error = (seen[:, :, 3::7, 3::7] - golden.tensors["warped_input_grid"]).abs().max()
    assert error <= WARPED, f"warped_input_grid: error {error:.3g}"
    _check_logits(golden, way.unwarp(_check_maps(golden, network, seen)))


CELEBA = ("mobilenet", "convnext_base", "swin_base", "swinv2_base", "efficientnet", "resnet")
for _name in (
    *(f"segface_celeb_{backbone}_512" for backbone in CELEBA),
    "segface_lapa_swin_base_224",
    "segface_helen_mobilenet_512",
):
    part(_name)(segface)
