"""Load a face adapter and apply an identity to a model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor

from ..inject import model_folders
from .common import ADAPTER, IDENTITY, Schema, number, percent, with_text

if TYPE_CHECKING:
    from ..adapters.identity import Identity
    from ..inject.loaded import LoadedAdapter

PEOPLE = (1, 2, 3, 4)
START_TOOLTIP = "When the identity begins to act, as a part of the steps."
END_TOOLTIP = "When it stops acting."
MASK_TOOLTIP = "Where in the picture it acts; soft masks are fine; one mask, or one per picture or frame of the batch."


def token_inputs() -> dict[str, Any]:
    """The optional inputs of every node that applies an identity."""
    lora = "Strength of the LoRA inside FaceID files (official: 1). Set 0 when a separate FaceID LoRA is loaded."
    shortcut = "Only FaceID-PlusV2: weight of the face embedding beside the picture features (official: 1)."
    negative = (
        "Give the negative prompt's rows the family's own neutral tokens, as the authors do. Off leaves them alone."
    )
    return {
        "lora_strength": number(1.0, 0.0, 2.0, 0.01, lora),
        "shortcut_scale": number(1.0, 0.0, 5.0, 0.05, shortcut),
        "negative": ("BOOLEAN", {"default": True, "tooltip": negative}),
    }


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
        from ..adapters import registry

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

    @classmethod
    def VALIDATE_INPUTS(cls, file: str) -> bool | str:  # noqa: N802 (the host's name)
        """A missing file is told with its source, size, licence and folder."""
        return model_folders.listed(model_folders.ADAPTERS, file)

    def load(self, file: str, variant: str) -> dict[str, Any]:
        """Recognise and build the adapter."""
        from ..adapters import registry
        from ..evaluation.lineage.loading import licence_lines
        from ..inject.loaded import LoadedAdapter

        path = model_folders.find_file(model_folders.ADAPTERS, file)
        adapter = registry.load(path, kind="adapter", variant=variant)
        report = f"{adapter.report.as_text()}\n{licence_lines(path, adapter.report)}"
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
        strength = "Strength of the identity. Official defaults: FaceID 1.0, FACT 0.5."
        return {
            "required": {
                "model": ("MODEL", {"tooltip": "The base model, with or without other patches."}),
                "adapter": (ADAPTER, {"tooltip": "From 'Load Face Adapter'."}),
                "identity": (IDENTITY, {"tooltip": "From 'Encode Identity', by the encoder of the adapter."}),
                "strength": number(1.0, -1.0, 3.0, 0.01, strength),
                "start_percent": percent(0.0, START_TOOLTIP),
                "end_percent": percent(1.0, END_TOOLTIP),
            },
            "optional": {"mask": ("MASK", {"tooltip": MASK_TOOLTIP}), **token_inputs()},
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
        from ..adapters.adapter import TokenOptions
        from ..inject.apply import ApplyOptions, apply_identity

        options = ApplyOptions(
            strength, start_percent, end_percent, mask, lora_strength, TokenOptions(shortcut_scale, negative)
        )
        return (apply_identity(model, adapter, identity, options),)


class LikenessApplyRegions:
    """Patch a model so that it shows several people, each in a region of the picture."""

    DISPLAY_NAME = "Apply Identities to Regions"
    CATEGORY = "Likeness/adapter"
    DESCRIPTION = (
        "Up to four people in one picture: each with an identity, a mask and a strength. In every layer a person's "
        "part is exactly zero outside the mask."
    )
    RETURN_TYPES = ("MODEL",)
    RETURN_NAMES = ("model",)
    OUTPUT_TOOLTIPS = ("The patched model, for any sampler.",)
    FUNCTION = "apply"

    @classmethod
    def INPUT_TYPES(cls) -> Schema:  # noqa: N802 (the host's name)
        """Inputs as the host asks for them."""
        optional: dict[str, Any] = {}
        for i in PEOPLE[1:]:
            optional[f"identity_{i}"] = (IDENTITY, {"tooltip": f"Person {i}."})
        for i in PEOPLE:
            optional[f"mask_{i}"] = ("MASK", {"tooltip": f"Region of person {i}. {MASK_TOOLTIP}"})
        for i in PEOPLE:
            optional[f"strength_{i}"] = number(1.0, -1.0, 3.0, 0.01, f"Strength of person {i}.")
        return {
            "required": {
                "model": ("MODEL", {"tooltip": "The base model, with or without other patches."}),
                "adapter": (ADAPTER, {"tooltip": "From 'Load Face Adapter'."}),
                "identity_1": (IDENTITY, {"tooltip": "Person 1."}),
                "start_percent": percent(0.0, START_TOOLTIP),
                "end_percent": percent(1.0, END_TOOLTIP),
            },
            "optional": {**optional, **token_inputs()},
        }

    def apply(
        self,
        model: Any,
        adapter: LoadedAdapter,
        start_percent: float,
        end_percent: float,
        lora_strength: float = 1.0,
        shortcut_scale: float = 1.0,
        negative: bool = True,
        **people: Any,
    ) -> tuple[Any]:
        """Patch a clone once for each person that is connected."""
        from ..adapters.adapter import TokenOptions
        from ..faces.errors import BadMask
        from ..inject.apply import ApplyOptions, apply_identity

        for i in PEOPLE:
            identity, mask = people.get(f"identity_{i}"), people.get(f"mask_{i}")
            if identity is None and mask is not None:
                raise BadMask(
                    f"mask_{i}",
                    expected=f"a person for this region at identity_{i}",
                    found="none",
                    cure=f"connect identity_{i}, or disconnect mask_{i}",
                )
            if identity is None:
                continue
            strength = float(people.get(f"strength_{i}", 1.0))
            tokens = TokenOptions(shortcut_scale, negative)
            options = ApplyOptions(strength, start_percent, end_percent, mask, lora_strength, tokens)
            model = apply_identity(model, adapter, identity, options)
        return (model,)


NODES = (LikenessLoadAdapter, LikenessApplyIdentity, LikenessApplyRegions)
