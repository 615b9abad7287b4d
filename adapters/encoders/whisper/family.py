"""Recognises and builds Whisper files: Hugging Face's layout and openai's own, with or without the decoder."""

from __future__ import annotations

import re

import torch
from torch import Tensor

from ...checkpoint import CheckpointHeader, load_strictly, load_tensors
from ...family import Family, Hyper, Kind, Licence, Match
from .arch import HEAD_WIDTH, POSITIONS, WhisperEncoderNetwork
from .encoder import WhisperEncoder
from .mel import BANDS

HUGGING_FACE, OPENAI = "hugging_face", "openai"
PREFIXES = ("", "encoder.", "model.encoder.", "model_state_dict.encoder.")
# What tells the layouts apart, and where each keeps the positions.
_POSITIONS = {HUGGING_FACE: "embed_positions.weight", OPENAI: "positional_embedding"}
_INNER = {HUGGING_FACE: "layers.0.fc1.weight", OPENAI: "blocks.0.mlp.0.weight"}
_LAYERS = {HUGGING_FACE: "layers.", OPENAI: "blocks."}
# openai's names in the order of replacement.
_RENAMED = (
    (r"^positional_embedding$", "embed_positions.weight"),
    (r"^ln_post\.", "layer_norm."),
    (r"^blocks\.", "layers."),
    (r"\.attn\.query\.", ".self_attn.q_proj."),
    (r"\.attn\.key\.", ".self_attn.k_proj."),
    (r"\.attn\.value\.", ".self_attn.v_proj."),
    (r"\.attn\.out\.", ".self_attn.out_proj."),
    (r"\.attn_ln\.", ".self_attn_layer_norm."),
    (r"\.mlp\.0\.", ".fc1."),
    (r"\.mlp\.2\.", ".fc2."),
    (r"\.mlp_ln\.", ".final_layer_norm."),
)
_SIZES = {(384, 4): "whisper_tiny", (512, 6): "whisper_base", (768, 12): "whisper_small", (1024, 24): "whisper_medium"}


class WhisperFamily(Family):
    """The audio encoder of HunyuanVideo-Avatar, MuseTalk and UnAvgLip, whisper-tiny in all of them."""

    id = "whisper"
    kind: Kind = "encoder"
    title = "Whisper"
    folder = "face_encoders"
    variants = (HUGGING_FACE, OPENAI)
    links = ("https://huggingface.co/openai/whisper-tiny", "https://github.com/openai/whisper")
    licence = Licence(
        code="MIT (openai/whisper); Apache-2.0 (transformers)",
        weights="Apache-2.0 (openai/whisper-tiny); MIT (openai's tiny.pt)",
        commercial=True,
    )

    def recognise(self, header: CheckpointHeader) -> Match | str:
        prefix = next((one for one in PREFIXES if header.has(f"{one}conv1.weight", f"{one}conv2.weight")), None)
        if prefix is None:
            return "no conv1.weight and conv2.weight (Whisper's encoder)"
        first = header.shape(f"{prefix}conv1.weight") or ()
        if len(first) != 3 or first[1:] != (BANDS, 3) or first[0] % HEAD_WIDTH:
            return f"{prefix}conv1.weight is {first}; Whisper with {BANDS} bands has (width, {BANDS}, 3)"
        width = first[0]
        for layout, positions in _POSITIONS.items():
            inner = header.shape(prefix + _INNER[layout])
            if header.shape(prefix + positions) == (POSITIONS, width) and inner and inner[1:] == (width,):
                layers = {name.split(".")[0] for name in header.with_prefix(prefix + _LAYERS[layout])}
                hyper: Hyper = {"width": width, "layers": len(layers), "inner": inner[0], "prefix": prefix}
                return Match(self, layout, hyper)
        return f"no positions of shape {(POSITIONS, width)} with layers beside {prefix}conv1.weight"

    def build(self, header: CheckpointHeader, match: Match) -> WhisperEncoder:
        width, layers, inner = (int(match.hyper[name]) for name in ("width", "layers", "inner"))
        with torch.device("meta"):
            network = WhisperEncoderNetwork(width, layers, inner)
        # The decoder, which writes text, is left in the file.
        tensors = load_tensors(header, str(match.hyper["prefix"]))
        load_strictly(network, hugging_face_names(tensors), what=header.path.name)
        identifier = _SIZES.get((width, layers), f"whisper_{width}x{layers}")
        note = f"encoder file {header.path.name} ({header.digest[:12]})"
        return WhisperEncoder(identifier, network, self.licence, header.digest, (note,))


def hugging_face_names(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of the encoder under Hugging Face's names, whichever layout they have."""
    renamed = {}
    for name, tensor in tensors.items():
        for pattern, replacement in _RENAMED:
            name = re.sub(pattern, replacement, name)
        renamed[name] = tensor
    return renamed


FAMILY = WhisperFamily()
