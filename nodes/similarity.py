"""How alike persons are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .common import IDENTITY, Schema, with_text

if TYPE_CHECKING:
    from ..adapters.identity import Identity


class LikenessIdentitySimilarity:
    """Compare every face of one identity with every face of another."""

    DISPLAY_NAME = "Identity Similarity"
    CATEGORY = "Likeness/identity"
    DESCRIPTION = "Compares identities of one encoder, and says by that encoder's threshold who is the same person."
    RETURN_TYPES = ("STRING", "FLOAT")
    RETURN_NAMES = ("report", "best")
    OUTPUT_TOOLTIPS = (
        "The matrix and the verdicts as text.",
        "The best value: highest cosine, or smallest distance for dlib.",
    )
    FUNCTION = "compare"
    OUTPUT_NODE = True

    @classmethod
    def INPUT_TYPES(cls) -> Schema:  # noqa: N802 (the host's name)
        """Inputs as the host asks for them."""
        return {
            "required": {
                "identity_a": (IDENTITY, {"tooltip": "Rows of the table."}),
                "identity_b": (IDENTITY, {"tooltip": "Columns of the table."}),
            }
        }

    def compare(self, identity_a: Identity, identity_b: Identity) -> dict[str, Any]:
        """Compute and describe the matrix."""
        from ..evaluation.similarity import best_similarity, similarity_matrix, table_text

        matrix = similarity_matrix(identity_a, identity_b)
        report = table_text(matrix)
        return with_text(report, report, best_similarity(matrix))


NODES = (LikenessIdentitySimilarity,)
