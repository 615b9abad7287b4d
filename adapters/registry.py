"""The one ordered list of families, and how a file finds its own: by keys and shapes, never by its name."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from ..faces.errors import LikenessError
from .checkpoint import CheckpointHeader, read_header, unsafe
from .errors import AmbiguousCheckpoint, UnknownCheckpoint
from .family import Ambiguity, Family, Kind, Licence, Match, claim, rebuild, report
from .hints import Hint, likely_kind
from .model_table import published_variant
from .report import DetectionReport

__all__ = [
    "MODULES",
    "Ambiguity",
    "DetectionReport",
    "Family",
    "Kind",
    "Licence",
    "Match",
    "describe",
    "families",
    "load",
    "recognise",
]

AUTO = "auto"
VARIANT_METADATA = "likeness.variant"

# Kind and module of every family; each module has a file ``family.py`` with ``FAMILY``.
MODULES: tuple[tuple[Kind, str], ...] = (
    ("adapter", "families.fact"),
    ("adapter", "families.ip_adapter_faceid"),
    ("adapter", "families.ip_adapter"),
    ("adapter", "families.instantid"),
    ("adapter", "families.photomaker"),
    ("adapter", "families.id_animator"),
    ("adapter", "families.w_plus"),
    ("adapter", "families.restorerid"),
    ("adapter", "families.dreamfit"),
    ("adapter", "families.pulid_sdxl"),
    ("adapter", "families.pulid_flux"),
    ("adapter", "families.am_adapter"),
    ("adapter", "families.am_adapter.controlnext"),
    ("adapter", "families.lafr"),
    ("adapter", "families.imagineid.frames"),
    ("adapter", "families.dreamid"),
    ("adapter", "families.hunyuan_avatar"),
    ("adapter", "families.avatar_emotion"),
    ("adapter", "families.dreamid_v"),
    ("adapter", "families.musetalk"),
    ("adapter", "families.unavglip"),
    ("encoder", "encoders.eva_clip"),
    ("encoder", "encoders.transface"),
    ("encoder", "encoders.e4e"),
    ("encoder", "encoders.topofr"),
    ("encoder", "encoders.arcface_iresnet"),
    ("encoder", "encoders.face_representation"),
    ("encoder", "encoders.musiq"),
    ("encoder", "encoders.whisper"),
    ("encoder", "families.imagineid"),
    ("detector", "detectors.retinaface"),
    ("detector", "detectors.damofd"),
    ("swapper", "swappers.reswapper"),
    ("parser", "parsers.segface"),
)


class DuplicateFamily(LikenessError):
    """Two families of one id."""


def families(kind: Kind | None = None, modules: Sequence[tuple[Kind, str]] = MODULES) -> tuple[Family, ...]:
    """Return the families of ``kind`` (all by default) in order; their modules are imported now, not before.

    Raises:
        DuplicateFamily: two families have one id.
    """
    found: dict[str, Family] = {}
    for family_kind, module in modules:
        if kind not in (None, family_kind):
            continue
        family: Family = import_module(f".{module}.family", __package__).FAMILY
        if family.id in found:
            raise DuplicateFamily(
                f"family {family.id}",
                expected="one module",
                found=f"two ({type(found[family.id]).__module__} and {module})",
                cure="rename one of them",
            )
        found[family.id] = family
    return tuple(found.values())


def recognise(
    header: CheckpointHeader,
    kind: Kind | None = None,
    variant: str = AUTO,
    candidates: Sequence[Family] | None = None,
) -> Match:
    """Find the family (and variant) of a file.

    Args:
        header: what the file holds.
        kind: consider only such families.
        variant: ``"auto"``, or the variant to take where tensors cannot tell.
        candidates: the families to ask instead of the project's own.

    Raises:
        UnknownCheckpoint: no family takes it; carries each one's reason.
        AmbiguousCheckpoint: two families take it, or the variant cannot be told or is none of this file's.
        UnsafeCheckpoint: no family takes it, and it is a pickle that asks for code.
    """
    asked = families(kind) if candidates is None else [one for one in candidates if kind in (None, one.kind)]
    answers = {family.id: (family, claim(family, header)) for family in asked}
    claims = [(family, answer) for family, answer in answers.values() if not isinstance(answer, str)]
    if not claims:
        reasons = {name: str(reason) for name, (_, reason) in answers.items()}
        raise _unknown(header, reasons, _of_another_kind(header, kind) if candidates is None else None)
    if len(claims) > 1:
        raise _several(header, [family for family, _ in claims])
    family, answer = claims[0]
    if isinstance(answer, Ambiguity):
        return Match(family, _choose(header, family, answer, variant), answer.hyper)
    if variant not in (AUTO, answer.variant):
        raise _wrong_variant(header, family, () if answer.variant is None else (answer.variant,), variant)
    return answer


def load(path: Path | str, kind: Kind | None = None, variant: str = AUTO) -> Any:
    """Read, recognise and build the file at ``path``; return what its family builds. Raises the errors of each step."""
    header = read_header(path)
    match = recognise(header, kind, variant)
    return rebuild(match.family, header, match)


def describe(path: Path | str, kind: Kind | None = None, variant: str = AUTO) -> DetectionReport:
    """Read and recognise the file at ``path`` without loading a tensor; return the report."""
    header = read_header(path)
    match = recognise(header, kind, variant)
    return report(match.family, header, match)


def _choose(header: CheckpointHeader, family: Family, answer: Ambiguity, variant: str) -> str:
    if variant != AUTO:
        if variant not in answer.candidates:
            raise _wrong_variant(header, family, answer.candidates, variant)
        return variant
    published = published_variant(header.path, header.size, family.id)
    for choice in (published, header.metadata.get(VARIANT_METADATA)):
        if choice in answer.candidates:
            return str(choice)
    raise AmbiguousCheckpoint(
        header.path.name,
        expected=f"a file of {family.title} whose variant can be told",
        found=f"one that fits {' and '.join(answer.candidates)} ({answer.why})",
        cure=f"set the option variant to {' or '.join(answer.candidates)}",
        candidates=answer.candidates,
    )


def _wrong_variant(
    header: CheckpointHeader, family: Family, candidates: tuple[str, ...], variant: str
) -> AmbiguousCheckpoint:
    fitting = " or ".join(candidates) or "no choice of variant"
    return AmbiguousCheckpoint(
        header.path.name,
        expected=f"{fitting} for this file of {family.title}",
        found=f"variant {variant}",
        cure=f"set the option variant to {' or '.join((AUTO, *candidates))}",
        candidates=candidates,
    )


def _several(header: CheckpointHeader, claiming: Sequence[Family]) -> AmbiguousCheckpoint:
    return AmbiguousCheckpoint(
        header.path.name,
        expected="a file of one family",
        found=f"one that {' and '.join(f'{family.title} ({family.id})' for family in claiming)} both take",
        cure="report this file, and use a loader that takes only one of these kinds",
        candidates=tuple(family.id for family in claiming),
    )


def _of_another_kind(header: CheckpointHeader, kind: Kind | None) -> Hint | None:
    """Say so if a family of another kind takes the file: it lies in the wrong folder or went to the wrong loader."""
    for family in families():
        if kind not in (None, family.kind) and not isinstance(claim(family, header), str):
            cure = f"put it into models/{family.folder} and load it as {family.kind}"
            return Hint(f"a file of {family.title}, of kind {family.kind}", cure)
    return None


def _unknown(header: CheckpointHeader, reasons: dict[str, str], hint: Hint | None) -> LikenessError:
    if header.foreign:
        return unsafe(header)
    hint = hint or likely_kind(header)
    told = "; ".join(f"{name}: {reason}" for name, reason in reasons.items())
    return UnknownCheckpoint(
        header.path.name,
        expected=f"a file of {', '.join(reasons) or 'a known family'}",
        found=f"{hint.found if hint else f'{len(header.tensors)} tensors of no known layout'} ({told})",
        cure=hint.cure if hint else "choose a file that the help page of this loader lists",
        reasons=reasons,
    )
