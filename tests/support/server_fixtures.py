"""One running server for all tests of a session: photos, stand-ins, a closed network, and short ways to ask it.

tests/host/conftest.py offers the fixtures; import the helpers from here.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from host_process import ComfyProcess
from likeness_pack.tools import demo
from PIL import Image

Prompt = dict[str, dict[str, Any]]

# Runs in every Python process of the server before anything else: it notes and refuses each way out of the machine.
_GUARD = """
import os, socket
def _inside(address):
    if not isinstance(address, tuple):
        return True
    host = str(address[0])
    return host in ("localhost", "", "0.0.0.0", "::", "::1") or host.startswith("127.")
def _note(what):
    with open(os.environ["LIKENESS_TEST_WAYS_OUT"], "a", encoding="utf-8") as file:
        file.write(what + "\\n")
    raise OSError("the network is closed in tests: " + what)
_connect, _connect_ex, _look_up = socket.socket.connect, socket.socket.connect_ex, socket.getaddrinfo
def connect(self, address):
    return _connect(self, address) if _inside(address) else _note(f"connect {address}")
def connect_ex(self, address):
    return _connect_ex(self, address) if _inside(address) else _note(f"connect {address}")
def look_up(host, *rest, **more):
    return _look_up(host, *rest, **more) if host is None or _inside((host,)) else _note(f"look up {host}")
socket.socket.connect, socket.socket.connect_ex, socket.getaddrinfo = connect, connect_ex, look_up
"""


class Server(ComfyProcess):
    """A server with photos and stand-ins, whose processes cannot leave the machine.

    Attributes:
        guarded: environment variables that close the network for a Python process.
        files: the stand-ins by title of the loader in the workflow fact_portrait.
    """

    def __init__(self, base: Path) -> None:
        guard = base.parent / "guard"
        guard.mkdir()
        (guard / "sitecustomize.py").write_text(_GUARD, encoding="utf-8")
        self._ways_out = guard / "ways_out.txt"
        path = os.pathsep.join([str(guard), *filter(None, [os.environ.get("PYTHONPATH")])])
        self.guarded = {"PYTHONPATH": path, "LIKENESS_TEST_WAYS_OUT": str(self._ways_out)}
        super().__init__(base, environment=self.guarded)
        demo.write_photos(self.base / "input")
        self.files = demo.write_standins(self.base / "models")

    @property
    def ways_out(self) -> list[str]:
        """Every attempt so far to reach another machine."""
        return self._ways_out.read_text(encoding="utf-8").splitlines() if self._ways_out.exists() else []

    def history(self, prompt: Mapping[str, Any], timeout: float = 300.0) -> dict[str, Any]:
        """Run a workflow; its whole entry in the history, with outputs and messages."""
        number = self.post_prompt(prompt)
        self.wait(number, timeout)
        return dict(self.get(f"/history/{number}")[number])

    def pixels(self, outputs: Mapping[str, Any]) -> np.ndarray:
        """The one saved picture of a run, (H, W, 3) uint8."""
        (path,) = self.images(outputs)
        return np.asarray(Image.open(path).convert("RGB"))

    def portrait(self, **changes: Any) -> Prompt:
        """The workflow fact_portrait on the stand-ins, small; ``changes`` are inputs of its Apply node."""
        prompt = demo.load_workflow("fact_portrait")
        demo.set_input(prompt, demo.BASE_MODEL, ckpt_name=self.files[demo.BASE_MODEL].name)
        demo.set_input(prompt, demo.ENCODER, encoder=self.files[demo.ENCODER].name)
        demo.set_input(prompt, demo.ADAPTER, file=self.files[demo.ADAPTER].name)
        demo.set_input(prompt, "Size", width=64, height=64)
        demo.set_input(prompt, "Sampler", steps=2)
        demo.set_input(prompt, "Apply identity", **changes)
        return prompt


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A base directory with a space and Chinese letters, as users have them."""
    with Server(tmp_path_factory.mktemp("session") / "my host 面") as host:
        yield host


@pytest.fixture(scope="session")
def node_info(server: Server) -> dict[str, Any]:
    """The definitions of all nodes, as the interface gets them."""
    return server.object_info()


def without_node(prompt: Prompt, node: str, passes: Mapping[int, str]) -> Prompt:
    """A workflow without one node: whoever took its output number n takes what came into its input ``passes[n]``."""
    rest = copy.deepcopy({name: entry for name, entry in prompt.items() if name != node})
    for entry in rest.values():
        for name, value in entry["inputs"].items():
            if isinstance(value, list) and value[0] == node:
                entry["inputs"][name] = prompt[node]["inputs"][passes[value[1]]]
    return rest


def titled(prompt: Prompt, title: str) -> str:
    """Number of the node with a title."""
    (found,) = (name for name, entry in prompt.items() if entry["_meta"]["title"] == title)
    return found


def text_of(outputs: Mapping[str, Any], node: str) -> str:
    """What a node showed as text."""
    return "\n".join(outputs[node]["text"])
