"""Clips to train HunyuanVideo-Avatar's emotion module on: latents, texts and sound that were encoded before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from ..adapters.checkpoint import load_tensors, read_header
from ..adapters.families.avatar_emotion.arch import CHANNELS
from ..faces.errors import LikenessError

# Names in a clip's file, with the number of axes of each.
NEEDED: Mapping[str, int] = {"latents": 4, "emotion": 4, "text_states": 2, "text_mask": 1, "pooled": 1}
OPTIONAL: Mapping[str, int] = {"reference": 4, "audio": 4, "face_mask": 3}


class BadClip(LikenessError):
    """A clip that cannot be trained on, or none at all."""


@dataclass(frozen=True, eq=False)
class EmotionClip:
    """One clip, encoded; latents are in the scale on which the transformer works.

    Attributes:
        name: for messages.
        latents: of the video (16, T, H, W), H and W even.
        emotion: of the emotion's picture (16, 1, h, w).
        text_states, text_mask, pooled: (L, C), (L,) and (C,), as the transformer takes them.
        reference: of the character's picture (16, 1, H, W), or None.
        audio: windows of whisper's states (4 T - 3, 10, 5, 384), or None; only with a base that has the audio adapters.
        face_mask: (1 or T, H, W), 0..1, or None for everywhere.

    Raises:
        BadClip: other shapes, no frame, or numbers that are not finite.
    """

    name: str
    latents: Tensor
    emotion: Tensor
    text_states: Tensor
    text_mask: Tensor
    pooled: Tensor
    reference: Tensor | None = None
    audio: Tensor | None = None
    face_mask: Tensor | None = None

    def __post_init__(self) -> None:
        for name, axes in {**NEEDED, **OPTIONAL}.items():
            tensor: Tensor | None = getattr(self, name)
            if tensor is None and name in OPTIONAL:
                continue
            if tensor is None or tensor.ndim != axes or not tensor.numel():
                found = "nothing" if tensor is None else f"the shape {tuple(tensor.shape)}"
                raise self._refused(f"{name} of {axes} axes that is not empty", found)
            if not bool(torch.isfinite(tensor).all()):
                raise self._refused(f"finite numbers in {name}", "NaN or infinity")
        self._check_sides()

    def _check_sides(self) -> None:
        channels = {len(tensor) for tensor in (self.latents, self.emotion, self.reference) if tensor is not None}
        _, frames, high, wide = self.latents.shape
        if channels != {CHANNELS} or high % 2 or wide % 2:
            found = f"latents {tuple(self.latents.shape)}, emotion {tuple(self.emotion.shape)}"
            raise self._refused(f"latents of {CHANNELS} channels with even sides", found)
        if self.audio is not None and len(self.audio) != 4 * frames - 3:
            raise self._refused(f"{4 * frames - 3} audio windows", f"{len(self.audio)}")
        if self.reference is not None and self.reference.shape[1:] != (1, high, wide):
            raise self._refused(f"a reference of shape (16, 1, {high}, {wide})", f"{tuple(self.reference.shape)}")

    def _refused(self, expected: str, found: str) -> BadClip:
        return BadClip(f"clip {self.name}", expected=expected, found=found, cure="encode the clip again")


class Clips(Protocol):
    """Clips by number."""

    def __len__(self) -> int: ...

    def clip(self, number: int) -> EmotionClip:
        """The clip of that number."""


class ClipList:
    """Clips in memory.

    Raises:
        BadClip: no clip.
    """

    def __init__(self, clips: Sequence[EmotionClip]) -> None:
        if not clips:
            raise BadClip("training clips", expected="1 clip or more", found="none", cure="encode some clips first")
        self._clips = tuple(clips)

    def __len__(self) -> int:
        return len(self._clips)

    def clip(self, number: int) -> EmotionClip:
        """The clip of that number."""
        return self._clips[number]


class ClipFolder:
    """The ``.safetensors`` files of a folder, in order of names, each one clip; read when they are used.

    Raises:
        BadClip: no such folder, or none with such a file.
    """

    def __init__(self, folder: Path) -> None:
        self._paths = sorted(folder.glob("*.safetensors")) if folder.is_dir() else []
        if not self._paths:
            raise BadClip(
                f"folder {folder.name}",
                expected="encoded clips (.safetensors)",
                found="none" if folder.is_dir() else "no such folder",
                cure="encode some clips first",
            )

    def __len__(self) -> int:
        return len(self._paths)

    def clip(self, number: int) -> EmotionClip:
        """Read a clip. Raises BadClip for one that lacks something, BadCheckpoint for a damaged file."""
        path = self._paths[number]
        tensors = load_tensors(read_header(path))
        known = {name: tensor.float() for name, tensor in tensors.items() if name in NEEDED or name in OPTIONAL}
        missing = [name for name in NEEDED if name not in known]
        if missing:
            raise BadClip(
                f"clip {path.name}",
                expected=f"the tensors {', '.join(NEEDED)}",
                found=f"none called {', '.join(missing)}",
                cure="encode the clip again",
            )
        return EmotionClip(path.name, **known)
