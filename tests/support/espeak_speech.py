"""Synthetic speech of espeak-ng: known voices and words, said in ways that pitch, speed, loudness and ending make."""

from __future__ import annotations

import shutil
import subprocess
import wave
from pathlib import Path

import numpy as np
import torch
from likeness_pack.adapters.audio_sound import Sound
from likeness_pack.training.imagineid_clips import VoiceClip

VOICES = {"m1": "en+m1", "m7": "en+m7", "f2": "en+f2", "croak": "en+croak"}
WORDS = ("good morning", "where is it", "seven apples")
# Pitch (0..99), words a minute, loudness (0..200), the end of the sentence.
MANNERS = {"calm": (50, 160, 90, "."), "angry": (80, 230, 170, "!"), "sad": (25, 110, 50, "...")}


def espeak() -> str | None:
    """The program, or None where it is not installed."""
    return shutil.which("espeak-ng")


def espeak_clips(program: str, folder: Path, takes: int = 1) -> list[VoiceClip]:
    """Every voice, manner and word, each ``takes`` times with small changes of pitch and speed."""
    clips = []
    for take in range(takes):
        for voice, name in VOICES.items():
            for manner, (pitch, speed, loudness, end) in MANNERS.items():
                for word in WORDS:
                    path = folder / f"{len(clips)}.wav"
                    options = [
                        "-v",
                        name,
                        "-p",
                        str(pitch + 4 * take),
                        "-s",
                        str(speed + 6 * take),
                        "-a",
                        str(loudness),
                    ]
                    subprocess.run([program, *options, "-w", str(path), word + end], check=True, timeout=30)
                    clips.append(VoiceClip(_read(path), voice, manner, word, f"{voice} {manner} {word} {take}"))
    return clips


def _read(path: Path) -> Sound:
    with wave.open(str(path), "rb") as file:
        samples = np.frombuffer(file.readframes(file.getnframes()), "<i2").astype(np.float32) / 32768
        return Sound(torch.from_numpy(samples)[None], file.getframerate())
