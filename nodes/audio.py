"""What talking faces hear: load whisper-tiny and files of sound, put voices on one clock, make audio features."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..inject import model_folders
from .common import AUDIO_FEATURES, ENCODER, Schema, number, with_text

if TYPE_CHECKING:
    from ..adapters.audio_features import WhisperSystem
    from ..inject.loaded_networks import LoadedEncoder

# The order is that of the dropdown; the first is the default.
_SYSTEMS = ["hunyuan_avatar", "musetalk_v15", "musetalk_v1"]
_TRACKS = 4
_LONGEST = 36_000.0


class LikenessLoadAudioEncoder:
    """Choose what hears."""

    DISPLAY_NAME = "Load Audio Encoder"
    CATEGORY = "Likeness/audio"
    DESCRIPTION = (
        "Loads whisper-tiny, in Hugging Face's layout or openai's: HunyuanVideo-Avatar, MuseTalk and UnAvgLip hear "
        "with it. Also loads a file of voice factors that you trained (ImagineID)."
    )
    RETURN_TYPES = (ENCODER, "STRING")
    RETURN_NAMES = ("encoder", "report")
    OUTPUT_TOOLTIPS = (
        "The encoder, for 'Audio Features' or 'Voice Factors (ImagineID)'.",
        "What was recognised, and under which licence.",
    )
    FUNCTION = "load"

    @classmethod
    def INPUT_TYPES(cls) -> Schema:  # noqa: N802 (the host's name)
        """Inputs as the host asks for them."""
        names = model_folders.list_files(model_folders.AUDIO_ENCODERS)
        tooltip = "Files in models/face_encoders or models/audio_encoders, recognised by content."
        return {"required": {"encoder": (names, {"tooltip": tooltip})}}

    @classmethod
    def VALIDATE_INPUTS(cls, encoder: str) -> bool | str:  # noqa: N802 (the host's name)
        """A missing file is told with its source, size, licence and folder."""
        return model_folders.listed(model_folders.AUDIO_ENCODERS, encoder)

    def load(self, encoder: str) -> tuple[LoadedEncoder, str]:
        """Build the encoder; refuse one that hears nothing."""
        from ..adapters import registry
        from ..adapters.encoders import packages as encoder_packages
        from ..inject.audio import require_hearing
        from ..inject.loaded_networks import LoadedEncoder

        built = registry.load(model_folders.find_file(model_folders.AUDIO_ENCODERS, encoder), kind="encoder")
        loaded = LoadedEncoder(built)
        require_hearing(loaded)
        return loaded, encoder_packages.describe(built)


class LikenessLoadSound:
    """A file of sound as AUDIO."""

    DISPLAY_NAME = "Load Sound"
    CATEGORY = "Likeness/audio"
    DESCRIPTION = (
        "Loads the sound of a file in the input folder, also of a video. It does what the Load Audio node of newer "
        "ComfyUI does, for a ComfyUI without one. Needs PyAV."
    )
    RETURN_TYPES = ("AUDIO", "FLOAT", "STRING")
    RETURN_NAMES = ("audio", "seconds", "report")
    OUTPUT_TOOLTIPS = ("The sound, in the file's own rate and channels.", "Its length.", "What was read.")
    FUNCTION = "load"

    @classmethod
    def INPUT_TYPES(cls) -> Schema:  # noqa: N802 (the host's name)
        """Inputs as the host asks for them."""
        from ..inject.audio import list_sounds

        tooltip = "Files of sound and videos in ComfyUI's input folder."
        return {"required": {"file": (list_sounds(), {"tooltip": tooltip})}}

    @classmethod
    def IS_CHANGED(cls, file: str) -> str:  # noqa: N802 (the host's name)
        """A replaced file is read again."""
        from ..inject.audio import sound_key

        return sound_key(file)

    def load(self, file: str) -> dict[str, Any]:
        """Decode the file."""
        from ..inject.audio import find_sound
        from ..media.audio import read_audio

        sound = read_audio(find_sound(file))
        channels = sound.samples.shape[1]
        report = (
            f"{file}: {sound.seconds:.2f} s, {channels} channel{'s' if channels > 1 else ''}, {sound.sample_rate} Hz"
        )
        return with_text(report, sound.as_audio(), sound.seconds, report)


class LikenessJoinAudioTracks:
    """One voice for each character, each with its own start."""

    DISPLAY_NAME = "Join Audio Tracks"
    CATEGORY = "Likeness/audio"
    DESCRIPTION = (
        "Puts the voices of several characters on one clock: silence before each up to its start, and after it up to "
        "the end of the longest. Connect the tracks to 'Audio Features', and the mix to the finished video."
    )
    RETURN_TYPES = ("AUDIO", "AUDIO", "STRING")
    RETURN_NAMES = ("tracks", "mix", "report")
    OUTPUT_TOOLTIPS = (
        "The voices as a batch of one-channel sounds of equal length; entry 1 belongs to character 1.",
        "All voices together, made quieter as a whole where they would clip.",
        "Start and length of each voice.",
    )
    FUNCTION = "join"

    @classmethod
    def INPUT_TYPES(cls) -> Schema:  # noqa: N802 (the host's name)
        """Inputs as the host asks for them."""
        required: dict[str, Any] = {}
        optional: dict[str, Any] = {}
        for track in range(1, _TRACKS + 1):
            place = required if track == 1 else optional
            place[f"audio_{track}"] = ("AUDIO", {"tooltip": f"The voice of character {track}; channels are averaged."})
            place[f"start_{track}"] = number(0.0, 0.0, _LONGEST, 0.01, f"Seconds before voice {track} begins.")
        return {"required": required, "optional": optional}

    def join(self, **inputs: Any) -> dict[str, Any]:
        """Delay, pad, stack and mix."""
        from ..adapters.audio_sound import as_audio, as_sound, joined, mixed

        numbers = [track for track in range(1, _TRACKS + 1) if inputs.get(f"audio_{track}") is not None]
        sounds = [as_sound(inputs[f"audio_{track}"]) for track in numbers]
        starts = [float(inputs.get(f"start_{track}", 0.0)) for track in numbers]
        tracks = joined(sounds, starts)
        lines = [
            f"track {place}: audio_{track}, {sound.seconds:.2f} s from {start:g} s on"
            for place, (track, sound, start) in enumerate(zip(numbers, sounds, starts, strict=True), 1)
        ]
        report = "\n".join([f"{tracks.seconds:.2f} s at {tracks.rate} Hz", *lines])
        return with_text(report, as_audio(tracks), as_audio(mixed(tracks)), report)


class LikenessAudioFeatures:
    """Sound as a talking-face system hears it."""

    DISPLAY_NAME = "Audio Features"
    CATEGORY = "Likeness/audio"
    DESCRIPTION = (
        "Makes one window of whisper-tiny's states for each video frame, exactly as the chosen system does; the "
        "systems differ. Runs once for a clip."
    )
    RETURN_TYPES = (AUDIO_FEATURES, "INT", "STRING")
    RETURN_NAMES = ("audio_features", "frames", "report")
    OUTPUT_TOOLTIPS = (
        "The features of every track, for the nodes of that system.",
        "Number of video frames that have a window.",
        "What was heard and how.",
    )
    FUNCTION = "hear"
    OUTPUT_NODE = True

    @classmethod
    def INPUT_TYPES(cls) -> Schema:  # noqa: N802 (the host's name)
        """Inputs as the host asks for them."""
        frames = (
            "Cuts the sound after so many video frames. 0: as the authors do, 400 for Avatar, no limit for MuseTalk."
        )
        official = (
            "MuseTalk's own count of frames. v1.5 cuts fps to a whole number, so that 29.97 fps drifts away from the "
            "voice; v1 makes one or two frames too many. Off: the true rate and count."
        )
        return {
            "required": {
                "audio": ("AUDIO", {"tooltip": "The voice; every entry of its batch is a character's own track."}),
                "encoder": (ENCODER, {"tooltip": "whisper-tiny, from 'Load Audio Encoder'."}),
                "system": (_SYSTEMS, {"default": _SYSTEMS[0], "tooltip": "Whose features; musetalk_v1: UnAvgLip too."}),
                "fps": number(25.0, 1.0, 240.0, 0.001, "Frame rate of the video. Avatar knows 25 and 12.5."),
                "start": number(0.0, 0.0, _LONGEST, 0.01, "Seconds of silence in front of every track."),
                "most_frames": ("INT", {"default": 0, "min": 0, "max": 1_000_000, "step": 1, "tooltip": frames}),
                "official_frames": ("BOOLEAN", {"default": False, "tooltip": official}),
            }
        }

    def hear(
        self,
        audio: Any,
        encoder: LoadedEncoder,
        system: WhisperSystem,
        fps: float,
        start: float,
        most_frames: int,
        official_frames: bool,
    ) -> dict[str, Any]:
        """Run the encoder."""
        from ..adapters.audio_sound import as_sound
        from ..adapters.encoders.whisper.features import FeatureOptions, features_report
        from ..inject.audio import heard

        options = FeatureOptions(system, fps, start, most_frames, official_frames)
        features = heard(encoder, as_sound(audio), options)
        report = features_report(features)
        return with_text(report, features, features.frames, report)


NODES = (LikenessLoadAudioEncoder, LikenessLoadSound, LikenessJoinAudioTracks, LikenessAudioFeatures)
