"""ComfyUI's HTTP interface, the same on old and new servers: send files, queue, wait, cancel, fetch."""

from __future__ import annotations

import http.client
import json
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import Cancelled, NoServer, WorkflowFailed, WrongUsage
from .titles import Workflow, title_of

Pause = Callable[[float], None]


@dataclass(frozen=True)
class OutputFile:
    """One file that a node made: which node, the kind of output (images, ...), and where it lies on the server."""

    node: str
    title: str
    kind: str
    filename: str
    subfolder: str
    folder: str  # output, temp or input

    def as_dict(self) -> dict[str, str]:
        """For JSON."""
        return {
            "node": self.node,
            "title": self.title,
            "kind": self.kind,
            "filename": self.filename,
            "subfolder": self.subfolder,
            "type": self.folder,
        }


class Client:
    """One server.

    Args:
        timeout: seconds that a single answer may take.
    """

    def __init__(self, host: str = "127.0.0.1", port: int = 8188, timeout: float = 60.0) -> None:
        self.host, self.port, self.timeout = host, port, timeout
        self.client_id = uuid.uuid4().hex
        # A proxy of the environment is for the world outside, not for one's own server.
        self._open = urllib.request.build_opener(urllib.request.ProxyHandler({})).open

    @property
    def url(self) -> str:
        """Address of the server."""
        return f"http://{self.host}:{self.port}"

    def _request(self, path: str, data: bytes | None = None, kind: str = "application/json", method: str = "") -> bytes:
        headers = {"Content-Type": kind} if data is not None else {}
        verb = method or ("GET" if data is None else "POST")
        request = urllib.request.Request(f"{self.url}{path}", data=data, headers=headers, method=verb)
        try:
            with self._open(request, timeout=self.timeout) as answer:
                return bytes(answer.read())
        except urllib.error.HTTPError:
            raise
        except (urllib.error.URLError, OSError, http.client.HTTPException) as error:
            reason = getattr(error, "reason", None) or error
            raise NoServer(
                f"no ComfyUI answers at {self.url} ({reason}): start it, or check --host and --port."
            ) from error

    def _json(self, path: str, value: Any = None) -> Any:
        body = self._request(path, None if value is None else json.dumps(value).encode())
        try:
            return json.loads(body) if body.strip() else None
        except ValueError as error:
            raise NoServer(f"what answers at {self.url}{path} is no ComfyUI: its answer is no JSON.") from error

    def get(self, path: str) -> Any:
        """A JSON answer.

        Raises:
            NoServer: nothing answers, or something that is no ComfyUI.
        """
        try:
            return self._json(path)
        except urllib.error.HTTPError as error:
            raise NoServer(f"what answers at {self.url}{path} is no ComfyUI: {error.code} {error.reason}.") from error

    def upload(self, name: str, content: bytes) -> None:
        """Put a file into the input folder, unless it is there already in the same size.

        Raises:
            WorkflowFailed: the server takes no such file.
        """
        query = urllib.parse.urlencode({"filename": name, "type": "input"})
        if self._size(f"/view?{query}") == len(content):
            return
        mark = uuid.uuid4().hex
        fields = {"overwrite": "true", "type": "input"}
        parts = [
            f'--{mark}\r\nContent-Disposition: form-data; name="{key}"\r\n\r\n{value}\r\n'
            for key, value in fields.items()
        ]
        parts.append(
            f'--{mark}\r\nContent-Disposition: form-data; name="image"; filename="{name}"\r\n'
            "Content-Type: application/octet-stream\r\n\r\n"
        )
        body = "".join(parts).encode() + content + f"\r\n--{mark}--\r\n".encode()
        try:
            stored = json.loads(self._request("/upload/image", body, f"multipart/form-data; boundary={mark}"))
        except urllib.error.HTTPError as error:
            raise WorkflowFailed(f"the server does not take {name}: {error.code} {error.reason}.") from error
        if stored.get("name") != name:
            raise WorkflowFailed(f"the server stored {name} under another name, {stored.get('name')}.")

    def _size(self, path: str) -> int | None:
        request = urllib.request.Request(f"{self.url}{path}", method="HEAD")
        try:
            with self._open(request, timeout=self.timeout) as answer:
                length = answer.headers.get("Content-Length")
                return int(length) if length else None
        except (urllib.error.URLError, OSError, http.client.HTTPException):
            return None  # the upload that follows tells what is wrong

    def queue(self, workflow: Workflow) -> str:
        """Queue a workflow; returns its id.

        Raises:
            WorkflowFailed: the server refuses it, or a part of it.
        """
        try:
            answer = self._json("/prompt", {"prompt": workflow, "client_id": self.client_id})
        except urllib.error.HTTPError as error:
            raise WorkflowFailed(refusal(error.read().decode("utf-8", "replace"), workflow)) from error
        if not isinstance(answer, dict) or "prompt_id" not in answer:
            raise NoServer(f"what answers at {self.url} is no ComfyUI: it gave no prompt_id.")
        number = str(answer["prompt_id"])
        if answer.get("node_errors"):
            # The server would run the rest of the workflow alone, which nobody asked for.
            self.cancel(number)
            raise WorkflowFailed(refusal(json.dumps(answer), workflow))
        return number

    def entry(self, number: str) -> dict[str, Any] | None:
        """The finished workflow's entry in the history, or None; the older host answers with all for an unknown id."""
        entry = (self.get(f"/history/{number}") or {}).get(number)
        return None if entry is None else dict(entry)

    def place(self, number: str) -> str | None:
        """``running``, ``waiting``, or None where the queue does not hold the workflow."""
        queue = self.get("/queue") or {}
        for state, key in (("running", "queue_running"), ("waiting", "queue_pending")):
            if any(len(item) > 1 and item[1] == number for item in queue.get(key, [])):
                return state
        return None

    def wait(self, number: str, workflow: Workflow, pause: Pause = time.sleep, timeout: float = 0.0) -> dict[str, Any]:
        """Wait for a queued workflow; returns its outputs by node.

        Args:
            pause: called between two looks with the seconds to wait; it may watch the server's events meanwhile.
            timeout: seconds after which the workflow is cancelled; 0 for never.

        Raises:
            WorkflowFailed: a node failed, or the time is over.
            Cancelled: somebody interrupted it.
            NoServer: the server ended, or forgot the workflow.
        """
        limit = time.monotonic() + timeout
        while True:
            entry = self.entry(number)
            if entry is None and self.place(number) is None:
                entry = self.entry(number)  # it may have ended between the two looks
                if entry is None:
                    raise NoServer(
                        f"the server at {self.url} no longer knows the workflow: restarted, or queue cleared."
                    )
            if entry is not None:
                return outputs_of(entry, workflow)
            if timeout and time.monotonic() > limit:
                self.cancel(number)
                raise WorkflowFailed(f"the workflow was stopped: it took longer than {timeout:g} s.")
            pause(0.2)

    def cancel(self, number: str) -> None:
        """Take a workflow out of the queue, or interrupt it if it runs; others are left alone."""
        self._json("/queue", {"delete": [number]})
        if self.place(number) == "running":
            self._json("/interrupt", {"prompt_id": number})

    def fetch(self, file: OutputFile) -> bytes:
        """The content of an output.

        Raises:
            WorkflowFailed: the server no longer has it.
        """
        query = {"filename": file.filename, "subfolder": file.subfolder, "type": file.folder}
        try:
            return self._request(f"/view?{urllib.parse.urlencode(query)}")
        except urllib.error.HTTPError as error:
            raise WorkflowFailed(f"the server does not give {file.filename}: {error.code} {error.reason}.") from error


def refusal(body: str, workflow: Workflow) -> str:
    """One sentence of a refused workflow's answer."""
    try:
        answer = json.loads(body)
    except ValueError:
        return f"the server refused the workflow: {_one_line(body)[:300]}"
    for node, problem in (answer.get("node_errors") or {}).items():
        for error in problem.get("errors") or []:
            told = ": ".join(filter(None, [str(error.get("message", "")), str(error.get("details", ""))]))
            return _at(workflow, node, problem.get("class_type"), told)
    error = answer.get("error") or {}
    if isinstance(error, Mapping):
        error = ": ".join(filter(None, [str(error.get("message", "")), str(error.get("details", ""))]))
    return f"the server refused the workflow: {_one_line(str(error))}"


def outputs_of(entry: Mapping[str, Any], workflow: Workflow) -> dict[str, Any]:
    """The outputs of a finished workflow by node; a failed one raises as ``Client.wait`` says."""
    status = entry.get("status") or {}
    for name, details in status.get("messages") or []:
        if name == "execution_interrupted":
            node = str(details.get("node_id"))
            raise Cancelled(f"interrupted at node {node} '{title_of(workflow, node)}'.")
        if name == "execution_error":
            raise WorkflowFailed(
                _at(workflow, details.get("node_id"), details.get("node_type"), str(details.get("exception_message")))
            )
    if status.get("status_str") == "error":
        raise WorkflowFailed(f"the workflow failed: {_one_line(json.dumps(status))[:300]}")
    return dict(entry.get("outputs") or {})


def output_files(outputs: Mapping[str, Any], workflow: Workflow) -> Iterator[OutputFile]:
    """Every file among the outputs, in the order of nodes in the workflow."""
    for node in [name for name in workflow if name in outputs]:
        for kind, entries in (outputs[node] or {}).items():
            for entry in entries if isinstance(entries, list | tuple) else []:
                if isinstance(entry, Mapping) and "filename" in entry:
                    where = (str(entry["filename"]), str(entry.get("subfolder", "")), str(entry.get("type", "output")))
                    yield OutputFile(node, title_of(workflow, node), kind, *where)


def output_texts(outputs: Mapping[str, Any], workflow: Workflow) -> list[dict[str, str]]:
    """Every text that a node showed: node, title, text."""
    return [
        {"node": node, "title": title_of(workflow, node), "text": "\n".join(map(str, outputs[node]["text"]))}
        for node in workflow
        if (outputs.get(node) or {}).get("text")
    ]


def require_folder(path: Path) -> None:
    """Refuse a place for outputs that cannot be a folder, before anything is computed. Raises WrongUsage."""
    taken = next((one for one in (path, *path.parents) if one.exists()), None)
    if taken is not None and not taken.is_dir():
        raise WrongUsage(f"{taken} is a file: give a folder for the outputs.")


def save_file(client: Client, file: OutputFile, folder: Path) -> Path:
    """Fetch an output into a folder under its own name; a name that other content has gets a number."""
    content = client.fetch(file)
    folder.mkdir(parents=True, exist_ok=True)
    path, number = folder / Path(file.filename).name, 1
    while path.exists() and path.read_bytes() != content:
        number += 1
        path = folder / f"{Path(file.filename).stem}-{number}{Path(file.filename).suffix}"
    path.write_bytes(content)
    return path


def _at(workflow: Workflow, node: Any, kind: Any, told: str) -> str:
    return f"node {node} '{title_of(workflow, str(node))}' ({kind}): {_one_line(told)}"


def _one_line(text: str) -> str:
    return " ".join(text.split())
