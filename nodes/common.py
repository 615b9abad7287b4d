"""What several nodes share: socket names, policies, and how a text reaches the user."""

from __future__ import annotations

from typing import Any

DETECTOR = "LIKENESS_DETECTOR"
FACES = "LIKENESS_FACES"
ENCODER = "LIKENESS_ENCODER"
IDENTITY = "LIKENESS_IDENTITY"
ADAPTER = "LIKENESS_ADAPTER"
PARSER = "LIKENESS_PARSER"
SWAPPER = "LIKENESS_SWAPPER"
TRACKS = "LIKENESS_TRACKS"
AUDIO_FEATURES = "LIKENESS_AUDIO"

Schema = dict[str, dict[str, Any]]

ON_MISSING_FACE = (
    ["error", "skip", "keep"],
    {
        "default": "error",
        "tooltip": "What happens to a picture without a face. error: stop and name it. skip: leave it out and say so. "
        "keep: keep its place in the batch, with no face.",
    },
)


def number(default: float, low: float, high: float, step: float, tooltip: str) -> tuple[str, dict[str, Any]]:
    """A FLOAT input."""
    return "FLOAT", {"default": default, "min": low, "max": high, "step": step, "tooltip": tooltip}


def percent(default: float, tooltip: str) -> tuple[str, dict[str, Any]]:
    """A fraction of the sampling schedule."""
    return number(default, 0.0, 1.0, 0.001, tooltip)


def with_text(text: str, *outputs: Any) -> dict[str, Any]:
    """A node's result that also shows ``text`` on the node and in the history of a headless run."""
    return {"ui": {"text": [text]}, "result": outputs}


class ReadsClip:
    """What the host asks of a node with an input ``clip``, a file's name."""

    @classmethod
    def VALIDATE_INPUTS(cls, clip: str) -> bool | str:  # noqa: N802 (the host's name)
        """Clips in sub-folders are good too."""
        from ..inject.clips import clip_exists

        return clip_exists(clip)

    @classmethod
    def IS_CHANGED(cls, clip: str = "", **_: Any) -> str:  # noqa: N802 (the host's name)
        """Runs again when the file changes."""
        from ..inject.clips import clip_key

        return clip_key(clip)
