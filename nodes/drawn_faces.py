"""Drawn persons, and the small base model that paints them: a whole portrait without any download."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .common import FACES, IDENTITY, Schema, number, with_text

if TYPE_CHECKING:
    from torch import Tensor

    from ..adapters.identity import Identity
    from ..faces.types import FaceBatch
    from ..training.demo.conditioning import AttributeTokens

DRAWN_PROMPT = "LIKENESS_DRAWN_PROMPT"
LIGHT_TOOLTIP = (
    "Where the light comes from, in degrees: 0 from the right of the picture, 90 from below, -90 from above."
)


def _attribute_inputs() -> dict[str, Any]:
    return {
        "yaw": number(0.0, -35.0, 35.0, 1.0, "Turn of the head to the side, in degrees."),
        "pitch": number(0.0, -18.0, 18.0, 1.0, "Nod of the head, in degrees; positive looks down."),
        "smile": number(0.0, -0.5, 1.0, 0.05, "Corners of the mouth: below 0 down, above 0 up."),
        "mouth_open": number(0.0, 0.0, 1.0, 0.05, "How far the mouth is open."),
        "light_angle": number(-90.0, -180.0, 180.0, 5.0, LIGHT_TOOLTIP),
        "light_strength": number(0.3, 0.0, 1.0, 0.05, "How strong the light is."),
        "glasses": ("BOOLEAN", {"default": False, "tooltip": "Whether glasses are worn."}),
        "background_red": number(0.5, 0.05, 0.95, 0.05, "Red of the wall."),
        "background_green": number(0.6, 0.05, 0.95, 0.05, "Green of the wall."),
        "background_blue": number(0.7, 0.05, 0.95, 0.05, "Blue of the wall."),
    }


class LikenessDrawFaces:
    """Draw persons from numbers."""

    DISPLAY_NAME = "Draw Faces"
    CATEGORY = "Likeness/drawn"
    DESCRIPTION = (
        "Draws a person from numbers: the same seed is always the same person, whatever the attributes. Pictures, head "
        "mask and faces are exact."
    )
    RETURN_TYPES = ("IMAGE", "MASK", FACES)
    RETURN_NAMES = ("images", "head_mask", "faces")
    OUTPUT_TOOLTIPS = ("The pictures.", "Face and hair.", "Where the faces are, known and not detected.")
    FUNCTION = "draw"

    @classmethod
    def INPUT_TYPES(cls) -> Schema:  # noqa: N802 (the host's name)
        """Inputs as the host asks for them."""
        person = {"default": 7, "min": 0, "max": 2**32 - 1, "tooltip": "Who it is."}
        size = {"default": 128, "min": 32, "max": 1024, "step": 8, "tooltip": "Side of the pictures in pixels."}
        variety = number(0.0, 0.0, 1.0, 0.05, "How far attributes go from those given towards random ones.")
        pictures = {"default": 1, "min": 1, "max": 64, "tooltip": "Pictures of that person."}
        return {
            "required": {
                "person": ("INT", person),
                "size": ("INT", size),
                **_attribute_inputs(),
                "pictures": ("INT", pictures),
                "variety": variety,
                "seed": ("INT", {"default": 0, "min": 0, "max": 2**32 - 1, "tooltip": "Seed of the variety."}),
            }
        }

    def draw(
        self, person: int, size: int, pictures: int, variety: float, seed: int, **attributes: Any
    ) -> tuple[Tensor, Tensor, FaceBatch]:
        """Draw the pictures."""
        from ..training.demo.requests import asked_attributes, drawn_person

        return drawn_person(person, asked_attributes(attributes, pictures, variety, seed), size)


class LikenessLoadDrawnModel:
    """Load the small base model for drawn faces."""

    DISPLAY_NAME = "Load Drawn Faces Model"
    CATEGORY = "Likeness/drawn"
    DESCRIPTION = (
        "Loads the small base model that comes with the pack: a UNet of SD1.5's block layout and an autoencoder, both "
        "trained on drawn faces. Pictures are 64 pixels wide. It shows how identity adapters work without a download."
    )
    RETURN_TYPES = ("MODEL", "VAE", DRAWN_PROMPT)
    RETURN_NAMES = ("model", "vae", "prompt_model")
    OUTPUT_TOOLTIPS = ("The UNet.", "The autoencoder.", "For 'Drawn Faces Prompt'; it stands where CLIP would.")
    FUNCTION = "load"

    @classmethod
    def INPUT_TYPES(cls) -> Schema:  # noqa: N802 (the host's name)
        """Inputs as the host asks for them."""
        return {"required": {}}

    def load(self) -> tuple[Any, Any, AttributeTokens]:
        """Build the models."""
        from ..inject.drawn_model import load_drawn_model
        from ..training.demo.requests import prompt_network

        loaded = load_drawn_model()
        return loaded.model, loaded.vae, prompt_network(loaded.prompt, loaded.context, loaded.tokens)


class LikenessDrawnPrompt:
    """Tell the small base model what to show."""

    DISPLAY_NAME = "Drawn Faces Prompt"
    CATEGORY = "Likeness/drawn"
    DESCRIPTION = (
        "Pose, expression, light and background as conditioning for the small base model. Give the same number of "
        "pictures as the empty latent has."
    )
    RETURN_TYPES = ("CONDITIONING", "CONDITIONING", FACES)
    RETURN_NAMES = ("positive", "negative", "faces")
    OUTPUT_TOOLTIPS = (
        "What is asked for.",
        "The empty prompt.",
        "Where the average person's face lies under these attributes, for encoding the finished pictures.",
    )
    FUNCTION = "encode"

    @classmethod
    def INPUT_TYPES(cls) -> Schema:  # noqa: N802 (the host's name)
        """Inputs as the host asks for them."""
        pictures = {"default": 4, "min": 1, "max": 64, "tooltip": "Pictures to make: the latent's batch size."}
        size = {"default": 64, "min": 32, "max": 256, "step": 8, "tooltip": "Side of the finished pictures in pixels."}
        return {
            "required": {
                "prompt_model": (DRAWN_PROMPT, {"tooltip": "From 'Load Drawn Faces Model'."}),
                **_attribute_inputs(),
                "pictures": ("INT", pictures),
                "variety": number(1.0, 0.0, 1.0, 0.05, "0: all pictures alike. 1: random attributes for each."),
                "seed": ("INT", {"default": 0, "min": 0, "max": 2**32 - 1, "tooltip": "Seed of the variety."}),
                "size": ("INT", size),
            }
        }

    def encode(
        self, prompt_model: AttributeTokens, pictures: int, variety: float, seed: int, size: int, **attributes: Any
    ) -> tuple[Any, Any, FaceBatch]:
        """Make the conditioning."""
        from ..training.demo.requests import asked_attributes, expected_faces, prompt_tokens

        asked = asked_attributes(attributes, pictures, variety, seed)
        tokens = prompt_tokens(prompt_model, asked)
        return [[tokens, {}]], [[tokens * 0, {}]], expected_faces(asked, size)


class LikenessIdentitySheet:
    """Pictures in rows, with the measured identity distance as captions."""

    DISPLAY_NAME = "Identity Sheet"
    CATEGORY = "Likeness/identity"
    DESCRIPTION = "Puts up to three sets of pictures under a reference and writes how far their faces are from it."
    RETURN_TYPES = ("IMAGE", "STRING")
    RETURN_NAMES = ("sheet", "report")
    OUTPUT_TOOLTIPS = ("The sheet.", "The captions as text.")
    FUNCTION = "make"
    OUTPUT_NODE = True

    @classmethod
    def INPUT_TYPES(cls) -> Schema:  # noqa: N802 (the host's name)
        """Inputs as the host asks for them."""
        optional: dict[str, Any] = {}
        for place in (1, 2, 3):
            optional |= {
                f"images_{place}": ("IMAGE", {"tooltip": f"Pictures of row {place}."}),
                f"identity_{place}": (IDENTITY, {"tooltip": f"Their faces, by the reference's encoder (row {place})."}),
                f"name_{place}": ("STRING", {"default": f"row {place}", "tooltip": f"Name of row {place}."}),
            }
        side = {"default": 192, "min": 32, "max": 1024, "step": 8, "tooltip": "Height of each picture on the sheet."}
        return {
            "required": {
                "reference": ("IMAGE", {"tooltip": "The reference pictures."}),
                "identity": (IDENTITY, {"tooltip": "Their identity."}),
                "side": ("INT", side),
            },
            "optional": optional,
        }

    def make(self, reference: Tensor, identity: Identity, side: int, **given: Any) -> dict[str, Any]:
        """Measure and write."""
        from ..evaluation.identity_sheet import SheetRow, identity_sheet

        rows = [SheetRow("reference", reference)]
        rows += [
            SheetRow(given.get(f"name_{place}", f"row {place}"), images, given.get(f"identity_{place}"))
            for place in (1, 2, 3)
            if (images := given.get(f"images_{place}")) is not None
        ]
        sheet, report = identity_sheet(identity, rows, side)
        return with_text(report, sheet, report)


NODES = (LikenessDrawFaces, LikenessLoadDrawnModel, LikenessDrawnPrompt, LikenessIdentitySheet)
