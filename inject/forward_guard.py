"""Around each forward pass of a patched model: sets up the call's state, loads beside-weights, counts the layers that
ran.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..adapters.errors import PatchIncomplete
from . import beneath
from .call_state import STATE_KEY, CallState, call_state
from .host import has_wrappers
from .managed import ManagedNetwork
from .shared import Shared

ApplyModel = Callable[..., Any]
Wrapper = Callable[[ApplyModel, dict[str, Any]], Any]


class _Verified(Shared):
    """The patch table that was seen complete last; a run with the same table is not counted again.

    Accelerators may leave out blocks after the first step of a run on purpose; a table that another node changed is a
    new one.
    """

    def __init__(self) -> None:
        self.table: object = None


@dataclass(frozen=True, eq=False)
class ForwardGuard(Shared):
    """The host's ``model_function_wrapper``; keeps and calls the one that was there before.

    Attributes:
        expected: number of layers for each slot (``attn2``, ``middle``) whose patch must be called.
        beside: networks that run inside the forward pass.
        previous: the wrapper found on the model, or None.
    """

    expected: Mapping[str, int]
    beside: tuple[ManagedNetwork, ...] = ()
    previous: Wrapper | None = None
    _verified: _Verified = field(default_factory=_Verified)

    def models(self) -> list[Any]:
        """Patchers that hosts since 0.3.52 load together with the model, those of the wrapper beneath included."""
        below: list[Any] = getattr(self.previous, "models", list)()
        return [*(network.patcher for network in self.beside), *below]

    def without(self, slot: str) -> ForwardGuard:
        """A guard that does not count the layers of a slot."""
        return ForwardGuard(
            {name: count for name, count in self.expected.items() if name != slot}, self.beside, self.previous
        )

    def __call__(self, apply_model: ApplyModel, args: dict[str, Any], **kwargs: Any) -> Any:
        if not has_wrappers():
            for network in self.beside:
                network.load_beside()
        options = args["c"].get("transformer_options", {})
        state = call_state(options) or CallState(tuple(args["input"].shape))
        ran = False

        def counted(*inputs: Any, **named: Any) -> Any:
            nonlocal ran
            ran = True
            return apply_model(*inputs, **named)

        conditions = {**args["c"], "transformer_options": {**options, STATE_KEY: state}}
        inner = {**args, "c": conditions}
        out = beneath.model_call(self.previous, counted, inner)
        if ran:
            self._verify(state, options)
        return out

    def _verify(self, state: CallState, options: Mapping[str, Any]) -> None:
        table = options.get("patches_replace") or options.get("patches")
        if self._verified.table is table:
            return
        for slot, count in self.expected.items():
            called = len(state.called.get(slot, ()))
            if called < count:
                raise PatchIncomplete(
                    "apply identity",
                    expected=f"the identity patch to run in all {count} {slot} layers of the model",
                    found=f"{called} that ran",
                    cure="put the node that replaces attention after this one, or remove it",
                )
        self._verified.table = table
