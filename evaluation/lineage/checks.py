"""What can be said about a model file's origin, offline: eight checks, each with a severity."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from ...adapters.checkpoint import CheckpointHeader
from ...adapters.model_spec import BASE_HASH, TENSORS_HASH
from .architecture import base_of_claims, base_of_tensors
from .licences import MEANINGS, lost, normalised, restrictions, strictest
from .model_card import ModelCard, plain

Severity = Literal["warning", "note", "info"]
_SHA256 = 64


@dataclass(frozen=True)
class Finding:
    """One thing found.

    Attributes:
        check: its name, such as "licence drift".
        severity: only a warning makes a file not ok.
        text: the sentence.
    """

    check: str
    severity: Severity
    text: str


@dataclass(frozen=True)
class Part:
    """Something that is needed beside the file when it is used, and its licence."""

    name: str
    licence: str | None


def lineage(metadata: Mapping[str, str], card: ModelCard) -> Finding:
    """Is there a base model named anywhere?"""
    named = [*card.base_models]
    for key in ("ss_sd_model_name", "ss_base_model_version", "modelspec.merged_from", "modelspec.architecture", "base"):
        if metadata.get(key):
            named.append(f"{plain(metadata[key])} ({key})")
    return Finding("lineage", "note", f"base model: {', '.join(dict.fromkeys(named)) or 'unstated'}")


def drift(child: str | None, parents: Sequence[str | None]) -> Finding:
    """Did the file's licence lose restrictions that a base model's licence has?"""
    gone = lost(parents, child)
    if gone is None:
        text = "licence drift cannot be told: the licence of the file or of its base is unstated or unknown"
        return Finding("licence drift", "note", text)
    told = ", ".join(f"{word} ({MEANINGS[word]})" for word in gone)
    if gone:
        shown = ", ".join(plain(parent or "") for parent in parents)
        text = f"possible licence drift: {plain(child or '')} has lost {told} of {shown}"
        return Finding("licence drift", "warning", text)
    shared = [one for one in parents if "SA" in (restrictions(normalised(one)) or ())]
    if shared and "SA" not in (restrictions(normalised(child)) or ()):
        return Finding("licence drift", "note", "a share-alike base asks for a licence of the same family")
    return Finding("licence drift", "info", "no restriction of the base model's licence got lost")


def informative(card: ModelCard | None) -> Finding:
    """Is there a card that says something?"""
    if card is None:
        return Finding("model card", "note", "no model card was given")
    return Finding("model card", "note", "the card has some text" if card.informative else "card not informative")


def base_file(metadata: Mapping[str, str], sha256: str, legacy: str) -> Finding:
    """Was the file trained on the base file of these hashes?"""
    whole, short = metadata.get(BASE_HASH, ""), metadata.get("ss_sd_model_hash", "")
    if not whole and not short:
        return Finding("base file", "note", "the hash of the base model is unstated")
    same = whole.lower() == sha256 if whole else short.lower() == legacy
    return Finding("base file", "note", "trained on this base file" if same else "trained on another file")


def architecture(header: CheckpointHeader) -> Finding:
    """Do the tensors fit what the metadata claims?"""
    claim, found = base_of_claims(header.metadata), base_of_tensors(header)
    if claim is None or found is None:
        return Finding("architecture", "info", f"tensors: {found or 'not told'}; claimed: {claim or 'unstated'}")
    if claim != found:
        return Finding("architecture", "warning", f"the metadata claims {claim}, the tensors are of {found}")
    return Finding("architecture", "info", f"tensors and metadata agree on {found}")


def carbon(card: ModelCard) -> Finding | None:
    """The carbon that the card reports."""
    return Finding("carbon", "info", f"reported emissions: {card.carbon} CO2eq") if card.carbon else None


def data_hash(metadata: Mapping[str, str], sha256: str) -> Finding:
    """Were the tensors changed after saving?"""
    own = metadata.get(TENSORS_HASH, "").lower()
    spec = metadata.get("modelspec.hash_sha256", "").lower().removeprefix("0x")
    if len(own) == _SHA256:
        same = own == sha256
        text = "the tensors are as they were saved" if same else "changed after saving: the tensors have another hash"
        return Finding("data hash", "info" if same else "warning", text)
    if spec:
        # One widely used trainer wrote another digest here, so a difference proves nothing.
        return Finding("data hash", "info", "as saved" if spec == sha256 else "unverifiable: another kind of hash")
    return Finding("data hash", "info", "the hash of the tensors is unstated")


def at_run_time(parts: Sequence[Part]) -> Finding:
    """What holds for the file together with everything it needs when it runs."""
    words, unknown = strictest(part.licence for part in parts)
    told = ", ".join(f"{word} ({MEANINGS[word]})" for word in words) or "no restriction known"
    named = "; ".join(f"{part.name}: {plain(part.licence or 'not stated')}" for part in parts)
    missing = f"; terms not known: {len(unknown)} of {len(parts)}" if unknown else ""
    return Finding("in use", "info", f"{told}{missing} ({named})")


def parts_from_text(text: str) -> list[Part]:
    """Parts from lines ``name: licence``; a line without a colon is a licence of an unnamed part."""
    found = []
    for line in filter(None, map(str.strip, text.splitlines())):
        name, colon, licence = line.rpartition(":")
        found.append(Part(plain(name) if colon else "part", normalised(licence)))
    return found
