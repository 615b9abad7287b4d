"""Where a server runs, every queued graph of ours gets its manifest (`inject.provenance`, loaded only then)."""

from __future__ import annotations

from typing import Any

from .host import import_first


def register_prompt_handler() -> bool:
    """Ask the server to show us every queued graph; False where there is no server (workers, tests, commands)."""
    try:
        module = import_first("server", "comfy.cmd.server")
    except ImportError:
        return False
    instance = getattr(getattr(module, "PromptServer", None), "instance", None)
    add = getattr(instance, "add_on_prompt_handler", None)
    if add is None:
        return False
    add(_with_manifest)
    return True


def _with_manifest(queued: dict[str, Any]) -> dict[str, Any]:
    from .provenance import with_manifest

    return with_manifest(queued)
