"""Give pictures the colours of others."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from .common import Schema, number

if TYPE_CHECKING:
    from ..faces.colour import Method


class LikenessMatchColour:
    """Colour fix of restorers: wavelet or AdaIN."""

    DISPLAY_NAME = "Match Colour"
    CATEGORY = "Likeness/restore"
    DESCRIPTION = "Gives restored or swapped pictures the colours of those they were made from."
    RETURN_TYPES = ("IMAGE",)
    RETURN_NAMES = ("images",)
    OUTPUT_TOOLTIPS = ("The pictures in the reference's colours.",)
    FUNCTION = "match"

    @classmethod
    def INPUT_TYPES(cls) -> Schema:  # noqa: N802 (the host's name)
        """Inputs as the host asks for them."""
        from ..faces.colour import METHODS

        method = (
            "wavelet: local colours of the reference under the details of the picture, for pictures of the same "
            "content. adain: mean and spread of each channel."
        )
        return {
            "required": {
                "images": ("IMAGE", {"tooltip": "The pictures to change."}),
                "reference": ("IMAGE", {"tooltip": "One picture for all, or one for each; stretched to their size."}),
                "method": ([*METHODS], {"default": METHODS[0], "tooltip": method}),
                "strength": number(1.0, 0.0, 1.0, 0.01, "How much of it; 0 leaves the pictures as they are."),
            }
        }

    def match(self, images: Tensor, reference: Tensor, method: Method, strength: float) -> tuple[Tensor]:
        """Change the colours."""
        from ..faces.colour import match_colour
        from ..faces.images import as_rgb

        return (match_colour(as_rgb(images), as_rgb(reference, "reference"), method, strength),)


NODES = (LikenessMatchColour,)
