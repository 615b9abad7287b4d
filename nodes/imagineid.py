"""ImagineID: who speaks, what is said and how, as three factors of a voice."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .common import AUDIO_FEATURES, ENCODER, IDENTITY, Schema, number, with_text

if TYPE_CHECKING:
    from ..inject.loaded_networks import LoadedEncoder


class LikenessVoiceFactors:
    """Factors of a voice."""

    DISPLAY_NAME = "Voice Factors (ImagineID)"
    CATEGORY = "Likeness/audio"
    DESCRIPTION = (
        "Parts a voice into identity, emotion and content. It is this project's own construction after the paper "
        "FaceChain-ImagineID, whose authors published neither code nor weights, and needs a file that you train with "
        "tools/train_imagineid.py."
    )
    RETURN_TYPES = (IDENTITY, AUDIO_FEATURES, AUDIO_FEATURES, "INT", "STRING")
    RETURN_NAMES = ("identity", "emotion", "content", "frames", "report")
    OUTPUT_TOOLTIPS = (
        "Who speaks, one entry for each track; voices are compared and sorted by the nodes that compare faces.",
        "How it is said, 25 times a second.",
        "What is said, 25 times a second.",
        "Number of frames of 40 ms.",
        "What was heard, how the file was trained, and how well its factors came apart.",
    )
    FUNCTION = "part"
    OUTPUT_NODE = True

    @classmethod
    def INPUT_TYPES(cls) -> Schema:  # noqa: N802 (the host's name)
        """Inputs as the host asks for them."""
        return {
            "required": {
                "audio": ("AUDIO", {"tooltip": "Speech; every entry of its batch is a speaker's own track."}),
                "start": number(0.0, 0.0, 36_000.0, 0.01, "Seconds of silence in front of every track."),
            },
            "optional": {"encoder": (ENCODER, {"tooltip": "A trained file, from 'Load Audio Encoder'."})},
        }

    def part(self, audio: Any, start: float, encoder: LoadedEncoder | None = None) -> dict[str, Any]:
        """Run the three modules."""
        from ..adapters.audio_sound import as_sound
        from ..adapters.families.imagineid.encoder import frame_factor, voice_identity
        from ..inject.voice_factors import factor_encoder, voice_factors

        factor_encoder(encoder)
        sound = as_sound(audio)
        built, found = voice_factors(encoder, sound, start)
        emotion = frame_factor(built, found, "imagineid_emotion")
        content = frame_factor(built, found, "imagineid_content")
        facts = [f"{built.title}: {sound.tracks} tracks of {emotion.seconds:.2f} s, {emotion.frames} frames at 25 fps"]
        report = "\n".join([*facts, f"note: {built.licence.note}", *(f"note: {note}" for note in built.notes)])
        return with_text(report, voice_identity(built, found), emotion, content, emotion.frames, report)


NODES = (LikenessVoiceFactors,)
