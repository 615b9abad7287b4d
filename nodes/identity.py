"""Combine, save and load identities."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from .common import IDENTITY, Schema, with_text

if TYPE_CHECKING:
    from ..adapters.identity import Identity
    from ..adapters.identity_ops import Method

FOLDER_HINT = "output/identities or input/identities"


class LikenessCombineIdentities:
    """Make one identity of several."""

    DISPLAY_NAME = "Combine Identities"
    CATEGORY = "Likeness/identity"
    DESCRIPTION = "Combines identities of one encoder: several photos of a person, or a blend of persons."
    RETURN_TYPES = (IDENTITY, "STRING")
    RETURN_NAMES = ("identity", "report")
    OUTPUT_TOOLTIPS = ("The combined identity.", "What went in and how.")
    FUNCTION = "combine"

    @classmethod
    def INPUT_TYPES(cls) -> Schema:  # noqa: N802 (the host's name)
        """Inputs as the host asks for them."""
        from ..adapters.identity_ops import METHODS

        weight = {
            "default": 1.0,
            "min": 0.0,
            "max": 10.0,
            "step": 0.05,
            "tooltip": "Weight of this identity, for 'weighted'; its quality for 'precision'.",
        }
        optional: dict[str, Any] = {
            "identity_2": (IDENTITY, {"tooltip": "The second identity; none combines the entries of the first."})
        }
        optional |= {f"identity_{i}": (IDENTITY, {"tooltip": "A further identity."}) for i in (3, 4)}
        optional |= {f"weight_{i}": ("FLOAT", dict(weight)) for i in (1, 2, 3, 4)}
        optional["qualities"] = (
            "STRING",
            {
                "default": "",
                "tooltip": "For 'precision': one number for each face, in order, as 'Face Quality' gives them. Empty: "
                "the weights of the identities are their qualities.",
            },
        )
        return {
            "required": {
                "identity_1": (IDENTITY, {"tooltip": "The first identity."}),
                "method": (
                    [*METHODS],
                    {
                        "default": "average",
                        "tooltip": "average: mean. normalised average: mean of unit embeddings. concat: keep all side "
                        "by side. weighted: mean with the weights below.",
                    },
                ),
            },
            "optional": optional,
        }

    def combine(self, identity_1: Identity, method: Method, **others: Any) -> tuple[Identity, str]:
        """Combine those that are connected."""
        from ..adapters.identity_ops import combine, identity_report
        from ..adapters.precision import qualities_from_text

        identities, weights = [identity_1], [float(others.get("weight_1", 1.0))]
        for number in (2, 3, 4):
            identity = others.get(f"identity_{number}")
            if identity is not None:
                identities.append(identity)
                weights.append(float(others.get(f"weight_{number}", 1.0)))
        qualities = qualities_from_text(str(others.get("qualities", "")))
        combined = combine(identities, method, qualities if method == "precision" and qualities else weights)
        return combined, identity_report(combined)


class LikenessSaveIdentity:
    """Write an identity to a file."""

    DISPLAY_NAME = "Save Identity"
    CATEGORY = "Likeness/identity"
    DESCRIPTION = "Saves an identity as a safetensors file under output/identities, never over an older one."
    RETURN_TYPES = ("STRING",)
    RETURN_NAMES = ("file",)
    OUTPUT_TOOLTIPS = ("Name of the file, as 'Load Identity' lists it.",)
    FUNCTION = "save"
    OUTPUT_NODE = True

    @classmethod
    def INPUT_TYPES(cls) -> Schema:  # noqa: N802 (the host's name)
        """Inputs as the host asks for them."""
        return {
            "required": {
                "identity": (IDENTITY, {"tooltip": "The identity to keep."}),
                "name": (
                    "STRING",
                    {"default": "person", "tooltip": "Beginning of the file's name; a number is added."},
                ),
            }
        }

    def save(self, identity: Identity, name: str) -> dict[str, Any]:
        """Write the file."""
        from ..adapters.identity_ops import save_identity
        from ..inject import identity_files
        from ..inject.file_names import writing

        path = identity_files.next_path(name)
        with writing(path):
            save_identity(identity, path)
        return with_text(f"saved {path.name}", identity_files.listed_name(path))


class LikenessLoadIdentity:
    """Read an identity from a file."""

    DISPLAY_NAME = "Load Identity"
    CATEGORY = "Likeness/identity"
    DESCRIPTION = f"Loads an identity that was saved under {FOLDER_HINT}."
    RETURN_TYPES = (IDENTITY, "STRING")
    RETURN_NAMES = ("identity", "report")
    OUTPUT_TOOLTIPS = ("The identity.", "What the file holds.")
    FUNCTION = "load"

    @classmethod
    def INPUT_TYPES(cls) -> Schema:  # noqa: N802 (the host's name)
        """Inputs as the host asks for them."""
        from ..inject import identity_files

        return {"required": {"file": (identity_files.list_names(), {"tooltip": f"A file in {FOLDER_HINT}."})}}

    @classmethod
    def IS_CHANGED(cls, file: str) -> str:  # noqa: N802 (the host's name)
        """Read the file again when it was written again."""
        from ..inject import identity_files
        from ..inject.file_names import file_stamp

        return file_stamp(identity_files.find(file))

    def load(self, file: str) -> tuple[Identity, str]:
        """Read the file."""
        from ..adapters.identity_ops import identity_report, load_identity
        from ..inject import identity_files

        path: Path = identity_files.find(file)
        identity = load_identity(path)
        return identity, identity_report(identity)


NODES = (LikenessCombineIdentities, LikenessSaveIdentity, LikenessLoadIdentity)
