"""Attributes of faces from a few labelled ones."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .common import IDENTITY, Schema, with_text

if TYPE_CHECKING:
    from ..adapters.identity import Identity


class LikenessFewShotAttributes:
    """Learn an attribute from labelled faces and tell it of other faces."""

    DISPLAY_NAME = "Few-Shot Attributes"
    CATEGORY = "Likeness/identity"
    DESCRIPTION = (
        "Learns any attribute (smile, glasses, age group) from 5 or more labelled faces and tells it of other faces. "
        "Made for the FLR face representation; works with every face encoder. The same faces give the same answer."
    )
    RETURN_TYPES = ("STRING", "STRING", "FLOAT")
    RETURN_NAMES = ("report", "labels", "probabilities")
    OUTPUT_IS_LIST = (False, True, True)
    OUTPUT_TOOLTIPS = (
        "How well the labels can be learnt, and every face with its probabilities.",
        "The most probable label of each face, as a list; empty where a picture has no face.",
        "The probability of that label, as a list.",
    )
    FUNCTION = "classify"
    OUTPUT_NODE = True

    @classmethod
    def INPUT_TYPES(cls) -> Schema:  # noqa: N802 (the host's name)
        """Inputs as the host asks for them."""
        return {
            "required": {
                "labelled": (
                    IDENTITY,
                    {"tooltip": "5 or more faces whose labels you know, two or more of each label."},
                ),
                "labels": (
                    "STRING",
                    {
                        "default": "",
                        "multiline": True,
                        "tooltip": "One label for each labelled face, in their order, separated by commas or lines.",
                    },
                ),
                "faces": (IDENTITY, {"tooltip": "The faces to tell the attribute of, from the same encoder."}),
            }
        }

    def classify(self, labelled: Identity, labels: str, faces: Identity) -> dict[str, Any]:
        """Train the head and apply it."""
        from ..training.few_shot import attributes_text, best_labels, parse_labels, train_head

        names = parse_labels(labels)
        head = train_head(labelled, names)
        probabilities = head.probabilities(faces)
        report = attributes_text(head, names, probabilities)
        best = best_labels(head, probabilities)
        return with_text(report, report, [label for label, _ in best], [part for _, part in best])


NODES = (LikenessFewShotAttributes,)
