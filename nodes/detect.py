"""Find faces: load a detector, detect, or take boxes, points and masks from the user."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from torch import Tensor

from ..inject import model_folders
from .common import DETECTOR, FACES, ON_MISSING_FACE, Schema, number, with_text

if TYPE_CHECKING:
    from ..faces.detect import OnMissingFace
    from ..faces.types import FaceBatch
    from ..inject.loaded_networks import LoadedDetector


class LikenessLoadDetector:
    """Choose what finds faces."""

    DISPLAY_NAME = "Load Face Detector"
    CATEGORY = "Likeness/faces"
    DESCRIPTION = "Loads a face detector. MTCNN comes with the pack's one requirement and needs no other file."
    RETURN_TYPES = (DETECTOR, "STRING")
    RETURN_NAMES = ("detector", "report")
    OUTPUT_TOOLTIPS = ("The detector.", "What was loaded, and under which licence.")
    FUNCTION = "load"

    @classmethod
    def INPUT_TYPES(cls) -> Schema:  # noqa: N802 (the host's name)
        """Inputs as the host asks for them."""
        from ..adapters.detectors import packages as detector_packages

        names = [*detector_packages.names(), *model_folders.list_files(model_folders.DETECTORS)]
        return {
            "required": {
                "detector": (
                    names,
                    {
                        "default": names[0],
                        "tooltip": "mtcnn: no file needed. insightface: needs its package and models/insightface. "
                        "Files: models/face_detectors.",
                    },
                )
            }
        }

    @classmethod
    def VALIDATE_INPUTS(cls, detector: str) -> bool | str:  # noqa: N802 (the host's name)
        """A missing file is told with its source, size, licence and folder."""
        from ..adapters.detectors import packages

        return model_folders.listed(model_folders.DETECTORS, detector, packages.names())

    def load(self, detector: str) -> tuple[LoadedDetector, str]:
        """Build the detector."""
        from ..adapters.detectors import packages as detector_packages
        from ..inject.loaded_networks import LoadedDetector

        find = partial(model_folders.find_file, model_folders.DETECTORS)
        built = detector_packages.load_named(detector, model_folders.folder_roots("insightface"), find)
        return LoadedDetector(built), detector_packages.describe(built)


class LikenessDetectFaces:
    """Find the faces of every picture."""

    DISPLAY_NAME = "Detect Faces"
    CATEGORY = "Likeness/faces"
    DESCRIPTION = (
        "Finds faces in every picture of a batch. Where nothing is found it tries again with a border and other "
        "sizes, and says so."
    )
    RETURN_TYPES = (FACES, "IMAGE", "IMAGE", "STRING", "INT")
    RETURN_NAMES = ("faces", "images", "overlay", "report", "count")
    OUTPUT_TOOLTIPS = (
        "The faces, best score first.",
        "The pictures they belong to: all of them, or with 'skip' those that have a face.",
        "The pictures with boxes, points, numbers, scores and sizes drawn in.",
        "The same as a table.",
        "Number of faces in all pictures together.",
    )
    FUNCTION = "detect"
    OUTPUT_NODE = True

    @classmethod
    def INPUT_TYPES(cls) -> Schema:  # noqa: N802 (the host's name)
        """Inputs as the host asks for them."""
        return {
            "required": {
                "images": ("IMAGE", {"tooltip": "The pictures; all of a batch are searched together."}),
                "detector": (DETECTOR, {"tooltip": "From 'Load Face Detector'."}),
                "score": number(
                    0.0,
                    0.0,
                    1.0,
                    0.01,
                    "Least score of a face. 0 takes the detector's own (MTCNN 0.9, RetinaFace 0.9, SCRFD 0.5).",
                ),
                "on_missing_face": ON_MISSING_FACE,
            }
        }

    def detect(
        self, images: Tensor, detector: LoadedDetector, score: float, on_missing_face: OnMissingFace
    ) -> dict[str, Any]:
        """Run the detector."""
        from ..faces.detect import detect_faces, require_faces
        from ..faces.images import as_rgb
        from ..faces.overlay import draw_faces
        from ..faces.report import faces_table

        rgb = as_rgb(images)
        faces, kept = detect_faces(rgb, detector, score or None, on_missing_face)
        require_faces(faces)
        report = faces_table(faces)
        return with_text(report, faces, images[kept], draw_faces(rgb[kept], faces), report, sum(faces.counts))


class LikenessFacesFromUser:
    """Take faces from boxes, points or masks."""

    DISPLAY_NAME = "Faces from Boxes, Points or Mask"
    CATEGORY = "Likeness/faces"
    DESCRIPTION = "Makes faces without a detector, from boxes, five points for each face, or the blobs of a mask."
    RETURN_TYPES = (FACES, "IMAGE", "STRING")
    RETURN_NAMES = ("faces", "overlay", "report")
    OUTPUT_TOOLTIPS = (
        "The faces, in the order given.",
        "The pictures with the faces drawn in.",
        "The same as a table.",
    )
    FUNCTION = "make"

    @classmethod
    def INPUT_TYPES(cls) -> Schema:  # noqa: N802 (the host's name)
        """Inputs as the host asks for them."""
        text: dict[str, Any] = {"default": "", "multiline": True}
        return {
            "required": {
                "images": ("IMAGE", {"tooltip": "The pictures; boxes and points hold for each of them."}),
                "boxes": (
                    "STRING",
                    {**text, "tooltip": "x1,y1,x2,y2 in pixels, one box per line or separated by ';'. Empty: none."},
                ),
                "points": (
                    "STRING",
                    {
                        **text,
                        "tooltip": "Ten numbers for each face: both eye centres, nose tip, both mouth corners (x,y "
                        "each, image-left first). Empty: estimated from the box.",
                    },
                ),
            },
            "optional": {"mask": ("MASK", {"tooltip": "Instead of boxes: each connected blob is one face."})},
        }

    def make(
        self, images: Tensor, boxes: str, points: str, mask: Tensor | None = None
    ) -> tuple[FaceBatch, Tensor, str]:
        """Read the user's boxes, points or mask."""
        from ..faces import manual
        from ..faces.images import as_rgb
        from ..faces.overlay import draw_faces
        from ..faces.report import faces_table

        rgb = as_rgb(images)
        count, height, width = rgb.shape[:3]
        faces = manual.faces_from_user((height, width), count, boxes, points, mask)
        return faces, draw_faces(rgb, faces), faces_table(faces)


NODES = (LikenessLoadDetector, LikenessDetectFaces, LikenessFacesFromUser)
