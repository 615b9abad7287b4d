"""Sample talking characters: how long a clip is, its noise levels, guidance from step to step, and windows."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from .common import Schema, number, with_text

CATEGORY = "Likeness/video"


class LikenessAvatarLength:
    """Lengths that belong to an audio track."""

    DISPLAY_NAME = "Avatar Clip Length"
    CATEGORY = CATEGORY
    DESCRIPTION = (
        "Says how long the empty latent must be for an audio track of so many frames at 25 frames a second, as the "
        "authors' code reckons it, and how much of the result to keep."
    )
    RETURN_TYPES = ("INT", "INT", "INT", "STRING")
    RETURN_NAMES = ("length", "kept_latent_frames", "frames", "report")
    OUTPUT_TOOLTIPS = (
        "Length for the node that makes the empty latent of HunyuanVideo.",
        "Latent frames to keep before decoding; the rest is silence after the end.",
        "Frames of the finished video.",
        "The same in words, with the number of windows.",
    )
    FUNCTION = "measure"
    OUTPUT_NODE = True

    @classmethod
    def INPUT_TYPES(cls) -> Schema:  # noqa: N802 (the host's name)
        """Inputs as the host asks for them."""
        frames = "Frames of the video at 25 a second; not read where audio is connected."
        return {
            "required": {"frames": ("INT", {"default": 129, "min": 1, "max": 100000, "tooltip": frames})},
            "optional": {"audio": ("AUDIO", {"tooltip": "Its length decides: whole frames of a 25th of a second."})},
        }

    def measure(self, frames: int, audio: dict[str, Any] | None = None) -> dict[str, Any]:
        """Reckon."""
        from ..adapters.audio_sound import as_sound
        from ..adapters.families.hunyuan_avatar import windows

        if audio is not None:
            sound = as_sound(audio)
            frames = windows.frames_of(sound.samples.shape[-1], sound.rate)
        length = windows.clip_length(frames)
        report = windows.length_report(length)
        return with_text(report, length.video_length, length.kept_frames, length.frames, report)


class LikenessAvatarSigmas:
    """The official noise levels."""

    DISPLAY_NAME = "Avatar Sigmas"
    CATEGORY = CATEGORY
    DESCRIPTION = (
        "The noise levels of HunyuanVideo-Avatar. ComfyUI's 'simple' scheduler gives the same only where the number of "
        "steps divides 1000."
    )
    RETURN_TYPES = ("SIGMAS",)
    RETURN_NAMES = ("sigmas",)
    OUTPUT_TOOLTIPS = ("For 'SamplerCustomAdvanced', with the sampler euler.",)
    FUNCTION = "make"

    @classmethod
    def INPUT_TYPES(cls) -> Schema:  # noqa: N802 (the host's name)
        """Inputs as the host asks for them."""
        steps = {"default": 50, "min": 1, "max": 1000, "tooltip": "Steps; the authors take 50."}
        return {
            "required": {
                "steps": ("INT", steps),
                "shift": number(5.0, 0.1, 100.0, 0.1, "Bends the levels towards noise; the authors take 5."),
            }
        }

    def make(self, steps: int, shift: float) -> tuple[Tensor]:
        """Give the levels."""
        from ..adapters.families.hunyuan_avatar.guidance import official_sigmas

        return (official_sigmas(steps, shift),)


class LikenessAvatarGuider:
    """Guidance from step to step."""

    DISPLAY_NAME = "Avatar Guider"
    CATEGORY = CATEGORY
    DESCRIPTION = (
        "The guidance of HunyuanVideo-Avatar: by the text and the audio in the first ten steps, with weaker face "
        "masks, and by the audio alone from then on."
    )
    RETURN_TYPES = ("GUIDER",)
    RETURN_NAMES = ("guider",)
    OUTPUT_TOOLTIPS = ("For 'SamplerCustomAdvanced'.",)
    FUNCTION = "make"

    @classmethod
    def INPUT_TYPES(cls) -> Schema:  # noqa: N802 (the host's name)
        """Inputs as the host asks for them."""
        switch = (
            "The first step (counted from 0) that is guided by the audio alone: its negative branch is the prompt with "
            "silence. An absolute number in the authors' code, made for 50 steps."
        )
        mask = "Factor of every face mask before the switch; 1 from there on."
        return {
            "required": {
                "model": ("MODEL", {"tooltip": "HunyuanVideo-Avatar with its audio applied."}),
                "positive": ("CONDITIONING", {"tooltip": "The prompt."}),
                "negative": ("CONDITIONING", {"tooltip": "The negative prompt, used before the switch."}),
                "cfg": number(7.5, 0.0, 100.0, 0.1, "Guidance of the first step (official cfg-scale)."),
                "cfg_end": number(2.0, 0.0, 100.0, 0.1, "What it would fall to at the last step, on a line."),
                "audio_cfg": number(6.5, 0.0, 100.0, 0.1, "The same from the switch on: value of its line at step 0."),
                "audio_cfg_end": number(3.5, 0.0, 100.0, 0.1, "And what that line falls to at the last step."),
                "switch_step": ("INT", {"default": 10, "min": 0, "max": 10000, "tooltip": switch}),
                "early_mask": number(0.6, 0.0, 1.0, 0.01, mask),
            }
        }

    def make(
        self,
        model: Any,
        positive: Any,
        negative: Any,
        cfg: float,
        cfg_end: float,
        audio_cfg: float,
        audio_cfg_end: float,
        switch_step: int,
        early_mask: float,
    ) -> tuple[Any]:
        """Make the guider."""
        from ..adapters.families.hunyuan_avatar.guidance import AvatarGuidance
        from ..inject.avatar_windows import avatar_guider

        schedule = AvatarGuidance(switch_step, cfg, cfg_end, audio_cfg, audio_cfg_end, early_mask)
        return (avatar_guider(model, positive, negative, schedule),)


class LikenessAvatarWindows:
    """Long clips in bounded memory."""

    DISPLAY_NAME = "Avatar Windows"
    CATEGORY = CATEGORY
    DESCRIPTION = (
        "Denoises clips longer than a model window (33 latent frames, 5.2 s) window by window. All windows move with "
        "every step, so that no seam stays in one place. The number of frames never changes."
    )
    RETURN_TYPES = ("MODEL",)
    RETURN_NAMES = ("model",)
    OUTPUT_TOOLTIPS = ("The model with windows; it needs the memory of one window, however long the clip.",)
    FUNCTION = "apply"

    @classmethod
    def INPUT_TYPES(cls) -> Schema:  # noqa: N802 (the host's name)
        """Inputs as the host asks for them."""
        window = "Latent frames at once. 33 is what the model was made for; fewer need less memory."
        shift = "Latent frames by which the windows move with each step. 10 is the authors'; 0 keeps the seams."
        return {
            "required": {
                "model": ("MODEL", {"tooltip": "HunyuanVideo-Avatar."}),
                "window": ("INT", {"default": 33, "min": 2, "max": 1000, "tooltip": window}),
                "shift": ("INT", {"default": 10, "min": 0, "max": 1000, "tooltip": shift}),
            }
        }

    def apply(self, model: Any, window: int, shift: int) -> tuple[Any]:
        """Set the windows on a clone."""
        from ..adapters.families.hunyuan_avatar.windows import WindowPlan
        from ..inject.avatar_windows import apply_windows

        return (apply_windows(model, WindowPlan(window, shift)),)


NODES = (LikenessAvatarLength, LikenessAvatarSigmas, LikenessAvatarGuider, LikenessAvatarWindows)
