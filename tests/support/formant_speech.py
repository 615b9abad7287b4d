"""Synthetic speech by formants: vowels of a voice with its own throat and pitch, said in several ways. No files."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from likeness_pack.adapters.audio_sound import Sound
from likeness_pack.training.imagineid_clips import VoiceClip
from numpy.typing import NDArray

RATE = 16_000
Floats = NDArray[np.float64]
# First three resonances of vowels of a man's throat (Peterson and Barney 1952), in Hz.
VOWELS = {
    "i": (270, 2290, 3010),
    "e": (530, 1840, 2480),
    "a": (730, 1090, 2440),
    "o": (570, 840, 2410),
    "u": (300, 870, 2240),
}


@dataclass(frozen=True)
class Voice:
    """A throat's length as a factor of its resonances, and the voice's pitch in Hz."""

    throat: float
    pitch: float


@dataclass(frozen=True)
class Manner:
    """Factors of pitch and speed, loudness, and how far pitch moves over a word."""

    pitch: float
    speed: float
    loudness: float
    movement: float


VOICES = {"deep": Voice(1.0, 100), "middle": Voice(1.12, 130), "high": Voice(1.22, 190), "child": Voice(1.38, 240)}
MANNERS = {
    "calm": Manner(1.0, 1.0, 0.15, 0.03),
    "angry": Manner(1.15, 1.35, 0.6, 0.25),
    "sad": Manner(0.88, 0.7, 0.06, -0.12),
}
WORDS = ("iei", "aoa", "uou")


def spoken(word: str, voice: Voice, manner: Manner, seed: int) -> Sound:
    """A word of vowels: pulses at the pitch through three resonances, with small chance in pitch and timing."""
    chance = np.random.default_rng(seed)
    length = [int(RATE * 0.2 / manner.speed * chance.uniform(0.9, 1.1)) for _ in word]
    count = sum(length)
    time = np.arange(count) / count
    pitch = voice.pitch * manner.pitch * chance.uniform(0.95, 1.05) * (1 + manner.movement * (2 * time - 1))
    pulses = (np.diff(np.floor(np.cumsum(pitch) / RATE), prepend=0) > 0).astype(np.float64)
    breath = 0.01 * chance.standard_normal(count)
    places = np.cumsum(length) - np.asarray(length) / 2
    sound = pulses + breath
    for number in range(3):
        target = [VOWELS[vowel][number] * voice.throat for vowel in word]
        sound = _resonance(sound, np.interp(np.arange(count), places, target), 60 + 40 * number)
    sound = sound / max(1e-9, float(np.abs(sound).max())) * manner.loudness
    return Sound(torch.from_numpy(sound.astype(np.float32))[None], RATE)


def _resonance(sound: Floats, hertz: Floats, width: float) -> Floats:
    """A two-pole filter whose place moves."""
    radius = float(np.exp(-np.pi * width / RATE))
    turn = 2 * radius * np.cos(2 * np.pi * np.minimum(hertz, 0.48 * RATE) / RATE)
    found, last, before = np.empty_like(sound), 0.0, 0.0
    gain, square = 1 - radius, radius * radius
    for number, (value, place) in enumerate(zip(sound.tolist(), turn.tolist(), strict=True)):
        last, before = gain * value + place * last - square * before, last
        found[number] = last
    return found


def formant_clips(takes: int = 1) -> list[VoiceClip]:
    """Every voice, manner and word, each ``takes`` times."""
    clips = []
    for take in range(takes):
        for voice_name, voice in VOICES.items():
            for manner_name, manner in MANNERS.items():
                for word in WORDS:
                    sound = spoken(word, voice, manner, len(clips))
                    name = f"{voice_name} {manner_name} {word} {take}"
                    clips.append(VoiceClip(sound, voice_name, manner_name, word, name))
    return clips
