"""Faces as ID-Animator sees them, strengths by frame, and AnimateDiff's motion module."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..inject import model_folders
from ..inject.host import progress_bar
from .common import FACES, IDENTITY, ON_MISSING_FACE, Schema, with_text

if TYPE_CHECKING:
    from ..adapters.encoders.base import Which
    from ..faces.detect import OnMissingFace
    from ..faces.types import FaceBatch
    from ..inject.frame_strength import Between

MOTION_FILES = model_folders.FileKind("face_adapters", ("animatediff_models",))


class LikenessEncodeAlignedFace:
    """Encode faces with CLIP the way ID-Animator was trained."""

    DISPLAY_NAME = "Encode Aligned Face (CLIP)"
    CATEGORY = "Likeness/identity"
    DESCRIPTION = (
        "Makes the identity ID-Animator takes: each face is aligned at 112 pixels, enlarged to 224, encoded by CLIP. "
        "Several photos are averaged by the adapter."
    )
    RETURN_TYPES = (IDENTITY, "IMAGE", "STRING")
    RETURN_NAMES = ("identity", "crops", "report")
    OUTPUT_TOOLTIPS = (
        "The identity, one entry for each face.",
        "The faces that were encoded, as CLIP saw them.",
        "What was encoded and how.",
    )
    FUNCTION = "encode"

    @classmethod
    def INPUT_TYPES(cls) -> Schema:  # noqa: N802 (the host's name)
        """Inputs as the host asks for them."""
        which = "best: the first face of each photo, as the authors do. all: every face."
        return {
            "required": {
                "images": ("IMAGE", {"tooltip": "The photos in which the faces were found."}),
                "faces": (FACES, {"tooltip": "From 'Detect Faces' or 'Select Faces'."}),
                "clip_vision": ("CLIP_VISION", {"tooltip": "CLIP-ViT-H-14, from the host's CLIP vision loader."}),
                "which": (["best", "all"], {"default": "best", "tooltip": which}),
                "on_missing_face": ON_MISSING_FACE,
            }
        }

    def encode(
        self, images: Tensor, faces: FaceBatch, clip_vision: Any, which: Which, on_missing_face: OnMissingFace
    ) -> dict[str, Any]:
        """Align, enlarge, encode."""
        from ..adapters.encoders.base import chosen_landmarks
        from ..adapters.identity_ops import identity_report
        from ..faces.images import as_rgb
        from ..inject.aligned_pictures import encode_aligned, soft_crops

        rgb = as_rgb(images)
        bar = progress_bar(max(1, sum(faces.counts)))
        identity = encode_aligned(
            clip_vision, rgb, faces, which, on_missing_face, lambda done, total: bar.update_absolute(done, total)
        )
        crops = soft_crops(rgb, *chosen_landmarks(faces, which)).movedim(1, -1)
        report = identity_report(identity)
        return with_text(report, identity, crops, report)


class LikenessFrameStrength:
    """A strength for each frame."""

    DISPLAY_NAME = "Strength per Frame"
    CATEGORY = "Likeness/adapter"
    DESCRIPTION = (
        "Turns a schedule into a mask for each frame and the largest strength. Connect both to a node that applies an "
        "identity; it works with every adapter and with context windows."
    )
    RETURN_TYPES = ("MASK", "FLOAT", "STRING")
    RETURN_NAMES = ("mask", "strength", "report")
    OUTPUT_TOOLTIPS = (
        "One mask per frame, for the mask input.",
        "The largest strength, for the strength input: masks hold each frame's share of it.",
        "The strengths frame by frame.",
    )
    FUNCTION = "make"

    @classmethod
    def INPUT_TYPES(cls) -> Schema:  # noqa: N802 (the host's name)
        """Inputs as the host asks for them."""
        from ..inject.frame_strength import BETWEEN

        schedule = (
            "One number; or one per frame: 1, 0.8, 0.6; or key frames: 0: 1.0, 8: 0.4, -1: 1.0, counted from 0, and "
            "from the end where negative."
        )
        between = "Between key frames: a line, a smooth curve, or the last one held."
        return {
            "required": {
                "schedule": ("STRING", {"default": "0: 1.0, -1: 1.0", "multiline": True, "tooltip": schedule}),
                "frames": (
                    "INT",
                    {"default": 16, "min": 1, "max": 100000, "tooltip": "Frames of the clip: the latent's batch size."},
                ),
                "between": ([*BETWEEN], {"default": BETWEEN[0], "tooltip": between}),
            },
            "optional": {"mask": ("MASK", {"tooltip": "Where the identity acts besides: one mask, or one per frame."})},
        }

    def make(self, schedule: str, frames: int, between: Between, mask: Tensor | None = None) -> dict[str, Any]:
        """Read the schedule."""
        from ..inject.frame_strength import frame_strengths

        strengths = frame_strengths(schedule, frames, between)
        report = strengths.as_text()
        return with_text(report, strengths.mask(mask), strengths.peak, report)


class LikenessApplyMotion:
    """AnimateDiff's motion module on an SD1.5 model."""

    DISPLAY_NAME = "Apply Motion Module"
    CATEGORY = "Likeness/video"
    DESCRIPTION = (
        "Makes the pictures of a batch the frames of one clip, up to 32, with AnimateDiff's motion module, which "
        "ID-Animator was made for. Not needed where another pack applies one. Put it before 'Apply Identity'."
    )
    RETURN_TYPES = ("MODEL", "STRING")
    RETURN_NAMES = ("model", "report")
    OUTPUT_TOOLTIPS = ("The model with motion layers, for any sampler.", "What was recognised, and its licence.")
    FUNCTION = "apply"

    @classmethod
    def INPUT_TYPES(cls) -> Schema:  # noqa: N802 (the host's name)
        """Inputs as the host asks for them."""
        files = "A file such as mm_sd_v15_v2.ckpt in models/face_adapters or models/animatediff_models."
        schedule = "linear: the noise schedule AnimateDiff was trained with. model: the model's own."
        return {
            "required": {
                "model": ("MODEL", {"tooltip": "An SD1.5 model, with or without other patches."}),
                "file": (model_folders.list_files(MOTION_FILES), {"tooltip": files}),
                "noise_schedule": (["linear", "model"], {"default": "linear", "tooltip": schedule}),
            }
        }

    @classmethod
    def VALIDATE_INPUTS(cls, file: str) -> bool | str:  # noqa: N802 (the host's name)
        """A missing file is told with its source, size, licence and folder."""
        return model_folders.listed(MOTION_FILES, file)

    def apply(self, model: Any, file: str, noise_schedule: str) -> dict[str, Any]:
        """Read the file and patch a clone."""
        from ..adapters.families.id_animator.motion import read_motion
        from ..inject.managed import ManagedNetwork
        from ..inject.motion import apply_motion

        with torch.inference_mode(False):
            network, report = read_motion(model_folders.find_file(MOTION_FILES, file))
        patched = apply_motion(model, ManagedNetwork(network), linear_betas=noise_schedule == "linear")
        return with_text(report, patched, report)


NODES = (LikenessEncodeAlignedFace, LikenessFrameStrength, LikenessApplyMotion)
