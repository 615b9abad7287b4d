"""The command that queues a workflow, against a server that answers as ComfyUI does: exit codes, JSON, uploads."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Iterator
from email.parser import BytesParser
from email.policy import HTTP
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from pack import ROOT

sys.path.append(str(ROOT / "tools"))

from likeness_pack.tools import run_workflow  # noqa: E402

WORKFLOW = {
    "1": {"class_type": "LoadImage", "inputs": {"image": "none.png"}, "_meta": {"title": "Photo"}},
    "2": {
        "class_type": "SaveImage",
        "inputs": {"images": ["1", 0], "filename_prefix": "a"},
        "_meta": {"title": "Save"},
    },
}
OUTPUTS = {
    "2": {"images": [{"filename": "a_00001_.png", "subfolder": "", "type": "output"}], "text": ["seen", "twice"]},
    "1": {"images": [{"filename": "look.png", "subfolder": "", "type": "temp"}]},
}


class Comfy(ThreadingHTTPServer):
    """What a ComfyUI would answer; ``entry`` is the history's entry of every prompt, None while it runs."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answers)
        self.inputs: dict[str, bytes] = {}
        self.prompts: list[dict[str, Any]] = []
        self.refuses: dict[str, Any] | None = None
        self.partly: dict[str, Any] = {}
        self.entry: dict[str, Any] | None = {"outputs": OUTPUTS, "status": {"status_str": "success", "messages": []}}
        self.forgotten = False
        self.posts: list[tuple[str, Any]] = []


class Answers(BaseHTTPRequestHandler):
    server: Comfy

    def log_message(self, format: str, *args: Any) -> None:
        return

    def answer(self, body: bytes, code: int = 200) -> None:
        self.send_response(code)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_GET(self) -> None:  # noqa: N802 (the library's name)
        url, comfy = urlsplit(self.path), self.server
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        if url.path == "/view":
            if query["type"] == "input":
                there = query["filename"] in comfy.inputs
                self.answer(comfy.inputs.get(query["filename"], b""), 200 if there else 404)
            else:
                self.answer(f"content of {query['filename']}".encode())
        elif url.path.startswith("/history/"):
            # The older host answers with its whole history for an id that it does not know.
            finished = {"other": {}} if comfy.entry is None else {"number-1": comfy.entry}
            self.answer(json.dumps(finished).encode())
        elif url.path == "/queue":
            running = [] if comfy.forgotten or not comfy.prompts else [[0, "number-1", {}]]
            self.answer(json.dumps({"queue_running": running, "queue_pending": []}).encode())
        else:
            self.answer(b"", 404)

    do_HEAD = do_GET  # noqa: N815

    def do_POST(self) -> None:  # noqa: N802
        comfy, body = self.server, self.rfile.read(int(self.headers["Content-Length"]))
        if self.path == "/upload/image":
            head = f"Content-Type: {self.headers['Content-Type']}\r\n\r\n".encode()
            parts = {
                part.get_param("name", header="content-disposition"): part
                for part in BytesParser(policy=HTTP).parsebytes(head + body).iter_parts()
            }
            assert parts["overwrite"].get_content().strip() == "true"
            name = str(parts["image"].get_filename())
            comfy.inputs[name] = parts["image"].get_payload(decode=True)
            self.answer(json.dumps({"name": name, "subfolder": "", "type": "input"}).encode())
            return
        comfy.posts.append((self.path, json.loads(body)))
        if self.path != "/prompt":
            self.answer(b"")
        elif comfy.refuses:
            self.answer(json.dumps(comfy.refuses).encode(), 400)
        else:
            comfy.prompts.append(json.loads(body)["prompt"])
            self.answer(json.dumps({"prompt_id": "number-1", "number": 0, "node_errors": comfy.partly}).encode())


@pytest.fixture
def comfy() -> Iterator[Comfy]:
    made = Comfy()
    thread = threading.Thread(target=made.serve_forever, args=(0.02,))
    thread.start()
    yield made
    made.shutdown()
    thread.join()
    made.server_close()


@pytest.fixture
def workflow(tmp_path: Path) -> Path:
    file = tmp_path / "w.json"
    file.write_text(json.dumps(WORKFLOW), encoding="utf-8")
    return file


def run(comfy: Comfy, workflow: Path, *options: str) -> int:
    return run_workflow.main([str(workflow), "--port", str(comfy.server_port), *options])


def test_outputs_are_listed_and_fetched(
    comfy: Comfy, workflow: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = run(comfy, workflow, "--set", "Save.filename_prefix=b", "--json", "--output", str(tmp_path / "out"))
    result = json.loads(capsys.readouterr().out)
    assert code == 0
    assert comfy.prompts[0]["2"]["inputs"]["filename_prefix"] == "b"
    saved = tmp_path / "out" / "a_00001_.png"
    assert [(file["title"], file["type"], file["path"]) for file in result["files"]] == [
        ("Photo", "temp", None),
        ("Save", "output", str(saved)),
    ]
    assert saved.read_bytes() == b"content of a_00001_.png"
    assert result["texts"] == [{"node": "2", "title": "Save", "text": "seen\ntwice"}]


def test_a_name_that_is_taken_is_not_overwritten(comfy: Comfy, workflow: Path, tmp_path: Path) -> None:
    (tmp_path / "a_00001_.png").write_bytes(b"another picture")
    for _ in range(2):
        assert run(comfy, workflow, "--output", str(tmp_path)) == 0
    assert (tmp_path / "a_00001_.png").read_bytes() == b"another picture"
    assert (tmp_path / "a_00001_-2.png").read_bytes() == b"content of a_00001_.png"
    assert not (tmp_path / "a_00001_-3.png").exists(), "the same content again needs no second file"


def test_a_local_picture_is_sent_once(comfy: Comfy, workflow: Path, tmp_path: Path) -> None:
    photo = tmp_path / "my photo 面.PNG"
    photo.write_bytes(bytes(range(256)) + b"\r\n--")
    for _ in range(2):
        assert run(comfy, workflow, "--set", f"Photo.image=@{photo}") == 0
    ((name, content),) = comfy.inputs.items()
    assert content == photo.read_bytes()
    assert [prompt["1"]["inputs"]["image"] for prompt in comfy.prompts] == [name, name]


def test_a_refused_workflow_is_one_sentence(comfy: Comfy, workflow: Path, capsys: pytest.CaptureFixture[str]) -> None:
    errors = [{"message": "Value 9 bigger than max of 2", "details": "rounds", "extra_info": {}}]
    comfy.refuses = {
        "error": {"type": "prompt_outputs_failed_validation", "message": "Prompt outputs failed validation"},
        "node_errors": {"2": {"errors": errors, "class_type": "SaveImage"}},
    }
    assert run(comfy, workflow, "--json") == 1
    said = capsys.readouterr()
    sentence = "node 2 'Save' (SaveImage): Value 9 bigger than max of 2: rounds"
    assert json.loads(said.out) == {"status": "failed", "error": sentence}
    assert said.err == f"{sentence}\n"
    comfy.refuses = {"error": {"message": "Cannot execute because node Nope does not exist.", "details": "#1"}}
    assert run(comfy, workflow) == 1
    assert "the server refused the workflow: Cannot execute because node Nope" in capsys.readouterr().err


def test_a_workflow_that_is_refused_in_part_does_not_run(comfy: Comfy, workflow: Path) -> None:
    comfy.partly = {"2": {"errors": [{"message": "no", "details": ""}], "class_type": "SaveImage"}}
    assert run(comfy, workflow) == 1
    assert ("/queue", {"delete": ["number-1"]}) in comfy.posts


def test_a_failed_node_is_one_sentence(comfy: Comfy, workflow: Path, capsys: pytest.CaptureFixture[str]) -> None:
    details = {"node_id": "1", "node_type": "LoadImage", "exception_message": "no picture:\n  truncated\n"}
    comfy.entry = {"outputs": {}, "status": {"status_str": "error", "messages": [["execution_error", details]]}}
    assert run(comfy, workflow) == 1
    assert capsys.readouterr().err == "node 1 'Photo' (LoadImage): no picture: truncated\n"


def test_an_interrupted_workflow_has_its_own_code(
    comfy: Comfy, workflow: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    messages = [["execution_interrupted", {"node_id": "2", "node_type": "SaveImage"}]]
    comfy.entry = {"outputs": {}, "status": {"status_str": "error", "messages": messages}}
    assert run(comfy, workflow, "--json") == 130
    assert json.loads(capsys.readouterr().out) == {"status": "stopped", "error": "interrupted at node 2 'Save'."}


def test_stopping_the_command_stops_the_workflow(comfy: Comfy, workflow: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    comfy.entry = None

    def interrupt(self: Any, seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("likeness_pack.tools.queueing.events.Events.pause", interrupt)
    assert run(comfy, workflow) == 130
    assert comfy.posts[1:] == [("/queue", {"delete": ["number-1"]}), ("/interrupt", {"prompt_id": "number-1"})]


def test_a_workflow_that_takes_too_long_is_stopped(
    comfy: Comfy, workflow: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    comfy.entry = None
    assert run(comfy, workflow, "--timeout", "0.01") == 1
    assert capsys.readouterr().err == "the workflow was stopped: it took longer than 0.01 s.\n"
    assert ("/interrupt", {"prompt_id": "number-1"}) in comfy.posts


def test_a_server_that_forgot_the_workflow_is_no_server(
    comfy: Comfy, workflow: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    comfy.entry, comfy.forgotten = None, True
    assert run(comfy, workflow) == 3
    assert "no longer knows the workflow" in capsys.readouterr().err


def test_no_server_and_wrong_usage_have_their_codes(
    comfy: Comfy, workflow: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_workflow.main([str(workflow), "--port", "1", "--json"]) == 3
    assert json.loads(capsys.readouterr().out)["error"].startswith("no ComfyUI answers at http://127.0.0.1:1 (")
    assert run(comfy, workflow, "--set", "Foto.image=x") == 2
    assert run(comfy, tmp_path / "missing.json") == 2
    assert run(comfy, workflow, "--output", str(workflow / "below")) == 2
    assert not comfy.prompts
    with pytest.raises(SystemExit) as usage:
        run(comfy, workflow, "--no-such-option")
    assert usage.value.code == 2
