"""What another node or pack left in a place of the model where one of ours stands now: it is still called."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from . import host


def attention(
    previous: Callable[..., Tensor] | None,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    extra: Mapping[str, Any],
    **kwargs: Any,
) -> Tensor:
    """The attention of a layer: by the patch that was found in its slot, or the host's own."""
    if previous is None:
        return host.attention(q, k, v, extra["n_heads"], extra)
    return previous(q, k, v, extra, **kwargs)


def model_call(previous: Callable[..., Any] | None, apply_model: Callable[..., Any], args: Mapping[str, Any]) -> Any:
    """A call of the model: through the wrapper that was found around it, or as it is."""
    if previous is None:
        return apply_model(args["input"], args["timestep"], **args["c"])
    return previous(apply_model, args)
