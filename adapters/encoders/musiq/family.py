"""Recognises and builds MUSIQ checkpoints (``musiq_koniq_ckpt-*.pth``)."""

from __future__ import annotations

import torch

from ...checkpoint import CheckpointHeader, load_strictly, load_tensors
from ...family import Family, Kind, Licence, Match
from .arch import INNER, WIDTH, Musiq
from .encoder import MusiqEncoder

BLOCKS = "transformer_encoder.transformer."
NEEDED = {
    "conv_root.weight": (64, 3, 7, 7),
    "embedding.weight": (WIDTH, 16384),
    "transformer_encoder.posembed_input.position_emb": (1, 100, WIDTH),
    f"{BLOCKS}encoderblock_0.mlp.fc1.weight": (INNER, WIDTH),
}


class MusiqFamily(Family):
    """A quality score for pictures of any size."""

    id = "musiq"
    kind: Kind = "encoder"
    title = "MUSIQ"
    folder = "face_encoders"
    links = ("https://github.com/chaofengc/IQA-PyTorch", "https://huggingface.co/chaofengc/IQA-PyTorch-Weights")
    licence = Licence(
        code="CC BY-NC-SA 4.0 and S-Lab License 1.0 (IQA-PyTorch); Apache-2.0 (the authors' own)",
        weights="CC BY-NC-SA 4.0 and S-Lab License 1.0 (IQA-PyTorch)",
        commercial=False,
        note="trained on KonIQ-10k",
    )

    def recognise(self, header: CheckpointHeader) -> Match | str:
        for name, shape in NEEDED.items():
            if header.shape(name) != shape:
                found = header.shape(name)
                return f"no {name} {shape}" if found is None else f"{name} is {found} instead of {shape}"
        head = header.shape("head.weight")
        if head != (1, WIDTH):
            return f"head {head}: MUSIQ with scores from 0 to 100 has (1, {WIDTH})"
        return Match(self, None, {"layers": len({name.split(".")[0] for name in header.with_prefix(BLOCKS)})})

    def build(self, header: CheckpointHeader, match: Match) -> MusiqEncoder:
        with torch.device("meta"):
            network = Musiq(int(match.hyper["layers"]))
        load_strictly(network, load_tensors(header), what=header.path.name)
        note = f"encoder file {header.path.name} ({header.digest[:12]})"
        return MusiqEncoder(network, self.licence, (self.licence.note, note))


FAMILY = MusiqFamily()
