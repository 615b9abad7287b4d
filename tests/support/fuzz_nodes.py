"""Nodes for a test server: pictures, masks and sounds that no honest node gives, and an end for any output."""

from __future__ import annotations

import math
from typing import Any

import torch


class _Anything(str):
    """A socket type that fits every other."""

    __slots__ = ()

    def __ne__(self, other: object) -> bool:
        return False


IMAGES: dict[str, Any] = {
    "none": lambda: torch.zeros(0, 64, 64, 3),
    "no height": lambda: torch.zeros(1, 0, 64, 3),
    "no width": lambda: torch.zeros(1, 64, 0, 3),
    "one pixel": lambda: torch.rand(1, 1, 1, 3),
    "strip": lambda: torch.rand(1, 2, 16384, 3),
    "column": lambda: torch.rand(1, 16384, 1, 3),
    "nan": lambda: torch.full((1, 64, 64, 3), math.nan),
    "infinite": lambda: torch.full((1, 64, 64, 3), -math.inf),
    "alpha": lambda: torch.rand(1, 64, 64, 4),
    "grey": lambda: torch.rand(1, 64, 64, 1),
    "two channels": lambda: torch.rand(1, 64, 64, 2),
    "half": lambda: torch.rand(1, 64, 64, 3).half(),
    "double": lambda: torch.rand(1, 64, 64, 3).double(),
    "bytes": lambda: torch.full((1, 64, 64, 3), 200, dtype=torch.uint8),
    "huge values": lambda: torch.full((2, 48, 80, 3), 3e38),
    "negative": lambda: torch.full((1, 64, 64, 3), -1.0),
    "three dimensions": lambda: torch.rand(64, 64, 3),
    "five dimensions": lambda: torch.rand(1, 1, 64, 64, 3),
    "strided": lambda: torch.rand(1, 3, 128, 64).permute(0, 2, 3, 1)[:, ::2],
    "nothing": lambda: None,
}
MASKS: dict[str, Any] = {
    "none": lambda: torch.zeros(0, 64, 64),
    "no pixels": lambda: torch.zeros(1, 0, 0),
    "one pixel": lambda: torch.ones(1, 1, 1),
    "two dimensions": lambda: torch.ones(64, 64),
    "four dimensions": lambda: torch.ones(1, 1, 64, 64),
    "nan": lambda: torch.full((1, 64, 64), math.nan),
    "beyond one": lambda: torch.full((1, 64, 64), 9.0),
    "true": lambda: torch.ones(1, 64, 64, dtype=torch.bool),
    "empty mask": lambda: torch.zeros(1, 64, 64),
    "nothing": lambda: None,
}
SOUNDS: dict[str, Any] = {
    "empty": lambda: {"waveform": torch.zeros(1, 1, 0), "sample_rate": 16000},
    "one sample": lambda: {"waveform": torch.ones(1, 1, 1), "sample_rate": 16000},
    "nan": lambda: {"waveform": torch.full((1, 1, 16000), math.nan), "sample_rate": 16000},
    "infinite": lambda: {"waveform": torch.full((1, 2, 16000), math.inf), "sample_rate": 44100},
    "eight channels": lambda: {"waveform": torch.rand(1, 8, 16000) - 0.5, "sample_rate": 48000},
    "192 kHz": lambda: {"waveform": torch.rand(1, 2, 192000) - 0.5, "sample_rate": 192000},
    "one hertz": lambda: {"waveform": torch.rand(1, 1, 3), "sample_rate": 1},
    "no rate": lambda: {"waveform": torch.rand(1, 1, 1600), "sample_rate": 0},
    "rate below nought": lambda: {"waveform": torch.rand(1, 1, 1600), "sample_rate": -8000},
    "odd rate": lambda: {"waveform": torch.rand(1, 1, 1601), "sample_rate": 11027},
    "rate of text": lambda: {"waveform": torch.rand(1, 1, 1600), "sample_rate": "16000"},
    "rate unknown": lambda: {"waveform": torch.rand(1, 1, 1600), "sample_rate": None},
    "batch of two": lambda: {"waveform": torch.rand(2, 1, 16000), "sample_rate": 16000},
    "no batch": lambda: {"waveform": torch.rand(1, 16000), "sample_rate": 16000},
    "whole numbers": lambda: {"waveform": torch.ones(1, 1, 16000, dtype=torch.int16), "sample_rate": 16000},
    "no channels": lambda: {"waveform": torch.zeros(1, 0, 16000), "sample_rate": 16000},
    "no waveform": lambda: {"sample_rate": 16000},
    "a list": lambda: [0.0, 1.0],
    "nothing": lambda: None,
}


def _source(name: str, kind: str, cases: dict[str, Any]) -> type:
    def make(self: Any, case: str) -> tuple[Any]:
        torch.manual_seed(0)
        return (cases[case](),)

    schema = classmethod(lambda cls: {"required": {"case": (list(cases),)}})
    fields = {"RETURN_TYPES": (kind,), "FUNCTION": "make", "CATEGORY": "fuzz", "INPUT_TYPES": schema, "make": make}
    return type(name, (), fields)


class FuzzEnd:
    """Takes any output, so that every graph has an end."""

    RETURN_TYPES = ()
    FUNCTION = "end"
    OUTPUT_NODE = True
    CATEGORY = "fuzz"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802 (the host's name)
        """One socket for anything."""
        return {"required": {"value": (_Anything("*"),)}}

    def end(self, value: Any) -> dict[str, Any]:
        """Nothing is done with it."""
        return {"ui": {"text": [type(value).__name__]}}


NODE_CLASS_MAPPINGS = {
    "FuzzImage": _source("FuzzImage", "IMAGE", IMAGES),
    "FuzzMask": _source("FuzzMask", "MASK", MASKS),
    "FuzzAudio": _source("FuzzAudio", "AUDIO", SOUNDS),
    "FuzzEnd": FuzzEnd,
}
