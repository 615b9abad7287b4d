"""Encode pictures with a CLIP vision model to an identity, for IP-Adapter."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor

from ..inject.host import progress_bar
from .common import FACES, IDENTITY, ON_MISSING_FACE, Schema, number, with_text

if TYPE_CHECKING:
    from ..adapters.encoders.base import Which
    from ..faces.detect import OnMissingFace
    from ..faces.types import FaceBatch

PREVIEW = 224


class LikenessEncodeImage:
    """Turn pictures, or the faces in them, into an identity of CLIP features."""

    DISPLAY_NAME = "Encode Image"
    CATEGORY = "Likeness/identity"
    DESCRIPTION = (
        "Encodes pictures with a CLIP vision model, for IP-Adapter plain, plus, plus-face and full-face. With faces "
        "connected, the square around each face is encoded instead of the whole picture."
    )
    RETURN_TYPES = (IDENTITY, "IMAGE", "STRING")
    RETURN_NAMES = ("identity", "crops", "report")
    OUTPUT_TOOLTIPS = (
        "The identity, one entry for each picture or face.",
        "What the vision model looked at.",
        "What was encoded and how.",
    )
    FUNCTION = "encode"

    @classmethod
    def INPUT_TYPES(cls) -> Schema:  # noqa: N802 (the host's name)
        """Inputs as the host asks for them."""
        return {
            "required": {
                "images": ("IMAGE", {"tooltip": "The pictures. Without faces, the middle square of each is encoded."}),
                "clip_vision": (
                    "CLIP_VISION",
                    {
                        "tooltip": "From the host's CLIP vision loader. ViT-H/14 for every IP-Adapter but the first of "
                        "SDXL (ip-adapter_sdxl), which takes ViT-bigG/14."
                    },
                ),
            },
            "optional": {
                "faces": (FACES, {"tooltip": "From 'Detect Faces': encode the faces only. plus-face wants this."}),
                "which": (
                    ["best", "all"],
                    {"default": "best", "tooltip": "best: the first face of each picture. all: every face."},
                ),
                "margin": number(0.15, 0.0, 2.0, 0.05, "Border around a face's box, as a part of its longer side."),
                "on_missing_face": ON_MISSING_FACE,
            },
        }

    def encode(
        self,
        images: Tensor,
        clip_vision: Any,
        faces: FaceBatch | None = None,
        which: Which = "best",
        margin: float = 0.15,
        on_missing_face: OnMissingFace = "error",
    ) -> dict[str, Any]:
        """Run the vision model."""
        from ..adapters.identity_ops import identity_report
        from ..inject.picture_identity import encode_pictures, encoded_previews

        bar = progress_bar(max(1, len(images) if faces is None else sum(faces.counts)))
        identity = encode_pictures(
            clip_vision,
            images,
            faces,
            which,
            on_missing_face,
            margin,
            lambda done, total: bar.update_absolute(done, total),
        )
        report = identity_report(identity)
        return with_text(report, identity, encoded_previews(images, faces, which, margin, PREVIEW), report)


NODES = (LikenessEncodeImage,)
