"""What made a picture or a clip: which of this pack's nodes took part, which model files they read (name, content
digest, licence), and whose identity was used, as a hash; never the identity itself.

The manifest is JSON under the name ``likeness`` in a file's texts (`media.texts` reads and writes them).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from ..faces.errors import LikenessError
from .errors import IdentityMismatch
from .identity import Identity

NAME = "likeness"
FORMAT = "likeness.provenance.v1"
VERSION = "0.1.0"
_LARGEST = 4 << 20


class BadManifest(LikenessError):
    """A file without provenance, or with one that cannot be read."""


@dataclass(frozen=True)
class ModelUse:
    """A model file that took part.

    Attributes:
        file: its name.
        family: id of the recognised system, or "" where it is none of this pack's.
        digest: of the file's description, its size and samples of its content; files that differ in training differ
            in it.
        code_licence, weight_licence: as far as they are known.
        commercial: whether the weights may be used commercially; None where nobody says.
    """

    file: str
    family: str = ""
    digest: str = ""
    code_licence: str = ""
    weight_licence: str = ""
    commercial: bool | None = None


@dataclass(frozen=True)
class Manifest:
    """What made a file.

    Attributes:
        nodes: this pack's nodes in the graph, each once.
        models: the files they read.
        identities: digests of the identities used; empty where only the run itself could know them.
        notes: sentences, such as warnings about licences.
        version: of this pack.
    """

    nodes: tuple[str, ...] = ()
    models: tuple[ModelUse, ...] = ()
    identities: tuple[str, ...] = ()
    notes: tuple[str, ...] = field(default=())
    version: str = VERSION

    def as_dict(self) -> dict[str, Any]:
        """Plain values, with the format's name."""
        return {"format": FORMAT, **asdict(self)}

    def with_identities(self, digests: Sequence[str]) -> Manifest:
        """A copy that names these identities too."""
        found = tuple(dict.fromkeys((*self.identities, *digests)))
        return Manifest(self.nodes, self.models, found, self.notes, self.version)


def identity_digests(identities: Sequence[Any]) -> list[str]:
    """The hashes of identities.

    Raises:
        IdentityMismatch: a value that is none.
    """
    for one in identities:
        if not isinstance(one, Identity):
            raise IdentityMismatch(
                "provenance",
                expected="identities",
                found=type(one).__name__,
                cure="connect outputs of 'Encode Identity'",
            )
    return [one.digest for one in identities]


def from_dict(values: Any, where: str) -> Manifest:
    """A manifest from plain values.

    Raises:
        BadManifest: values of another format.
    """
    if not isinstance(values, dict) or values.get("format") != FORMAT:
        raise _bad(where, "another content")
    try:
        models = tuple(_model_use(model) for model in values["models"])
        lists = {name: tuple(map(_text, values[name])) for name in ("nodes", "identities", "notes")}
        return Manifest(models=models, version=_text(values["version"]), **lists)
    except (KeyError, TypeError) as error:
        raise _bad(where, f"one without {error}" if isinstance(error, KeyError) else "one of another shape") from error


def manifest_of(texts: Mapping[str, str], where: str) -> Manifest:
    """The manifest among the texts of a file.

    It is looked for under its own name first, then in the graph that the host's own save nodes write.

    Raises:
        BadManifest: there is none, or one that cannot be read.
    """
    if NAME in texts:
        return from_dict(_decoded(texts[NAME], where), where)
    found = in_prompt(_decoded(texts.get("prompt", "null"), where))
    if found is None:
        raise _bad(where, "none")
    return from_dict(found, where)


def in_prompt(prompt: Any) -> Any:
    """The plain values of the manifest that a graph carries with one of its nodes, or None."""
    for node in prompt.values() if isinstance(prompt, dict) else ():
        about = node.get("_meta") if isinstance(node, dict) else None
        if isinstance(about, dict) and NAME in about:
            return about[NAME]
    return None


def manifest_text(manifest: Manifest) -> str:
    """The manifest as people read it, one fact per line."""
    lines = [f"made with Likeness {manifest.version}", f"nodes: {', '.join(manifest.nodes) or 'none named'}"]
    for model in manifest.models:
        may = {True: "allowed", False: "not allowed", None: "not stated"}[model.commercial]
        licence = model.weight_licence or "not stated"
        about = f" ({model.family})" if model.family else ""
        lines.append(f"model: {model.file}{about}, {model.digest[:12]}, weights {licence}, commercial use {may}")
    lines.append(f"identities: {', '.join(one[:12] for one in manifest.identities) or 'not recorded'}")
    return "\n".join([*lines, *(f"note: {note}" for note in manifest.notes)])


def _model_use(values: Any) -> ModelUse:
    if not isinstance(values, dict) or values.get("commercial") not in (True, False, None):
        raise TypeError
    told: dict[str, Any] = {name: value if name == "commercial" else _text(value) for name, value in values.items()}
    return ModelUse(**told)


def _text(value: Any) -> str:
    """Anybody can write the file: control characters and halves of letters would reach a terminal."""
    if not isinstance(value, str):
        raise TypeError
    return "".join(sign if sign.isprintable() else "?" for sign in value)


def _decoded(text: str, where: str) -> Any:
    if len(text) > _LARGEST:
        raise _bad(where, f"a text of {len(text)} characters")
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _bad(where, "a text that is no JSON") from error


def _bad(where: str, found: str) -> BadManifest:
    return BadManifest(
        where,
        expected=f"provenance of format {FORMAT}",
        found=found,
        cure="use a PNG, MP4, MOV or MKV as a save node of ComfyUI or of this pack wrote it",
    )
