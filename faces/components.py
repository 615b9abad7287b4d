"""Connected parts of a binary picture, without a compiled library: labels, holes and outline areas.

Foreground connects to eight neighbours and background to four, the convention of contour tracers. Rows are cut into
runs and runs are united, so that time grows with the number of runs, not with the length of paths.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Mask = npt.NDArray[np.bool_]
Labels = npt.NDArray[np.int64]


def label(mask: Mask, diagonal: bool) -> tuple[Labels, int]:
    """Return (labels (H, W): 0 outside, 1..count in parts; count), parts numbered from the top left.

    Args:
        mask: (H, W) bool.
        diagonal: whether pixels that touch by a corner are connected.
    """
    rows, starts, ends = _runs(mask)
    parents = list(range(len(rows)))
    _unite_rows(rows, starts, ends, parents, int(diagonal))
    roots = np.array([_root(parents, run) for run in range(len(parents))], dtype=np.int64)
    unique, numbers = np.unique(roots, return_inverse=True)
    labels = np.zeros(mask.shape, dtype=np.int64)
    for row, start, end, number in zip(rows, starts, ends, numbers.tolist(), strict=True):
        labels[row, start:end] = number + 1
    return labels, len(unique)


def _runs(mask: Mask) -> tuple[list[int], list[int], list[int]]:
    """Return row, first column and column after the last of every run, in reading order."""
    height, width = mask.shape
    edges = np.zeros((height, width + 2), dtype=np.int8)
    edges[:, 1:-1] = mask
    steps = np.diff(edges, axis=1)
    rows, starts = np.nonzero(steps == 1)
    _, ends = np.nonzero(steps == -1)
    return rows.tolist(), starts.tolist(), ends.tolist()


def _root(parents: list[int], run: int) -> int:
    while parents[run] != run:
        parents[run] = parents[parents[run]]
        run = parents[run]
    return run


def _unite_rows(rows: list[int], starts: list[int], ends: list[int], parents: list[int], reach: int) -> None:
    """Unite runs of neighbouring rows that touch; two pointers walk the two rows together."""
    above = 0
    for run, row in enumerate(rows):
        while rows[above] < row - 1 or (rows[above] == row - 1 and ends[above] + reach <= starts[run]):
            above += 1
        other = above
        while rows[other] == row - 1 and starts[other] < ends[run] + reach:
            first, second = sorted((_root(parents, run), _root(parents, other)))
            parents[second] = first
            other += 1


def fill_holes(mask: Mask) -> Mask:
    """Return the mask (H, W) with every hole filled: background that cannot reach the rim by edges of pixels."""
    outside = np.pad(~mask, 1, constant_values=True)
    labels, _ = label(outside, diagonal=False)
    return (labels != labels[0, 0])[1:-1, 1:-1]


def outline_area(solid: Mask) -> float:
    """Return the area inside the outline of a part without holes, drawn through the centres of its border pixels.

    Between four neighbouring centres lies one unit if all four are set, half a unit if three are: the same number as
    the polygon area of a traced contour, so a line one pixel wide has none.
    """
    count = solid.astype(np.int8)
    corners = count[:-1, :-1] + count[1:, :-1] + count[:-1, 1:] + count[1:, 1:]
    return float((corners == 4).sum()) + 0.5 * float((corners == 3).sum())


def largest_solid(mask: Mask) -> Mask:
    """Return the part (H, W) whose outline encloses most, its holes filled; all False where the mask is empty."""
    labels, count = label(mask, diagonal=True)
    best, best_area = np.zeros_like(mask), -1.0
    for number, (rows, columns) in _parts_by_extent(labels, count):
        if (rows.stop - rows.start - 1) * (columns.stop - columns.start - 1) <= best_area:
            break
        solid = fill_holes(labels[rows, columns] == number)
        area = outline_area(solid)
        if area > best_area:
            best, best_area = np.zeros_like(mask), area
            best[rows, columns] = solid
    return best


def _parts_by_extent(labels: Labels, count: int) -> list[tuple[int, tuple[slice, slice]]]:
    """Return (number, rows and columns it spans) of every part, the largest span first."""
    rows, columns = np.nonzero(labels)
    numbers = labels[rows, columns]
    low_row, low_column = np.full(count + 1, labels.shape[0]), np.full(count + 1, labels.shape[1])
    high_row, high_column = np.zeros(count + 1, dtype=np.int64), np.zeros(count + 1, dtype=np.int64)
    np.minimum.at(low_row, numbers, rows)
    np.maximum.at(high_row, numbers, rows)
    np.minimum.at(low_column, numbers, columns)
    np.maximum.at(high_column, numbers, columns)
    extents = (high_row - low_row) * (high_column - low_column)
    order = (np.argsort(-extents[1:], kind="stable") + 1).tolist()
    return [
        (part, (slice(low_row[part], high_row[part] + 1), slice(low_column[part], high_column[part] + 1)))
        for part in order
    ]
