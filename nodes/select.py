"""Choose faces: by order, by number, or by likeness to a person."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor

from .common import ENCODER, FACES, IDENTITY, Schema, number, with_text

if TYPE_CHECKING:
    from ..adapters.encoders.base import FaceEncoder
    from ..adapters.identity import Identity
    from ..faces.types import FaceBatch


class LikenessSelectFaces:
    """Order the faces of each picture and keep some of them."""

    DISPLAY_NAME = "Select Faces"
    CATEGORY = "Likeness/faces"
    DESCRIPTION = (
        "Orders the faces of each picture and keeps those you name or click on. With a reference person, keeps the one "
        "most like them."
    )
    RETURN_TYPES = (FACES, "IMAGE", "STRING")
    RETURN_NAMES = ("faces", "overlay", "report")
    OUTPUT_TOOLTIPS = (
        "The chosen faces, in the chosen order.",
        "The pictures with the chosen faces drawn in.",
        "The same as a table.",
    )
    FUNCTION = "select"
    OUTPUT_NODE = True

    @classmethod
    def INPUT_TYPES(cls) -> Schema:  # noqa: N802 (the host's name)
        """Inputs as the host asks for them."""
        from ..faces.select import ORDERS

        return {
            "required": {
                "images": ("IMAGE", {"tooltip": "The pictures in which the faces were found."}),
                "faces": (FACES, {"tooltip": "From 'Detect Faces'."}),
                "order": (
                    [*ORDERS],
                    {"default": ORDERS[0], "tooltip": "How the faces of a picture are numbered, from 0."},
                ),
                "index": (
                    "STRING",
                    {"default": "0", "tooltip": "Numbers to keep, such as 0 or 0,2 or 1-3. Empty keeps all."},
                ),
            },
            "optional": {
                "reference": (IDENTITY, {"tooltip": "Keep the face most like this person instead of counting."}),
                "encoder": (ENCODER, {"tooltip": "Needed with a reference: the encoder that made it."}),
                "limit": number(
                    -1.0,
                    -1.0,
                    2.0,
                    0.01,
                    "With a reference: least cosine to count as the same person (for dlib the largest "
                    "distance). -1 takes the encoder's own threshold.",
                ),
            },
        }

    def select(
        self,
        images: Tensor,
        faces: FaceBatch,
        order: str,
        index: str,
        reference: Identity | None = None,
        encoder: FaceEncoder | None = None,
        limit: float = -1.0,
    ) -> dict[str, Any]:
        """Select by order and number, or by reference."""
        from ..adapters.encoders.base import pictures_of_faces, with_embeddings
        from ..evaluation.similarity import select_by_reference
        from ..faces.overlay import draw_faces
        from ..faces.report import faces_table
        from ..faces.select import choose_in_batch
        from ..inject.face_picker import face_choices

        rgb = pictures_of_faces(images, faces)
        if reference is None:
            chosen = choose_in_batch(faces, order, index, keep_empty=True)
        else:
            known = faces if encoder is None else with_embeddings(faces, rgb, encoder)
            chosen = select_by_reference(known, reference, None if limit <= -1.0 else limit)
        report = faces_table(chosen)
        shown = with_text(report, chosen, draw_faces(rgb, chosen), report)
        shown["ui"]["likeness_faces"] = face_choices(rgb, faces, chosen, order, reference is not None)
        return shown


NODES = (LikenessSelectFaces,)
