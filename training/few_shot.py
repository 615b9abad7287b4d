"""Attributes of faces from a handful of labelled ones: a ridge head over the features of any face encoder.

Linear heads over frozen features are how representations learnt without labels are put to use (Bulat et al. 2022, ECCV;
the usual linear probe). The head is solved in closed form, so that the same faces always give the same head, and every
labelled face is predicted as if it had been left out (Allen's leave-one-out residual), which tells with few faces
whether there is anything to learn.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from ..adapters.errors import IdentityMismatch
from ..adapters.identity import EMBEDDING, Identity
from ..faces.errors import LikenessError
from ..faces.typed import typed

LEAST_FACES = 5
LEAST_PER_LABEL = 2
# Penalties as parts of the features' mean power, and how sharply scores become probabilities.
_PENALTIES = torch.logspace(-3, 2, 21, dtype=torch.float64)
_SHARPNESS = torch.logspace(-1, 2, 61, dtype=torch.float64)


class BadLabels(LikenessError):
    """Labels that do not fit the faces, or too few of them."""


@dataclass(frozen=True, eq=False)
class AttributeHead:
    """A linear classifier over the embeddings of one encoder.

    Attributes:
        encoder: id of that encoder.
        classes: the K labels, in order of first use.
        mean: (D,) float64, the centre of the labelled faces.
        weight: (K, D) float64.
        bias: (K,) float64.
        sharpness: scores are multiplied by it before the softmax.
        left_out: for each labelled face the label it got while it was left out.
        right: how many of these are right.
    """

    encoder: str
    classes: tuple[str, ...]
    mean: Tensor
    weight: Tensor
    bias: Tensor
    sharpness: float
    left_out: tuple[str, ...]
    right: int

    def probabilities(self, identity: Identity) -> Tensor:
        """(N, K) float32, rows that sum to 1; NaN where a row stands for a picture without a face.

        Raises:
            IdentityMismatch: faces of another encoder.
        """
        rows = _embeddings(identity)
        if identity.encoder != self.encoder or rows.shape[1] != self.weight.shape[1]:
            raise IdentityMismatch(
                "faces to classify",
                expected=f"faces of encoder {self.encoder}",
                found=f"encoder {identity.encoder}, {rows.shape[1]} numbers",
                cure="encode labelled faces and the others with one encoder",
            )
        scores = (functional.normalize(rows, dim=1) - self.mean) @ self.weight.T + self.bias
        found = (scores * self.sharpness).softmax(dim=1).float()
        return found.masked_fill(rows.eq(0).all(dim=1, keepdim=True), float("nan"))


def parse_labels(text: str) -> list[str]:
    """Labels from a text: one for each face, separated by commas or new lines; spaces around them do not count."""
    return [label.strip() for label in re.split(r"[,\n;]", typed(text)) if label.strip()]


def train_head(identity: Identity, labels: Sequence[str]) -> AttributeHead:
    """Learn to tell the labels apart.

    Every label has the same weight, however many faces it has. The penalty is the one with the smallest squared error
    on faces left out, and the sharpness the one with the best likelihood there, against targets that are softened by
    the number of faces (Platt 2000), so that few faces never give certainty.

    Args:
        identity: N labelled faces of one encoder, 5 or more.
        labels: N labels; two or more different ones, two or more faces of each.

    Raises:
        BadLabels: too few faces or labels, or counts that differ.
        IdentityMismatch: an identity without embeddings, or with pictures without a face.
    """
    rows = _embeddings(identity)
    classes = tuple(dict.fromkeys(labels))
    _check(rows, labels, classes)
    numbers = torch.tensor([classes.index(label) for label in labels])
    targets = functional.one_hot(numbers, len(classes)).double()
    counts = targets.sum(dim=0)
    share = (targets @ (1 / counts)) / len(classes)

    features = functional.normalize(rows, dim=1)
    mean, bias = share @ features, share @ targets
    centred, aimed = features - mean, targets - bias
    vectors, power, basis = torch.linalg.svd(share.sqrt()[:, None] * centred, full_matrices=False)
    power = power.square()
    turned = vectors.T @ (share.sqrt()[:, None] * aimed)

    penalties = _PENALTIES * power.sum().clamp(min=1e-12) / len(labels)
    held_out = [_left_out(vectors, power, turned, share, targets, bias, penalty) for penalty in penalties]
    errors = torch.stack([share @ (scores - targets).square().sum(dim=1) for scores in held_out])
    best = int(errors.argmin())
    weight = (basis.T @ (power.sqrt() / (power + penalties[best]))[:, None].mul(turned)).T
    predicted = held_out[best].argmax(dim=1)
    return AttributeHead(
        encoder=identity.encoder,
        classes=classes,
        mean=mean,
        weight=weight,
        bias=bias,
        sharpness=_sharpness(held_out[best], numbers, counts, share),
        left_out=tuple(classes[number] for number in predicted.tolist()),
        right=int((predicted == numbers).sum()),
    )


def attributes_text(head: AttributeHead, labels: Sequence[str], probabilities: Tensor) -> str:
    """What was learnt and what each face got, one line each.

    Args:
        head: the head.
        labels: those of the labelled faces.
        probabilities: (N, K) of the other faces.
    """
    counts = ", ".join(f"{name} {list(labels).count(name)}" for name in head.classes)
    wrong = [
        f"face {number} ({label}) looks like {found}"
        for number, (label, found) in enumerate(zip(labels, head.left_out, strict=True))
        if label != found
    ]
    lines = [
        f"encoder: {head.encoder}",
        f"labelled faces: {counts}",
        f"right when left out: {head.right} of {len(labels)}{_verdict(head, labels)}",
        *(f"labelled {line}" for line in wrong),
    ]
    for number, row in enumerate(probabilities.tolist()):
        shown = ", ".join(f"{name} {part:.0%}" for name, part in zip(head.classes, row, strict=True) if part == part)
        lines.append(f"face {number}: {shown or 'no face'}")
    return "\n".join(lines)


def best_labels(head: AttributeHead, probabilities: Tensor) -> list[tuple[str, float]]:
    """The most probable label of each row of (N, K) and its probability; "" and 0 where there is no face."""
    found = []
    for row in probabilities:
        number = int(row.nan_to_num(nan=-1.0).argmax())
        known = bool(torch.isfinite(row).all())
        found.append((head.classes[number], float(row[number])) if known else ("", 0.0))
    return found


def _verdict(head: AttributeHead, labels: Sequence[str]) -> str:
    guessed = max(list(labels).count(name) for name in head.classes)
    return " (no better than guessing: add labelled faces)" if head.right <= guessed else ""


def _left_out(
    vectors: Tensor, power: Tensor, turned: Tensor, share: Tensor, targets: Tensor, bias: Tensor, penalty: Tensor
) -> Tensor:
    """Scores (N, K) of every face by the ridge of all others, in closed form."""
    kept = power / (power + penalty)
    fitted = (vectors @ (kept[:, None] * turned)) / share.sqrt()[:, None] + bias
    leverage = share + vectors.square() @ kept
    return (fitted - leverage[:, None] * targets) / (1 - leverage).clamp(min=1e-9)[:, None]


def _sharpness(scores: Tensor, numbers: Tensor, counts: Tensor, share: Tensor) -> float:
    certainty = ((counts + 1) / (counts + 2))[numbers]
    others = (1 - certainty) / (len(counts) - 1)
    wanted = others[:, None].expand(-1, len(counts)).clone()
    wanted[torch.arange(len(numbers)), numbers] = certainty
    losses = [-(share @ (wanted * (scores * sharp).log_softmax(dim=1)).sum(dim=1)) for sharp in _SHARPNESS]
    return float(_SHARPNESS[int(torch.stack(losses).argmin())])


def _embeddings(identity: Identity) -> Tensor:
    rows = identity.features.get(EMBEDDING)
    if rows is None:
        raise IdentityMismatch(
            "attributes of faces",
            expected="faces with an embedding",
            found=", ".join(identity.features) or "none",
            cure="encode the faces with a face encoder",
        )
    return rows.detach().to("cpu", torch.float64)


def _check(rows: Tensor, labels: Sequence[str], classes: Sequence[str]) -> None:
    if len(labels) != len(rows):
        raise BadLabels(
            "labels",
            expected=f"one for each of the {len(rows)} labelled faces",
            found=f"{len(labels)}",
            cure="write the labels in the order of the faces, separated by commas",
        )
    counts = {name: list(labels).count(name) for name in classes}
    if len(labels) < LEAST_FACES or len(classes) < 2 or min(counts.values()) < LEAST_PER_LABEL:
        raise BadLabels(
            "labelled faces",
            expected=f"{LEAST_FACES} or more with at least two labels, and {LEAST_PER_LABEL} or more faces of each",
            found=", ".join(f"{name}: {count}" for name, count in counts.items()) or "none",
            cure="add labelled faces",
        )
    empty = rows.eq(0).all(dim=1).nonzero()[:, 0].tolist()
    if empty:
        raise IdentityMismatch(
            "labelled faces",
            expected="a face in every row",
            found=f"none in rows {', '.join(map(str, empty))} (counted from 0)",
            cure='encode the labelled pictures with on_missing_face "error" or "skip"',
        )
