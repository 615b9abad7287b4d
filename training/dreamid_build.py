"""Builds DreamID's triplets out of photos of persons, with any swapper of this pack.

For photos A1 and A2 of one person and B of another, the swapper writes B's face onto A2: the pseudo-target B~. What is
kept passes four filters: A1 and A2 are the same person, all are sharp, B~ looks more like B than like A2, and B~'s
landmarks lie where A2's do.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional

from .dreamid_data import LIST, SOURCES, TARGETS, TRUTHS, BadTriplets
from .dreamid_shape import other_outline
from .seeds import generator_for

_LAPLACE = torch.tensor([[0.0, 1.0, 0.0], [1.0, -4.0, 1.0], [0.0, 1.0, 0.0]])
_GREY = torch.tensor([0.299, 0.587, 0.114])


@dataclass(frozen=True, eq=False)
class FacePhoto:
    """One cut-out photo of a person.

    Attributes:
        name: what it is called.
        picture: (3, S, S), 0..1, cut out in the FFHQ template.
        landmarks5: (5, 2) pixels.
        points: (K, 2) pixels of what landmark pictures show.
        embedding: (D,) as the face encoder gives it.
    """

    name: str
    picture: Tensor
    landmarks5: Tensor
    points: Tensor
    embedding: Tensor


class Look(Protocol):
    """Finds the face of a cut-out picture again."""

    def __call__(self, name: str, picture: Tensor) -> FacePhoto | None:
        """The face of a picture (3, S, S), or None."""


# (A2, B) to B~: A2's picture (3, S, S) with B's face.
Proxy = Callable[[FacePhoto, FacePhoto], Tensor]


@dataclass(frozen=True, eq=False)
class GlassesEdit:
    """For the fine-tune that takes glasses from the source.

    Attributes:
        worn: whether somebody wears glasses.
        removed: the photo without them, as another tool made it, or None where there is no such picture.
    """

    worn: Callable[[FacePhoto], bool]
    removed: Callable[[FacePhoto], FacePhoto | None]


@dataclass(frozen=True)
class BuildOptions:
    """Which triplets are made and kept.

    Attributes:
        seed: decides who is paired.
        each: triplets tried for each ordered pair of photos of a person: with that many other persons.
        limit: triplets in all; 0 for no limit.
        same_person: least cosine of A1 and A2.
        sharpness: least variance of the Laplacian of A1, A2 and B~, in grey levels of 0..255.
        pose: largest distance of B~'s five landmarks from A2's (root mean square), in eye distances.
        outline: largest share by which B~'s outline is changed; 0 leaves it (the fine-tune for face shape: 0.12).
    """

    seed: int = 0
    each: int = 1
    limit: int = 0
    same_person: float = 0.5
    sharpness: float = 50.0
    pose: float = 0.1
    outline: float = 0.0


@dataclass
class BuildReport:
    """How many triplets were kept, and why others were not.

    Attributes:
        kept: number in the folder.
        dropped: number by reason.
    """

    kept: int = 0
    dropped: Counter[str] = field(default_factory=Counter)

    def as_text(self) -> str:
        """One fact per line."""
        return "\n".join([f"kept: {self.kept}", *(f"{why}: {count}" for why, count in self.dropped.most_common())])


@dataclass(frozen=True, eq=False)
class Triplet:
    """One triplet and what the filters measured.

    Attributes:
        source, target, truth: A1, B~ and A2.
        other: the photo of the person whose face B~ has.
        measured: numbers by name.
    """

    source: FacePhoto
    target: FacePhoto
    truth: FacePhoto
    other: FacePhoto
    measured: Mapping[str, float]


def sharpness(picture: Tensor) -> float:
    """Variance of the Laplacian of a picture (3, H, W) of 0..1, in grey levels of 0..255 (Pech-Pacheco et al. 2000)."""
    grey = torch.einsum("chw,c->hw", picture.float() * 255, _GREY)
    return float(functional.conv2d(grey[None, None], _LAPLACE[None, None]).var(unbiased=False))


def landmark_distance(first: Tensor, second: Tensor) -> float:
    """Root mean square distance of landmarks5 (5, 2), in eye distances of the first."""
    eyes = (first[1] - first[0]).norm().clamp(min=1e-6)
    return float((second - first).square().sum(dim=1).mean().sqrt() / eyes)


def judged(
    source: FacePhoto, truth: FacePhoto, other: FacePhoto, proxy: Proxy, look: Look, options: BuildOptions
) -> Triplet | str:
    """Make one triplet; the reason where a filter drops it."""
    measured = {"same_person": _cosine(source, truth)}
    if measured["same_person"] <= options.same_person:
        return "A1 and A2 are not alike enough"
    if min(sharpness(source.picture), sharpness(truth.picture)) < options.sharpness:
        return "a photo is not sharp enough"
    picture = proxy(truth, other).clamp(0, 1)
    target = look(f"{truth.name} as {other.name}", picture)
    if target is None:
        return "no face found in B~"
    measured |= {"like_other": _cosine(target, other), "like_truth": _cosine(target, truth)}
    if measured["like_other"] <= measured["like_truth"]:
        return "B~ is still more like A2 than like B"
    measured["pose"] = landmark_distance(truth.landmarks5, target.landmarks5)
    if measured["pose"] > options.pose:
        return "B~'s landmarks lie elsewhere than A2's"
    measured["sharpness"] = sharpness(picture)
    if measured["sharpness"] < options.sharpness:
        return "B~ is not sharp enough"
    return Triplet(source, target, truth, other, measured)


def build_triplets(
    persons: Mapping[str, Sequence[FacePhoto]],
    proxy: Proxy,
    look: Look,
    folder: Path,
    options: BuildOptions | None = None,
    glasses: GlassesEdit | None = None,
    on_triplet: Callable[[BuildReport], None] = lambda report: None,
) -> BuildReport:
    """Write triplets into a new folder: ``A1 A2 B_`` with PNG files of shared names, and ``triplets.jsonl``.

    Args:
        persons: photos by person.
        proxy: the swapper.
        look: finds the face of B~.
        folder: must not hold a list already.
        options: see `BuildOptions`.
        glasses: keep only pairs that both wear glasses, and take B~'s off; None for the usual triplets.
        on_triplet: called after each one that was tried; may raise to cancel.

    Raises:
        BadTriplets: too few persons or photos, a folder in use, or not a single triplet kept.
        OSError: the folder cannot be written.
    """
    options = options or BuildOptions()
    tried = _pairs(persons, options)
    if not tried:
        found = f"{len(persons)} persons with {sum(map(len, persons.values()))} photos with a face"
        raise BadTriplets(
            "photos", expected="two persons or more, one of them with two photos", found=found, cure="add photos"
        )
    if (folder / LIST).exists():
        raise BadTriplets(folder.name, expected="a new folder", found=f"one with {LIST}", cure="choose another")
    report = BuildReport()
    lines: list[str] = []
    for source, truth, other in tried:
        if options.limit and report.kept >= options.limit:
            break
        made = _made(source, truth, other, proxy, look, options, glasses)
        if isinstance(made, str):
            report.dropped[made] += 1
        else:
            lines.append(_write(folder, f"{report.kept:06d}", made))
            report.kept += 1
        on_triplet(report)
    if not lines:
        raise BadTriplets(
            folder.name,
            expected="a triplet that passes the filters",
            found=report.as_text().replace("\n", "; "),
            cure="add photos, use a better swapper, or loosen the filters",
        )
    (folder / LIST).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return report


def _made(
    source: FacePhoto,
    truth: FacePhoto,
    other: FacePhoto,
    proxy: Proxy,
    look: Look,
    options: BuildOptions,
    glasses: GlassesEdit | None,
) -> Triplet | str:
    if glasses is None:
        made = judged(source, truth, other, proxy, look, options)
    else:
        if not (glasses.worn(source) and glasses.worn(truth)):
            return "A1 and A2 do not both wear glasses"
        bare = glasses.removed(truth)
        if bare is None:
            return "no picture of A2 without glasses"
        made = judged(source, bare, other, proxy, look, options)
        if isinstance(made, Triplet):
            made = Triplet(source, made.target, truth, other, made.measured)
    if isinstance(made, str) or options.outline == 0:
        return made
    target = made.target
    picture = other_outline(target.picture, target.points, options.seed, target.name, strength=options.outline)
    moved = FacePhoto(target.name, picture, target.landmarks5, target.points, target.embedding)
    return Triplet(made.source, moved, made.truth, made.other, made.measured)


def _pairs(
    persons: Mapping[str, Sequence[FacePhoto]], options: BuildOptions
) -> list[tuple[FacePhoto, FacePhoto, FacePhoto]]:
    """(A1, A2, B) in an order that the seed decides."""
    found = []
    for name in sorted(persons):
        others = [photo for other in sorted(persons) if other != name for photo in persons[other]]
        if not others:
            continue
        for source in persons[name]:
            for truth in persons[name]:
                if source is truth:
                    continue
                generator = generator_for(options.seed, name, source.name, truth.name)
                chosen = torch.randperm(len(others), generator=generator)[: options.each].tolist()
                found += [(source, truth, others[number]) for number in chosen]
    order = torch.randperm(len(found), generator=generator_for(options.seed, "order")).tolist()
    return [found[number] for number in order]


def _cosine(first: FacePhoto, second: FacePhoto) -> float:
    return float(functional.cosine_similarity(first.embedding.float(), second.embedding.float(), dim=0))


def _write(folder: Path, name: str, made: Triplet) -> str:
    for place, photo in ((SOURCES, made.source), (TARGETS, made.target), (TRUTHS, made.truth)):
        write_picture(folder / place / f"{name}.png", photo.picture)
    told: dict[str, Any] = {
        "name": name,
        "size": int(made.truth.picture.shape[-1]),
        "source5": _numbers(made.source.landmarks5),
        "truth5": _numbers(made.truth.landmarks5),
        # The paper takes the pseudo-target's own landmarks.
        "points": _numbers(made.target.points),
        "A1": made.source.name,
        "A2": made.truth.name,
        "B": made.other.name,
        **{key: round(value, 4) for key, value in made.measured.items()},
    }
    return json.dumps(told, ensure_ascii=False)


def write_picture(path: Path, picture: Tensor) -> None:
    """Write (3, H, W) of 0..1 as PNG. Raises OSError."""
    from PIL import Image

    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = (picture.detach().cpu().float() * 255).round().clamp(0, 255).to(torch.uint8)
    Image.fromarray(pixels.movedim(0, -1).contiguous().numpy()).save(path)


def _numbers(points: Tensor) -> list[list[float]]:
    return [[round(value, 3) for value in point] for point in points.tolist()]
