"""Compare restorers with each other and with the original."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor

from ..faces.errors import BadImage
from .common import IDENTITY, Schema, number, with_text

if TYPE_CHECKING:
    from ..adapters.identity import Identity
    from ..evaluation.compare import Candidate

PLACES = (1, 2, 3, 4)
NAMES = {1: "degraded", 2: "restorer 1", 3: "restorer 2", 4: "restorer 3"}


class LikenessCompareRestorers:
    """One table of all results."""

    DISPLAY_NAME = "Compare Restorers"
    CATEGORY = "Likeness/restore"
    DESCRIPTION = (
        "Compares up to four results with the original: nearness of the pixels, whether it is still the same person, "
        "and a quality score where one is connected."
    )
    RETURN_TYPES = ("STRING", "STRING")
    RETURN_NAMES = ("report", "csv")
    OUTPUT_TOOLTIPS = ("The table as text.", "The table as CSV.")
    FUNCTION = "compare"
    OUTPUT_NODE = True

    @classmethod
    def INPUT_TYPES(cls) -> Schema:  # noqa: N802 (the host's name)
        """Inputs as the host asks for them."""
        optional: dict[str, Any] = {
            "identity_original": (
                IDENTITY,
                {"tooltip": "Of the original's faces: one for each picture, encoded with on_missing_face keep."},
            )
        }
        for place in PLACES:
            score = f"Quality of result {place}, such as MUSIQ from 'Picture Quality'; -1 for none."
            optional |= {
                f"name_{place}": ("STRING", {"default": NAMES[place], "tooltip": f"Name of result {place}."}),
                f"images_{place}": ("IMAGE", {"tooltip": f"Result {place}, as many pictures as the original."}),
                f"identity_{place}": (IDENTITY, {"tooltip": f"Of the faces of result {place}, by the same encoder."}),
                f"score_{place}": number(-1.0, -1.0, 1000.0, 0.01, score),
            }
        original = {"tooltip": "The pictures before they were degraded."}
        return {"required": {"original": ("IMAGE", original)}, "optional": optional}

    def compare(self, original: Tensor, identity_original: Identity | None = None, **given: Any) -> dict[str, Any]:
        """Measure what is connected."""
        from ..evaluation.compare import compare, comparison_csv, comparison_text

        candidates = [_candidate(place, given) for place in PLACES if _connected(place, given)]
        if not candidates:
            raise BadImage(
                "Compare Restorers",
                expected="at least one result",
                found="none connected",
                cure="connect images_1, identity_1 or score_1",
            )
        rows = compare(original, identity_original, candidates)
        report = comparison_text(rows, None if identity_original is None else identity_original.encoder)
        return with_text(report, report, comparison_csv(rows))


def _connected(place: int, given: dict[str, Any]) -> bool:
    there = any(given.get(f"{kind}_{place}") is not None for kind in ("images", "identity"))
    return there or given.get(f"score_{place}", -1.0) >= 0


def _candidate(place: int, given: dict[str, Any]) -> Candidate:
    from ..evaluation.compare import Candidate

    score = float(given.get(f"score_{place}", -1.0))
    return Candidate(
        str(given.get(f"name_{place}", NAMES[place])),
        given.get(f"images_{place}"),
        given.get(f"identity_{place}"),
        None if score < 0 else score,
    )


NODES = (LikenessCompareRestorers,)
