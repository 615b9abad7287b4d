"""DamoFD 0.5G with key points against the official detector."""

from __future__ import annotations

import re
from typing import Any

from harness import Golden, part
from likeness_pack.adapters.detectors.damofd.arch import STRIDES, DamoFD, decode
from likeness_pack.adapters.detectors.damofd.layout import shape_of


class _Listed:
    """A key list in the place of a file's header."""

    def __init__(self, keys: dict[str, Any]) -> None:
        self.tensors = keys

    def has(self, *names: str) -> bool:
        return all(name in self.tensors for name in names)

    def shape(self, name: str) -> tuple[int, ...] | None:
        return tuple(self.tensors[name]) if name in self.tensors else None

    def with_prefix(self, prefix: str) -> dict[str, Any]:
        return {name.removeprefix(prefix): shape for name, shape in self.tensors.items() if name.startswith(prefix)}


@part("damofd_05g_kps")
def damofd_05g_kps(golden: Golden) -> None:
    """Features of the backbone, raw maps and decoded anchors."""
    shape = shape_of(_Listed(golden.keys))  # type: ignore[arg-type]
    assert not isinstance(shape, str), shape
    network = DamoFD(shape)
    ours = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    assert ours == {name: tuple(size) for name, size in golden.keys.items()}
    golden.fill(network)
    image = golden.input("image", golden.metadata["inputs"]["image"]["shape"])
    for number, feature in enumerate(network.backbone(image)):
        golden.check(f"feat_{number}_mean", feature.mean((2, 3)))
        golden.check(f"feat_{number}_std", feature.std((2, 3)))
    levels = network(image)
    for stride, maps in zip(STRIDES, levels, strict=True):
        for name, values in zip(("cls", "reg", "kps"), maps, strict=True):
            golden.check(f"{name}_{stride}", values)
    boxes, points, scores = decode(levels, (float(image.shape[3]), float(image.shape[2])))
    told = re.search(r"scale_factor ([\d.]+)", golden.metadata["outputs"]["decoded_*"])
    assert told is not None
    scale = float(told[1])
    golden.check("decoded_boxes", boxes[0] / scale)
    golden.check("decoded_kps", points[0].flatten(1) / scale)
    golden.check("decoded_scores", scores[0])
