"""Swap faces: load a swapper, swap, make masks, paste."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..inject import model_folders
from ..inject.host import progress_bar
from .common import ENCODER, FACES, IDENTITY, SWAPPER, Schema, number, with_text

if TYPE_CHECKING:
    from ..adapters.identity import Identity
    from ..adapters.swappers.pipeline import Rows, SwapOptions
    from ..faces.colour_transfer import Transfer
    from ..faces.crops import CroppedFaces
    from ..faces.detect import OnMissingFace
    from ..faces.swap_paste import PasteOptions
    from ..faces.types import FaceBatch
    from ..inject.loaded_networks import LoadedEncoder
    from ..inject.loaded_swapper import LoadedSwapper

AUTO = -1
MAX_BOOST = 8
SIDES = ("top", "right", "bottom", "left")


def _pixels(what: str) -> tuple[str, dict[str, Any]]:
    return "INT", {"default": AUTO, "min": AUTO, "max": 512, "step": 1, "tooltip": what}


def swap_inputs() -> dict[str, Any]:
    """Inputs that decide what a face becomes."""
    from ..adapters.swappers.pipeline import NEUTRAL, ROWS

    boost = "Crops this many times as wide as the network's: more detail, boost x boost times the work."
    rows = (
        "blend: every face becomes the mean of the identity's rows. one each: first face of a picture row 0, "
        "second row 1; of tracked faces person 0 row 0."
    )
    weight = (
        "0.5: the person as encoded. Towards 1: pushed away from the face that was there. Towards 0: up to 35 % of "
        "it mixed in. Other than 0.5 needs the encoder."
    )
    return {
        "boost": ("INT", {"default": 1, "min": 1, "max": MAX_BOOST, "step": 1, "tooltip": boost}),
        "rows": ([*ROWS], {"default": ROWS[0], "tooltip": rows}),
        "weight": number(NEUTRAL, 0.0, 1.0, 0.01, weight),
    }


def paste_inputs() -> dict[str, Any]:
    """Inputs that decide how crops are put back."""
    from ..faces.colour_transfer import TRANSFERS

    shrink = "Pixels of the picture cut off the mask's rim. -1: a tenth of the face, as insightface does."
    feather = "Pixels of the picture over which the rim fades. -1: a twentieth of the face."
    colour = (
        "Brings the swapped face to the colours that were there. reinhard: mean and spread in Lab. wavelet: local "
        "colours. local: differences at rising sizes."
    )
    return {
        "shrink": _pixels(shrink),
        "feather": _pixels(feather),
        "colour": ([*TRANSFERS], {"default": "none", "tooltip": colour}),
        "colour_strength": number(1.0, 0.0, 1.0, 0.01, "How much of the colour transfer."),
        "strength": number(1.0, 0.0, 1.0, 0.01, "How much of the swap is seen; 0 leaves the pictures as they are."),
    }


def mask_inputs() -> dict[str, Any]:
    """Optional masks of crops and pictures."""
    crop = "Where a crop is taken, in its own pixels: parsing, occlusion; one for all or one for each face."
    picture = "Where the pictures may change, in their pixels; one for all or one for each. Never softened."
    return {"crop_mask": ("MASK", {"tooltip": crop}), "mask": ("MASK", {"tooltip": picture})}


def swap_options(settings: Mapping[str, Any]) -> SwapOptions:
    """The values of `swap_inputs`."""
    from ..adapters.swappers.pipeline import SwapOptions

    return SwapOptions(settings["boost"], settings["rows"], settings["weight"])


def paste_options(settings: Mapping[str, Any]) -> PasteOptions:
    """The values of `paste_inputs`."""
    return _options(*(settings[name] for name in ("shrink", "feather", "colour", "colour_strength", "strength")))


def _options(shrink: int, feather: int, colour: Transfer, colour_strength: float, strength: float) -> PasteOptions:
    from ..faces.swap_paste import PasteOptions

    return PasteOptions(
        None if shrink < 0 else shrink, None if feather < 0 else feather, colour, colour_strength, strength
    )


def _pasted(
    images: Tensor,
    faces: FaceBatch,
    crops: Tensor,
    options: PasteOptions,
    crop_mask: Tensor | None,
    mask: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Paste onto the colours of the pictures; alpha and other channels stay as they are."""
    from ..faces.images import as_rgb
    from ..faces.masks import as_mask
    from ..faces.swap_paste import paste_swaps

    rgb = as_rgb(images)
    size = int(crops.shape[1])
    inner = (
        None if crop_mask is None or not len(crops) else as_mask(crop_mask, len(crops), size, size, "crop_mask", "crop")
    )
    outer = None if mask is None else as_mask(mask, *rgb.shape[:3])
    pasted, changed = paste_swaps(rgb, faces, crops, options, inner, outer)
    if images.shape[-1] == 4:
        # as_rgb flattened the picture over black; where nothing changed its own colours come back untouched.
        colours = torch.where(changed[..., None] > 0, pasted, images[..., :3])
        pasted = torch.cat([colours, torch.maximum(images[..., 3:], changed[..., None])], dim=-1)
    return pasted, changed


class LikenessLoadSwapper:
    """Choose what swaps faces."""

    DISPLAY_NAME = "Load Face Swapper"
    CATEGORY = "Likeness/swap"
    DESCRIPTION = "Loads inswapper, ReSwapper or HyperSwap, recognised by content. Shows its licence."
    RETURN_TYPES = (SWAPPER, "STRING")
    RETURN_NAMES = ("swapper", "report")
    OUTPUT_TOOLTIPS = ("The swapper.", "What was recognised, where it runs, and under which licence.")
    FUNCTION = "load"

    @classmethod
    def INPUT_TYPES(cls) -> Schema:  # noqa: N802 (the host's name)
        """Inputs as the host asks for them."""
        from ..adapters.detectors.insightface.sessions import PROVIDERS
        from ..adapters.swappers.reswapper.family import SIZES

        names = model_folders.list_files(model_folders.SWAPPERS)
        provider = "Where ONNX files run. auto: the fastest that onnxruntime has. The report says what really runs."
        variant = "Size of a ReSwapper .pth, which its tensors cannot tell: 128, or 256 for reswapper_256 files."
        return {
            "required": {
                "swapper": (names, {"tooltip": "Files: models/face_swappers, and those of other packs."}),
                "provider": (["auto", *PROVIDERS], {"default": "auto", "tooltip": provider}),
                "variant": (["auto", *SIZES], {"default": "auto", "tooltip": variant}),
            }
        }

    @classmethod
    def VALIDATE_INPUTS(cls, swapper: str) -> bool | str:  # noqa: N802 (the host's name)
        """A missing file is told with its source, size, licence and folder."""
        return model_folders.listed(model_folders.SWAPPERS, swapper)

    def load(self, swapper: str, provider: str, variant: str) -> tuple[LoadedSwapper, str]:
        """Build the swapper."""
        from ..adapters.swappers.base import describe
        from ..inject.loaded_swapper import load_swapper

        built = load_swapper(model_folders.find_file(model_folders.SWAPPERS, swapper), provider, variant)
        return built, describe(built)


class LikenessSwapFaces:
    """Give faces the identity of another person."""

    DISPLAY_NAME = "Swap Faces"
    CATEGORY = "Likeness/swap"
    DESCRIPTION = (
        "Gives every face the identity of a person, and puts it back. The number of pictures never changes: those "
        "without a face pass as they are."
    )
    RETURN_TYPES = ("IMAGE", FACES, "IMAGE", "MASK", "STRING")
    RETURN_NAMES = ("images", "faces", "crops", "mask", "report")
    OUTPUT_TOOLTIPS = (
        "The pictures with the swapped faces.",
        "The swapped faces with the places of their crops, for 'Paste Swapped Faces'.",
        "The swapped crops, picture by picture, face by face; one black picture where there is none.",
        "What was changed in each picture.",
        "Whom each face became, what was left alone, and why.",
    )
    FUNCTION = "swap"
    OUTPUT_NODE = True

    @classmethod
    def INPUT_TYPES(cls) -> Schema:  # noqa: N802 (the host's name)
        """Inputs as the host asks for them."""
        missing = (
            "What happens to a picture without a face. keep: it passes unchanged and is named. skip: it passes "
            "unchanged and is counted. error: stop and name it."
        )
        return {
            "required": {
                "images": ("IMAGE", {"tooltip": "The pictures or frames in which the faces were found."}),
                "faces": (FACES, {"tooltip": "The faces to swap, chosen before."}),
                "swapper": (SWAPPER, {"tooltip": "From 'Load Face Swapper'."}),
                "identity": (IDENTITY, {"tooltip": "Whom they become; encoded with arcface_buffalo_l."}),
                **swap_inputs(),
                **paste_inputs(),
                "on_missing_face": (["keep", "skip", "error"], {"default": "keep", "tooltip": missing}),
            },
            "optional": {
                **mask_inputs(),
                "encoder": (ENCODER, {"tooltip": "arcface_buffalo_l, for a weight other than 0.5."}),
            },
        }

    def swap(
        self,
        images: Tensor,
        faces: FaceBatch,
        swapper: LoadedSwapper,
        identity: Identity,
        boost: int,
        rows: Rows,
        weight: float,
        shrink: int,
        feather: int,
        colour: Transfer,
        colour_strength: float,
        strength: float,
        on_missing_face: OnMissingFace,
        crop_mask: Tensor | None = None,
        mask: Tensor | None = None,
        encoder: LoadedEncoder | None = None,
    ) -> dict[str, Any]:
        """Swap and paste."""
        from ..adapters.encoders.base import with_embeddings
        from ..adapters.swappers.clip import UNSEEN, ranges
        from ..adapters.swappers.pipeline import NEUTRAL, SwapOptions, require_some, swap_faces
        from ..faces.images import as_rgb
        from ..faces.swap_paste import unseen

        rgb = as_rgb(images)
        if on_missing_face == "error":
            require_some(faces)
        if encoder is not None and weight != NEUTRAL:
            faces = with_embeddings(faces, rgb, encoder)
        bar = progress_bar(max(1, sum(faces.counts)))
        done = swap_faces(
            rgb, faces, swapper, identity, SwapOptions(boost, rows, weight), lambda n, of: bar.update_absolute(n, of)
        )
        options = _options(shrink, feather, colour, colour_strength, strength)
        pasted, changed = _pasted(images, done.faces, done.crops, options, crop_mask, mask)
        hidden = unseen(done.faces, changed)
        notes = (*done.notes, f"{UNSEEN} in: {ranges(hidden)} (counted from 0)") if hidden else done.notes
        report = swap_report(swapper, done.faces, notes, on_missing_face)
        crops = done.crops if len(done.crops) else torch.zeros(1, done.faces.size, done.faces.size, 3)
        return with_text(report, pasted, done.faces, crops, changed, report)


def swap_report(
    swapper: LoadedSwapper, faces: CroppedFaces, notes: tuple[str, ...], on_missing_face: OnMissingFace
) -> str:
    """How many faces of which pictures were swapped, by what, and which pictures had none."""
    from ..adapters.swappers.base import describe

    missing = [number for number, count in enumerate(faces.counts) if not count]
    lines = [
        f"{sum(faces.counts)} faces swapped in {len(faces) - len(missing)} of {len(faces)} pictures, all kept",
        describe(swapper),
    ]
    if missing and on_missing_face == "keep":
        lines.append(f"no face to swap, passed unchanged: {', '.join(map(str, missing))} (counted from 0)")
    elif missing:
        lines.append(f"no face to swap, passed unchanged: {len(missing)} pictures")
    return "\n".join([*lines, *(f"note: {note}" for note in notes)])


class LikenessSwapMask:
    """Join masks of swapped crops."""

    DISPLAY_NAME = "Swap Mask"
    CATEGORY = "Likeness/swap"
    DESCRIPTION = (
        "Joins what may be seen of a swapped crop: sides cut off, parsed regions, what is not hidden by hands or hair."
    )
    RETURN_TYPES = ("MASK",)
    RETURN_NAMES = ("mask",)
    OUTPUT_TOOLTIPS = ("One mask for each crop, for crop_mask of 'Paste Swapped Faces' or 'Swap Faces'.",)
    FUNCTION = "make"

    @classmethod
    def INPUT_TYPES(cls) -> Schema:  # noqa: N802 (the host's name)
        """Inputs as the host asks for them."""
        sides = {side: number(0.0, 0.0, 90.0, 1.0, f"Percent of the crop cut off at the {side}.") for side in SIDES}
        soft = "Softens region and visible inwards, so that nothing beside them is taken along."
        return {
            "required": {
                "crops": ("IMAGE", {"tooltip": "The crops, for their number and size."}),
                **sides,
                "blur": number(0.0, 0.0, 1.0, 0.01, "Fades the sides over this share of half a side."),
                "soften": ("BOOLEAN", {"default": True, "tooltip": soft}),
            },
            "optional": {
                "region": ("MASK", {"tooltip": "Parsed regions of the swapped crops, such as the skin."}),
                "visible": ("MASK", {"tooltip": "1 where the original face is not hidden."}),
            },
        }

    def make(
        self,
        crops: Tensor,
        top: float,
        right: float,
        bottom: float,
        left: float,
        blur: float,
        soften: bool,
        region: Tensor | None = None,
        visible: Tensor | None = None,
    ) -> tuple[Tensor]:
        """Join."""
        from ..faces.images import as_rgb
        from ..faces.masks import as_mask
        from ..faces.swap_masks import joined_mask, padded_box, pulled_in

        crops = as_rgb(crops, "crops")
        size, count = int(crops.shape[1]), len(crops)
        named = {"region": region, "visible": visible}
        given = [as_mask(one.cpu(), count, size, size, name, "crop") for name, one in named.items() if one is not None]
        masks = [pulled_in(one) if soften else one for one in given]
        return (joined_mask(size, count, masks, padded_box(size, (top, right, bottom, left), blur)),)


class LikenessPasteSwap:
    """Put swapped crops back."""

    DISPLAY_NAME = "Paste Swapped Faces"
    CATEGORY = "Likeness/swap"
    DESCRIPTION = (
        "Puts swapped crops back, for example after restoring or masking them. Pixels outside the mask stay exactly as "
        "they are."
    )
    RETURN_TYPES = ("IMAGE", "MASK")
    RETURN_NAMES = ("images", "mask")
    OUTPUT_TOOLTIPS = ("The pictures.", "What was changed in each picture.")
    FUNCTION = "paste"

    @classmethod
    def INPUT_TYPES(cls) -> Schema:  # noqa: N802 (the host's name)
        """Inputs as the host asks for them."""
        return {
            "required": {
                "images": ("IMAGE", {"tooltip": "The original pictures."}),
                "faces": (FACES, {"tooltip": "From 'Swap Faces'."}),
                "crops": ("IMAGE", {"tooltip": "The crops, in the same order; any square size."}),
                **paste_inputs(),
            },
            "optional": mask_inputs(),
        }

    def paste(
        self,
        images: Tensor,
        faces: FaceBatch,
        crops: Tensor,
        shrink: int,
        feather: int,
        colour: Transfer,
        colour_strength: float,
        strength: float,
        crop_mask: Tensor | None = None,
        mask: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Paste."""
        from ..faces.images import as_rgb

        options = _options(shrink, feather, colour, colour_strength, strength)
        # 'Swap Faces' shows one black crop where there is none to show.
        given = as_rgb(crops, "crops")[: sum(faces.counts)] if not sum(faces.counts) else as_rgb(crops, "crops")
        return _pasted(images, faces, given, options, crop_mask, mask)


NODES = (LikenessLoadSwapper, LikenessSwapFaces, LikenessSwapMask, LikenessPasteSwap)
