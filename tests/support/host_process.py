"""The real server as a child process, for tests; the one copy of it is tools/dev/comfy_process.py."""

from __future__ import annotations

from pack import register

register()

from likeness_pack.tools.dev.comfy_process import (  # noqa: E402
    PACK_FOLDER,
    ComfyProcess,
    HostFailed,
    find_host,
    install_pack,
    pack_files,
)

__all__ = ["PACK_FOLDER", "ComfyProcess", "HostFailed", "find_host", "install_pack", "pack_files"]
