"""GET /likeness/models, where a server runs: the table of the panel of model files. Loaded with the pack, so small."""

from __future__ import annotations

import asyncio
from typing import Any

from .host import import_first

ROUTE = "/likeness/models"


def register_model_route() -> bool:
    """Add the route to the running server; False where there is none (workers, tests, commands)."""
    try:
        module = import_first("server", "comfy.cmd.server")
    except ImportError:
        return False
    routes = getattr(getattr(getattr(module, "PromptServer", None), "instance", None), "routes", None)
    if routes is None:
        return False
    routes.get(ROUTE)(_answer)
    return True


async def _answer(_request: Any) -> Any:
    from aiohttp import web

    from .model_files import model_rows

    # Folders with many files on a slow disk must not stop the server's other answers.
    rows = await asyncio.get_running_loop().run_in_executor(None, model_rows)
    return web.json_response({"files": rows})
