"""Recognises and builds ReSwapper's torch files (``reswapper-1019500.pth``, ``reswapper_256-1567500.pth``)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...checkpoint import CheckpointHeader, load_strictly, load_tensors
from ...errors import BadCheckpoint, MissingModelFile
from ...family import Ambiguity, Family, Kind, Match
from .arch import LATENT, SwapNetwork
from .swapper import LICENCE, ReSwapper

EMAP = "emap"
EMAP_FILE = "emap.npy"
SIZES = ("128", "256")
_CONVOLUTIONS = ("target_encoder.0", "target_encoder.2", "target_encoder.4", "target_encoder.6")


class ReSwapperFamily(Family):
    """Files whose keys are the network's own; widths and number of blocks come from the shapes."""

    id = "reswapper"
    kind: Kind = "swapper"
    title = "ReSwapper"
    licence = LICENCE
    links = ("https://github.com/somanchiu/ReSwapper", "https://huggingface.co/somanchiu/reswapper")
    folder = "face_swappers"
    variants = SIZES

    def recognise(self, header: CheckpointHeader) -> Match | Ambiguity | str:
        """The variants that fit: the network takes any size, so tensors cannot tell the one it was trained with."""
        names = [*(f"{name}.weight" for name in _CONVOLUTIONS), "style_blocks.0.style1.weight", "decoderPart2.0.weight"]
        lacking = [name for name in names if not header.has(name)]
        if lacking:
            return f"it has no {lacking[0]}"
        widths = [(header.shape(f"{name}.weight") or (0,))[0] for name in _CONVOLUTIONS]
        style = header.shape("style_blocks.0.style1.weight") or ()
        if len(style) != 2 or style[0] != 2 * widths[-1] or style[1] != LATENT:
            return f"its style layer is {style} instead of {(2 * widths[-1], LATENT)}"
        blocks = {name.split(".")[0] for name in header.with_prefix("style_blocks.")}
        hyper = {**{f"width{number}": width for number, width in enumerate(widths)}, "blocks": len(blocks)}
        return Ambiguity(SIZES, "the network takes faces of any size", hyper)

    def build(self, header: CheckpointHeader, match: Match) -> ReSwapper:
        """The swapper with the file's weights and inswapper's map.

        Raises:
            MissingModelFile: the map is neither in the file nor beside it.
            BadCheckpoint: it is, but damaged.
        """
        hyper: Any = match.hyper
        with torch.device("meta"):
            widths = (int(hyper["width0"]), int(hyper["width1"]), int(hyper["width2"]), int(hyper["width3"]))
            network = SwapNetwork(widths, int(hyper["blocks"]))
        tensors = load_tensors(header)
        emap = _checked(tensors.pop(EMAP, None), header.path)
        load_strictly(network, tensors, what=header.path.name)
        return ReSwapper(network, emap, int(match.variant or SIZES[0]))


def _checked(inside: Tensor | None, path: Path) -> Tensor:
    emap = _beside(path) if inside is None else inside.float()
    if tuple(emap.shape) != (LATENT, LATENT) or not bool(torch.isfinite(emap).all()):
        raise BadCheckpoint(
            path.name if inside is not None else EMAP_FILE,
            expected=f"a map of {LATENT} x {LATENT} finite numbers",
            found=f"shape {tuple(emap.shape)}",
            cure="download it again from the repository of ReSwapper",
        )
    return emap


def _beside(path: Path) -> Tensor:
    """The map of ``emap.npy`` in the same folder; pickled arrays are refused."""
    file = path.with_name(EMAP_FILE)
    if not file.is_file():
        raise MissingModelFile(
            path.name,
            expected=f"inswapper's map of embeddings, {EMAP_FILE}, beside it",
            found="none",
            cure=f"put {EMAP_FILE} of github.com/somanchiu/ReSwapper (1 MB) into the same folder",
        )
    try:
        return torch.from_numpy(np.load(file, allow_pickle=False)).float()
    except (OSError, ValueError, EOFError, TypeError) as error:
        raise BadCheckpoint(
            EMAP_FILE, expected="an array of numpy", found=str(error)[:120], cure="download it again"
        ) from error


FAMILY = ReSwapperFamily()
