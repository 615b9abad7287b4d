"""Labelled clips of speech for the training of voice factors: checks, spectrograms, and what is held out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional

from ..adapters.audio_features import SAMPLE_RATE
from ..adapters.audio_sound import BadSound, Sound, at_rate
from ..adapters.encoders.whisper.mel import HOP, log_mel
from ..adapters.families.imagineid.arch import STRIDE, whole_frames
from ..faces.errors import LikenessError
from .seeds import seed_for

# Factor of the network and label of a clip that teaches it.
LABELS = {"identity": "voice", "content": "content", "emotion": "emotion"}
LEAST_LABELS, LEAST_PER_LABEL = 2, 2
LONGEST_SECONDS = 30.0
_SHORTEST_FRAMES = 4 * STRIDE


class BadClips(LikenessError):
    """Clips or labels that nothing can be learnt from."""


@dataclass(frozen=True, eq=False)
class VoiceClip:
    """A clip of one speaker.

    Attributes:
        sound: one track.
        voice: who speaks.
        emotion: how.
        content: what is said; clips with the same words have the same text.
        name: for messages.
    """

    sound: Sound
    voice: str
    emotion: str
    content: str
    name: str = ""


@dataclass(frozen=True, eq=False)
class VoiceClips:
    """Clips ready for training.

    Attributes:
        mels: (80, 4 F) of each clip.
        labels: for each factor the label of each clip.
    """

    mels: tuple[Tensor, ...]
    labels: dict[str, tuple[str, ...]]
    classes: dict[str, tuple[str, ...]] = field(init=False)

    def __post_init__(self) -> None:
        found = {factor: tuple(sorted(set(labels))) for factor, labels in self.labels.items()}
        object.__setattr__(self, "classes", found)

    def __len__(self) -> int:
        return len(self.mels)

    @property
    def longest(self) -> int:
        """Spectral frames of the longest clip."""
        return max(mel.shape[1] for mel in self.mels)

    def numbers(self, factor: str) -> Tensor:
        """(N,) the number of each clip's label of that factor."""
        places = {name: number for number, name in enumerate(self.classes[factor])}
        return torch.tensor([places[name] for name in self.labels[factor]])

    def taken(self, rows: Sequence[int]) -> VoiceClips:
        """The clips of these numbers."""
        labels = {factor: tuple(one[row] for row in rows) for factor, one in self.labels.items()}
        return VoiceClips(tuple(self.mels[row] for row in rows), labels)

    def padded(self, rows: Sequence[int], frames: int) -> Tensor:
        """(B, 80, frames) of these clips from their beginning; shorter ones end in their own quietest level."""
        parts = [self.mels[row][:, :frames] for row in rows]
        return torch.stack(
            [functional.pad(part, (0, frames - part.shape[1]), value=float(part.min())) for part in parts]
        )


def prepared(clips: Sequence[VoiceClip]) -> VoiceClips:
    """Check clips and make their spectrograms.

    Raises:
        BadSound: a clip that is empty, not finite, silent, too short or longer than 30 s.
        BadClips: too few labels, or labels of too few clips.
    """
    labels = {factor: tuple(str(getattr(clip, label)) for clip in clips) for factor, label in LABELS.items()}
    _check_labels(clips, labels)
    return VoiceClips(tuple(_mel(clip, number) for number, clip in enumerate(clips)), labels)


def split(clips: VoiceClips, part: float, seed: int) -> tuple[list[int], list[int]]:
    """Numbers of the clips to train on and of those held out.

    Whole combinations of voice, emotion and content are held out, as far as every label keeps two clips to learn from,
    so that a held-out clip tells whether factors come apart and not whether clips were remembered.

    Args:
        clips: all of them.
        part: fraction to hold out; 0 for none.
        seed: decides which.
    """
    rows = list(zip(*(clips.labels[factor] for factor in LABELS), strict=True))
    combinations = sorted(set(rows), key=lambda one: seed_for(seed, "held out", *one))
    wanted, out = round(part * len(rows)), set[tuple[str, ...]]()
    for combination in combinations:
        held = sum(row in out for row in rows)
        if held >= wanted:
            break
        kept = [row for row in rows if row not in out and row != combination]
        if all(sum(row[place] == name for row in kept) >= LEAST_PER_LABEL for place, name in enumerate(combination)):
            out.add(combination)
    train = [number for number, row in enumerate(rows) if row not in out]
    return train, [number for number, row in enumerate(rows) if row in out]


def _mel(clip: VoiceClip, number: int) -> Tensor:
    what = f"clip {clip.name or number}"
    sound = clip.sound
    if sound.tracks != 1 or not sound.samples.numel():
        raise BadSound(what, expected="sound of one track", found=f"shape {tuple(sound.samples.shape)}", cure="load it")
    if not bool(torch.isfinite(sound.samples).all()):
        raise BadSound(what, expected="finite samples", found="some that are not a number", cure="make the clip again")
    if not bool(sound.samples.any()):
        raise BadSound(what, expected="speech", found="silence", cure="leave the clip out")
    frames = round(sound.seconds * SAMPLE_RATE) // HOP
    if frames < _SHORTEST_FRAMES or sound.seconds > LONGEST_SECONDS:
        raise BadSound(
            what,
            expected=f"{_SHORTEST_FRAMES * HOP / SAMPLE_RATE:g} to {LONGEST_SECONDS:g} s",
            found=f"{sound.seconds:.3g} s",
            cure="cut speech into sentences",
        )
    return whole_frames(log_mel(at_rate(sound, SAMPLE_RATE).samples[0]))


def _check_labels(clips: Sequence[VoiceClip], labels: dict[str, tuple[str, ...]]) -> None:
    for factor, label in LABELS.items():
        names = labels[factor]
        counts = {name: names.count(name) for name in sorted(set(names))}
        rare = [name for name, count in counts.items() if count < LEAST_PER_LABEL]
        if len(counts) < LEAST_LABELS or rare or "" in counts:
            shown = ", ".join(f"{name!r}: {counts[name]}" for name in (rare or list(counts))[:5])
            raise BadClips(
                f"column {label} of {len(clips)} clips",
                expected=f"{LEAST_LABELS} or more labels with {LEAST_PER_LABEL} or more clips each",
                found=shown or "none",
                cure="add clips, so that every voice, emotion and content is heard in several",
            )
