"""Tell the parts of faces, and make masks of them: by a parser, or by boxes and points alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor

from ..inject.host import progress_bar
from .common import FACES, PARSER, Schema, number, with_text

if TYPE_CHECKING:
    from ..faces.types import FaceBatch
    from ..inject.loaded_parser import LoadedParser

CATEGORY = "Likeness/parts"
PARSED_TOOLTIP = "From 'Parse Faces'."
MASKS = ("MASK", "MASK")
MASK_NAMES = ("mask", "face_masks")
MASK_TOOLTIPS = (
    "One mask for each picture, all its faces together; black where a picture has none.",
    "One mask for each face: picture by picture, face by face.",
)
GROW = "Widens the mask by so many pixels of the picture; negative values narrow it."
FEATHER = "Radius in pixels by which the rim is blurred."


def pixels(low: int, tooltip: str, high: int = 512) -> tuple[str, dict[str, Any]]:
    """An INT input in pixels, 0 by default."""
    return "INT", {"default": 0, "min": low, "max": high, "step": 1, "tooltip": tooltip}


class LikenessLoadParser:
    """Choose what tells the parts of a face."""

    DISPLAY_NAME = "Load Face Parser"
    CATEGORY = CATEGORY
    DESCRIPTION = (
        "Loads SegFace with any of its backbones, recognised by content. Its training pictures (CelebAMask-HQ, LaPa, "
        "Helen) are for non-commercial research."
    )
    RETURN_TYPES = (PARSER, "STRING")
    RETURN_NAMES = ("parser", "report")
    OUTPUT_TOOLTIPS = ("The parser.", "What was recognised, which parts it knows, and under which licence.")
    FUNCTION = "load"
    OUTPUT_NODE = True

    @classmethod
    def INPUT_TYPES(cls) -> Schema:  # noqa: N802 (the host's name)
        """Inputs as the host asks for them."""
        from ..adapters.parsers.segface.labels import LABEL_SETS
        from ..inject.loaded_parser import AUTO, RESOLUTIONS, list_parsers

        variant = "LaPa and Helen have the same parts and cannot be told apart: choose by the publisher's folder."
        resolution = "Side of the network's pictures, named in the publisher's folder. auto: 512."
        return {
            "required": {
                "file": (list_parsers(), {"tooltip": "A file in models/face_parsers."}),
                "variant": ([AUTO, *LABEL_SETS], {"default": AUTO, "tooltip": variant}),
                "resolution": ([*RESOLUTIONS], {"default": AUTO, "tooltip": resolution}),
            }
        }

    @classmethod
    def VALIDATE_INPUTS(cls, file: str) -> bool | str:  # noqa: N802 (the host's name)
        """A missing file is told with its source, size, licence and folder."""
        from ..inject.loaded_parser import PARSERS
        from ..inject.model_folders import listed

        return listed(PARSERS, file)

    def load(self, file: str, variant: str, resolution: str) -> dict[str, Any]:
        """Build the parser."""
        from ..inject.loaded_parser import load_parser

        parser, report = load_parser(file, variant, resolution)
        return with_text(report, parser, report)


class LikenessParseFaces:
    """Tell the parts of every face."""

    DISPLAY_NAME = "Parse Faces"
    CATEGORY = CATEGORY
    DESCRIPTION = (
        "Finds skin, hair, eyes, lips, glasses and so on of every face, several faces at once, and keeps them in the "
        "picture's own pixels."
    )
    RETURN_TYPES = (FACES, "IMAGE", "IMAGE", "MASK", "STRING")
    RETURN_NAMES = ("faces", "overlay", "label_map", "face_masks", "report")
    OUTPUT_TOOLTIPS = (
        "The faces with their parts, for 'Mask from Classes' and 'Head Mask'.",
        "The pictures with a colour over each part.",
        "The colours alone.",
        "Skin, brows, eyes, nose and mouth: one mask for each face, picture by picture.",
        "The parts of every face and how much of its crop each one takes.",
    )
    FUNCTION = "parse"
    OUTPUT_NODE = True

    @classmethod
    def INPUT_TYPES(cls) -> Schema:  # noqa: N802 (the host's name)
        """Inputs as the host asks for them."""
        margin = (
            "CelebAMask-HQ models: how much wider the crop is than in training, as a share of its side; for hats and "
            "long hair."
        )
        return {
            "required": {
                "images": ("IMAGE", {"tooltip": "The pictures in which the faces were found."}),
                "parser": (PARSER, {"tooltip": "From 'Load Face Parser'."}),
                "margin": number(0.1, 0.0, 0.5, 0.01, margin),
            },
            "optional": {
                "faces": (
                    FACES,
                    {"tooltip": "The faces to parse. Without them each picture counts as the crop of one face."},
                )
            },
        }

    def parse(
        self, images: Tensor, parser: LoadedParser, margin: float, faces: FaceBatch | None = None
    ) -> dict[str, Any]:
        """Run the parser."""
        from ..adapters.parsers.base import parse_faces
        from ..faces.images import as_rgb
        from ..faces.parts import part_masks, part_numbers
        from ..faces.parts_picture import draw_parts, parts_table

        rgb = as_rgb(images)
        bar = progress_bar(max(1, len(rgb) if faces is None else sum(faces.counts)))
        found = parse_faces(parser, rgb, faces, margin, lambda done, total: bar.update_absolute(done, total))
        coloured, over = draw_parts(rgb, found)
        report = parts_table(found)
        skin = part_masks(found, part_numbers(found.parts, "face"))
        return with_text(report, found, over, coloured, skin, report)


class LikenessMaskFromClasses:
    """Masks of named parts."""

    DISPLAY_NAME = "Mask from Classes"
    CATEGORY = CATEGORY
    DESCRIPTION = "Makes masks of the parts you name, in the picture's own pixels."
    RETURN_TYPES = MASKS
    RETURN_NAMES = MASK_NAMES
    OUTPUT_TOOLTIPS = MASK_TOOLTIPS
    FUNCTION = "make"

    @classmethod
    def INPUT_TYPES(cls) -> Schema:  # noqa: N802 (the host's name)
        """Inputs as the host asks for them."""
        from ..faces.parts import GROUPS

        classes = (
            "Parts separated by commas: background, neck, skin, cloth, left ear, right ear, left brow, right brow, "
            "left eye, right eye, nose, inner mouth, lower lip, upper lip, hair, glasses, hat, earring, necklace. "
            f"Groups: {', '.join(GROUPS)}, person. A minus takes a part out: head, -hat."
        )
        return {
            "required": {
                "faces": (FACES, {"tooltip": PARSED_TOOLTIP}),
                "classes": ("STRING", {"default": "face", "multiline": True, "tooltip": classes}),
                "dilate": pixels(-512, GROW),
                "feather": pixels(0, FEATHER),
            }
        }

    def make(self, faces: FaceBatch, classes: str, dilate: int, feather: int) -> tuple[Tensor, Tensor]:
        """Draw."""
        from ..faces.parts import by_picture, grown, parsed, part_masks, part_numbers

        known = parsed(faces, "mask from classes")
        masks = grown(part_masks(known, part_numbers(known.parts, classes)), dilate, feather)
        return by_picture(known, masks), masks


class LikenessFaceMask:
    """Masks of faces without a network."""

    DISPLAY_NAME = "Face Mask"
    CATEGORY = CATEGORY
    DESCRIPTION = (
        "Makes masks of faces from their boxes or points; no parser is needed, and hair or hands are not seen."
    )
    RETURN_TYPES = MASKS
    RETURN_NAMES = MASK_NAMES
    OUTPUT_TOOLTIPS = MASK_TOOLTIPS
    FUNCTION = "make"

    @classmethod
    def INPUT_TYPES(cls) -> Schema:  # noqa: N802 (the host's name)
        """Inputs as the host asks for them."""
        from ..faces.shape_masks import SHAPES

        shape = "oval of the points: brows to chin, turns with the face. oval of the box, box: as the detector drew it."
        return {
            "required": {
                "faces": (FACES, {"tooltip": "From 'Detect Faces' or 'Select Faces'."}),
                "shape": ([*SHAPES], {"default": SHAPES[0], "tooltip": shape}),
                "size": number(1.0, 0.1, 5.0, 0.01, "Factor about the middle of the shape."),
                "dilate": pixels(-512, GROW),
                "feather": pixels(0, FEATHER),
            }
        }

    def make(self, faces: FaceBatch, shape: Any, size: float, dilate: int, feather: int) -> tuple[Tensor, Tensor]:
        """Draw."""
        from ..faces.parts import by_picture, grown
        from ..faces.shape_masks import shape_masks

        masks = grown(shape_masks(faces, shape, size), dilate, feather)
        return by_picture(faces, masks), masks


class LikenessHeadMask:
    """The head mask that FACT was trained with."""

    DISPLAY_NAME = "Head Mask"
    CATEGORY = CATEGORY
    DESCRIPTION = (
        "Makes the head mask of FaceChain-FACT, face and hair without background, for the mask of 'Encode Identity'."
    )
    RETURN_TYPES = ("MASK", "STRING")
    RETURN_NAMES = ("mask", "report")
    OUTPUT_TOOLTIPS = (
        "One mask for each picture. A picture in which nothing was found is white, so that it is encoded whole.",
        "Which pictures have a head mask.",
    )
    FUNCTION = "make"

    @classmethod
    def INPUT_TYPES(cls) -> Schema:  # noqa: N802 (the host's name)
        """Inputs as the host asks for them."""
        which = "As in 'Encode Identity'. best: the head of each picture's first face. all: every head together."
        return {
            "required": {
                "faces": (FACES, {"tooltip": PARSED_TOOLTIP}),
                "which": (["best", "all"], {"default": "best", "tooltip": which}),
            }
        }

    def make(self, faces: FaceBatch, which: str) -> dict[str, Any]:
        """Draw."""
        from ..faces.parts import head_masks, parsed

        known = parsed(faces, "head mask")
        masks, without = head_masks(known, which == "all")
        lines = [f"head masks for {len(known) - len(without)} of {len(known)} images"]
        lines += [f"image {picture}: no head found, left whole" for picture in without]
        report = "\n".join(lines)
        return with_text(report, masks, report)


NODES = (LikenessLoadParser, LikenessParseFaces, LikenessMaskFromClasses, LikenessFaceMask, LikenessHeadMask)
