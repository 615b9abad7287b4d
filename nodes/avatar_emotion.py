"""Give a talking character the emotion of a picture."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor

from .common import ADAPTER, AUDIO_FEATURES, Schema, number, percent, with_text

if TYPE_CHECKING:
    from ..adapters.audio_features import AudioFeatures
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
        from ..inject.avatar_emotion import EmotionOptions, apply_emotion, emotion_adapter, kept_emotion_latents

        emotion_adapter(adapter)
        assert adapter is not None
        latents = kept_emotion_latents(adapter, vae, emotion_image)
        options = EmotionOptions(emotion_strength, start_percent, end_percent, guided, mask)
        return (apply_emotion(model, adapter, latents, options),)


class LikenessSaveEmotionClip:
    """Write a clip to train on."""

    DISPLAY_NAME = "Save Emotion Clip"
    CATEGORY = "Likeness/video"
    DESCRIPTION = (
        "Writes one encoded clip into a folder for tools/train_avatar_emotion.py: a video of a person, and a picture "
        "of the emotion that it shows."
    )
    RETURN_TYPES = ("STRING",)
    RETURN_NAMES = ("report",)
    OUTPUT_TOOLTIPS = ("What was written where.",)
    FUNCTION = "save"
    OUTPUT_NODE = True

    @classmethod
    def INPUT_TYPES(cls) -> Schema:  # noqa: N802 (the host's name)
        """Inputs as the host asks for them."""
        size = "Side of a square of as many pixels as the emotion's picture is resized to; the same for all clips."
        whole = {"default": 512, "min": 64, "max": 1024, "step": 16, "tooltip": size}
        return {
            "required": {
                "video": ("LATENT", {"tooltip": "The clip's frames by HunyuanVideo's VAE."}),
                "positive": ("CONDITIONING", {"tooltip": "Its prompt, from 'Encode Avatar Prompt'."}),
                "vae": ("VAE", {"tooltip": "HunyuanVideo's VAE."}),
                "emotion_image": ("IMAGE", {"tooltip": "One picture of a face with the clip's emotion."}),
                "picture_size": ("INT", whole),
                "folder": ("STRING", {"default": "emotion_clips", "tooltip": "Folder inside ComfyUI's input folder."}),
                "name": ("STRING", {"default": "clip_0001", "tooltip": "Name of the file; it must be new."}),
            },
            "optional": {
                "character": ("LATENT", {"tooltip": "The character's picture, as for 'Apply HunyuanVideo-Avatar'."}),
                "audio": (AUDIO_FEATURES, {"tooltip": "The clip's sound; its first track is taken."}),
                "mask": ("MASK", {"tooltip": "Where the person is, from 'Avatar Face Masks'."}),
            },
        }

    def save(
        self,
        video: dict[str, Tensor],
        positive: Any,
        vae: Any,
        emotion_image: Tensor,
        picture_size: int,
        folder: str,
        name: str,
        character: dict[str, Tensor] | None = None,
        audio: AudioFeatures | None = None,
        mask: Tensor | None = None,
    ) -> dict[str, Any]:
        """Encode the picture, check the clip and write it."""
        from ..inject.avatar_clips import clip_file, clip_tensors
        from ..inject.avatar_emotion import emotion_latents
        from ..training.avatar_clips import EmotionClip
        from ..training.checkpointing import write_tensors

        path = clip_file(folder, name)
        picture = emotion_latents(vae, emotion_image, picture_size)
        reference = None if character is None else character["samples"]
        tensors = clip_tensors(video["samples"], picture, positive, reference, audio, mask)
        EmotionClip(path.name, **tensors)
        write_tensors(path, tensors, {"picture_size": str(picture_size)})
        report = f"{folder}/{path.name}: " + ", ".join(f"{n} {tuple(one.shape)}" for n, one in tensors.items())
        return with_text(report, report)


NODES = (LikenessApplyAvatarEmotion, LikenessSaveEmotionClip)
