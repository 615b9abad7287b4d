"""From sound to `AudioFeatures`: each system's way from the waveform to one window for each video frame."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from ...audio_features import SAMPLE_RATE, SYSTEMS, TITLES, AudioFeatures, WhisperSystem
from ...audio_sound import BadSound, Sound, at_rate, delayed
from ...errors import EncoderMismatch
from . import windows_hunyuan_avatar, windows_musetalk_v1, windows_musetalk_v15
from .encoder import WhisperEncoder
from .mel import CHUNK_FRAMES, CHUNK_SAMPLES, WINDOW, segment_mels, whole_mel

Progress = Callable[[int, int], None]
STATES = 5
MOST_FPS = 240.0


@dataclass(frozen=True)
class FeatureOptions:
    """How features are made.

    Attributes:
        system: whose way.
        fps: video frames a second; HunyuanVideo-Avatar knows 25 and 12.5 alone.
        start: seconds of silence in front of every track.
        most_frames: cut after so many video frames; 0 as the authors do, who cut HunyuanVideo-Avatar's sound after 400
            frames and MuseTalk's nowhere.
        official_frames: MuseTalk's own count of frames: v1.5 cuts fps to a whole number, v1 makes one or two windows
            more than the sound has frames.
    """

    system: WhisperSystem
    fps: float = 25.0
    start: float = 0.0
    most_frames: int = 0
    official_frames: bool = False


def audio_features(
    encoder: WhisperEncoder, sound: Sound, options: FeatureOptions, on_progress: Progress | None = None
) -> AudioFeatures:
    """Encode every track of a sound, in pieces of 30 seconds.

    Args:
        encoder: whisper-tiny.
        sound: tracks as they came in.
        options: whose features, and for which frame rate.
        on_progress: called with (pieces done, pieces in all); may raise to cancel.

    Raises:
        BadSound: sound too short for one frame, or a rate that the system does not know.
        EncoderMismatch: an encoder of another size than whisper-tiny.
    """
    _check(encoder, options)
    heard = at_rate(delayed(sound, options.start), SAMPLE_RATE).samples
    samples = heard.shape[1]
    frames = _frames(samples, options)
    if frames is not None and frames < 1 or samples < WINDOW:
        raise BadSound(
            "audio",
            expected=f"sound for at least one video frame ({1 / options.fps:.3g} s)",
            found=f"{samples / SAMPLE_RATE:.3g} s",
            cure="choose a longer clip",
        )
    total, done = heard.shape[0] * max(1, -(-samples // CHUNK_SAMPLES)), 0

    def told() -> None:
        nonlocal done
        done += 1
        if on_progress is not None:
            on_progress(done, total)

    features = torch.stack([_windows(encoder, track, frames, options, told) for track in heard])
    limit = options.most_frames or (windows_hunyuan_avatar.MOST_FRAMES if options.system == "hunyuan_avatar" else 0)
    features = features[:, :limit] if limit else features
    return AudioFeatures(
        system=options.system,
        features=features,
        fps=options.fps,
        samples=samples,
        offsets=(options.start,) * heard.shape[0],
        sources=sound.hashes(),
        encoder=f"{encoder.id}:{encoder.digest[:12]}",
        notes=_notes(sound, features.shape[1], frames, options),
    )


def features_report(audio: AudioFeatures) -> str:
    """What was heard, one fact per line."""
    tracks = [
        f"track {number}: starts at {start:g} s, sound {source[:12]}"
        for number, (start, source) in enumerate(zip(audio.offsets, audio.sources, strict=True))
    ]
    return "\n".join(
        [
            f"system: {TITLES[audio.system]}",
            f"sound: {audio.seconds:.2f} s, {audio.tracks} track{'s' if audio.tracks > 1 else ''}",
            f"video frames: {audio.frames} at {audio.fps:g} fps",
            *tracks,
            f"encoder: {audio.encoder}",
            *(f"note: {note}" for note in audio.notes),
        ]
    )


def _nothing() -> None:
    """Nobody counts."""


def avatar_states(encoder: WhisperEncoder, samples: Tensor, told: Callable[[], None] = _nothing) -> Tensor:
    """Sound (N,) at 16 kHz to steps (T, 5, C); the spectrogram is rounded to half precision, as the program does.

    Args:
        encoder: whisper-tiny.
        samples: the sound.
        told: called after each piece of 30 seconds.
    """
    pieces = []
    for mel in segment_mels(samples):
        pieces.append(encoder.states(mel.half().float()[None]).normed()[0])
        told()
    return torch.cat(pieces)


def musetalk_v15_states(encoder: WhisperEncoder, samples: Tensor, told: Callable[[], None] = _nothing) -> Tensor:
    """Sound (N,) at 16 kHz to steps (T, 5, C), the fifth state after the final layer norm; see `avatar_states`."""
    pieces = []
    for mel in segment_mels(samples):
        pieces.append(encoder.states(mel[None]).normed()[0])
        told()
    return torch.cat(pieces)


def musetalk_v1_states(encoder: WhisperEncoder, samples: Tensor, told: Callable[[], None] = _nothing) -> Tensor:
    """Sound (N,) at 16 kHz to steps (T, 5, C), no state after a final layer norm, the padding cut off."""
    pieces = []
    for part in whole_mel(samples).split(CHUNK_FRAMES, dim=1):
        padded = functional.pad(part, (0, CHUNK_FRAMES - part.shape[1]))
        pieces.append(encoder.states(padded[None]).raw[0, : windows_musetalk_v1.kept_steps(part.shape[1])])
        told()
    return torch.cat(pieces)


def _windows(
    encoder: WhisperEncoder, track: Tensor, frames: int | None, options: FeatureOptions, told: Callable[[], None]
) -> Tensor:
    if options.system == "hunyuan_avatar":
        count = windows_hunyuan_avatar.frame_count(track.shape[0], options.fps)
        found = windows_hunyuan_avatar.windows(avatar_states(encoder, track, told), count, options.fps)
        # The program hands them on in half precision.
        return found.half().float()
    if options.system == "musetalk_v15":
        states = musetalk_v15_states(encoder, track, told)
        return windows_musetalk_v15.windows(states, track.shape[0], options.fps, options.official_frames)
    return windows_musetalk_v1.windows(musetalk_v1_states(encoder, track, told), frames, options.fps)


def _frames(samples: int, options: FeatureOptions) -> int | None:
    """Video frames of a sound; None where the official loop of MuseTalk v1 counts them itself."""
    if options.system == "hunyuan_avatar":
        return windows_hunyuan_avatar.frame_count(samples, options.fps)
    if options.system == "musetalk_v1" and options.official_frames:
        return None
    rate = float(int(options.fps)) if options.official_frames else options.fps
    return windows_musetalk_v15.frame_count(samples, rate)


def _check(encoder: WhisperEncoder, options: FeatureOptions) -> None:
    if options.system not in SYSTEMS:
        raise BadSound("audio system", expected=", ".join(SYSTEMS), found=repr(options.system), cure="choose one")
    known = windows_hunyuan_avatar.FPS if options.system == "hunyuan_avatar" else ()
    if (known and options.fps not in known) or not 1 <= options.fps <= MOST_FPS:
        raise BadSound(
            f"frame rate for {TITLES[options.system]}",
            expected=" or ".join(f"{one:g} fps" for one in known) or f"1 to {MOST_FPS:g} fps",
            found=f"{options.fps:g} fps",
            cure="set fps to 25 and change the finished video's rate afterwards" if known else "set fps to the video's",
        )
    states = len(encoder.network.layers) + 1
    if states != STATES:
        raise EncoderMismatch(
            "audio encoder",
            expected=f"whisper-tiny, which has {STATES} states",
            found=f"{encoder.title}, which has {states}",
            cure="load openai/whisper-tiny",
        )


def _notes(sound: Sound, kept: int, frames: int | None, options: FeatureOptions) -> tuple[str, ...]:
    notes = []
    if sound.rate != SAMPLE_RATE:
        notes.append(f"resampled from {sound.rate} to {SAMPLE_RATE} Hz by band-limited interpolation")
    if frames is not None and kept < frames:
        notes.append(f"cut after {kept} of {frames} video frames (most_frames)")
    if options.system == "hunyuan_avatar" and kept > windows_hunyuan_avatar.MOST_FRAMES:
        notes.append(f"longer than {windows_hunyuan_avatar.MOST_FRAMES} frames: its authors report lower quality")
    return tuple(notes)
