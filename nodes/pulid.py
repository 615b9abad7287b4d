"""PuLID: encode a person for it, and apply the identity to SDXL or Flux."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor

from ..adapters.errors import BaseModelMismatch
from ..inject.host import progress_bar
from .common import ADAPTER, ENCODER, FACES, IDENTITY, ON_MISSING_FACE, Schema, number, percent, with_text

if TYPE_CHECKING:
    from ..adapters.encoders.base import Which
    from ..adapters.identity import Identity
    from ..faces.detect import OnMissingFace
    from ..faces.types import FaceBatch
    from ..inject.loaded import LoadedAdapter
    from ..inject.loaded_networks import LoadedEncoder

PREVIEW_CROP = 112
BEGIN = "When the identity begins to act, as a part of the steps."
MASK = ("MASK", {"tooltip": "Where in the picture it acts; one mask, or one per picture of the batch."})


def _strength(official: float) -> tuple[str, dict[str, Any]]:
    return number(official, -1.0, 5.0, 0.01, f"Strength of the identity (official: {official}).")


class LikenessEncodePulid:
    """Turn the faces of photos into an identity for PuLID."""

    DISPLAY_NAME = "Encode Identity for PuLID"
    CATEGORY = "Likeness/identity"
    DESCRIPTION = (
        "Encodes the faces of one or more photos of a person with both encoders of PuLID, for SDXL and for Flux."
    )
    RETURN_TYPES = (IDENTITY, "IMAGE", "STRING")
    RETURN_NAMES = ("identity", "crops", "report")
    OUTPUT_TOOLTIPS = (
        "The identity, one entry for each face.",
        "The aligned faces that were encoded.",
        "What was encoded and how.",
    )
    FUNCTION = "encode"

    @classmethod
    def INPUT_TYPES(cls) -> Schema:  # noqa: N802 (the host's name)
        """Inputs as the host asks for them."""
        return {
            "required": {
                "images": ("IMAGE", {"tooltip": "The photos in which the faces were found."}),
                "faces": (FACES, {"tooltip": "From 'Detect Faces'; the authors take the largest face of a photo."}),
                "encoder": (ENCODER, {"tooltip": "ArcFace of antelopev2, from 'Load Face Encoder'."}),
                "eva_clip": (
                    ENCODER,
                    {"tooltip": "EVA02-CLIP-L-14-336, from 'Load Face Encoder' (a file in models/face_encoders)."},
                ),
                "which": (
                    ["best", "all"],
                    {"default": "best", "tooltip": "best: the first face of each photo. all: every face."},
                ),
                "on_missing_face": ON_MISSING_FACE,
            },
            "optional": {
                "mask": (
                    "MASK",
                    {
                        "tooltip": "Skin, brows, eyes, nose, mouth and hair of the person, without ears, neck and "
                        "hat; one or one per photo. The rest becomes white, as PuLID was trained."
                    },
                ),
            },
        }

    def encode(
        self,
        images: Tensor,
        faces: FaceBatch,
        encoder: LoadedEncoder,
        eva_clip: LoadedEncoder,
        which: Which,
        on_missing_face: OnMissingFace,
        mask: Tensor | None = None,
    ) -> dict[str, Any]:
        """Run both encoders over the same faces."""
        from ..adapters.encoders.base import chosen_crops, encode_photos
        from ..adapters.encoders.eva_clip.pulid_identity import check_encoders, with_eva_features
        from ..adapters.identity_ops import identity_report
        from ..faces.images import as_rgb
        from ..faces.masks import as_mask

        check_encoders(encoder.id, eva_clip.id)
        rgb = as_rgb(images)
        masks = None if mask is None else as_mask(mask, *rgb.shape[:3])
        count = max(1, sum(faces.counts))
        bar = progress_bar(2 * count)

        def encoded(network: LoadedEncoder, parsed: Tensor | None, before: int) -> Identity:
            return encode_photos(
                network,
                rgb,
                faces,
                parsed,
                which,
                on_missing_face,
                lambda done, _: bar.update_absolute(before + done, 2 * count),
            )

        identity = with_eva_features(encoded(encoder, None, 0), encoded(eva_clip, masks, count))
        preview = chosen_crops(rgb, faces, which, on_missing_face, PREVIEW_CROP).movedim(1, -1)
        report = identity_report(identity)
        return with_text(report, identity, preview, report)


class LikenessApplyPulid:
    """Patch an SDXL model so that it shows a person, by PuLID's ways."""

    DISPLAY_NAME = "Apply PuLID (SDXL)"
    CATEGORY = "Likeness/adapter"
    DESCRIPTION = (
        "Patches a copy of an SDXL model with PuLID v1 or v1.1. Its projections take out what would change the picture "
        "beside the person."
    )
    RETURN_TYPES = ("MODEL",)
    RETURN_NAMES = ("model",)
    OUTPUT_TOOLTIPS = ("The patched model, for any sampler.",)
    FUNCTION = "apply"

    @classmethod
    def INPUT_TYPES(cls) -> Schema:  # noqa: N802 (the host's name)
        """Inputs as the host asks for them."""
        from ..adapters.families.pulid_sdxl.projection import Projection

        return {
            "required": {
                "model": ("MODEL", {"tooltip": "The SDXL model, with or without other patches."}),
                "adapter": (ADAPTER, {"tooltip": "A PuLID file for SDXL, from 'Load Face Adapter'."}),
                "identity": (IDENTITY, {"tooltip": "From 'Encode Identity for PuLID'."}),
                "strength": _strength(0.8),
                "projection": (
                    [projection.value for projection in (Projection.FIDELITY, Projection.STYLE, Projection.NEUTRAL)],
                    {
                        "default": Projection.FIDELITY.value,
                        "tooltip": "fidelity: most like the person (official ortho_v2). style: keeps most of the "
                        "prompt's style (official ortho). neutral: no projection.",
                    },
                ),
                "num_zero": (
                    "INT",
                    {
                        "default": -1,
                        "min": -1,
                        "max": 80,
                        "tooltip": "Zero tokens beside the identity's; more of them weaken it. -1: the official "
                        "number (v1: fidelity 8, style 16; v1.1: 20; neutral 0).",
                    },
                ),
                "start_percent": percent(0.0, BEGIN),
                "end_percent": percent(1.0, "When it stops acting."),
            },
            "optional": {
                "mask": MASK,
                "mix": (
                    "BOOLEAN",
                    {
                        "default": False,
                        "tooltip": "Only v1 with several photos: take all tokens of each further photo and not only "
                        "those of its face (the authors' ID mix).",
                    },
                ),
                "negative": (
                    "BOOLEAN",
                    {
                        "default": True,
                        "tooltip": "Give the negative prompt's rows the tokens of nobody, as the authors do. Off "
                        "leaves those rows unpatched.",
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
        projection: str,
        num_zero: int,
        start_percent: float,
        end_percent: float,
        mask: Tensor | None = None,
        mix: bool = False,
        negative: bool = True,
    ) -> tuple[Any]:
        """Patch a clone."""
        from ..adapters.adapter import TokenOptions
        from ..adapters.families.pulid_sdxl.adapter import PulidAdapter
        from ..adapters.families.pulid_sdxl.projection import Projection, zero_tokens
        from ..inject.apply import ApplyOptions, apply_identity

        if not isinstance(adapter.adapter, PulidAdapter):
            raise _another_adapter(adapter, "PuLID for SDXL (v1 or v1.1)", "Apply PuLID (Flux)")
        chosen = Projection(projection)
        zeros = zero_tokens(chosen, str(adapter.adapter.report.variant)) if num_zero < 0 else num_zero
        tokens = TokenOptions(negative=negative, zero_tokens=zeros, mix=mix)
        options = ApplyOptions(strength, start_percent, end_percent, mask, tokens=tokens, projection=chosen)
        return (apply_identity(model, adapter, identity, options),)


class LikenessApplyPulidFlux:
    """Patch a Flux model so that it shows a person."""

    DISPLAY_NAME = "Apply PuLID (Flux)"
    CATEGORY = "Likeness/adapter"
    DESCRIPTION = "Patches a copy of a FLUX.1-dev model with PuLID 0.9.0 or 0.9.1. Needs ComfyUI 0.3.60 or newer."
    RETURN_TYPES = ("MODEL",)
    RETURN_NAMES = ("model",)
    OUTPUT_TOOLTIPS = ("The patched model, for any sampler.",)
    FUNCTION = "apply"

    @classmethod
    def INPUT_TYPES(cls) -> Schema:  # noqa: N802 (the host's name)
        """Inputs as the host asks for them."""
        return {
            "required": {
                "model": ("MODEL", {"tooltip": "The Flux model, with or without other patches."}),
                "adapter": (ADAPTER, {"tooltip": "A PuLID file for Flux, from 'Load Face Adapter'."}),
                "identity": (IDENTITY, {"tooltip": "From 'Encode Identity for PuLID'."}),
                "strength": _strength(1.0),
                "start_percent": percent(
                    0.0,
                    "When it begins to act. The authors advise 4 of 20 steps (0.2) for realistic "
                    "pictures, 0 or 1 for stylised ones.",
                ),
                "end_percent": percent(1.0, "When it stops acting."),
            },
            "optional": {
                "mask": MASK,
                "negative": (
                    "BOOLEAN",
                    {
                        "default": True,
                        "tooltip": "With a CFG above 1: give the negative prompt's rows the tokens of nobody, as the "
                        "authors do. Off leaves those rows unpatched.",
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
        negative: bool = True,
    ) -> tuple[Any]:
        """Patch a clone."""
        from ..adapters.adapter import BlockAttentionAdapter, TokenOptions
        from ..inject.apply import ApplyOptions, apply_identity
        from ..inject.dit_blocks import require_flux

        require_flux(self.DISPLAY_NAME)
        if not isinstance(adapter.adapter, BlockAttentionAdapter):
            raise _another_adapter(adapter, "PuLID for Flux", "Apply PuLID (SDXL)")
        tokens = TokenOptions(negative=negative)
        options = ApplyOptions(strength, start_percent, end_percent, mask, tokens=tokens)
        return (apply_identity(model, adapter, identity, options),)


def _another_adapter(adapter: LoadedAdapter, expected: str, node: str) -> BaseModelMismatch:
    report = adapter.adapter.report
    return BaseModelMismatch(
        "apply PuLID",
        expected=f"a file of {expected}",
        found=f"one of {report.title} for {report.base}",
        cure=f"load another adapter, or use 'Apply Identity' or '{node}' for this one",
    )


NODES = (LikenessEncodePulid, LikenessApplyPulid, LikenessApplyPulidFlux)
