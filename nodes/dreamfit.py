"""DreamFit: prepare the pictures of a garment, pass over them once, and have a model read what was recorded."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor

from .common import ADAPTER, Schema, number, percent, with_text

if TYPE_CHECKING:
    from ..inject.garment import Reference
    from ..inject.loaded import LoadedAdapter

REFERENCE = "LIKENESS_REFERENCE"
SIDE = {"min": 64, "max": 4096, "step": 16}


class LikenessPrepareGarment:
    """Make the reference picture of a task."""

    DISPLAY_NAME = "Prepare Garment"
    CATEGORY = "Likeness/garment"
    DESCRIPTION = (
        "Makes the reference picture that a DreamFit file was trained on, with its fixed prompt and the size of the "
        "picture to generate."
    )
    RETURN_TYPES = ("IMAGE", "STRING", "INT", "INT")
    RETURN_NAMES = ("reference", "prompt", "width", "height")
    OUTPUT_TOOLTIPS = (
        "The reference picture, for 'VAE Encode'.",
        "The fixed reference prompt, for 'CLIP Text Encode'.",
        "Width of the picture to generate.",
        "Height of the picture to generate.",
    )
    FUNCTION = "prepare"

    @classmethod
    def INPUT_TYPES(cls) -> Schema:  # noqa: N802 (the host's name)
        """Inputs as the host asks for them."""
        from ..adapters.families.dreamfit.pictures import TASKS

        return {
            "required": {
                "garment": (
                    "IMAGE",
                    {"tooltip": "One picture of the garment, best on a plain ground. It is stretched, on purpose."},
                ),
                "task": ([*TASKS], {"tooltip": "What the DreamFit file was made for."}),
            },
            "optional": {
                "beside": (
                    "IMAGE",
                    {
                        "tooltip": "Pose: an OpenPose map with body, hands and face. Try-on: the person, with the "
                        "garment's place blanked out."
                    },
                ),
                "width": ("INT", {"default": 0, **SIDE, "min": 0, "tooltip": "Output width; 0 takes the task's own."}),
                "height": (
                    "INT",
                    {"default": 0, **SIDE, "min": 0, "tooltip": "Output height; 0 takes the task's own."},
                ),
            },
        }

    def prepare(
        self, garment: Tensor, task: str, beside: Tensor | None = None, width: int = 0, height: int = 0
    ) -> tuple[Tensor, str, int, int]:
        """Compose the picture."""
        from ..adapters.families.dreamfit.pictures import TASKS, reference_picture

        chosen = TASKS[task]
        size = (width or chosen.output[0], height or chosen.output[1])
        return reference_picture(chosen, garment, beside, size), chosen.prompt, *size


class LikenessEncodeGarment:
    """Pass over the reference once."""

    DISPLAY_NAME = "Encode Garment"
    CATEGORY = "Likeness/garment"
    DESCRIPTION = (
        "Passes once over the reference picture, with the DreamFit LoRA in the weights of a copy of the model, and "
        "keeps what its attention layers saw."
    )
    RETURN_TYPES = (REFERENCE, "STRING")
    RETURN_NAMES = ("garment", "report")
    OUTPUT_TOOLTIPS = ("What was recorded.", "What the pass did, what it keeps, and what each step will cost.")
    FUNCTION = "encode"

    @classmethod
    def INPUT_TYPES(cls) -> Schema:  # noqa: N802 (the host's name)
        """Inputs as the host asks for them."""
        return {
            "required": {
                "adapter": (ADAPTER, {"tooltip": "A DreamFit file, from 'Load Face Adapter'."}),
                "latent": ("LATENT", {"tooltip": "The reference picture through 'VAE Encode' of the base model."}),
                "positive": (
                    "CONDITIONING",
                    {"tooltip": "The fixed reference prompt of 'Prepare Garment', encoded; not your own prompt."},
                ),
            },
            "optional": {
                "model": (
                    "MODEL",
                    {
                        "tooltip": "Flux: the model that will sample. SD1.5: plain SD1.5, only for a file that holds "
                        "the adapter alone."
                    },
                ),
                "negative": (
                    "CONDITIONING",
                    {
                        "tooltip": "SD1.5: an empty prompt, encoded, for the rows of the negative prompt, as the "
                        "authors do. Without it those rows read the same as the others. Flux takes none."
                    },
                ),
                "lora_strength": number(
                    1.0,
                    0.0,
                    2.0,
                    0.01,
                    "Linear strength of the LoRA in the reference pass (official: 1). The authors' own "
                    "lora_weight for Flux acts squared, on a part of the layers.",
                ),
            },
        }

    def encode(
        self,
        adapter: LoadedAdapter,
        latent: dict[str, Tensor],
        positive: Any,
        model: Any = None,
        negative: Any = None,
        lora_strength: float = 1.0,
    ) -> dict[str, Any]:
        """Run the pass."""
        from ..inject.garment import encode_reference

        reference = encode_reference(adapter, model, latent["samples"], positive, negative, lora_strength)
        return with_text(reference.report, reference, reference.report)


class LikenessApplyGarment:
    """Patch a model so that it shows the garment."""

    DISPLAY_NAME = "Apply Garment"
    CATEGORY = "Likeness/garment"
    DESCRIPTION = "Patches a copy of the model, whose attention layers then read the garment in every step."
    RETURN_TYPES = ("MODEL",)
    RETURN_NAMES = ("model",)
    OUTPUT_TOOLTIPS = ("The patched model, for any sampler.",)
    FUNCTION = "apply"

    @classmethod
    def INPUT_TYPES(cls) -> Schema:  # noqa: N802 (the host's name)
        """Inputs as the host asks for them."""
        return {
            "required": {
                "model": (
                    "MODEL",
                    {"tooltip": "SD1.5: any SD1.5 checkpoint, best a photographic one. Flux: FLUX.1-dev."},
                ),
                "garment": (REFERENCE, {"tooltip": "From 'Encode Garment'."}),
                "strength": number(
                    1.0,
                    0.0,
                    2.0,
                    0.01,
                    "SD1.5: strength of the garment (official: 1). Flux has no such factor: 1, or 0 for none.",
                ),
                "start_percent": percent(0.0, "When it begins to act, as a part of the steps."),
                "end_percent": percent(1.0, "When it stops acting."),
            },
            "optional": {"mask": ("MASK", {"tooltip": "SD1.5 only: where in the picture the garment acts."})},
        }

    def apply(
        self,
        model: Any,
        garment: Reference,
        strength: float,
        start_percent: float,
        end_percent: float,
        mask: Tensor | None = None,
    ) -> tuple[Any]:
        """Patch a clone."""
        from ..inject.garment import ReferenceOptions, apply_reference

        return (apply_reference(model, garment, ReferenceOptions(strength, start_percent, end_percent, mask)),)


NODES = (LikenessPrepareGarment, LikenessEncodeGarment, LikenessApplyGarment)
