"""Load a face adapter and apply an identity to a model."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ..adapters import registry
from ..adapters.adapter import TokenOptions
from ..adapters.identity import Identity
from ..inject import model_folders
from ..inject.apply import ApplyOptions, apply_identity
from ..inject.loaded import LoadedAdapter
from .common import ADAPTER, IDENTITY, Schema, with_text

PERCENT = {"min": 0.0, "max": 1.0, "step": 0.001}


class LikenessLoadAdapter:
    """Load any face adapter; its family is recognised by content."""

    DISPLAY_NAME = "Load Face Adapter"
    CATEGORY = "Likeness/adapter"
    DESCRIPTION = (
        "Loads a face adapter of any supported family, under any file name, and reports what it is and under "
        "which licence."
    )
    RETURN_TYPES = (ADAPTER, "STRING")
    RETURN_NAMES = ("adapter", "report")
    OUTPUT_TOOLTIPS = ("The adapter.", "Family, base model, tokens, layers, sizes, licence.")
    FUNCTION = "load"
    OUTPUT_NODE = True

    @classmethod
    def INPUT_TYPES(cls) -> Schema:  # noqa: N802 (the host's name)
        """Inputs as the host asks for them."""
        variants = [
            "auto",
            *sorted({variant for family in registry.families("adapter") for variant in family.variants}),
        ]
        return {
            "required": {
                "file": (
                    model_folders.list_files(model_folders.ADAPTERS),
                    {"tooltip": "A file in models/face_adapters, ipadapter, instantid, pulid or photomaker."},
                ),
                "variant": (
                    variants,
                    {
                        "default": "auto",
                        "tooltip": "Only for files that their content cannot tell apart, as FaceID-Plus v1 and v2.",
                    },
                ),
            }
        }

    def load(self, file: str, variant: str) -> dict[str, Any]:
        """Recognise and build the adapter."""
        adapter = registry.load(model_folders.find_file(model_folders.ADAPTERS, file), kind="adapter", variant=variant)
        report = adapter.report.as_text()
        return with_text(report, LoadedAdapter(adapter), report)


class LikenessApplyIdentity:
    """Patch a model so that it shows a person."""

    DISPLAY_NAME = "Apply Identity"
    CATEGORY = "Likeness/adapter"
    DESCRIPTION = (
        "Patches a copy of the model, in every layer of the adapter. Several of these in a row show several persons."
    )
    RETURN_TYPES = ("MODEL",)
    RETURN_NAMES = ("model",)
    OUTPUT_TOOLTIPS = ("The patched model, for any sampler.",)
    FUNCTION = "apply"

    @classmethod
    def INPUT_TYPES(cls) -> Schema:  # noqa: N802 (the host's name)
        """Inputs as the host asks for them."""
        return {
            "required": {
                "model": ("MODEL", {"tooltip": "The base model, with or without other patches."}),
                "adapter": (ADAPTER, {"tooltip": "From 'Load Face Adapter'."}),
                "identity": (
                    IDENTITY,
                    {"tooltip": "From 'Encode Identity', by the encoder the adapter was trained with."},
                ),
                "strength": (
                    "FLOAT",
                    {
                        "default": 1.0,
                        "min": -1.0,
                        "max": 3.0,
                        "step": 0.01,
                        "tooltip": "Strength of the identity. Official defaults: FaceID 1.0, FACT 0.5.",
                    },
                ),
                "start_percent": (
                    "FLOAT",
                    {"default": 0.0, **PERCENT, "tooltip": "When the identity begins to act, as a part of the steps."},
                ),
                "end_percent": ("FLOAT", {"default": 1.0, **PERCENT, "tooltip": "When it stops acting."}),
            },
            "optional": {
                "mask": (
                    "MASK",
                    {"tooltip": "Where in the picture it acts; one mask, or one per picture of the batch."},
                ),
                "lora_strength": (
                    "FLOAT",
                    {
                        "default": 1.0,
                        "min": 0.0,
                        "max": 2.0,
                        "step": 0.01,
                        "tooltip": "Strength of the LoRA inside FaceID files (official: 1). Set 0 when a separate "
                        "FaceID LoRA is loaded.",
                    },
                ),
                "shortcut_scale": (
                    "FLOAT",
                    {
                        "default": 1.0,
                        "min": 0.0,
                        "max": 5.0,
                        "step": 0.05,
                        "tooltip": "Only FaceID-PlusV2: weight of the face embedding beside the picture features "
                        "(official: 1).",
                    },
                ),
                "negative": (
                    "BOOLEAN",
                    {
                        "default": True,
                        "tooltip": "Give the negative prompt's rows the family's own neutral tokens, as the authors "
                        "do. Off leaves those rows unpatched.",
                    },
                ),
            },
        }

    def apply(
        self,
        model: Any,
        adapter: LoadedAdapter,
        identity: Identity,
        strength: float,
        start_percent: float,
        end_percent: float,
        mask: Tensor | None = None,
        lora_strength: float = 1.0,
        shortcut_scale: float = 1.0,
        negative: bool = True,
    ) -> tuple[Any]:
        """Patch a clone."""
        options = ApplyOptions(
            strength, start_percent, end_percent, mask, lora_strength, TokenOptions(shortcut_scale, negative)
        )
        return (apply_identity(model, adapter, identity, options),)


NODES = (LikenessLoadAdapter, LikenessApplyIdentity)
