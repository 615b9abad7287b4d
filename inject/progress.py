"""Progress of work whose length becomes known on the way, and cancel after every step of it."""

from __future__ import annotations

from collections.abc import Callable

from .host import progress_bar, stop_if_cancelled


def frame_progress() -> Callable[[int, int], None]:
    """Return what is called with (frames done, frames in all); it raises the host's own interrupt on cancel."""
    bar = None

    def told(done: int, total: int) -> None:
        nonlocal bar
        stop_if_cancelled()
        if bar is None:
            bar = progress_bar(max(1, total))
        bar.update_absolute(done, max(1, total))

    return told
