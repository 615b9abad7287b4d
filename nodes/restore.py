"""Restore damaged faces after references (RestorerID)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..faces.errors import BadImage
from .common import ADAPTER, ENCODER, FACES, IDENTITY, ON_MISSING_FACE, Schema, number, percent, with_text

if TYPE_CHECKING:
    from ..adapters.encoders.base import Which
    from ..adapters.identity import Identity
    from ..faces.detect import OnMissingFace
    from ..faces.types import FaceBatch
    from ..inject.loaded import LoadedAdapter
    from ..inject.loaded_networks import LoadedEncoder

CROP = 224
MODES = ["adaptive", "manual"]


class LikenessLoadRestorerCheckpoint:
    """Load RestorerID's single file."""

    DISPLAY_NAME = "Load RestorerID Checkpoint"
    CATEGORY = "Likeness/restore"
    DESCRIPTION = (
        "Loads RestorerID's official checkpoint as model, CLIP, VAE and adapter. For another SD1.5 model, load the "
        "same file or its slim form with 'Load Face Adapter'."
    )
    RETURN_TYPES = ("MODEL", "CLIP", "VAE", ADAPTER, "STRING")
    RETURN_NAMES = ("model", "clip", "vae", "adapter", "report")
    OUTPUT_TOOLTIPS = (
        "The SD1.5 inside, not patched yet.",
        "Its text encoder.",
        "Its VAE.",
        "The adapter, for 'Apply RestorerID'.",
        "What was recognised, and under which licence.",
    )
    FUNCTION = "load"
    OUTPUT_NODE = True

    @classmethod
    def INPUT_TYPES(cls) -> Schema:  # noqa: N802 (the host's name)
        """Inputs as the host asks for them."""
        from ..inject.restorer_files import list_restorers

        tooltip = "RestorerIDFull.ckpt in models/face_adapters or models/checkpoints."
        return {"required": {"file": (list_restorers(), {"tooltip": tooltip})}}

    @classmethod
    def VALIDATE_INPUTS(cls, file: str) -> bool | str:  # noqa: N802 (the host's name)
        """A missing file is told with its source, size, licence and folder."""
        from ..inject.model_folders import listed
        from ..inject.restorer_files import RESTORERS

        return listed(RESTORERS, file)

    def load(self, file: str) -> dict[str, Any]:
        """Read the file once for the adapter and once for the base model."""
        from ..inject.restorer_files import load_restorer

        model, clip, vae, adapter = load_restorer(file)
        report = adapter.adapter.report.as_text()
        return with_text(report, model, clip, vae, adapter, report)


class LikenessEncodeReference:
    """Turn photos into what RestorerID knows of a person."""

    DISPLAY_NAME = "Encode Restoration Reference"
    CATEGORY = "Likeness/restore"
    DESCRIPTION = "Encodes a sharp photo of the person as RestorerID was trained: ArcFace embedding and CLIP patches."
    RETURN_TYPES = (IDENTITY, "IMAGE", "STRING")
    RETURN_NAMES = ("identity", "crops", "report")
    OUTPUT_TOOLTIPS = ("The reference, one row for each face.", "The aligned faces.", "What was encoded and how.")
    FUNCTION = "encode"

    @classmethod
    def INPUT_TYPES(cls) -> Schema:  # noqa: N802 (the host's name)
        """Inputs as the host asks for them."""
        which = {"default": "best", "tooltip": "best: the first face of each photo, as officially. all: every face."}
        return {
            "required": {
                "images": ("IMAGE", {"tooltip": "The photos in which the faces were found."}),
                "faces": (FACES, {"tooltip": "From 'Detect Faces' or 'Select Faces'."}),
                "encoder": (ENCODER, {"tooltip": "arcface_buffalo_l, the one RestorerID was trained with."}),
                "clip_vision": ("CLIP_VISION", {"tooltip": "CLIP-ViT-H-14, from the host's CLIP vision loader."}),
                "which": (["best", "all"], which),
                "on_missing_face": ON_MISSING_FACE,
            }
        }

    def encode(
        self,
        images: Tensor,
        faces: FaceBatch,
        encoder: LoadedEncoder,
        clip_vision: Any,
        which: Which,
        on_missing_face: OnMissingFace,
    ) -> dict[str, Any]:
        """Run both encoders."""
        from ..adapters.encoders.base import chosen_crops, encode_photos
        from ..adapters.identity_ops import identity_report
        from ..faces.images import as_rgb
        from ..inject.references import with_reference_tokens

        rgb = as_rgb(images)
        identity = encode_photos(encoder, rgb, faces, None, which, on_missing_face)
        crops = chosen_crops(rgb, faces, which, on_missing_face, CROP)
        identity = with_reference_tokens(identity, clip_vision, crops)
        report = identity_report(identity)
        return with_text(report, identity, crops.movedim(1, -1), report)


class LikenessApplyRestorer:
    """Patch a model so that it restores damaged faces."""

    DISPLAY_NAME = "Apply RestorerID"
    CATEGORY = "Likeness/restore"
    DESCRIPTION = (
        "Patches a copy of an SD1.5 model so that it restores the damaged faces in 'latent' after the reference. "
        "Sample the latent it gives back."
    )
    RETURN_TYPES = ("MODEL", "LATENT", "FLOAT", "FLOAT", "STRING")
    RETURN_NAMES = ("model", "latent", "quality", "id_scale", "report")
    OUTPUT_TOOLTIPS = (
        "The patched model, for 'RestorerID Sampler' or any sampler.",
        "An empty latent of the right size and number, to be sampled with denoise 1.",
        "Mean quality of the damaged faces; -1 where it was not measured.",
        "Mean scale of the reference attention.",
        "Quality and scale of each face.",
    )
    FUNCTION = "apply"
    OUTPUT_NODE = True

    @classmethod
    def INPUT_TYPES(cls) -> Schema:  # noqa: N802 (the host's name)
        """Inputs as the host asks for them."""
        mode = (
            "adaptive: exp(0.1 * (9.5 - MUSIQ)) of each damaged face, the official rule; needs 'images' and 'quality'. "
            "It is near 0 for all but badly damaged faces. manual: 'id_scale'."
        )
        return {
            "required": {
                "model": ("MODEL", {"tooltip": "An SD1.5 model, with or without other patches."}),
                "adapter": (ADAPTER, {"tooltip": "RestorerID, from its checkpoint or 'Load Face Adapter'."}),
                "identity": (IDENTITY, {"tooltip": "One reference for all faces, or one for each."}),
                "latent": ("LATENT", {"tooltip": "The damaged faces through 'VAE Encode', 512 x 512 officially."}),
                "id_scale_mode": (MODES, {"default": MODES[0], "tooltip": mode}),
                "id_scale": number(0.75, 0.0, 3.0, 0.01, "Scale in the manual mode (training: 0.75)."),
                "id_multiplier": number(1.0, 0.0, 10.0, 0.05, "Multiplies the scale of either mode."),
                "structure_strength": number(1.0, 0.0, 2.0, 0.01, "How much the damaged picture's structure counts."),
                "fir_strength": number(1.0, 0.0, 2.0, 0.01, "Strength of the FIR-Adapter, which balances both."),
                "lora_strength": number(1.0, 0.0, 2.0, 0.01, "Strength of RestorerID's LoRA (official: 1)."),
                "start_percent": percent(0.0, "When restoring begins, as a part of the steps; the LoRA always acts."),
                "end_percent": percent(1.0, "When it stops."),
            },
            "optional": {
                "images": ("IMAGE", {"tooltip": "The damaged faces, for the adaptive mode."}),
                "quality": (ENCODER, {"tooltip": "MUSIQ from 'Load Face Encoder', for the adaptive mode."}),
                "faceid_plus": (
                    ADAPTER,
                    {"tooltip": "ip-adapter-faceid-plus_sd15, only for files without their own projection."},
                ),
            },
        }

    def apply(
        self,
        model: Any,
        adapter: LoadedAdapter,
        identity: Identity,
        latent: dict[str, Any],
        id_scale_mode: str,
        id_scale: float,
        id_multiplier: float,
        structure_strength: float,
        fir_strength: float,
        lora_strength: float,
        start_percent: float,
        end_percent: float,
        images: Tensor | None = None,
        quality: LoadedEncoder | None = None,
        faceid_plus: LoadedAdapter | None = None,
    ) -> dict[str, Any]:
        """Patch a clone."""
        from ..inject.restorer_files import with_projection
        from ..inject.restorerid import RestorationOptions, apply_restoration, restorer_of

        samples = _checked_latent(latent["samples"])
        restorer_of(adapter)
        scores = _scores(id_scale_mode, images, quality, len(samples))
        scales = _scales(id_scale_mode, scores, id_scale, id_multiplier)
        if faceid_plus is not None:
            adapter = with_projection(adapter, faceid_plus)
        options = RestorationOptions(
            scales, structure_strength, fir_strength, lora_strength, start_percent, end_percent
        )
        patched = apply_restoration(model, adapter, identity, samples, options)
        report = _report(scores, scales, adapter)
        mean_quality = sum(scores) / len(scores) if scores else -1.0
        empty = {"samples": torch.zeros_like(samples)}
        return with_text(report, patched, empty, mean_quality, sum(scales) / len(scales), report)


class LikenessRestorerSampler:
    """The official sampling of RestorerID."""

    DISPLAY_NAME = "RestorerID Sampler"
    CATEGORY = "Likeness/restore"
    DESCRIPTION = (
        "Gives sampler and sigmas that equal the official DDIM loop, its uneven timesteps included; use all three "
        "with 'SamplerCustom', cfg 4. Any other sampler works too, without that equality."
    )
    RETURN_TYPES = ("MODEL", "SAMPLER", "SIGMAS")
    RETURN_NAMES = ("model", "sampler", "sigmas")
    OUTPUT_TOOLTIPS = (
        "The model, told the official timesteps.",
        "Euler-ancestral, which equals DDIM.",
        "One noise level fewer steps than 'steps', as the official loop's last one changes nothing.",
    )
    FUNCTION = "make"

    @classmethod
    def INPUT_TYPES(cls) -> Schema:  # noqa: N802 (the host's name)
        """Inputs as the host asks for them."""
        steps = {"default": 50, "min": 2, "max": 1000, "tooltip": "Steps of the official loop (50)."}
        return {
            "required": {
                "model": ("MODEL", {"tooltip": "From 'Apply RestorerID'."}),
                "steps": ("INT", steps),
                "eta": number(1.0, 0.0, 1.0, 0.01, "Noise added in each step (official: 1)."),
            }
        }

    def make(self, model: Any, steps: int, eta: float) -> tuple[Any, Any, Tensor]:
        """Build the three."""
        from ..inject.restorer_sampling import official_sampler, official_sigmas, with_official_timesteps

        return with_official_timesteps(model, steps), official_sampler(eta), official_sigmas(steps)


def _checked_latent(samples: Tensor) -> Tensor:
    if samples.ndim == 4 and samples.shape[1] == 4 and samples.numel():
        return samples
    raise BadImage(
        "Apply RestorerID",
        expected="latents (B, 4, H, W) of SD1.5's VAE",
        found=f"a latent of shape {tuple(samples.shape)}",
        cure="encode the damaged faces with RestorerID's own VAE or another of SD1.5",
    )


def _scores(mode: str, images: Tensor | None, quality: LoadedEncoder | None, count: int) -> list[float]:
    """Quality of each damaged face; empty where it is neither needed nor measurable."""
    from ..inject.picture_quality import kept_scores

    if images is None or quality is None:
        if mode == "manual":
            return []
        missing = " and ".join(name for name, value in (("images", images), ("quality", quality)) if value is None)
        raise BadImage(
            "Apply RestorerID",
            expected="the damaged pictures and MUSIQ in the adaptive mode",
            found=f"no {missing}",
            cure="connect both, or set id_scale_mode to manual",
        )
    if len(images) != count:
        raise BadImage(
            "Apply RestorerID",
            expected=f"the {count} damaged pictures of the latent",
            found=str(len(images)),
            cure="connect the pictures that were encoded",
        )
    return kept_scores(quality, images)


def _scales(mode: str, scores: list[float], manual: float, multiplier: float) -> tuple[float, ...]:
    from ..adapters.families.restorerid.scale import adaptive_scale

    if mode == "manual":
        return (manual * multiplier,)
    return tuple(adaptive_scale(score) * multiplier for score in scores)


def _report(scores: list[float], scales: tuple[float, ...], adapter: LoadedAdapter) -> str:
    lines = [f"face {number}: quality {score:.2f}" for number, score in enumerate(scores)]
    told = scales * len(lines) if len(scales) == 1 and lines else scales
    if lines:
        lines = [f"{line}, ID scale {scale:.4f}" for line, scale in zip(lines, told, strict=True)]
    else:
        lines = [f"ID scale {scale:.4f}" for scale in told]
    return "\n".join([*lines, *(f"note: {note}" for note in adapter.adapter.report.notes)])


NODES = (LikenessLoadRestorerCheckpoint, LikenessEncodeReference, LikenessApplyRestorer, LikenessRestorerSampler)
