"""What was recognised in a checkpoint, for the user and for the provenance of pictures."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

COMMERCIAL_USE = {True: "allowed", False: "not allowed", None: "not stated by the publisher"}


@dataclass(frozen=True)
class DetectionReport:
    """The facts of one recognised file.

    Attributes:
        family: id of the family.
        title: its name for people.
        base: base model it patches (``"sd15"``, ``"sdxl"``), or "" where it patches none.
        tokens: identity tokens per photo, or None.
        layers: layers of the base model it patches, or None.
        dtype: dtype of most of its numbers, such as ``"float16"``.
        weight_bytes: size of its tensors when loaded as they are.
        encode_bytes: memory its weights need while an identity is projected; None if not estimated.
        sample_bytes: memory its weights need while sampling; None if not estimated.
        code_licence: licence of the code it follows.
        weight_licence: licence of the weights.
        commercial: whether commercial use of the weights is allowed; None where nobody says.
        variant: variant of the family, or None where there is only one.
        notes: further sentences.
    """

    family: str
    title: str
    base: str
    tokens: int | None
    layers: int | None
    dtype: str
    weight_bytes: int
    encode_bytes: int | None
    sample_bytes: int | None
    code_licence: str
    weight_licence: str
    commercial: bool | None
    variant: str | None = None
    notes: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """All facts as plain values."""
        return asdict(self) | {"notes": list(self.notes)}

    def as_text(self) -> str:
        """One fact per line; unknown facts are left out, except the licence, where not knowing is a fact."""
        facts: list[tuple[str, str | int | None]] = [
            ("family", f"{self.title} ({self.family})"),
            ("variant", self.variant),
            ("base model", self.base),
            ("tokens", self.tokens),
            ("patched layers", self.layers),
            ("dtype", self.dtype),
            ("weights", _megabytes(self.weight_bytes)),
            ("memory to encode", _megabytes(self.encode_bytes)),
            ("memory to sample", _megabytes(self.sample_bytes)),
            ("code licence", self.code_licence),
            ("weight licence", self.weight_licence),
            ("commercial use", COMMERCIAL_USE[self.commercial]),
        ]
        facts += [("note", note) for note in self.notes]
        return "\n".join(f"{name}: {value}" for name, value in facts if value not in (None, ""))


def _megabytes(count: int | None) -> str | None:
    return None if count is None else f"{count / 1e6:.1f} MB"
