"""One ComfyUI process and whoever owns it: starts it, feeds it one item at a time, starts it anew when it dies."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shutil
import socket
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..dev.comfy_process import ROOT, ComfyProcess, HostCommand, HostFailed, find_host
from .client import Client, output_files, output_texts
from .errors import Cancelled, NoServer, WorkflowFailed

LEASH = Path(__file__).with_name("leash.py")
START_SECONDS = 900.0  # several start at a time, perhaps from one slow disk
DONE, FAILED, NO_HOST = "done", "failed", "no host"


@dataclasses.dataclass(frozen=True)
class HostChoice:
    """Which ComfyUI an owner runs, and with what.

    Attributes:
        python: interpreter with the ComfyUI package, or that of the checkout.
        checkout: a ComfyUI checkout; empty for the package.
        device: ``cpu``, or ``cuda`` for the device that the owner may see.
        models: folder whose subfolders (checkpoints, ...) hold the models; empty for none.
        custom_nodes: folder of further node packs; empty for none.
        timeout: seconds that one item may take; 0 for any.
        attempts: how often an item is tried on a ComfyUI that dies under it.
    """

    python: str = ""
    checkout: str = ""
    device: str = "cpu"
    models: str = ""
    custom_nodes: str = ""
    timeout: float = 0.0
    attempts: int = 3

    def command(self) -> HostCommand:
        """The command of this ComfyUI."""
        named = {"COMFYUI_PYTHON": self.python, "COMFYUI_PATH": self.checkout}
        made = find_host({name: value for name, value in named.items() if value})
        if self.device != "cpu":
            made = dataclasses.replace(made, options=tuple(option for option in made.options if option != "--cpu"))
        return made


class Owner:
    """Keeps one ComfyUI alive below ``base``; ``base/owner.json`` tells the process ids."""

    def __init__(self, base: Path, choice: HostChoice) -> None:
        self._base, self._choice = base, choice
        self._process: ComfyProcess | None = None
        # It breaks with this process, and the leash at its other end then ends the ComfyUI.
        self._lifeline = socket.create_server(("127.0.0.1", 0))

    def run(self, workflow: dict[str, Any], files: Mapping[str, bytes]) -> dict[str, Any]:
        """Run one item; returns its status with outputs and texts, or with the sentence of what failed."""
        told = ""
        for attempt in range(1, self._choice.attempts + 1):
            try:
                client = self._client()
            except HostFailed as error:
                self.stop()
                return {"status": NO_HOST, "error": _last_line(str(error)), "attempts": attempt}
            try:
                return {"status": DONE, "attempts": attempt, **self._once(client, workflow, files)}
            except (WorkflowFailed, Cancelled) as error:
                return {"status": FAILED, "error": str(error), "attempts": attempt}
            except NoServer as error:
                told = str(error)
                self.stop()
        times = self._choice.attempts
        return {"status": FAILED, "error": f"ComfyUI ended {times} times under this item: {told}", "attempts": times}

    def stop(self) -> None:
        """End the ComfyUI."""
        process, self._process = self._process, None
        if process is not None:
            process.stop()

    def clear(self) -> None:
        """End the ComfyUI and remove its folder, and the one around it where nothing else is left there."""
        self.stop()
        shutil.rmtree(self._base, ignore_errors=True)
        with contextlib.suppress(OSError):
            self._base.parent.rmdir()

    def _client(self) -> Client:
        if self._process is None or not self._process.running:
            self.stop()
            self._process = self._start()
        return Client(port=self._process.port)

    def _start(self) -> ComfyProcess:
        real = self._choice.command()
        port = str(self._lifeline.getsockname()[1])
        start = (sys.executable, str(LEASH), port, *real.start)
        own = Path(self._choice.custom_nodes).resolve() if self._choice.custom_nodes else None
        process = ComfyProcess(
            self._base,
            pack=None if own is not None and ROOT.parent == own else ROOT,
            options=self._more_paths(),
            command=dataclasses.replace(real, start=start),
        )
        process.start(START_SECONDS)
        pids = {"owner": os.getpid(), "comfyui": process.pid, "port": process.port}
        (self._base / "owner.json").write_text(json.dumps(pids), encoding="utf-8")
        return process

    def _more_paths(self) -> tuple[str, ...]:
        """Options that add the folders of models and packs; the file is JSON, which is YAML too."""
        named: dict[str, str] = {}
        if self._choice.models:
            folder = Path(self._choice.models).resolve()
            named |= {part.name: str(part) for part in sorted(folder.iterdir()) if part.is_dir()}
        if self._choice.custom_nodes:
            named["custom_nodes"] = str(Path(self._choice.custom_nodes).resolve())
        if not named:
            return ()
        self._base.mkdir(parents=True, exist_ok=True)
        file = self._base / "more_paths.yaml"
        file.write_text(json.dumps({"farm": named}), encoding="utf-8")
        return ("--extra-model-paths-config", str(file))

    def _once(self, client: Client, workflow: dict[str, Any], files: Mapping[str, bytes]) -> dict[str, Any]:
        for name, content in files.items():
            client.upload(name, content)
        outputs = client.wait(client.queue(workflow), workflow, timeout=self._choice.timeout)
        made = [
            {
                "node": file.node,
                "title": file.title,
                "suffix": Path(file.filename).suffix,
                "content": client.fetch(file),
            }
            for file in output_files(outputs, workflow)
            if file.folder == "output"
        ]
        return {"outputs": made, "texts": output_texts(outputs, workflow)}


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return f"ComfyUI does not start: {lines[-1] if lines else 'it said nothing'}"
