"""InstantID's second half: the keypoint picture, and the face tokens for its ControlNet."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor

from .common import ADAPTER, FACES, IDENTITY, Schema

if TYPE_CHECKING:
    from ..adapters.identity import Identity
    from ..faces.types import FaceBatch
    from ..inject.loaded import LoadedAdapter


class LikenessKeypointsPicture:
    """Draw the picture that InstantID's ControlNet reads."""

    DISPLAY_NAME = "Face Keypoints Picture"
    CATEGORY = "Likeness/adapter"
    DESCRIPTION = (
        "Draws the five points of the chosen faces as InstantID's ControlNet expects them. The faces decide where the "
        "person stands and looks, so they may come from another picture than the identity."
    )
    RETURN_TYPES = ("IMAGE",)
    RETURN_NAMES = ("picture",)
    OUTPUT_TOOLTIPS = ("One picture for each picture of faces; for the host's 'Apply ControlNet'.",)
    FUNCTION = "draw"

    @classmethod
    def INPUT_TYPES(cls) -> Schema:  # noqa: N802 (the host's name)
        """Inputs as the host asks for them."""
        size = {"default": 0, "min": 0, "max": 16384, "step": 8}
        return {
            "required": {
                "faces": (FACES, {"tooltip": "From 'Select Faces': the authors draw the largest face only."}),
                "width": (
                    "INT",
                    {
                        **size,
                        "tooltip": "Width of the result: that of the latent, in pixels. 0: as the picture.",
                    },
                ),
                "height": (
                    "INT",
                    {
                        **size,
                        "tooltip": "Height of the result: that of the latent, in pixels. 0: as the picture.",
                    },
                ),
            }
        }

    def draw(self, faces: FaceBatch, width: int, height: int) -> tuple[Tensor]:
        """Draw them."""
        from ..faces.keypoints_picture import keypoints_pictures

        return (keypoints_pictures(faces, height, width),)


class LikenessInstantIDConditioning:
    """Let InstantID's ControlNet see the face instead of the text."""

    DISPLAY_NAME = "InstantID Conditioning"
    CATEGORY = "Likeness/adapter"
    DESCRIPTION = (
        "Gives ControlNets of these conditionings the face tokens instead of the text, as InstantID's ControlNet was "
        "trained. Connect the results to the host's 'Apply ControlNet' with the keypoint picture."
    )
    RETURN_TYPES = ("CONDITIONING", "CONDITIONING")
    RETURN_NAMES = ("positive", "negative")
    OUTPUT_TOOLTIPS = ("The positive conditioning with face tokens.", "The negative one with neutral tokens.")
    FUNCTION = "apply"

    @classmethod
    def INPUT_TYPES(cls) -> Schema:  # noqa: N802 (the host's name)
        """Inputs as the host asks for them."""
        return {
            "required": {
                "positive": ("CONDITIONING", {"tooltip": "The positive prompt."}),
                "negative": ("CONDITIONING", {"tooltip": "The negative prompt."}),
                "adapter": (ADAPTER, {"tooltip": "InstantID, from 'Load Face Adapter'."}),
                "identity": (
                    IDENTITY,
                    {"tooltip": "The same identity as at 'Apply Identity', encoded with antelopev2."},
                ),
            }
        }

    def apply(self, positive: Any, negative: Any, adapter: LoadedAdapter, identity: Identity) -> tuple[Any, Any]:
        """Add the tokens to copies of both."""
        from ..inject.face_context import face_context

        return face_context(positive, negative, adapter, identity)


NODES = (LikenessKeypointsPicture, LikenessInstantIDConditioning)
