"""A real ComfyUI server as a child process, and its HTTP interface: for the demo, ``make host`` and the host tests.

Runs on the standard library. The server is the checkout named by COMFYUI_PATH with the interpreter COMFYUI_PYTHON, else
the ``comfyui`` package beside the running interpreter.
"""

from __future__ import annotations

import atexit
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any

ROOT = Path(__file__).resolve().parents[2]
PACK_FOLDER = "likeness-pack"
BASE_FOLDERS = ("custom_nodes", "models/checkpoints", "input", "output", "temp", "user/default")
LEFT_OUT = {"tests", ".git", ".ci"}

Prompt = Mapping[str, Any]


class HostFailed(RuntimeError):
    """The server is missing, did not start, refused a prompt, or a node failed; the message has the server's words."""


@dataclass(frozen=True)
class HostCommand:
    """How to start one kind of ComfyUI."""

    start: tuple[str, ...]
    base_option: str
    options: tuple[str, ...]
    upstream: bool


def find_host(environment: Mapping[str, str] | None = None) -> HostCommand:
    """The host to run: COMFYUI_PATH and COMFYUI_PYTHON when set, else the package of this environment.

    An ``environment`` given instead of the process's own may name another Python's package by COMFYUI_PYTHON alone.
    """
    named = os.environ if environment is None else environment
    checkout = named.get("COMFYUI_PATH")
    common = ("--cpu", "--fp32-text-enc", "--listen", "127.0.0.1")
    if checkout:
        main = Path(checkout).resolve() / "main.py"
        if not main.is_file():
            raise HostFailed(f"COMFYUI_PATH={checkout} is not a ComfyUI checkout: it has no main.py.")
        python = named.get("COMFYUI_PYTHON", sys.executable)
        options = (*common, "--disable-api-nodes", "--preview-method", "auto", "--database-url", "sqlite:///:memory:")
        return HostCommand((python, str(main)), "--base-directory", options, upstream=True)
    python = sys.executable if environment is None else named.get("COMFYUI_PYTHON", sys.executable)
    script = Path(python).with_name("comfyui.exe" if os.name == "nt" else "comfyui")
    if not script.is_file():
        raise HostFailed(f"{python} has no ComfyUI: run tools/dev/setup_env.py and use its .venv.")
    return HostCommand((str(script),), "--cwd", (*common, "--disable-known-models"), upstream=False)


def pack_files(root: Path = ROOT) -> list[Path]:
    """The pack's files relative to ``root``: what git tracks or would add; without git, every file of the tree."""
    command = ["git", "-C", str(root), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listing = subprocess.run(command, capture_output=True, check=False) if shutil.which("git") else None
    if listing is not None and listing.returncode == 0:
        files = [Path(name) for name in listing.stdout.decode("utf-8").split("\0") if name]
    else:
        files = [file.relative_to(root) for file in root.rglob("*")]
    return sorted(
        file
        for file in files
        if file.parts[0] not in LEFT_OUT
        and "__pycache__" not in file.parts
        and not file.parts[0].startswith((".venv", ".host"))
        and (root / file).is_file()
    )


def install_pack(custom_nodes: Path, root: Path = ROOT, name: str = PACK_FOLDER) -> Path:
    """Copy the pack, without its tests, into a custom_nodes folder; an older copy is replaced."""
    target = custom_nodes / name
    if target.exists():
        shutil.rmtree(target)
    for file in pack_files(root):
        (target / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(root / file, target / file)
    return target


def make_base(base: Path) -> Path:
    """Create the folders of a ComfyUI base directory; the newer interface is told not to open its tutorial."""
    for folder in BASE_FOLDERS:
        (base / folder).mkdir(parents=True, exist_ok=True)
    settings = base / "user" / "default" / "comfy.settings.json"
    if not settings.exists():
        settings.write_text('{"Comfy.TutorialCompleted": true}', encoding="utf-8")
    return base


def free_port() -> int:
    """A port of 127.0.0.1 that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class ComfyProcess:
    """One running server. Use it as a context manager; it and its children end with the block, at the latest at exit.

    Args:
        base: base directory (created): custom_nodes, models, input, output, user and ``host.log``.
        pack: root of a node pack to copy into custom_nodes, or None.
        options: further options of the server.
        environment: variables added to this process's own.
        command: how to start the server, instead of ``find_host``.
    """

    def __init__(
        self,
        base: Path,
        *,
        pack: Path | None = ROOT,
        options: Sequence[str] = (),
        port: int | None = None,
        environment: Mapping[str, str] | None = None,
        command: HostCommand | None = None,
    ) -> None:
        self.base = make_base(base.resolve())
        self.port = port or free_port()
        self.client_id = uuid.uuid4().hex
        self.command = command or find_host()
        self._options = tuple(options)
        self._environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUTF8": "1", **(environment or {})}
        self._process: subprocess.Popen[bytes] | None = None
        self._log_file: IO[bytes] | None = None
        if pack is not None:
            install_pack(self.base / "custom_nodes", pack)

    def __enter__(self) -> ComfyProcess:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def url(self) -> str:
        """Address of the interface."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def log(self) -> str:
        """All that the server has printed so far."""
        file = self.base / "host.log"
        return file.read_text(encoding="utf-8", errors="replace") if file.exists() else ""

    @property
    def pid(self) -> int | None:
        """Process id of the running server."""
        return self._process.pid if self._process else None

    @property
    def running(self) -> bool:
        """Whether the server's process is alive."""
        return self._process is not None and self._process.poll() is None

    def start(self, timeout: float = 240.0) -> None:
        """Start the server and wait until it answers."""
        command = [*self.command.start, self.command.base_option, str(self.base), "--port", str(self.port)]
        command += [*self.command.options, *self._options]
        self._log_file = (self.base / "host.log").open("wb")
        self._process = subprocess.Popen(
            command,
            cwd=self.base,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=self._log_file,
            stderr=subprocess.STDOUT,
            start_new_session=os.name != "nt",
        )
        atexit.register(self.stop)
        self._wait_until_answering(timeout)

    def _wait_until_answering(self, timeout: float) -> None:
        limit = time.monotonic() + timeout
        while time.monotonic() < limit:
            if not self.running:
                raise HostFailed(f"the server ended while starting:\n{self.log[-3000:]}")
            try:
                self.get("/queue", timeout=5)
                return
            except (urllib.error.URLError, OSError):
                time.sleep(0.1)
        self.stop()
        raise HostFailed(f"the server did not answer within {timeout:.0f} s:\n{self.log[-3000:]}")

    def stop(self) -> None:
        """End the server and all its children."""
        process, self._process = self._process, None
        atexit.unregister(self.stop)
        if process is not None:
            _end_tree(process)
        if self._log_file is not None:
            self._log_file.close()
            self._log_file = None

    def get(self, path: str, timeout: float = 60.0) -> Any:
        """GET a JSON answer."""
        with urllib.request.urlopen(f"{self.url}{path}", timeout=timeout) as answer:
            return json.load(answer)

    def post(self, path: str, value: Any, timeout: float = 60.0) -> Any:
        """POST a JSON value; returns the JSON answer, or None where it has no body."""
        request = urllib.request.Request(
            f"{self.url}{path}", data=json.dumps(value).encode(), headers={"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=timeout) as answer:
            body = answer.read()
        return json.loads(body) if body else None

    def object_info(self, node: str | None = None) -> dict[str, Any]:
        """The node definitions by class name, or those of one class."""
        return dict(self.get("/object_info" + (f"/{urllib.parse.quote(node)}" if node else "")))

    def post_prompt(self, prompt: Prompt) -> str:
        """Queue a workflow in API form and return its id; a refused one raises with the server's reasons."""
        try:
            answer = self.post("/prompt", {"prompt": prompt, "client_id": self.client_id})
        except urllib.error.HTTPError as error:
            raise HostFailed(f"the server refused the prompt: {error.read().decode()[:3000]}") from error
        if answer.get("node_errors"):
            raise HostFailed(f"the server refused a part of the prompt: {answer['node_errors']}")
        return str(answer["prompt_id"])

    def wait(self, prompt_id: str, timeout: float = 300.0) -> dict[str, Any]:
        """Wait for a queued workflow; returns its outputs by node id, or raises with the text of the failed node."""
        limit = time.monotonic() + timeout
        while time.monotonic() < limit:
            # An unknown id makes the older host answer with its whole history.
            entry = self.get(f"/history/{prompt_id}").get(prompt_id)
            if entry is not None:
                return _outputs(entry)
            if not self.running:
                raise HostFailed(f"the server ended during a prompt:\n{self.log[-3000:]}")
            time.sleep(0.05)
        raise HostFailed(f"no result within {timeout:.0f} s:\n{self.log[-3000:]}")

    def run(self, prompt: Prompt, timeout: float = 300.0) -> dict[str, Any]:
        """Queue a workflow and wait for its outputs."""
        return self.wait(self.post_prompt(prompt), timeout)

    def interrupt(self) -> None:
        """Ask the running workflow to stop."""
        self.post("/interrupt", {})

    def free(self) -> None:
        """Unload every model and free cached memory."""
        self.post("/free", {"unload_models": True, "free_memory": True})

    def file(self, entry: Mapping[str, str]) -> Path:
        """Path of a file that an output names (filename, subfolder, type)."""
        return self.base / entry.get("type", "output") / entry.get("subfolder", "") / entry["filename"]

    def images(self, outputs: Mapping[str, Any]) -> list[Path]:
        """The pictures of all outputs, in the order of node ids."""
        entries = [entry for node in sorted(outputs) for entry in (outputs[node] or {}).get("images", [])]
        return [self.file(entry) for entry in entries]


def _outputs(entry: Mapping[str, Any]) -> dict[str, Any]:
    status = entry.get("status") or {}
    for name, details in status.get("messages") or []:
        if name == "execution_interrupted":
            raise HostFailed(f"interrupted at node {details.get('node_id')} ({details.get('node_type')})")
        if name == "execution_error":
            raise HostFailed(
                f"node {details.get('node_id')} ({details.get('node_type')}): "
                f"{details.get('exception_type')}: {details.get('exception_message')}"
            )
    if status.get("status_str") == "error":
        raise HostFailed(f"the workflow failed: {status}")
    return dict(entry.get("outputs") or {})


def _end_tree(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is not None:
        return
    if os.name == "nt":
        subprocess.run(["taskkill", "/PID", str(process.pid), "/T", "/F"], capture_output=True, check=False)
        process.wait(timeout=30)
        return
    os.killpg(process.pid, signal.SIGTERM)
    try:
        process.wait(timeout=5)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(timeout=30)
