"""Recognises the matcher of AM-Adapter."""

from __future__ import annotations

import torch

from ...checkpoint import CheckpointHeader, load_strictly, load_tensors
from ...family import Ambiguity, Family, Kind, Licence, Match
from .adapter import HEADS, AMMatcher
from .arch import Matcher

LAYERS = 16
LICENCE = Licence(
    code="none at the root of the authors' repository (parts: Apache-2.0, one file CC BY-NC-SA)",
    weights="never published",
    commercial=None,
    note="the authors published no weights: this takes files that users train in the authors' layout",
)
LINKS = ("https://github.com/cvlab-kaist/AM-Adapter", "https://arxiv.org/abs/2412.03150")
_LAYER = "encoders.0.conv4d.{}.0.{}.weight"


class AMMatcherFamily(Family):
    """4D convolutions over the logits between a picture's tokens and an exemplar's."""

    id = "am_adapter"
    kind: Kind = "adapter"
    title = "AM-Adapter matcher"
    folder = "face_adapters"
    links = LINKS
    licence = LICENCE

    def recognise(self, header: CheckpointHeader) -> Match | Ambiguity | str:
        widths = _widths(header)
        if isinstance(widths, str):
            return widths
        if widths[0] != HEADS + 1 or widths[-1] != HEADS:
            return f"{widths[0]} channels in and {widths[-1]} out; SD1.5 needs {HEADS + 1} and {HEADS}"
        return Match(self, None, {"base": "sd15", "layers": LAYERS, "encoders": _encoders(header)})

    def build(self, header: CheckpointHeader, match: Match) -> AMMatcher:
        widths = _widths(header)
        if isinstance(widths, str):
            raise TypeError(widths)
        with torch.device("meta"):
            network = Matcher(widths, int(match.hyper["encoders"]))
        load_strictly(network, load_tensors(header), what=header.path.name)
        return AMMatcher(self.describe(header, match), header.digest, network.float().eval().requires_grad_(False))


def _encoders(header: CheckpointHeader) -> int:
    return len({name.split(".")[1] for name in header.tensors if name.startswith("encoders.")})


def _widths(header: CheckpointHeader) -> tuple[int, ...] | str:
    """Channels before the first layer and after each, or why this is no such file."""
    kernels: list[tuple[int, ...]] = []
    while (kernel := header.shape(_LAYER.format(len(kernels), "supp_conv"))) is not None:
        query = header.shape(_LAYER.format(len(kernels), "query_conv"))
        if len(kernel) != 4 or kernel[2:] != (3, 3) or query != (*kernel[:2], 1, 1):
            return f"layer {len(kernels)} of the matcher has kernels {query} and {kernel}, not 1x1 and 3x3"
        kernels.append(kernel)
    if not kernels:
        return f"no {_LAYER.format(0, 'supp_conv')} (the matcher)"
    inputs, outputs = [kernel[1] for kernel in kernels], [kernel[0] for kernel in kernels]
    if inputs[1:] != outputs[:-1]:
        return f"layers of the matcher that do not fit together: {inputs} channels in, {outputs} out"
    return (inputs[0], *outputs)


FAMILY = AMMatcherFamily()
