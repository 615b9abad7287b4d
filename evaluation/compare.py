"""Restorers side by side: how near each result is to the original, who is on it, and how good it looks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from ..adapters.identity import EMBEDDING, Identity
from ..faces.errors import BadImage
from ..faces.images import as_rgb
from .similarity import same_person, similarity_matrix, threshold_for

# Wang et al. 2004: 11 taps, width 1.5, and the two constants for values in 0..1.
_TAPS, _SIGMA, _C1, _C2 = 11, 1.5, 0.01**2, 0.03**2


@dataclass(frozen=True, eq=False)
class Candidate:
    """What one restorer gave.

    Attributes:
        name: for the table.
        images: (B, H, W, C) in 0..1, or None.
        identity: of the faces on them, one row each, or None.
        score: a quality score of any judge, or None.
    """

    name: str
    images: Tensor | None = None
    identity: Identity | None = None
    score: float | None = None


@dataclass(frozen=True)
class Comparison:
    """One row of the table; None where something was not given.

    Attributes:
        name: of the restorer.
        psnr: in dB, mean over the pictures; infinite where all are equal.
        ssim: structural similarity of the grey pictures, mean.
        similarity: of the faces with the original's, mean; cosine, or distance for dlib.
        same: on how many of `faces` pictures both show one person by the encoder's threshold.
        faces: pictures with a face on both sides.
        lost: pictures where only the original has a face.
        score: the quality score.
        note: what else must be known.
    """

    name: str
    psnr: float | None
    ssim: float | None
    similarity: float | None
    same: int
    faces: int
    lost: int
    score: float | None
    note: str = ""


def psnr(first: Tensor, second: Tensor) -> Tensor:
    """Peak signal-to-noise ratio (B,) in dB of pictures (B, C, H, W) in 0..1; infinity for equal ones."""
    return -10 * (first.float() - second.float()).square().mean(dim=(1, 2, 3)).log10()


def ssim(first: Tensor, second: Tensor) -> Tensor:
    """Structural similarity (B,) of grey pictures (B, 1, H, W) in 0..1 (Wang et al. 2004), away from the rim.

    Pictures smaller than the window are compared through the largest odd window that fits.
    """
    taps = min(_TAPS, *(length - (length + 1) % 2 for length in first.shape[-2:]))
    axis = torch.arange(taps, device=first.device, dtype=torch.float64) - taps // 2
    window = torch.exp(-(axis**2) / (2 * _SIGMA**2))
    window = window / window.sum()
    kernel = (window[:, None] * window[None])[None, None]
    x, y = first.double(), second.double()
    mean_x, mean_y, xx, yy, xy = functional.conv2d(torch.cat([x, y, x * x, y * y, x * y]), kernel).chunk(5)
    variance_x, variance_y, covariance = xx - mean_x**2, yy - mean_y**2, xy - mean_x * mean_y
    above = (2 * mean_x * mean_y + _C1) * (2 * covariance + _C2)
    below = (mean_x**2 + mean_y**2 + _C1) * (variance_x + variance_y + _C2)
    return (above / below).mean(dim=(1, 2, 3)).float()


def compare(original: Tensor, identity: Identity | None, candidates: Sequence[Candidate]) -> list[Comparison]:
    """Compare every candidate with the original.

    Args:
        original: (B, H, W, C) in 0..1, before it was degraded.
        identity: of the faces on it, one row for each picture, or None.
        candidates: pictures of the same number; another size is brought to the original's (bicubic), and told.

    Raises:
        BadImage: no pictures, or another number of them than the original has.
        IdentityMismatch: identities of two encoders, or of an encoder without a threshold.
    """
    clean = as_rgb(original, "original").movedim(-1, 1)
    return [_compared(clean, identity, candidate) for candidate in candidates]


def comparison_text(rows: Sequence[Comparison], encoder: str | None = None) -> str:
    """The table in plain text; unknown cells hold a dash.

    Args:
        rows: from `compare`.
        encoder: id of the encoder of the identities, for the heading.
    """
    lines = [["restorer", "PSNR dB", "SSIM", "identity", "same person", "quality"]]
    for row in rows:
        people = f"{row.same} of {row.faces}" if row.faces else "-"
        people += f" ({row.lost} faces lost)" if row.lost else ""
        psnr_cell = "equal" if row.psnr == math.inf else _number(row.psnr, 2)
        cells = [psnr_cell, _number(row.ssim, 4), _number(row.similarity, 3), people, _number(row.score, 2)]
        lines.append([row.name, *cells])
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    table = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]
    notes = [f"{row.name}: {row.note}" for row in rows if row.note]
    return "\n".join([_heading(encoder), *table, *notes])


def comparison_csv(rows: Sequence[Comparison]) -> str:
    """The table as CSV with a heading, unknown cells empty."""
    lines = ["restorer,psnr,ssim,identity,same_person,faces,faces_lost,quality"]
    for row in rows:
        values = [row.psnr, row.ssim, row.similarity, row.same, row.faces, row.lost, row.score]
        name = '"' + row.name.replace('"', '""') + '"'
        lines.append(",".join([name, *("" if value is None else f"{value:g}" for value in values)]))
    return "\n".join(lines) + "\n"


def _compared(clean: Tensor, identity: Identity | None, candidate: Candidate) -> Comparison:
    near: tuple[float | None, float | None] = (None, None)
    note = ""
    if candidate.images is not None:
        images, note = _fitted(candidate, clean)
        near = float(psnr(images, clean).mean()), float(ssim(_grey(images), _grey(clean)).mean())
    likeness, same, faces, lost = _people(identity, candidate.identity)
    return Comparison(candidate.name, *near, likeness, same, faces, lost, candidate.score, note)


def _fitted(candidate: Candidate, clean: Tensor) -> tuple[Tensor, str]:
    images = as_rgb(candidate.images, candidate.name).movedim(-1, 1).to(clean).clamp(0, 1)  # type: ignore[arg-type]
    if len(images) != len(clean):
        raise BadImage(
            candidate.name,
            expected=f"{len(clean)} pictures, as the original has",
            found=str(len(images)),
            cure="connect the result of the same batch",
        )
    if images.shape == clean.shape:
        return images, ""
    note = f"resized from {images.shape[-1]}x{images.shape[-2]} to {clean.shape[-1]}x{clean.shape[-2]}"
    size = (clean.shape[-2], clean.shape[-1])
    fitted = functional.interpolate(images, size, mode="bicubic", align_corners=False, antialias=True)
    return fitted.clamp(0, 1), note


def _people(wanted: Identity | None, found: Identity | None) -> tuple[float | None, int, int, int]:
    """Mean similarity, pictures of one person, pictures with both faces, pictures that lost theirs."""
    if wanted is None or found is None:
        return None, 0, 0, 0
    matrix = similarity_matrix(wanted, found)
    if matrix.values.shape[0] != matrix.values.shape[1]:
        raise BadImage(
            "identities to compare",
            expected=f"{matrix.values.shape[0]} faces, as the original has",
            found=str(matrix.values.shape[1]),
            cure='encode both with on_missing_face "keep", one face for each picture',
        )
    values = matrix.values.diagonal()
    known = ~values.isnan()
    # Rows of zeros stand for pictures without a face.
    there = wanted.features[EMBEDDING].ne(0).any(dim=-1).to(known.device)
    same = same_person(matrix).diagonal() & known
    mean = float(values[known].mean()) if bool(known.any()) else None
    return mean, int(same.sum()), int(known.sum()), int((there & ~known).sum())


def _grey(images: Tensor) -> Tensor:
    """Luma of BT.601, (B, 1, H, W)."""
    weights = images.new_tensor([0.299, 0.587, 0.114])
    return (images * weights[:, None, None]).sum(dim=1, keepdim=True)


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _heading(encoder: str | None) -> str:
    if encoder is None:
        return "compared with the original; more is better in every column"
    threshold = threshold_for(encoder)
    if threshold.metric == "euclidean":
        return f"identity: distance of {encoder}, less is better, one person below {threshold.value:g}"
    return f"identity: cosine of {encoder}, more is better, one person from {threshold.value:g}"
