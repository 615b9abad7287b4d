"""The file of a LAFR adapter: safetensors with the modules' names, and metadata that say what the tensors mean.

This layout is the project's own, since none is published: ``lafr_align_v1``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ...checkpoint import CheckpointHeader
from ...own_layouts import OwnMetadata
from .arch import LatentAlignAdapter

FORMAT = "lafr_align_v1"
BASES = ("sd15", "sd21")
PREDICTIONS = ("eps", "v")
CURE = "train a file with 'Train LAFR' or tools/train_lafr.py, which write it"


@dataclass(frozen=True)
class LafrFacts:
    """What the tensors of a file do not say.

    Attributes:
        base: ``"sd15"`` or ``"sd21"``, whose VAE the latents come from.
        latent_scale: factor between the VAE's latent and the one the adapter works on.
        prediction: what the base model predicts, ``"eps"`` or ``"v"``.
        t_star: timestep of the restoration in one step.
        steps: optimiser steps that were made.
        pictures: how many pictures it was trained on.
        size: their side in pixels.
    """

    base: str = "sd15"
    latent_scale: float = 0.18215
    prediction: str = "eps"
    t_star: int = 399
    steps: int = 0
    pictures: int = 0
    size: int = 512

    def metadata(self, network: LatentAlignAdapter) -> dict[str, str]:
        """All metadata of a file with ``network``."""
        facts = {name: str(getattr(self, name)) for name in self.__dataclass_fields__}
        return {"format": FORMAT, **facts, **{name: str(value) for name, value in sizes_of(network).items()}}


def sizes_of(network: LatentAlignAdapter) -> dict[str, int]:
    """The network's sizes, under the names of the metadata."""
    codes, code_dim = network.codebook.weight.shape
    return {
        "hidden": network.conv_in.weight.shape[0],
        "d": code_dim,
        "N": codes,
        "n_res": len(network.extractor),
    }


def sizes_in(header: CheckpointHeader) -> dict[str, int] | str:
    """The sizes that a file's shapes tell, or the reason (a clause) why it is no such file."""
    for name in ("conv_in.weight", "to_code.weight", "codebook.weight", "from_code.weight", "conv_out.weight"):
        if name not in header.tensors:
            return f"no {name} (LAFR)"
    first, codebook = header.tensors["conv_in.weight"].shape, header.tensors["codebook.weight"].shape
    if len(first) != 4 or first[1:] != (4, 3, 3) or len(codebook) != 2:
        return f"conv_in.weight of shape {first}; LAFR has (hidden, 4, 3, 3)"
    if first[0] % 32 or header.shape("to_code.weight") != (codebook[1], first[0], 1, 1):
        return f"to_code.weight of shape {header.shape('to_code.weight')}; LAFR has ({codebook[1]}, {first[0]}, 1, 1)"
    blocks = {name.split(".")[0] for name in header.with_prefix("extractor.")}
    return {"hidden": first[0], "d": codebook[1], "N": codebook[0], "n_res": len(blocks)}


def read_facts(header: CheckpointHeader, sizes: Mapping[str, int]) -> LafrFacts:
    """The metadata of a file.

    Raises:
        BadCheckpoint: metadata that are missing, out of range, or contradict the shapes; or a file never trained.
    """
    metadata = OwnMetadata(header, CURE)
    said = metadata.said(("format", *sizes, *LafrFacts.__dataclass_fields__))
    if said["format"] != FORMAT:
        raise metadata.refused(f"format {FORMAT}", said["format"])
    wrong = [f"{name} {said[name]} (shapes say {size})" for name, size in sizes.items() if said[name] != str(size)]
    if wrong:
        raise metadata.refused("metadata that fit the shapes", ", ".join(wrong))
    facts = _facts(metadata, said)
    metadata.require_trained(facts.steps)
    return facts


def _facts(metadata: OwnMetadata, said: Mapping[str, str]) -> LafrFacts:
    try:
        whole = {name: int(said[name]) for name in ("t_star", "steps", "pictures", "size")}
        facts = LafrFacts(said["base"], float(said["latent_scale"]), said["prediction"], **whole)
    except ValueError as error:
        raise metadata.refused("numbers in the metadata", str(error)) from error
    fits: dict[str, Any] = {
        "base": facts.base in BASES,
        "prediction": facts.prediction in PREDICTIONS,
        "t_star": 0 <= facts.t_star < 1000,
        "latent_scale": math.isfinite(facts.latent_scale) and facts.latent_scale > 0,
    }
    wrong = [f"{name} {said[name]}" for name, good in fits.items() if not good]
    if wrong:
        expected = f"base {' or '.join(BASES)}, prediction {' or '.join(PREDICTIONS)}, t_star 0..999, a positive scale"
        raise metadata.refused(expected, ", ".join(wrong))
    return facts
