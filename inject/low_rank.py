"""An adapter's own LoRA on a MODEL: once for each adapter file, however many identities use it."""

from __future__ import annotations

from typing import Any


def set_low_rank(model: Any, patches: dict[str, Any], strength: float) -> None:
    """Make ``patches`` act on the clone ``model`` with ``strength``, in place of an earlier strength of the same
    patches.

    Args:
        model: a clone of the incoming MODEL.
        patches: weight patches by weight name; the same objects at every call for one adapter.
        strength: 0 leaves the weights untouched.
    """
    for key, patch in patches.items():
        entries = model.patches.get(key, [])
        kept = [entry for entry in entries if entry[1] is not patch]
        if len(kept) == len(entries):
            continue
        if kept:
            model.patches[key] = kept
        else:
            del model.patches[key]
    if strength != 0.0:
        missing = set(patches) - set(model.add_patches(patches, strength))
        if missing:
            raise KeyError(f"the model lacks {sorted(missing)[:3]}")
