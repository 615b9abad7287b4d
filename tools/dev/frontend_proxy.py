"""A newer web interface in front of an older ComfyUI server, so that the pack's scripts can be tried in both.

    python tools/dev/frontend_proxy.py http://127.0.0.1:8188 [--version 1.27.10] [--port 8189]

The interface's own files come from its package; everything else is asked of the server behind. What that server does
not know yet (translations, templates, feature flags) is answered here, with the pack's own locales.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import TracebackType
from typing import Any

import aiohttp
from aiohttp import web
from comfy_process import PACK_FOLDER, ROOT, free_port
from frontends import CURRENT, fetch

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
LARGEST = 2**30
LOCALE_FILES = ("main", "nodeDefs", "commands", "settings")


def locales(pack: Path = ROOT) -> dict[str, Any]:
    """What the pack says in each language, in the form in which newer servers offer it."""
    told: dict[str, Any] = {}
    for folder in sorted(path for path in (pack / "locales").iterdir() if path.is_dir()):
        found = {name: folder / f"{name}.json" for name in LOCALE_FILES}
        read = {name: json.loads(file.read_text(encoding="utf-8")) for name, file in found.items() if file.is_file()}
        told[folder.name] = {**read.pop("main", {}), **read}
    return told


class Relay:
    """The handlers of one proxy.

    Args:
        static: folder of the built interface.
        behind: address of the server.
    """

    def __init__(self, static: Path, behind: str) -> None:
        self.static, self.behind = static.resolve(), behind.rstrip("/")

    def application(self) -> web.Application:
        """Routes with and without the prefix that newer interfaces use."""
        app = web.Application(client_max_size=LARGEST)
        app.cleanup_ctx.append(self._session)
        answers: dict[str, Handler] = {
            "/ws": self.socket,
            "/i18n": _json(lambda: locales()),
            "/workflow_templates": _json(dict),
            "/features": _json(dict),
            "/experiment/models": _json(list),
            "/system_stats": self.system_stats,
            "/object_info": self.object_info,
        }
        for path, handler in answers.items():
            app.router.add_get(path, handler)
            app.router.add_get(f"/api{path}", handler)
        app.router.add_route("*", "/api/{path:.*}", self.forward)
        app.router.add_route("*", "/{path:.*}", self.file_or_forward)
        return app

    async def _session(self, app: web.Application) -> Any:
        self.session = aiohttp.ClientSession()
        yield
        await self.session.close()

    async def forward(self, request: web.Request) -> web.Response:
        """Ask the server behind and hand on its answer."""
        url = f"{self.behind}/{request.match_info['path']}"
        kind = {"Content-Type": request.content_type} if request.can_read_body else {}
        sent = request.headers.get("Content-Type")
        headers = {"Content-Type": sent} if sent else kind
        body = await request.read()
        async with self.session.request(
            request.method, url, params=request.query, data=body or None, headers=headers
        ) as answer:
            return web.Response(status=answer.status, body=await answer.read(), content_type=answer.content_type)

    async def file_or_forward(self, request: web.Request) -> web.StreamResponse:
        """A file of the interface, else what the server behind has."""
        path = (self.static / (request.match_info["path"] or "index.html")).resolve()
        if path.is_relative_to(self.static) and path.is_file():
            return web.FileResponse(path)
        return await self.forward(request)

    async def system_stats(self, request: web.Request) -> web.Response:
        """The server's own numbers with the fields that newer interfaces expect."""
        stats = await self._ask("/system_stats")
        added = {"comfyui_version": "unknown", "pytorch_version": "unknown", "argv": [], "ram_total": 0, "ram_free": 0}
        return web.json_response({**stats, "system": {**added, **stats["system"]}})

    async def object_info(self, request: web.Request) -> web.Response:
        """The node definitions with the module that newer interfaces find help pages by."""
        nodes = await self._ask("/object_info")
        for name, node in nodes.items():
            ours = name.startswith("Likeness")
            node.setdefault("python_module", f"custom_nodes.{PACK_FOLDER}" if ours else "nodes")
        return web.json_response(nodes)

    async def _ask(self, path: str) -> Any:
        async with self.session.get(self.behind + path) as answer:
            return await answer.json()

    async def socket(self, request: web.Request) -> web.WebSocketResponse:
        """Join the interface's socket to the server's, until one side ends."""
        front = web.WebSocketResponse()
        await front.prepare(request)
        async with self.session.ws_connect(f"{self.behind}/ws?{request.query_string}", max_msg_size=0) as back:
            tasks = [asyncio.create_task(_pump(front, back)), asyncio.create_task(_pump(back, front))]
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in tasks:
                task.cancel()
        return front


async def _pump(source: Any, target: Any) -> None:
    async for message in source:
        if target.closed:
            return
        if message.type is aiohttp.WSMsgType.TEXT:
            await target.send_str(message.data)
        elif message.type is aiohttp.WSMsgType.BINARY:
            await target.send_bytes(message.data)


def _json(value: Callable[[], Any]) -> Handler:
    async def answer(_request: web.Request) -> web.Response:
        return web.json_response(value())

    return answer


class FrontendProxy:
    """A proxy in a thread of this process. Use it as a context manager.

    Args:
        static: folder of the built interface.
        behind: address of the server.
        port: its port of 127.0.0.1, or None for a free one.
    """

    def __init__(self, static: Path, behind: str, port: int | None = None) -> None:
        self.port = port or free_port()
        self._relay = Relay(static, behind)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    @property
    def url(self) -> str:
        """Address of the interface."""
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> FrontendProxy:
        self._thread.start()
        self._run(self._start())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._run(self._runner.cleanup())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(timeout=10)

    def _run(self, work: Any) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(timeout=60)

    async def _start(self) -> None:
        self._runner = web.AppRunner(self._relay.application(), shutdown_timeout=1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self.port).start()


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("behind", help="address of the running server")
    parser.add_argument("--version", default=CURRENT)
    parser.add_argument("--port", type=int, default=8189)
    arguments = parser.parse_args()
    with FrontendProxy(fetch(arguments.version), arguments.behind, arguments.port) as proxy:
        print(f"interface {arguments.version} on {proxy.url}; Ctrl-C ends it", flush=True)
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            return 0
    return 0


if __name__ == "__main__":
    sys.exit(main())
