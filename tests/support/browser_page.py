"""A ComfyUI page in Debian's Chromium: opens it, keeps every complaint of it, loads graphs, queues them.

Nothing leaves the machine: requests to any other address are refused, and are no complaint.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Collection, Mapping
from typing import Any

from host_process import PACK_FOLDER
from playwright.sync_api import Browser, ConsoleMessage, Page, Playwright, Route

FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-extensions")
# A start under load may take minutes; a test waits for what it asks for, never for a time.
PATIENCE = 90_000
BARE = "() => window.app?.graph && Object.keys(window.LiteGraph?.registered_node_types ?? {}).length > 100"
READY = """() => window.app?.graph && window.LiteGraph?.registered_node_types?.LikenessSelectFaces
    && app.extensions?.some((known) => known.name === "Likeness.Report")"""


def chromium() -> str | None:
    """The browser's program, or None."""
    return os.environ.get("LIKENESS_CHROMIUM") or shutil.which("chromium")


def launch(playwright: Playwright) -> Browser:
    """A browser without a window."""
    return playwright.chromium.launch(executable_path=chromium(), args=list(FLAGS))


class ComfyPage:
    """One interface in one tab.

    Args:
        browser: see `launch`.
        url: address of the interface.
        pack: whether the pack's scripts are loaded.
        known: complaints that the interface has without the pack too; they are not counted.

    Attributes:
        page: the tab.
        complaints: errors of the console and uncaught errors since the page was opened.
        loaded: addresses of everything that was loaded.
    """

    def __init__(self, browser: Browser, url: str, pack: bool = True, known: Collection[str] = ()) -> None:
        self.url, self.pack, self.known = url, pack, known
        self.complaints: list[str] = []
        self.page: Page = browser.new_page(viewport={"width": 1600, "height": 1000})
        self.page.set_default_timeout(PATIENCE)
        self.page.route("**/*", self._inside)
        self.loaded: list[str] = []
        self.page.on("response", lambda answer: self.loaded.append(answer.url) if answer.ok else None)
        self.page.on("console", self._console)
        self.page.on("pageerror", lambda error: self._complain(f"uncaught: {error}"))
        self.page.goto(url, wait_until="domcontentloaded")
        self.page.wait_for_function(READY if pack else BARE)

    def reload(self) -> None:
        """Open the page anew."""
        self.page.reload(wait_until="domcontentloaded")
        self.page.wait_for_function(READY)

    def _inside(self, route: Route) -> None:
        if f"/{PACK_FOLDER}/" in route.request.url and not self.pack:
            route.fulfill(body="", content_type="text/javascript")
        elif route.request.url.startswith((self.url, "data:", "blob:")):
            route.continue_()
        else:
            route.abort()

    def _console(self, message: ConsoleMessage) -> None:
        where = message.location.get("url", "")
        outside = where.startswith("http") and not where.startswith(self.url)
        # A fresh server has no settings and templates of a user yet, and answers 404 to the interface's first question;
        # and a shipped graph names pictures and clips that the user brings.
        fresh = "/userdata" in where or "/user.css" in where or "type=input" in where
        if message.type == "error" and not outside and not fresh:
            self._complain(f"{where}: {message.text}")

    def _complain(self, text: str) -> None:
        if text not in self.known:
            self.complaints.append(text)

    def close(self) -> None:
        """Close the tab."""
        self.page.close()

    def ask(self, script: str, value: Any = None) -> Any:
        """Evaluate a script in the page."""
        return self.page.evaluate(script, value)

    def until(self, script: str, value: Any = None) -> None:
        """Wait until a script is true."""
        self.page.wait_for_function(script, arg=value)

    def load(self, graph: Mapping[str, Any]) -> None:
        """Open a graph in canvas form. It goes in as text, so that the page sees what a file would hold."""
        self.ask("async (text) => { await app.loadGraphData(JSON.parse(text)); }", json.dumps(graph))

    def unknown_types(self) -> list[str]:
        """Types of the open graph's nodes that the interface does not know."""
        script = "() => app.graph._nodes.map((n) => n.type).filter((t) => !LiteGraph.registered_node_types[t])"
        return sorted(set(self.ask(script)))

    def prompt(self) -> dict[str, Any]:
        """The open graph in API form, as the page would queue it."""
        return dict(json.loads(self.ask("async () => JSON.stringify((await app.graphToPrompt()).output)")))

    def saved(self) -> dict[str, Any]:
        """The open graph as it would be saved."""
        return dict(json.loads(self.ask("() => JSON.stringify(app.graph.serialize())")))

    def queue(self) -> None:
        """Queue the open graph from the page."""
        self.ask("async () => { await app.queuePrompt(0, 1); }")

    def show(self, node: int, scale: float = 1.0) -> None:
        """Bring a node into the middle of the canvas."""
        script = """([id, scale]) => {
            const node = app.graph.getNodeById(id);
            app.canvas.ds.scale = scale;
            const [width, height] = [app.canvas.canvas.clientWidth, app.canvas.canvas.clientHeight];
            app.canvas.ds.offset[0] = width / scale / 2 - node.pos[0] - node.size[0] / 2;
            app.canvas.ds.offset[1] = Math.max(60, height / scale / 2 - node.size[1] / 2) - node.pos[1];
            app.canvas.setDirty(true, true);
        }"""
        self.ask(script, [node, scale])

    def report(self, node: int) -> str | None:
        """The text in a node's report widget, or None where it has none."""
        script = """(id) => app.graph.getNodeById(id).widgets?.find((w) => w.name === "likeness_report")
            ?.element.textContent ?? null"""
        return self.ask(script, node)
