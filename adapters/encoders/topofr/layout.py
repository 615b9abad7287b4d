"""How a file of this residual network is told by keys and shapes, loaded without the class centres, and named."""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType

import torch

from ...checkpoint import CheckpointHeader, load_strictly, load_tensors
from ...family import Hyper
from .arch import LAST_SIDE, IResNet, IResNetConfig

CENTRES = "weight"
DEPTHS = {
    (2, 2, 2, 2): "r18",
    (3, 4, 6, 3): "r34",
    (3, 4, 14, 3): "r50",
    (3, 13, 30, 3): "r100",
    (6, 26, 60, 6): "r200",
}
LAYERS = ("layer1", "layer2", "layer3", "layer4")
NEEDED = (
    "conv1.weight",
    "prelu.weight",
    *(f"{layer}.0.{name}.weight" for layer in LAYERS for name in ("bn1", "conv1", "bn2", "prelu", "conv2", "bn3")),
    "bn2.weight",
    "fc.weight",
    "features.weight",
)


def sizes_of(header: CheckpointHeader) -> dict[str, int | str | float] | str:
    """Sizes from shapes, or the reason why this is no file of the network."""
    missing = [name for name in NEEDED if not header.has(name)]
    if missing:
        return f"no {missing[0]}"
    shapes = [header.shape(name) or () for name in ("conv1.weight", *(f"{layer}.0.conv2.weight" for layer in LAYERS))]
    if any(len(shape) != 4 or shape[2:] != (3, 3) for shape in shapes) or shapes[0][1] != 3:
        return f"conv1.weight {shapes[0]} and the layers' conv2.weight are not 3x3 convolutions of an RGB picture"
    widths = [shape[0] for shape in shapes]
    fc = header.shape("fc.weight") or ()
    if len(fc) != 2 or fc[1] != widths[4] * LAST_SIDE**2:
        return f"fc.weight {fc} does not take {widths[4]} channels of {LAST_SIDE} x {LAST_SIDE}, as a 112 px face gives"
    centres = header.shape(CENTRES)
    if centres is not None and (len(centres) != 2 or centres[1] != fc[0]):
        return f"weight {centres} is not (classes, {fc[0]})"
    found: dict[str, int | str | float] = {f"width{number}": width for number, width in enumerate(widths)}
    found |= {layer: len({name.split(".")[0] for name in header.with_prefix(f"{layer}.")}) for layer in LAYERS}
    return found | {"embedding": fc[0], "classes": centres[0] if centres else 0}


def config_of(hyper: Hyper) -> IResNetConfig:
    """The network of such sizes, without class centres."""
    first, second, third, fourth = (int(hyper[layer]) for layer in LAYERS)
    stem, a, b, c, d = (int(hyper[f"width{number}"]) for number in range(5))
    return IResNetConfig((first, second, third, fourth), (stem, a, b, c, d), int(hyper["embedding"]))


def depth_name(blocks: tuple[int, int, int, int]) -> str:
    """``r50``, or the numbers of blocks where no official name fits."""
    return DEPTHS.get(blocks, "x".join(map(str, blocks)))


def load_network(header: CheckpointHeader, hyper: Hyper) -> IResNet:
    """The network with the file's weights, in evaluation mode; class centres (738 MB for Glint360K) are not read."""
    with torch.device("meta"):
        network = IResNet(config_of(hyper))
    network.to_empty(device="cpu")
    names = {name: raw for name, raw in header.raw_names.items() if name != CENTRES}
    tensors = load_tensors(replace(header, raw_names=MappingProxyType(names)))
    load_strictly(network, tensors, what=header.path.name)
    return network.eval().requires_grad_(False)
