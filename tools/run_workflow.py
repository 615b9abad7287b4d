"""Run a workflow on a ComfyUI that is running, from a terminal; needs Python alone, no package.

    python tools/run_workflow.py workflows/api/swap_photo.json --set "Photo to change.image=@me.jpg" --json

--set names a node by its title (or number) and an input. A value @file is a local file: it is sent to the server. The
outputs are listed as one JSON object with --json, else one file a line. Exit code 0: done; 1: the server refused the
workflow or a node failed, with one sentence; 2: wrong usage; 3: no server; 130: stopped, on the server too (Ctrl-C).
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from likeness_path import register

register()

from likeness_pack.tools.queueing.client import (  # noqa: E402  (the package must be registered first)
    Client,
    output_files,
    output_texts,
    require_folder,
    save_file,
)
from likeness_pack.tools.queueing.errors import Cancelled, QueueingError  # noqa: E402
from likeness_pack.tools.queueing.events import Events  # noqa: E402
from likeness_pack.tools.queueing.titles import (  # noqa: E402
    Prepared,
    Workflow,
    load_workflow,
    parse_setting,
    prepare,
    title_of,
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    chosen = _parser().parse_args(arguments)
    try:
        if chosen.output:
            require_folder(chosen.output)
        made = prepare(load_workflow(chosen.workflow), [parse_setting(text) for text in chosen.set])
        result = _run(made, chosen)
    except QueueingError as error:
        return _failed(str(error), error.code, chosen.json)
    except KeyboardInterrupt:
        return _failed("stopped.", Cancelled.code, chosen.json)
    if chosen.json:
        print(json.dumps(result, ensure_ascii=False, indent=1))
    else:
        _print_plain(result)
    return 0


def _run(made: Prepared, chosen: argparse.Namespace) -> dict[str, Any]:
    client = Client(chosen.host, chosen.port)
    client.get("/queue")
    for name, path in made.files.items():
        client.upload(name, path.read_bytes())
    progress = Progress(made.workflow, chosen.quiet)
    events = Events(client.host, client.port, client.client_id, progress.tell)
    number = client.queue(made.workflow)
    try:
        outputs = client.wait(number, made.workflow, events.pause, chosen.timeout)
        events.drain()
    except KeyboardInterrupt:
        client.cancel(number)
        raise
    finally:
        events.close()
        progress.end()
    listed = []
    for file in output_files(outputs, made.workflow):
        saved = save_file(client, file, chosen.output) if chosen.output and file.folder == "output" else None
        listed.append({**file.as_dict(), "path": str(saved) if saved else None})
    return {"status": "done", "prompt_id": number, "files": listed, "texts": output_texts(outputs, made.workflow)}


class Progress:
    """Says on the error stream which node runs and how far it is; one line that changes, or a line a node in a log."""

    def __init__(self, workflow: Workflow, quiet: bool) -> None:
        self._workflow, self._quiet = workflow, quiet
        self._changing = sys.stderr.isatty()
        self._node = ""

    def tell(self, event: str, data: dict[str, Any]) -> None:
        """Take one event of the server."""
        if event == "executing" and data.get("node") is not None:
            self._node = title_of(self._workflow, str(data["node"]))
            self._say(self._node)
        elif event == "progress" and self._changing:
            self._say(f"{self._node} {data.get('value')}/{data.get('max')}")

    def end(self) -> None:
        """Leave the line behind."""
        if self._changing and self._node and not self._quiet:
            print(file=sys.stderr)

    def _say(self, text: str) -> None:
        if not self._quiet:
            line = f"\r{text[:78]:<78}" if self._changing else f"{text}\n"
            print(line, end="", file=sys.stderr, flush=True)


def _failed(sentence: str, code: int, as_json: bool) -> int:
    if as_json:
        status = "stopped" if code == Cancelled.code else "failed"
        print(json.dumps({"status": status, "error": sentence}, ensure_ascii=False))
    print(sentence, file=sys.stderr)
    return code


def _print_plain(result: dict[str, Any]) -> None:
    for file in result["files"]:
        print(file["path"] or f"{file['type']}/{file['subfolder']}/{file['filename']}".replace("//", "/"))
    for text in result["texts"]:
        print(f"{text['title']}: {text['text']}")


def _stop(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workflow", type=Path, help="a workflow in API form, such as those in workflows/api")
    parser.add_argument("--host", default="127.0.0.1", help="where ComfyUI listens")
    parser.add_argument("--port", type=int, default=8188)
    parser.add_argument("--set", action="append", default=[], metavar="TITLE.INPUT=VALUE", help="may be repeated")
    parser.add_argument("--output", type=Path, metavar="DIR", help="fetch the outputs into this folder")
    parser.add_argument("--timeout", type=float, default=0.0, metavar="SECONDS", help="stop it after so long; 0: never")
    parser.add_argument("--json", action="store_true", help="outputs, or what failed, as one JSON object")
    parser.add_argument("--quiet", action="store_true", help="no progress")
    return parser


if __name__ == "__main__":
    # A service manager stops it as Ctrl-C does.
    signal.signal(signal.SIGTERM, _stop)
    sys.exit(main())
