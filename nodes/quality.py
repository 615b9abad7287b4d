"""How good a picture is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor

from .common import ENCODER, Schema, with_text

if TYPE_CHECKING:
    from ..inject.loaded_networks import LoadedEncoder


class LikenessPictureQuality:
    """Score pictures with MUSIQ."""

    DISPLAY_NAME = "Picture Quality"
    CATEGORY = "Likeness/restore"
    DESCRIPTION = "Scores each picture of a batch, from about 0 (badly damaged) to about 80 (flawless)."
    RETURN_TYPES = ("FLOAT", "STRING")
    RETURN_NAMES = ("score", "report")
    OUTPUT_TOOLTIPS = ("The mean score of the batch.", "The score of each picture.")
    FUNCTION = "score"
    OUTPUT_NODE = True

    @classmethod
    def INPUT_TYPES(cls) -> Schema:  # noqa: N802 (the host's name)
        """Inputs as the host asks for them."""
        return {
            "required": {
                "images": ("IMAGE", {"tooltip": "The pictures, scored in their own size."}),
                "quality": (ENCODER, {"tooltip": "MUSIQ, from 'Load Face Encoder'."}),
            }
        }

    def score(self, images: Tensor, quality: LoadedEncoder) -> dict[str, Any]:
        """Run the network."""
        from ..faces.images import as_rgb
        from ..inject.picture_quality import quality_scores

        scores = quality_scores(quality, as_rgb(images))
        report = "\n".join(f"image {number}: {score:.2f}" for number, score in enumerate(scores))
        return with_text(report, sum(scores) / len(scores), report)


NODES = (LikenessPictureQuality,)
