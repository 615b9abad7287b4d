"""What one forward pass of the model knows: its sigma as a number, and which patched layers ran.

The state travels in ``transformer_options`` of that one call, so that patches hold nothing that changes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

STATE_KEY = "likeness_call"


class CallState:
    """Lives for one forward pass.

    Attributes:
        called: the layers that ran, by slot.
        latent_shape: shape of the model's input, or None.
        image_tokens: picture tokens of a DiT's joint sequence, known after its first block that tells.
    """

    def __init__(self, latent_shape: tuple[int, ...] | None = None) -> None:
        self.latent_shape = latent_shape
        self.image_tokens: int | None = None
        self._sigma: float | None = None
        self.called: dict[str, set[object]] = {}

    def sigma(self, extra: Mapping[str, Any]) -> float:
        """The sigma of this call, read from the device once, however many layers ask."""
        if self._sigma is None:
            self._sigma = read_sigma(extra)
        return self._sigma

    def mark(self, slot: str, layer: object) -> None:
        """Note that the patch of ``layer`` in ``slot`` (``attn2`` or ``middle``) was called."""
        self.called.setdefault(slot, set()).add(layer)


def read_sigma(extra: Mapping[str, Any]) -> float:
    """The sigma of this call; the largest possible one where the host names none, so that ranges from the start
    hold.
    """
    sigmas = extra.get("sigmas")
    return float("inf") if sigmas is None else float(sigmas[0])


def call_state(extra: Mapping[str, Any]) -> CallState | None:
    """The state of this forward pass, or None where another pack's wrapper dropped it."""
    state = extra.get(STATE_KEY)
    return state if isinstance(state, CallState) else None
