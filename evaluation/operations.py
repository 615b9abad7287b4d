"""Counts the operations torch dispatches, as a proxy for kernel launches."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

# Inference mode dispatches the composite operation (item, is_nonzero), other modes what it is made of.
SYNCHRONISATIONS = ("aten._local_scalar_dense", "aten.item", "aten.is_nonzero", "aten.equal", "aten.nonzero")


@dataclass(frozen=True)
class Calls:
    """What one call dispatched.

    Attributes:
        names: number of calls by operation.
        compute: calls that are no views.
        synchronisations: reads of a value back to the host.
        copies: copies to another device.
    """

    names: Counter[str]
    compute: int
    synchronisations: int
    copies: int


class _Counter(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.names: Counter[str] = Counter()
        self.compute = 0
        self.copies = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        name = str(func).rsplit(".", 1)[0]
        self.names[name] += 1
        if not func.is_view:
            self.compute += 1
        tensors = [a for a in args if isinstance(a, Tensor)]
        self.copies += bool(tensors and isinstance(out, Tensor) and out.device != tensors[0].device)
        return out


def count_calls(function: Callable[[], object]) -> Calls:
    """Run a function and return what it dispatched."""
    counter = _Counter()
    with counter:
        function()
    reads = sum(counter.names[name] for name in SYNCHRONISATIONS)
    return Calls(counter.names, counter.compute, reads, counter.copies)
