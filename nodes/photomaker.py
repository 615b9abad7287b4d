"""PhotoMaker: photos to identity tokens, and those into the text conditioning."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor

from .common import ADAPTER, IDENTITY, Schema, number, with_text

if TYPE_CHECKING:
    from ..adapters.identity import Identity
    from ..inject.loaded import LoadedAdapter

# Steps 0 to 10 of the authors' 50 see the prompt alone.
MERGE_PERCENT = 0.22


class LikenessPhotoMakerEncode:
    """Turn photos into PhotoMaker's identity tokens."""

    DISPLAY_NAME = "PhotoMaker Encode"
    CATEGORY = "Likeness/adapter"
    DESCRIPTION = (
        "Encodes one or more photos of a person with the image encoder inside a PhotoMaker file. Version 2 also needs "
        "the face embeddings of the same photos."
    )
    RETURN_TYPES = (IDENTITY, "STRING")
    RETURN_NAMES = ("identity", "report")
    OUTPUT_TOOLTIPS = ("The identity, for 'PhotoMaker Prompt'.", "What was encoded.")
    FUNCTION = "encode"

    @classmethod
    def INPUT_TYPES(cls) -> Schema:  # noqa: N802 (the host's name)
        """Inputs as the host asks for them."""
        return {
            "required": {
                "adapter": (ADAPTER, {"tooltip": "PhotoMaker v1 or v2, from 'Load Face Adapter'."}),
                "images": (
                    "IMAGE",
                    {"tooltip": "Photos of one person; the middle square of each counts. Two or more work best."},
                ),
            },
            "optional": {
                "face_identity": (
                    IDENTITY,
                    {
                        "tooltip": "Version 2 only: 'Encode Identity' of the same photos with insightface's buffalo_l, "
                        "best face of each."
                    },
                )
            },
        }

    def encode(self, adapter: LoadedAdapter, images: Tensor, face_identity: Identity | None = None) -> dict[str, Any]:
        """Run the encoder."""
        from ..adapters.identity_ops import identity_report
        from ..inject.text_identity import encode_photos_for_text

        identity = encode_photos_for_text(adapter, images, face_identity)
        report = identity_report(identity)
        return with_text(report, identity, report)


class LikenessPhotoMakerPrompt:
    """Write a person into a prompt."""

    DISPLAY_NAME = "PhotoMaker Prompt"
    CATEGORY = "Likeness/adapter"
    DESCRIPTION = (
        "Encodes a prompt whose trigger word stands after the word for the person, fuses the identity into that word, "
        "and adds PhotoMaker's LoRA to a copy of the model."
    )
    RETURN_TYPES = ("MODEL", "CONDITIONING")
    RETURN_NAMES = ("model", "positive")
    OUTPUT_TOOLTIPS = (
        "The model with PhotoMaker's LoRA.",
        "The prompt, first without and later with the identity. The negative prompt needs nothing of this.",
    )
    FUNCTION = "apply"

    @classmethod
    def INPUT_TYPES(cls) -> Schema:  # noqa: N802 (the host's name)
        """Inputs as the host asks for them."""
        return {
            "required": {
                "model": ("MODEL", {"tooltip": "An SDXL model."}),
                "clip": ("CLIP", {"tooltip": "The CLIP of the SDXL checkpoint."}),
                "adapter": (ADAPTER, {"tooltip": "The same PhotoMaker file as at 'PhotoMaker Encode'."}),
                "identity": (IDENTITY, {"tooltip": "From 'PhotoMaker Encode'."}),
                "text": (
                    "STRING",
                    {
                        "default": "portrait photo of a woman img, soft light",
                        "multiline": True,
                        "dynamicPrompts": True,
                        "tooltip": "The prompt; the trigger word once, right after the word for the person.",
                    },
                ),
                "trigger_word": ("STRING", {"default": "img", "tooltip": "The trigger word (official: img)."}),
                "merge_percent": number(
                    MERGE_PERCENT,
                    0.0,
                    1.0,
                    0.01,
                    "Part of the steps that see the prompt alone; later ones see the identity. "
                    "Official: steps 0 to 10 of 50. Larger: more style, less likeness.",
                ),
                "lora_strength": number(1.0, 0.0, 2.0, 0.01, "Strength of the LoRA inside the file (official: 1)."),
            }
        }

    def apply(
        self,
        model: Any,
        clip: Any,
        adapter: LoadedAdapter,
        identity: Identity,
        text: str,
        trigger_word: str,
        merge_percent: float,
        lora_strength: float,
    ) -> tuple[Any, Any]:
        """Patch a clone and encode the prompt."""
        from ..inject.text_identity import apply_text_lora, identity_conditioning

        patched = apply_text_lora(model, adapter, lora_strength)
        return patched, identity_conditioning(clip, adapter, identity, text, trigger_word, merge_percent)


NODES = (LikenessPhotoMakerEncode, LikenessPhotoMakerPrompt)
