"""Identities whose W+ codes are moved, mixed or looked at; and the authors' settings for each stage."""

from __future__ import annotations

from dataclasses import replace

from ...errors import IdentityMismatch
from ...identity import W_PLUS, Identity
from .adapter import w_plus_codes
from .directions import ROWS, Direction, edit, mix

# Strength, and percent of the steps before the adapter acts (the demos of both stages).
STAGES: dict[str, tuple[float, float]] = {"in the wild": (1.0, 20.0), "face": (0.8, 20.0)}
# The demo counts in thirty steps at most.
MOST_STEPS = 30


def edited_identity(
    identity: Identity, direction: Direction, strength: float, rows: tuple[int, int] | None = None
) -> Identity:
    """An identity moved along a direction.

    Args:
        identity: N codes of e4e.
        direction: the way.
        strength: see `directions`.
        rows: first row to move and the row after the last one; None takes the direction's own.

    Raises:
        EncoderMismatch: no W+ codes.
        IdentityMismatch: rows that are not there.
    """
    codes = edit(w_plus_codes(identity, "edit W+"), direction, strength, None if rows is None else checked_rows(rows))
    note = f"edited: {direction.title} {strength:g}"
    return replace(identity, features={**identity.features, W_PLUS: codes}, notes=(*identity.notes, note))


def mixed_identity(first: Identity, second: Identity, rows: tuple[int, int], amount: float) -> Identity:
    """An identity whose rows come from two.

    Args:
        first, second: identities of e4e with as many codes each, or one code on either side.
        rows: first row taken from ``second`` and the row after the last one. Rows 0..3 carry pose and shape, 4..7
            features, those behind colour and light.
        amount: 0 keeps ``first``, 1 takes ``second``.

    Raises:
        EncoderMismatch: no W+ codes.
        IdentityMismatch: other numbers of codes, or rows that are not there.
    """
    a, b = w_plus_codes(first, "mix W+"), w_plus_codes(second, "mix W+")
    if len(a) != len(b) and 1 not in (len(a), len(b)):
        raise IdentityMismatch(
            "mix W+",
            expected="identities of one number of faces, or one face on either side",
            found=f"{len(a)} and {len(b)} faces",
            cure="combine the faces of each identity to one first",
        )
    start, end = checked_rows(rows)
    note = f"rows {start}-{end - 1} mixed by {amount:g}"
    return Identity(
        encoder=first.encoder,
        features={W_PLUS: mix(a, b, (start, end), amount)},
        photos=(*first.photos, *second.photos),
        masked=first.masked and second.masked,
        notes=tuple(dict.fromkeys((*first.notes, *second.notes))) + (note,),
    )


def checked_rows(rows: tuple[int, int]) -> tuple[int, int]:
    """Rows (first, row after the last one) that are there."""
    start, end = rows
    if not 0 <= start < end <= ROWS:
        raise IdentityMismatch(
            "rows of W+",
            expected=f"a first row no larger than the last, both from 0 to {ROWS - 1}",
            found=f"{start} to {end - 1}",
            cure="set first_row and last_row accordingly",
        )
    return rows


def official_start(steps: int, percent: float) -> float:
    """The fraction of the schedule at which the adapter begins to act.

    The authors switch it off while the step's number, from 0, is at most ``min(int(percent / 100 * steps), 30)``: with
    30 steps and 20 % seven steps, and even with 0 % the first. The fraction lies midway between the last step that is
    off and the first that is on, for schedules whose steps are spread evenly over the training's (``normal``).
    """
    last_off = min(int(percent / 100 * steps), MOST_STEPS)
    return min(1.0, (last_off + 0.5) / max(1, steps - 1))
