"""Cut faces out, find out who they are, and put them back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor

from ..faces.errors import NoFaceFound
from .common import ENCODER, FACES, IDENTITY, Schema, number, with_text

if TYPE_CHECKING:
    from ..adapters.identity import Identity
    from ..faces.types import FaceBatch
    from ..inject.loaded_networks import LoadedEncoder

PEOPLE = (1, 2, 3, 4)


class LikenessCropFaces:
    """Cut faces out of pictures."""

    DISPLAY_NAME = "Crop Faces"
    CATEGORY = "Likeness/faces"
    DESCRIPTION = "Turns every face upright and cuts it out, all in one size; 'Paste Faces' puts the crops back."
    RETURN_TYPES = ("IMAGE", FACES, "INT")
    RETURN_NAMES = ("crops", "faces", "count")
    OUTPUT_TOOLTIPS = (
        "The crops as one batch: picture by picture, face by face.",
        "The faces with the places of their crops, for 'Paste Faces'.",
        "Number of crops.",
    )
    FUNCTION = "crop"

    @classmethod
    def INPUT_TYPES(cls) -> Schema:  # noqa: N802 (the host's name)
        """Inputs as the host asks for them."""
        from ..faces.crops import TEMPLATE
        from ..faces.templates import TEMPLATES

        size = {"default": 512, "min": 64, "max": 2048, "step": 8, "tooltip": "Side of the crops; restorers: 512."}
        template = "Where the face lies in its crop. face_restore_512: as restorers were trained (FFHQ)."
        return {
            "required": {
                "images": ("IMAGE", {"tooltip": "The pictures in which the faces were found."}),
                "faces": (FACES, {"tooltip": "The faces to cut out, chosen before."}),
                "size": ("INT", size),
                "template": (sorted(TEMPLATES), {"default": TEMPLATE, "tooltip": template}),
            }
        }

    def crop(self, images: Tensor, faces: FaceBatch, size: int, template: str) -> tuple[Tensor, FaceBatch, int]:
        """Cut."""
        from ..faces.crops import cut_faces
        from ..faces.images import as_rgb

        crops, cropped = cut_faces(as_rgb(images), faces, size, template)
        return crops, cropped, len(crops)


class LikenessPasteFaces:
    """Put crops back into their pictures."""

    DISPLAY_NAME = "Paste Faces"
    CATEGORY = "Likeness/faces"
    DESCRIPTION = (
        "Puts crops back where they were cut out, with a soft rim. Every pixel outside of them stays exactly as it is."
    )
    RETURN_TYPES = ("IMAGE",)
    RETURN_NAMES = ("images",)
    OUTPUT_TOOLTIPS = ("The whole pictures.",)
    FUNCTION = "paste"

    @classmethod
    def INPUT_TYPES(cls) -> Schema:  # noqa: N802 (the host's name)
        """Inputs as the host asks for them."""
        mask = "Where to take a crop, in its own pixels, such as the skin; one for all or one for each."
        return {
            "required": {
                "images": ("IMAGE", {"tooltip": "The pictures the faces were cut out of."}),
                "faces": (FACES, {"tooltip": "From 'Crop Faces'."}),
                "crops": ("IMAGE", {"tooltip": "The crops, in the same order; any square size."}),
                "strength": number(1.0, 0.0, 1.0, 0.01, "How much of the crop is seen; 0 leaves the pictures alone."),
            },
            "optional": {"mask": ("MASK", {"tooltip": mask})},
        }

    def paste(
        self, images: Tensor, faces: FaceBatch, crops: Tensor, strength: float, mask: Tensor | None = None
    ) -> tuple[Tensor]:
        """Put back."""
        from ..faces.crops import paste_crops
        from ..faces.images import as_rgb

        return (paste_crops(as_rgb(images), faces, as_rgb(crops, "crops"), mask, strength),)


class LikenessMatchReferences:
    """Find known people among faces."""

    DISPLAY_NAME = "Match References"
    CATEGORY = "Likeness/identity"
    DESCRIPTION = (
        "Finds up to four people among the faces of photos. Each face takes the most alike of them as its reference; "
        "faces of nobody are left alone, and the report says so."
    )
    RETURN_TYPES = (FACES, IDENTITY, "STRING", "INT")
    RETURN_NAMES = ("faces", "identity", "report", "count")
    OUTPUT_TOOLTIPS = (
        "Only the faces that are one of the people.",
        "One reference for each of these faces, in their order.",
        "Who every face is, how alike, and which are left alone.",
        "Number of faces found.",
    )
    FUNCTION = "match"
    OUTPUT_NODE = True

    @classmethod
    def INPUT_TYPES(cls) -> Schema:  # noqa: N802 (the host's name)
        """Inputs as the host asks for them."""
        limit = "Least cosine that counts as the same person (for dlib the largest distance). -1: the encoder's own."
        once = "A person is on a photo once at most: the face most like them."
        optional: dict[str, Any] = {f"person_{i}": (IDENTITY, {"tooltip": f"Person {i}."}) for i in PEOPLE[1:]}
        for i in PEOPLE:
            told = f"What person {i}'s faces get, if another encoder made it than the one that compares."
            optional[f"reference_{i}"] = (IDENTITY, {"tooltip": told})
        return {
            "required": {
                "images": ("IMAGE", {"tooltip": "The photos in which the faces were found."}),
                "faces": (FACES, {"tooltip": "All faces, from 'Detect Faces'."}),
                "encoder": (ENCODER, {"tooltip": "The encoder that made the people's identities."}),
                "person_1": (IDENTITY, {"tooltip": "Person 1."}),
                "limit": number(-1.0, -1.0, 2.0, 0.01, limit),
                "once": ("BOOLEAN", {"default": True, "tooltip": once}),
            },
            "optional": optional,
        }

    def match(
        self,
        images: Tensor,
        faces: FaceBatch,
        encoder: LoadedEncoder,
        person_1: Identity,
        limit: float,
        once: bool,
        **others: Any,
    ) -> dict[str, Any]:
        """Compare every face with every person."""
        from ..adapters.encoders.base import with_embeddings
        from ..evaluation.references import chosen_faces, find_people, people_table
        from ..evaluation.similarity import threshold_for
        from ..faces.images import as_rgb
        from ..inject.references import row_for_each

        named = {"person_1": person_1, **others}
        numbers = [i for i in PEOPLE if named.get(f"person_{i}") is not None]
        people = [named[f"person_{i}"] for i in numbers]
        references = [named.get(f"reference_{i}") or named[f"person_{i}"] for i in numbers]
        known = with_embeddings(faces, as_rgb(images), encoder)
        found = find_people(known, people, None if limit <= -1.0 else limit, once)
        report = people_table(found, threshold_for(encoder.id).metric)
        chosen = [one.person for one in found if one.taken and one.person is not None]
        if not chosen:
            raise NoFaceFound(
                "match references",
                expected=f"a face of one of the {len(people)} people",
                found=report.replace("\n", "; "),
                cure="give clearer references, or change the limit",
            )
        identity = row_for_each([references[person] for person in chosen])
        return with_text(report, chosen_faces(known, found), identity, report, len(chosen))


NODES = (LikenessMatchReferences, LikenessCropFaces, LikenessPasteFaces)
