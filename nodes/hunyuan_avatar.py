"""HunyuanVideo-Avatar: load it, encode prompts with the character's picture, and give each character its sound."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor

from ..inject import model_folders
from .common import ADAPTER, AUDIO_FEATURES, Schema, number, percent, with_text

if TYPE_CHECKING:
    from ..adapters.audio_features import AudioFeatures
    from ..inject.loaded import LoadedAdapter

CATEGORY = "Likeness/video"
BESIDE = "beside the file"
CHARACTERS = (1, 2, 3, 4)


class LikenessLoadHunyuanAvatar:
    """Load the official checkpoint."""

    DISPLAY_NAME = "Load HunyuanVideo-Avatar"
    CATEGORY = CATEGORY
    DESCRIPTION = (
        "Loads the official checkpoint of HunyuanVideo-Avatar unchanged, bf16 or fp8: a HunyuanVideo MODEL and what is "
        "added to it. Says how much memory it needs. Needs ComfyUI 0.3.64 or newer."
    )
    RETURN_TYPES = ("MODEL", ADAPTER, "STRING")
    RETURN_NAMES = ("model", "adapter", "report")
    OUTPUT_TOOLTIPS = (
        "HunyuanVideo with Avatar's weights; any LoRA or accelerator for HunyuanVideo goes on it.",
        "The added tensors, for 'Apply HunyuanVideo-Avatar'.",
        "What was read from where, sizes, licence, memory.",
    )
    FUNCTION = "load"
    OUTPUT_NODE = True

    @classmethod
    def INPUT_TYPES(cls) -> Schema:  # noqa: N802 (the host's name)
        """Inputs as the host asks for them."""
        files = model_folders.list_files(model_folders.AVATAR)
        scales = [BESIDE, *(name for name in files if "map" in name.lower())]
        file = "mp_rank_00_model_states.pt or its fp8 form, in models/diffusion_models; any name is fine."
        fp8 = f"The scales of the fp8 checkpoint. '{BESIDE}': its name with _map, in the same folder."
        model = (
            "A MODEL already loaded from the same checkpoint, by this node or 'Load Diffusion Model': then the file's "
            "94 added tensors alone are read and the weights are shared. No other HunyuanVideo fits."
        )
        return {
            "required": {
                "file": (files, {"tooltip": file}),
                "fp8_scales": (scales, {"default": BESIDE, "tooltip": fp8}),
            },
            "optional": {"model": ("MODEL", {"tooltip": model})},
        }

    @classmethod
    def VALIDATE_INPUTS(cls, file: str) -> bool | str:  # noqa: N802 (the host's name)
        """A missing file is told with its source, size, licence and folder."""
        return model_folders.listed(model_folders.AVATAR, file)

    def load(self, file: str, fp8_scales: str, model: Any = None) -> dict[str, Any]:
        """Recognise and read the file."""
        from ..inject.hunyuan_avatar import require_hunyuan_video
        from ..inject.hunyuan_avatar_files import load_avatar

        require_hunyuan_video(self.DISPLAY_NAME)
        scales = None if fp8_scales == BESIDE else model_folders.find_file(model_folders.AVATAR, fp8_scales)
        found = load_avatar(model_folders.find_file(model_folders.AVATAR, file), scales, model)
        return with_text(found[2], *found)


class LikenessEncodeAvatarPrompt:
    """Both prompts with the character's picture in them."""

    DISPLAY_NAME = "Encode Avatar Prompt"
    CATEGORY = CATEGORY
    DESCRIPTION = (
        "Encodes prompt and negative prompt as HunyuanVideo-Avatar was trained with them: the character's picture "
        "stands behind the text. Needs ComfyUI 0.3.64 or newer."
    )
    RETURN_TYPES = ("CONDITIONING", "CONDITIONING")
    RETURN_NAMES = ("positive", "negative")
    OUTPUT_TOOLTIPS = ("The prompt.", "The negative prompt, with the same picture.")
    FUNCTION = "encode"

    @classmethod
    def INPUT_TYPES(cls) -> Schema:  # noqa: N802 (the host's name)
        """Inputs as the host asks for them."""
        from ..inject.hunyuan_avatar_prompt import NEGATIVE, PREFIX

        many = {"multiline": True, "dynamicPrompts": True}
        prompt = "What is to be seen. Weights in parentheses mean nothing here; about 230 tokens at most."
        negative = "Used in the first steps; the authors' own by default."
        prefix = "Words that the authors put before every prompt."
        return {
            "required": {
                "clip": ("CLIP", {"tooltip": "clip_l and llava_llama3, from 'DualCLIPLoader' of type hunyuan_video."}),
                "clip_vision": ("CLIP_VISION", {"tooltip": "llava_llama3_vision, from 'Load CLIP Vision'."}),
                "image": ("IMAGE", {"tooltip": "The character picture at the size of the video."}),
                "prompt": ("STRING", {"default": "", **many, "tooltip": prompt}),
                "negative_prompt": ("STRING", {"default": NEGATIVE, **many, "tooltip": negative}),
                "prefix": ("STRING", {"default": PREFIX, "tooltip": prefix}),
            }
        }

    def encode(
        self, clip: Any, clip_vision: Any, image: Tensor, prompt: str, negative_prompt: str, prefix: str
    ) -> tuple[Any, Any]:
        """Encode both."""
        from ..inject.hunyuan_avatar import require_hunyuan_video
        from ..inject.hunyuan_avatar_prompt import encode_prompt, picture_rows

        require_hunyuan_video(self.DISPLAY_NAME)
        rows = picture_rows(clip_vision, image)
        return encode_prompt(clip, rows, prefix + prompt), encode_prompt(clip, rows, negative_prompt)


class LikenessApplyHunyuanAvatar:
    """Give characters their picture and their sound."""

    DISPLAY_NAME = "Apply HunyuanVideo-Avatar"
    CATEGORY = CATEGORY
    DESCRIPTION = (
        "Patches a copy of the model: the character picture goes into every frame, and up to four characters hear "
        "their own track, each exactly inside its mask. The negative rows hear silence. Needs ComfyUI 0.3.64 or newer."
    )
    RETURN_TYPES = ("MODEL", "STRING")
    RETURN_NAMES = ("model", "report")
    OUTPUT_TOOLTIPS = (
        "For 'Avatar Guider', or any sampler.",
        "Who hears what, and the memory that a run needs.",
    )
    FUNCTION = "apply"
    OUTPUT_NODE = True

    @classmethod
    def INPUT_TYPES(cls) -> Schema:  # noqa: N802 (the host's name)
        """Inputs as the host asks for them."""
        picture = (
            "The character picture by HunyuanVideo's VAE, at the size of the video: one frame, 9 frames of the same "
            "picture (3 latent frames), or 129 (33, as the authors do)."
        )
        image = "Factor of what the picture adds to the video (official: 1). 0 leaves the picture out altogether."
        mask = "Where character {} is, from 'Avatar Face Masks'; without one it is everywhere."
        motion = {"min": 0, "max": 100}
        optional: dict[str, Any] = {}
        for n in CHARACTERS:
            optional[f"mask_{n}"] = ("MASK", {"tooltip": mask.format(n)})
        for n in CHARACTERS:
            optional[f"strength_{n}"] = number(1.0, -2.0, 5.0, 0.01, f"Factor for character {n} alone.")
        return {
            "required": {
                "model": ("MODEL", {"tooltip": "From 'Load HunyuanVideo-Avatar'."}),
                "adapter": (ADAPTER, {"tooltip": "From the same node."}),
                "character": ("LATENT", {"tooltip": picture}),
                "audio": (AUDIO_FEATURES, {"tooltip": "From 'Audio Features'; track 1 belongs to character 1."}),
                "strength": number(1.0, -2.0, 5.0, 0.01, "Factor of all that is heard (official: 1); 0 adds nothing."),
                "character_image_strength": number(1.0, 0.0, 2.0, 0.01, image),
                "expression": ("INT", {"default": 30, **motion, "tooltip": "Movement of the face (official: 30)."}),
                "pose": ("INT", {"default": 25, **motion, "tooltip": "Movement of the head (official: 25)."}),
                "fps": number(25.0, 1.0, 120.0, 0.5, "Frame rate that the model is told; it was made for 25."),
                "start_percent": percent(0.0, "When the characters begin to hear, as a part of the steps."),
                "end_percent": percent(1.0, "When they stop."),
            },
            "optional": optional,
        }

    def apply(
        self,
        model: Any,
        adapter: LoadedAdapter,
        character: dict[str, Tensor],
        audio: AudioFeatures,
        strength: float,
        character_image_strength: float,
        expression: int,
        pose: int,
        fps: float,
        start_percent: float,
        end_percent: float,
        **characters: Any,
    ) -> dict[str, Any]:
        """Patch a clone."""
        from ..inject.hunyuan_avatar import AvatarOptions, apply_avatar
        from ..inject.hunyuan_avatar_report import avatar_report

        options = AvatarOptions(
            strength=strength,
            image_strength=character_image_strength,
            strengths=[float(characters.get(f"strength_{n}", 1.0)) for n in CHARACTERS],
            masks=[characters.get(f"mask_{n}") for n in CHARACTERS],
            start_percent=start_percent,
            end_percent=end_percent,
            expression=expression,
            pose=pose,
            fps=fps,
        )
        patched = apply_avatar(model, adapter, character["samples"], audio, options)
        report = avatar_report(patched, adapter, character["samples"], audio, options)
        return with_text(report, patched, report)


NODES = (LikenessLoadHunyuanAvatar, LikenessEncodeAvatarPrompt, LikenessApplyHunyuanAvatar)
