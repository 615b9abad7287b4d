"""A loaded file of voice factors, and how it hears a sound."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from ...adapter import module_device_dtype
from ...audio_features import SAMPLE_RATE, AudioFeatures, System
from ...audio_sound import BadSound, Sound, at_rate, delayed
from ...encoders.whisper.mel import HOP, WINDOW, log_mel
from ...encoders.without_faces import EncoderWithoutFaces
from ...family import Licence
from ...identity import EMBEDDING, Identity
from .arch import FPS, STRIDE, VoiceFactors, cepstra, whole_frames
from .layout import FactorFacts

# A transformer over minutes of speech would be slow and see nothing more; content and emotion are local.
CHUNK_FRAMES = 750
_LEAST = STRIDE * HOP


@dataclass(frozen=True, eq=False)
class SoundFactors:
    """Factors of K tracks.

    Attributes:
        identity: (K, Di) float32, who speaks, once for a track.
        content: (K, F, Dc) float32, what is said, 25 times a second.
        emotion: (K, F, De) float32, how it is said, 25 times a second.
        sound: what was heard, as it came in.
        start: seconds of silence that were put before it.
        samples: length at 16 kHz.
    """

    identity: Tensor
    content: Tensor
    emotion: Tensor
    sound: Sound
    start: float
    samples: int


class FactorEncoder(EncoderWithoutFaces):
    """Voice factors, in float32. It hears and sees no faces.

    Args:
        network: the three modules.
        licence: of code and weights.
        digest: of the file.
        facts: the file's metadata.
        notes: sentences about the file.
    """

    id = "imagineid_voice"
    title = "ImagineID voice factors"
    network: VoiceFactors
    does = "hears speech"
    belongs_to = "Voice Factors (ImagineID)"

    def __init__(
        self, network: VoiceFactors, licence: Licence, digest: str, facts: FactorFacts, notes: tuple[str, ...] = ()
    ) -> None:
        self.network = network.float().eval().requires_grad_(False)
        self.licence = licence
        self.digest = digest
        self.facts = facts
        self.notes = notes

    def factors(
        self, sound: Sound, start: float = 0.0, on_track: Callable[[int, int], None] | None = None
    ) -> SoundFactors:
        """The factors of every track.

        Args:
            sound: the tracks.
            start: seconds of silence in front.
            on_track: called with (tracks done, tracks in all); may raise to cancel.

        Raises:
            BadSound: shorter than a frame of 40 ms, or silent.
        """
        heard = at_rate(delayed(sound, start), SAMPLE_RATE).samples
        _check(heard, sound)
        found = []
        for number, track in enumerate(heard):
            found.append(self._track(track))
            if on_track is not None:
                on_track(number + 1, len(heard))
        identity, content, emotion = (torch.stack(parts) for parts in zip(*found, strict=True))
        return SoundFactors(identity, content, emotion, sound, start, heard.shape[1])

    @torch.no_grad()
    def _track(self, samples: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        device, dtype = module_device_dtype(self.network)
        mel = whole_frames(log_mel(samples))[None].to(device, dtype)
        pieces = mel.split(CHUNK_FRAMES * STRIDE, dim=2)
        # Each piece votes by its length; the sum of unit vectors is brought back to length 1.
        voices = [self.network.identity(cepstra(piece)) * piece.shape[2] for piece in pieces]
        identity = functional.normalize(torch.stack(voices).sum(dim=0), dim=1)
        content = [self.network.content(piece, identity[:, None]) for piece in pieces]
        emotion = [
            self.network.emotion(piece, identity[:, None], said) for piece, said in zip(pieces, content, strict=True)
        ]
        return identity[0].float().cpu(), torch.cat(content, 1)[0].float().cpu(), torch.cat(emotion, 1)[0].float().cpu()


def voice_identity(encoder: FactorEncoder, found: SoundFactors) -> Identity:
    """The identity factor as an `Identity` of K entries: voices are compared and sorted as faces are."""
    return Identity(
        encoder=f"{encoder.id}_{encoder.digest[:12]}",
        features={EMBEDDING: found.identity},
        photos=found.sound.hashes(),
        notes=(*encoder.notes, "made of a voice, not of a face"),
    )


def frame_factor(encoder: FactorEncoder, found: SoundFactors, system: System) -> AudioFeatures:
    """Content or emotion as `AudioFeatures` (K, F, 1, 1, C)."""
    rows = found.content if system == "imagineid_content" else found.emotion
    tracks = rows.shape[0]
    return AudioFeatures(
        system=system,
        features=rows[:, :, None, None],
        fps=FPS,
        samples=found.samples,
        offsets=(found.start,) * tracks,
        sources=found.sound.hashes(),
        encoder=f"{encoder.id}:{encoder.digest[:12]}",
        notes=encoder.notes,
    )


def _check(heard: Tensor, sound: Sound) -> None:
    if heard.shape[1] < max(_LEAST, WINDOW):
        raise BadSound(
            "voice",
            expected=f"at least {_LEAST / SAMPLE_RATE:g} s of speech",
            found=f"{heard.shape[1] / SAMPLE_RATE:.3g} s",
            cure="choose a longer clip",
        )
    silent = [number for number, track in enumerate(sound.samples) if not bool(track.any())]
    if silent:
        raise BadSound(
            "voice",
            expected="speech in every track",
            found=f"silence in track {', '.join(map(str, silent))} (counted from 0)",
            cure="connect the sound of a speaker",
        )
