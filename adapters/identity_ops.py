"""Identities as values: joining several, adding picture tokens, and keeping one in a file."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional

from .errors import IdentityMismatch
from .identity import EMBEDDING, IMAGE_TOKENS, IMAGE_TOKENS_ZERO, TOKENS, Identity
from .identity_file import load_identity, save_identity
from .precision import variances_of

__all__ = ["METHODS", "Method", "combine", "identity_report", "load_identity", "save_identity", "with_image_tokens"]

Method = Literal["average", "normalised average", "concat", "weighted", "precision"]
METHODS: tuple[str, ...] = get_args(Method)
# One per identity and not per face, so it is never averaged or joined.
SHARED = frozenset({IMAGE_TOKENS_ZERO})


def combine(
    identities: Sequence[Identity], method: Method = "concat", weights: Sequence[float] | None = None
) -> Identity:
    """Join identities of one person.

    ``concat`` keeps every face as a row of its own, in order: the official way of FACT and FaceID-Portrait for several
    photos, whose tokens then stand side by side. The averages give one row:

    * ``average``: the mean over all faces, each face counting once;
    * ``normalised average``: embeddings are brought to length 1, averaged, and the result gets the mean length of the
      originals, so that no photo wins by its length and adapters that take the raw embedding still see its usual size;
      tokens are averaged plainly;
    * ``weighted``: the mean with one weight for each identity, shared evenly by its faces;
    * ``precision``: every face is a Gaussian whose variance falls with its quality (`adapters.precision`), so that a
      doubtful photo pulls less; embeddings are brought to length 1 before and get their mean length back.

    Tokens belong to places of the aligned crop, so their mean is a face, though a softer one than ``concat`` gives; the
    result says so. Rows of zeros (pictures without a face) never enter an average.

    Args:
        identities: one or more, of one encoder, with the same features in the same widths.
        method: see above.
        weights: finite numbers, not negative: for ``weighted`` one for each identity; for ``precision`` the qualities
            (1 is good), one for each identity or one for each face.

    Raises:
        IdentityMismatch: identities, weights or method that do not go together; names both sides.
    """
    _check_request(identities, method, weights)
    for other in identities[1:]:
        _check_same_kind(identities[0], other)
    notes = _joined_notes(identities)
    features = {name: torch.cat([one.features[name] for one in identities]) for name in identities[0].features}
    features.update({name: identities[0].features[name] for name in SHARED & features.keys()})
    if method != "concat":
        notes += _average_notes(features)
        features = _averaged(features, _method_shares(identities, method, weights), method)
    return Identity(
        encoder=identities[0].encoder,
        features=features,
        photos=tuple(photo for one in identities for photo in one.photos),
        masked=all(one.masked for one in identities),
        notes=notes,
    )


def with_image_tokens(identity: Identity, tokens: Tensor, zero: Tensor) -> Identity:
    """Add the hidden state of a CLIP vision encoder for each face's crop.

    Args:
        identity: N faces.
        tokens: (N, T, C), T = 257 and C = 1280 for CLIP ViT-H.
        zero: (1, T, C) the same for a picture that is zero after normalisation.

    Raises:
        IdentityMismatch: other shapes, or numbers that are not finite.
    """
    expected = (len(identity), *zero.shape[1:])
    if tokens.ndim != 3 or zero.ndim != 3 or zero.shape[0] != 1 or tuple(tokens.shape) != expected:
        raise IdentityMismatch(
            "image tokens",
            expected=f"({len(identity)}, T, C) for the identity's {len(identity)} faces, (1, T, C) for the zero one",
            found=f"{tuple(tokens.shape)} and {tuple(zero.shape)}",
            cure="encode one crop for each face of this identity",
        )
    if not (bool(torch.isfinite(tokens).all()) and bool(torch.isfinite(zero).all())):
        raise IdentityMismatch(
            "image tokens", expected="finite numbers", found="NaN or infinity", cure="run the vision model in float32"
        )
    added = {IMAGE_TOKENS: tokens, IMAGE_TOKENS_ZERO: zero}
    stored = {name: tensor.detach().to("cpu", torch.float32) for name, tensor in added.items()}
    return replace(identity, features={**identity.features, **stored})


def faces_alone(identity: Identity) -> Identity:
    """The identity without its rows for pictures that had no face, which would act as a person of their own."""
    features = identity.features
    known = ~_is_empty(features)
    if bool(known.all()) or not bool(known.any()):
        return identity
    kept = {name: tensor if name in SHARED else tensor[known] for name, tensor in features.items()}
    photos = identity.photos
    if len(photos) == len(known):
        photos = tuple(photo for photo, keep in zip(photos, known.tolist(), strict=True) if keep)
    return replace(identity, features=kept, photos=photos)


def identity_report(identity: Identity) -> str:
    """What an identity holds, one fact per line."""
    facts = [
        f"encoder: {identity.encoder}",
        f"faces: {len(identity)}",
        f"features: {identity.shapes}",
        f"background removed: {'yes' if identity.masked else 'no'}",
        f"photos: {', '.join(photo[:12] for photo in identity.photos) or 'not known'}",
        f"digest: {identity.digest[:12]}",
    ]
    return "\n".join([*facts, *(f"note: {note}" for note in identity.notes)])


def _check_request(identities: Sequence[Identity], method: str, weights: Sequence[float] | None) -> None:
    if not identities:
        raise IdentityMismatch(
            "combining identities", expected="at least one identity", found="none", cure="connect an identity"
        )
    if method not in METHODS:
        raise IdentityMismatch(
            "combining identities", expected=f"one of {', '.join(METHODS)}", found=method, cure="choose one of them"
        )
    if method == "weighted":
        _check_weights(weights, len(identities))
    if method == "precision":
        for_each_identity = weights is None or len(weights) == len(identities)
        _check_weights(weights, len(identities) if for_each_identity else sum(len(one) for one in identities))


def _check_weights(weights: Sequence[float] | None, count: int) -> None:
    found = [float(weight) for weight in weights or ()]
    legal = len(found) == count and all(math.isfinite(weight) and weight >= 0 for weight in found)
    if not legal or sum(found) <= 0:
        raise IdentityMismatch(
            "weights of identities",
            expected=f"{count} numbers of 0 or more, not all 0",
            found=str(found),
            cure="give one number for each of them",
        )


def _check_same_kind(first: Identity, other: Identity) -> None:
    if first.encoder != other.encoder:
        raise _mismatch(f"encoder {first.encoder}", f"encoder {other.encoder}", "encode all photos with one encoder")
    if set(first.features) != set(other.features):
        raise _mismatch(
            f"features {', '.join(sorted(first.features))}",
            f"features {', '.join(sorted(other.features))}",
            "prepare all identities in the same way",
        )
    for name, tensor in first.features.items():
        if tensor.shape[1:] != other.features[name].shape[1:]:
            raise _mismatch(
                f"{name} of shape {tuple(tensor.shape[1:])}",
                f"{name} of shape {tuple(other.features[name].shape[1:])}",
                "encode all photos with one encoder",
            )
        if name in SHARED and not torch.equal(tensor, other.features[name]):
            raise _mismatch(f"one {name}", f"another {name}", "use one CLIP vision model for all photos")


def _mismatch(expected: str, found: str, cure: str) -> IdentityMismatch:
    return IdentityMismatch("combining identities", expected=expected, found=found, cure=cure)


def _joined_notes(identities: Sequence[Identity]) -> tuple[str, ...]:
    notes = list(dict.fromkeys(note for one in identities for note in one.notes))
    if len({one.masked for one in identities}) > 1:
        notes.append("some faces were masked before encoding and some were not")
    return tuple(notes)


def _is_empty(features: Mapping[str, Tensor]) -> Tensor:
    """(N,) bool: rows that stand for pictures without a face: a zero embedding, or zeros in all features without one.

    Beside an embedding CLIP has looked at a black crop, whose tokens are not zero.
    """
    told = {EMBEDDING: features[EMBEDDING]} if EMBEDDING in features else features
    rows = [tensor.flatten(1).eq(0).all(dim=1) for name, tensor in told.items() if name not in SHARED]
    return torch.stack(rows).all(dim=0)


def _shares(identities: Sequence[Identity], weights: Sequence[float] | None) -> Tensor:
    """The share of each row (N,) in an average, summing to 1; empty rows have none."""
    full = [(~_is_empty(one.features)).float() for one in identities]
    if weights is not None:
        full = [rows * (weight / max(float(rows.sum()), 1.0)) for rows, weight in zip(full, weights, strict=True)]
    shares = torch.cat(full)
    if float(shares.sum()) <= 0:
        raise IdentityMismatch(
            "average of identities",
            expected="at least one face with a weight above 0",
            found="pictures without a face only",
            cure="use photos in which a face is found",
        )
    return shares / shares.sum()


def _method_shares(identities: Sequence[Identity], method: str, weights: Sequence[float] | None) -> Tensor:
    if method != "precision":
        return _shares(identities, weights if method == "weighted" else None)
    qualities = torch.tensor([float(weight) for weight in weights or ()])
    counts = torch.tensor([len(one) for one in identities])
    if len(qualities) == len(counts):
        qualities = qualities.repeat_interleave(counts)
    shares = _shares(identities, None)
    # Rows without a face have a share of 0: a Gaussian that knows nothing.
    precisions = (shares > 0).float() / variances_of(qualities)
    return precisions / precisions.sum()


def _averaged(features: Mapping[str, Tensor], shares: Tensor, method: str) -> dict[str, Tensor]:
    averaged = {
        name: tensor if name in SHARED else torch.einsum("n,n...->...", shares, tensor).unsqueeze(0)
        for name, tensor in features.items()
    }
    if method in ("normalised average", "precision") and EMBEDDING in features:
        lengths = features[EMBEDDING].norm(dim=-1)
        direction = functional.normalize(shares @ functional.normalize(features[EMBEDDING], dim=-1), dim=-1)
        averaged[EMBEDDING] = (direction * (shares @ lengths)).unsqueeze(0)
    return averaged


def _average_notes(features: Mapping[str, Tensor]) -> tuple[str, ...]:
    notes = []
    empty = int(_is_empty(features).sum())
    if empty:
        notes.append(f"{empty} {'row' if empty == 1 else 'rows'} without a face left out of the average")
    rows = len(features[EMBEDDING]) if EMBEDDING in features else 0
    if rows - empty > 1 and not features.keys().isdisjoint({TOKENS, IMAGE_TOKENS}):
        notes.append("tokens averaged: softer than concat, which is the official way for several photos")
    return tuple(notes)
