"""Real interfaces in a real browser. Without Chromium or its driver these tests are skipped, with the reason."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from host_process import ComfyProcess
from likeness_pack.tools.demo import write_photos
from pack import ROOT
from PIL import Image

sys.path.append(str(ROOT / "tools" / "dev"))

OWN, CURRENT, LATEST = "the host's own", "1.27.10", "1.58.1"
HAS_DRIVER = importlib.util.find_spec("playwright") is not None


def _lacking() -> str | None:
    """Why no browser test can run here, or None."""
    if not HAS_DRIVER:
        return "needs the package playwright, which the development requirements bring"
    from browser_page import chromium

    return None if chromium() else "needs Debian's package chromium (or LIKENESS_CHROMIUM, the program's path)"


@pytest.fixture(scope="session", autouse=True)
def possible() -> None:
    """Skip where there is no browser; with LIKENESS_UI_TEST (make ui-test) that is a failure."""
    reason = _lacking()
    if reason and os.environ.get("LIKENESS_UI_TEST"):
        pytest.fail(reason)
    if reason:
        pytest.skip(reason)


@pytest.fixture(scope="session")
def host(possible: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ComfyProcess]:
    """A running server with the photos of the shipped workflows, grey ones in place of the user's."""
    with ComfyProcess(tmp_path_factory.mktemp("ui") / "my host 面") as server:
        write_photos(server.base / "input")
        for file in (ROOT / "workflows" / "api").glob("*.json"):
            for node in json.loads(file.read_text(encoding="utf-8")).values():
                picture = server.base / "input" / str(node["inputs"].get("image"))
                if node["class_type"] == "LoadImage" and not picture.exists():
                    Image.new("RGB", (64, 64), "gray").save(picture)
        yield server


@pytest.fixture(scope="session")
def browser(possible: None) -> Iterator[Any]:
    """One browser for all tests."""
    from browser_page import launch
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        program = launch(playwright)
        yield program
        program.close()


@contextlib.contextmanager
def interface(host: ComfyProcess, version: str) -> Iterator[str]:
    """The address of an interface over the host: its own, or another version's through the proxy."""
    if version == OWN:
        yield host.url
        return
    from frontend_proxy import FrontendProxy
    from frontends import static_folder

    if host.command.upstream:
        pytest.skip("the proxy is for the package host; a checkout brings its own interface")
    static: Path | None = static_folder(version)
    if static is None and os.environ.get("LIKENESS_UI_TEST"):
        pytest.fail(f"python tools/dev/frontends.py has not fetched the interface {version}")
    if static is None:
        pytest.skip(f"the interface {version} is fetched by python tools/dev/frontends.py")
    with FrontendProxy(static, host.url) as proxy:
        yield proxy.url


@pytest.fixture(scope="session", params=[OWN, CURRENT, LATEST])
def tab(request: pytest.FixtureRequest, host: ComfyProcess, browser: Any) -> Iterator[Any]:
    """The page of each interface, one after the other."""
    from browser_page import ComfyPage

    with interface(host, request.param) as url:
        bare = ComfyPage(browser, url, pack=False)
        bare.close()
        page = ComfyPage(browser, url, known=bare.complaints)
        page.version = request.param
        yield page
        page.close()


@pytest.fixture
def running_tab(tab: Any) -> Any:
    """A page that hears of a run; the newest interface asks for it in a way that the package host does not know."""
    if tab.version == LATEST:
        pytest.skip("this interface reports no run of the package host")
    return tab
