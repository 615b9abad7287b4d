"""How good a picture is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor

from .common import ENCODER, FACES, Schema, with_text

if TYPE_CHECKING:
    from ..faces.types import FaceBatch
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


class LikenessFaceQuality:
    """Rate the faces of pictures by geometry and sharpness."""

    DISPLAY_NAME = "Face Quality"
    CATEGORY = "Likeness/faces"
    DESCRIPTION = (
        "Rates each face from 0 to 1 by detector score, size, sharpness and how frontal it is, without a model; "
        "'Combine Identities' takes the numbers for its method 'precision'."
    )
    RETURN_TYPES = ("STRING", "STRING")
    RETURN_NAMES = ("qualities", "report")
    OUTPUT_TOOLTIPS = ("One number for each face, separated by commas.", "The factors of each face.")
    FUNCTION = "rate"
    OUTPUT_NODE = True

    @classmethod
    def INPUT_TYPES(cls) -> Schema:  # noqa: N802 (the host's name)
        """Inputs as the host asks for them."""
        return {
            "required": {
                "images": ("IMAGE", {"tooltip": "The pictures in which the faces were found."}),
                "faces": (FACES, {"tooltip": "The faces, from 'Detect Faces' or 'Select Faces'."}),
            }
        }

    def rate(self, images: Tensor, faces: FaceBatch) -> dict[str, Any]:
        """Measure every face."""
        from ..faces.crops import check_same_pictures
        from ..faces.images import as_rgb
        from ..faces.quality import face_qualities, quality_table

        rgb = as_rgb(images)
        check_same_pictures(rgb, faces)
        found = face_qualities(rgb, faces)
        report = quality_table(found)
        return with_text(report, ", ".join(f"{one.total:.4f}" for one in found), report)


NODES = (LikenessPictureQuality, LikenessFaceQuality)
