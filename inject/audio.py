"""Sound through a loaded Whisper, and files of sound in the host's input folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ..adapters.audio_features import AudioFeatures
from ..adapters.audio_sound import Sound
from ..adapters.encoders.whisper.encoder import WhisperEncoder
from ..adapters.encoders.whisper.features import FeatureOptions, audio_features
from ..adapters.errors import EncoderMismatch, MissingModelFile
from ..adapters.families.imagineid.encoder import FactorEncoder
from .file_names import file_stamp
from .host import progress_bar, stop_if_cancelled
from .model_folders import input_folder

if TYPE_CHECKING:
    from .loaded_networks import LoadedEncoder

SUFFIXES = frozenset(
    {".wav", ".mp3", ".flac", ".ogg", ".opus", ".m4a", ".aac", ".mp4", ".mkv", ".mov", ".webm", ".avi"}
)


def heard(loaded: LoadedEncoder, sound: Sound, options: FeatureOptions) -> AudioFeatures:
    """`audio_features` with the network loaded by the host, its progress bar, and a stop on cancel.

    Raises:
        EncoderMismatch: an encoder that hears nothing.
        BadSound: see `audio_features`.
    """
    encoder = whisper_in(loaded)
    if loaded.managed is not None:
        loaded.managed.load()
    bar = progress_bar(1)

    def told(done: int, total: int) -> None:
        stop_if_cancelled()
        bar.update_absolute(done, total)

    stop_if_cancelled()
    return audio_features(encoder, sound, options, told)


def whisper_in(loaded: LoadedEncoder) -> WhisperEncoder:
    """The Whisper inside a loaded encoder. Raises EncoderMismatch for another one."""
    encoder = loaded.encoder
    if not isinstance(encoder, WhisperEncoder):
        raise EncoderMismatch(
            "audio encoder",
            expected="whisper-tiny (model.safetensors of openai/whisper-tiny)",
            found=encoder.title,
            cure="put that file into models/face_encoders and choose it in Load Audio Encoder",
        )
    return encoder


def require_hearing(loaded: LoadedEncoder) -> None:
    """Refuse an encoder that hears nothing. Raises EncoderMismatch."""
    if not isinstance(loaded.encoder, FactorEncoder):
        whisper_in(loaded)


def list_sounds() -> list[str]:
    """Files with sound in the input folder, sub-folders included, with forward slashes."""
    root = input_folder()
    if not root.is_dir():
        return []
    files = (path for path in root.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
    return sorted(path.relative_to(root).as_posix() for path in files)


def find_sound(name: str) -> Path:
    """The file of that name in the input folder.

    Raises:
        MissingModelFile: none there, or a name that leads out of the folder.
    """
    root = input_folder().resolve()
    path = (root / name).resolve()
    if not name or not path.is_relative_to(root) or not path.is_file():
        raise MissingModelFile(
            name or "file of sound",
            expected="a file of that name in the input folder",
            found="none",
            cure="put the file into ComfyUI's input folder and refresh the page",
        )
    return path


def sound_key(name: str) -> str:
    """For a node's IS_CHANGED: another one when the file changes; nothing where there is none."""
    try:
        return file_stamp(find_sound(name))
    except (MissingModelFile, OSError):
        return ""
