"""Reads the StyleGAN2 generator of an e4e file, for pictures of W+ codes.

The same file holds encoder and generator, so the registry's list has the encoder's family alone; `read_generator` asks
for the generator.
"""

from __future__ import annotations

from pathlib import Path

import torch

from ...checkpoint import CheckpointHeader, load_strictly, load_tensors, read_header
from ...family import Ambiguity, Family, Kind, Licence, Match, rebuild
from ...registry import recognise
from .stylegan2 import CHANNELS, Generator

PREFIXES = ("state_dict.decoder.", "decoder.", "g_ema.", "")
NEEDED = ("input.input", "conv1.conv.weight", "to_rgb1.bias", "noises.noise_0")
IGNORED = {"style.": "the mapping network; W+ codes lie behind it"}


class GeneratorFamily(Family):
    """StyleGAN2 in rosinality's layout."""

    id = "stylegan2_decoder"
    kind: Kind = "encoder"
    title = "StyleGAN2 generator"
    folder = "face_encoders"
    links = ("https://github.com/rosinality/stylegan2-pytorch", "https://github.com/omertov/encoder4editing")
    licence = Licence(
        code="MIT",
        weights="Nvidia Source Code License (StyleGAN2, FFHQ)",
        commercial=False,
        note="converted from NVIDIA's weights, which are for non-commercial use",
    )

    def recognise(self, header: CheckpointHeader) -> Match | Ambiguity | str:
        prefix = _prefix(header)
        if prefix is None:
            return f"no {NEEDED[0]} and {NEEDED[1]} (the generator)"
        count = len([name for name in header.with_prefix(f"{prefix}to_rgbs.") if name.endswith(".conv.weight")])
        if not 0 < count < len(CHANNELS):
            return f"{count + 1} resolutions; known are 2 to {len(CHANNELS)}"
        return Match(self, None, {"levels": count + 1})

    def build(self, header: CheckpointHeader, match: Match) -> Generator:
        with torch.device("meta"):
            network = Generator(CHANNELS[: int(match.hyper["levels"])])
        tensors = load_tensors(header, _prefix(header) or "")
        load_strictly(network, tensors, what=f"{header.path.name}, generator", ignorable=IGNORED)
        return network.eval().requires_grad_(False)


def read_generator(path: Path | str) -> Generator:
    """Read the generator of an e4e file, or of a generator's own file.

    Raises:
        UnknownCheckpoint: another kind of file.
        KeyMismatch: layers that are not whole.
    """
    header = read_header(path)
    match = recognise(header, candidates=[GENERATOR])
    return rebuild(GENERATOR, header, match)


def _prefix(header: CheckpointHeader) -> str | None:
    for prefix in PREFIXES:
        if header.has(*(prefix + name for name in NEEDED)):
            return prefix
    return None


GENERATOR = GeneratorFamily()
