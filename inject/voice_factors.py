"""Voice factors of sound by a loaded file of ImagineID."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..adapters.audio_sound import Sound
from ..adapters.errors import EncoderMismatch, MissingModelFile
from ..adapters.families.imagineid.encoder import FactorEncoder, SoundFactors
from ..adapters.families.imagineid.layout import CURE
from .host import progress_bar, stop_if_cancelled

if TYPE_CHECKING:
    from .loaded_networks import LoadedEncoder


def factor_encoder(loaded: LoadedEncoder | None) -> FactorEncoder:
    """The voice factors inside a loaded encoder.

    Raises:
        MissingModelFile: nothing is connected; nobody publishes such a file.
        EncoderMismatch: another encoder.
    """
    if loaded is None:
        raise MissingModelFile(
            "ImagineID voice factors",
            expected="a trained file from 'Load Audio Encoder'",
            found="none, and none is published",
            cure=CURE,
        )
    if not isinstance(loaded.encoder, FactorEncoder):
        raise EncoderMismatch("voice factors", expected=FactorEncoder.title, found=loaded.encoder.title, cure=CURE)
    return loaded.encoder


def voice_factors(loaded: LoadedEncoder | None, sound: Sound, start: float) -> tuple[FactorEncoder, SoundFactors]:
    """The factors of every track, with the network loaded by the host, its progress bar, and a stop on cancel.

    Raises:
        MissingModelFile, EncoderMismatch: see `factor_encoder`.
        BadSound: see `FactorEncoder.factors`.
    """
    encoder = factor_encoder(loaded)
    if loaded is not None and loaded.managed is not None:
        loaded.managed.load()
    bar = progress_bar(sound.tracks)

    def told(done: int, total: int) -> None:
        stop_if_cancelled()
        bar.update_absolute(done, total)

    stop_if_cancelled()
    return encoder, encoder.factors(sound, start, told)
