"""Load a face encoder, and encode faces to an identity."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from torch import Tensor

from ..inject import model_folders
from ..inject.host import progress_bar
from .common import ENCODER, FACES, IDENTITY, ON_MISSING_FACE, Schema, with_text

if TYPE_CHECKING:
    from ..adapters.encoders.base import Which
    from ..faces.detect import OnMissingFace
    from ..faces.types import FaceBatch
    from ..inject.loaded_networks import LoadedEncoder

# Official FaceID-Plus examples crop at 224, the size of the image encoder.
IMAGE_CROP = 224
PREVIEW_CROP = 112


class LikenessLoadEncoder:
    """Choose what turns a face into an identity."""

    DISPLAY_NAME = "Load Face Encoder"
    CATEGORY = "Likeness/identity"
    DESCRIPTION = (
        "Loads a face encoder. Each adapter takes the identities of its own encoder; dlib serves for comparing only."
    )
    RETURN_TYPES = (ENCODER, "STRING")
    RETURN_NAMES = ("encoder", "report")
    OUTPUT_TOOLTIPS = ("The encoder.", "What was recognised, and under which licence.")
    FUNCTION = "load"

    @classmethod
    def INPUT_TYPES(cls) -> Schema:  # noqa: N802 (the host's name)
        """Inputs as the host asks for them."""
        from ..adapters.encoders import packages as encoder_packages

        names = [*encoder_packages.names(), *model_folders.list_files(model_folders.ENCODERS)]
        tooltip = "Files: models/face_encoders, recognised by content. dlib and insightface: optional packages."
        return {"required": {"encoder": (names, {"default": names[0], "tooltip": tooltip})}}

    @classmethod
    def VALIDATE_INPUTS(cls, encoder: str) -> bool | str:  # noqa: N802 (the host's name)
        """A missing file is told with its source, size, licence and folder."""
        from ..adapters.encoders import packages

        return model_folders.listed(model_folders.ENCODERS, encoder, packages.names())

    def load(self, encoder: str) -> tuple[LoadedEncoder, str]:
        """Build the encoder."""
        from ..adapters.encoders import packages as encoder_packages
        from ..inject.loaded_networks import LoadedEncoder

        find = partial(model_folders.find_file, model_folders.ENCODERS)
        built = encoder_packages.load_named(encoder, model_folders.folder_roots("insightface"), find)
        return LoadedEncoder(built), encoder_packages.describe(built)


class LikenessEncodeIdentity:
    """Turn the faces of photos into an identity."""

    DISPLAY_NAME = "Encode Identity"
    CATEGORY = "Likeness/identity"
    DESCRIPTION = (
        "Encodes the faces of one or more photos of a person. Changing a strength later does not run this node again."
    )
    RETURN_TYPES = (IDENTITY, "IMAGE", "STRING")
    RETURN_NAMES = ("identity", "crops", "report")
    OUTPUT_TOOLTIPS = (
        "The identity, one entry for each face.",
        "The aligned faces that were encoded.",
        "What was encoded and how.",
    )
    FUNCTION = "encode"

    @classmethod
    def INPUT_TYPES(cls) -> Schema:  # noqa: N802 (the host's name)
        """Inputs as the host asks for them."""
        return {
            "required": {
                "images": ("IMAGE", {"tooltip": "The photos in which the faces were found."}),
                "faces": (FACES, {"tooltip": "From 'Detect Faces' or 'Select Faces'."}),
                "encoder": (ENCODER, {"tooltip": "From 'Load Face Encoder'."}),
                "which": (
                    ["best", "all"],
                    {"default": "best", "tooltip": "best: the first face of each photo. all: every face."},
                ),
                "on_missing_face": ON_MISSING_FACE,
            },
            "optional": {
                "mask": (
                    "MASK",
                    {
                        "tooltip": "Head masks, one or one per photo. FACT was trained on faces without background; "
                        "without a mask its identity is weaker."
                    },
                ),
                "clip_vision": (
                    "CLIP_VISION",
                    {"tooltip": "For FaceID-Plus: CLIP-ViT-H-14, from the host's CLIP vision loader."},
                ),
            },
        }

    def encode(
        self,
        images: Tensor,
        faces: FaceBatch,
        encoder: LoadedEncoder,
        which: Which,
        on_missing_face: OnMissingFace,
        mask: Tensor | None = None,
        clip_vision: Any = None,
    ) -> dict[str, Any]:
        """Run the encoder, and the image encoder where one is connected."""
        from ..adapters.encoders.base import chosen_crops, encode_photos
        from ..adapters.identity_ops import identity_report, with_image_tokens
        from ..faces.images import as_rgb
        from ..faces.masks import as_mask
        from ..inject.clip_vision import image_tokens

        rgb = as_rgb(images)
        masks = None if mask is None else as_mask(mask, *rgb.shape[:3])
        bar = progress_bar(max(1, sum(faces.counts)))
        identity = encode_photos(
            encoder, rgb, faces, masks, which, on_missing_face, lambda done, total: bar.update_absolute(done, total)
        )
        if clip_vision is not None:
            crops = chosen_crops(rgb, faces, which, on_missing_face, IMAGE_CROP)
            identity = with_image_tokens(identity, *image_tokens(clip_vision, crops))
        preview = chosen_crops(rgb, faces, which, on_missing_face, PREVIEW_CROP).movedim(1, -1)
        report = identity_report(identity)
        return with_text(report, identity, preview, report)


NODES = (LikenessLoadEncoder, LikenessEncodeIdentity)
