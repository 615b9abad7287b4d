"""Loading tensors into a module so that no key is lost or left over unnoticed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from types import MappingProxyType

import torch
from torch import Tensor, nn

from .errors import KeyMismatch

# Counts training steps; evaluation never reads it, and old files lack it.
_COUNTER = "num_batches_tracked"


def load_strictly(
    module: nn.Module, tensors: Mapping[str, Tensor], *, what: str, ignorable: Mapping[str, str] = MappingProxyType({})
) -> None:
    """Copy ``tensors`` into ``module``; every key must have its place and every place its key.

    Floating tensors take the dtype of the module's own; shapes () and (1,) are the same number. A module on the meta
    device takes the tensors themselves.

    Args:
        module: the network whose state_dict names are the checkpoint's.
        tensors: by name, without the prefix of the part.
        what: file and part, for the message.
        ignorable: names, or prefixes that end in a dot, that the file may hold beyond the module, with the reason.

    Raises:
        KeyMismatch: missing or leftover keys, grouped by prefix, shapes that differ, or whole numbers for weights.
    """
    places = module.state_dict()
    missing = [name for name in places if name not in tensors and not name.endswith(_COUNTER)]
    leftover = [name for name in tensors if name not in places and not _may_ignore(name, ignorable)]
    wrong = [
        f"{name} {tuple(tensors[name].shape)} instead of {tuple(place.shape)}"
        for name, place in places.items()
        if name in tensors and not _fits(tensors[name], place)
    ]
    whole = [
        f"{name} of {tensors[name].dtype} instead of {place.dtype}"
        for name, place in places.items()
        if name in tensors and place.is_floating_point() and not tensors[name].is_floating_point()
    ]
    if missing or leftover or wrong or whole:
        raise KeyMismatch(
            what,
            expected=f"{len(places)} tensors",
            found=_differences(missing, leftover, wrong, whole),
            cure="use the publisher's unchanged file",
        )
    meta = any(place.is_meta for place in places.values())
    fitted = {name: _fitted(tensors[name], place) for name, place in places.items() if name in tensors}
    counters = {name: torch.zeros_like(places[name], device="cpu") for name in places if name not in fitted}
    module.load_state_dict(fitted | counters, assign=meta)


def group_by_prefix(names: Iterable[str], limit: int = 6) -> str:
    """Tell many names in few words: ``layers.0 (4), proj (2)``."""
    counts = Counter(".".join(name.split(".")[:2]) if name.count(".") > 1 else name.split(".")[0] for name in names)
    shown = ", ".join(f"{prefix} ({count})" for prefix, count in list(counts.items())[:limit])
    return shown + (f" and {len(counts) - limit} groups more" if len(counts) > limit else "")


def _may_ignore(name: str, ignorable: Mapping[str, str]) -> bool:
    if name.endswith(_COUNTER) or name in ignorable:
        return True
    return any(name.startswith(prefix) for prefix in ignorable if prefix.endswith("."))


def _fits(tensor: Tensor, place: Tensor) -> bool:
    if tensor.shape == place.shape:
        return True
    return tensor.numel() == 1 and place.numel() == 1 and tensor.ndim <= 1 and place.ndim <= 1


def _fitted(tensor: Tensor, place: Tensor) -> Tensor:
    dtype = place.dtype if tensor.is_floating_point() and place.is_floating_point() else tensor.dtype
    return tensor.reshape(place.shape).to(dtype)


def _differences(missing: list[str], leftover: list[str], wrong: list[str], whole: list[str]) -> str:
    parts = []
    if missing:
        parts.append(f"{len(missing)} missing: {group_by_prefix(missing)}")
    if leftover:
        parts.append(f"{len(leftover)} left over: {group_by_prefix(leftover)}")
    if wrong:
        parts.append(f"{len(wrong)} of another shape: {', '.join(wrong[:3])}")
    if whole:
        parts.append(f"{len(whole)} of another type: {', '.join(whole[:3])}")
    return "; ".join(parts)
