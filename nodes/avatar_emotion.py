"""Give a talking character the emotion of a picture."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor

from .common import ADAPTER, Schema, number, percent

if TYPE_CHECKING:
    from ..inject.loaded import LoadedAdapter


class LikenessApplyAvatarEmotion:
    """Add the emotion of a reference picture to HunyuanVideo-Avatar."""

    DISPLAY_NAME = "Apply Avatar Emotion"
    CATEGORY = "Likeness/video"
    DESCRIPTION = (
        "Adds the emotion of a picture to a talking character (AEM of HunyuanVideo-Avatar). It needs a file that you "
        "train: the authors published neither code nor weights of this part."
    )
    RETURN_TYPES = ("MODEL",)
    RETURN_NAMES = ("model",)
    OUTPUT_TOOLTIPS = ("The model with the emotion.",)
    FUNCTION = "apply"

    @classmethod
    def INPUT_TYPES(cls) -> Schema:  # noqa: N802 (the host's name)
        """Inputs as the host asks for them."""
        guided = (
            "Leaves the emotion out of the negative branch, so that guidance strengthens it. Off: both branches have "
            "it, as both have the character's picture."
        )
        return {
            "required": {
                "model": ("MODEL", {"tooltip": "HunyuanVideo-Avatar, best after 'Apply HunyuanVideo-Avatar'."}),
                "vae": ("VAE", {"tooltip": "HunyuanVideo's VAE."}),
                "emotion_image": ("IMAGE", {"tooltip": "One picture of a face with the emotion."}),
                "emotion_strength": number(1.0, -2.0, 4.0, 0.01, "Factor of the emotion; 0 changes nothing at all."),
                "start_percent": percent(0.0, "Where in the schedule it begins."),
                "end_percent": percent(1.0, "Where in the schedule it ends."),
                "guided": ("BOOLEAN", {"default": False, "tooltip": guided}),
            },
            "optional": {
                "adapter": (ADAPTER, {"tooltip": "A trained emotion file, from 'Load Face Adapter'."}),
                "mask": ("MASK", {"tooltip": "Whose emotion it is, from 'Avatar Face Masks'. Without: everywhere."}),
            },
        }

    def apply(
        self,
        model: Any,
        vae: Any,
        emotion_image: Tensor,
        emotion_strength: float,
        start_percent: float,
        end_percent: float,
        guided: bool,
        adapter: LoadedAdapter | None = None,
        mask: Tensor | None = None,
    ) -> tuple[Any]:
        """Encode the picture and patch a clone."""
        from ..inject.avatar_emotion import EmotionOptions, apply_emotion, emotion_adapter, emotion_latents

        facts = emotion_adapter(adapter).facts
        latents = emotion_latents(vae, emotion_image, facts.picture_size)
        options = EmotionOptions(emotion_strength, start_percent, end_percent, guided, mask)
        assert adapter is not None
        return (apply_emotion(model, adapter, latents, options),)


NODES = (LikenessApplyAvatarEmotion,)
