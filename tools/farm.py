"""Run a workflow over many photos or clips, on one machine or several, with Ray (requirements-farm.txt).

    python tools/farm.py photos --workflow workflows/api/swap_photo.json --input "Photo to change.image" --output done
    python tools/farm.py items.jsonl --workflow W.json --actors 4 --gpus-per-actor 1 --output done

Each Ray actor owns one ComfyUI and feeds it item by item. Outputs are named by content, so a rerun does only what is
missing. Without --address Ray runs on this machine alone and listens on 127.0.0.1 alone; with it the farm joins a Ray
cluster. A line of a JSONL file is {"name": "...", "set": {"Title.input": value}}. Exit code 0: all items done; 1: some
failed, each with its sentence; 2: wrong usage; 3: no ComfyUI or no cluster; 130: stopped.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import secrets
import shutil
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from likeness_path import ROOT, register

register()

from likeness_pack.tools.queueing.client import require_folder  # noqa: E402
from likeness_pack.tools.queueing.cluster import check_answers, is_this_machine  # noqa: E402
from likeness_pack.tools.queueing.errors import Cancelled, NoServer, QueueingError, WrongUsage  # noqa: E402
from likeness_pack.tools.queueing.items import Item, Unusable, read_items  # noqa: E402
from likeness_pack.tools.queueing.owner import HostChoice  # noqa: E402
from likeness_pack.tools.queueing.shift import Shift  # noqa: E402
from likeness_pack.tools.queueing.titles import load_workflow, parse_setting  # noqa: E402

OBJECT_STORE = 512 * 2**20


class Actor:
    """One ComfyUI in a process of Ray's. Ray sends this class by value; everything else comes from the project."""

    def __init__(self, root: str, base: str, choice: dict[str, Any]) -> None:
        sys.path.insert(0, str(Path(root, "tools")))
        from likeness_path import register as make_importable

        make_importable()
        from likeness_pack.tools.queueing.owner import HostChoice, Owner

        self._owner = Owner(Path(base), HostChoice(**choice))

    def run(self, workflow: dict[str, Any], files: dict[str, bytes]) -> dict[str, Any]:
        """Run one item."""
        return self._owner.run(workflow, files)

    def stop(self, keep: bool) -> None:
        """End the ComfyUI; without ``keep`` its folder goes too, on whichever machine it is."""
        self._owner.stop() if keep else self._owner.clear()


class RayHands:
    """The actors of a shift as Ray objects.

    Args:
        ray: the module.
        folder: where each actor keeps its ComfyUI's base directory.
    """

    def __init__(self, ray: Any, chosen: argparse.Namespace, folder: Path) -> None:
        self._ray, self._retries, self._keep = ray, chosen.retries, chosen.work is not None
        # Ray starts a dead actor anew and runs its item again there.
        options = {"num_cpus": chosen.cpus_per_actor, "num_gpus": chosen.gpus_per_actor}
        made = ray.remote(max_restarts=-1, max_task_retries=chosen.retries, **options)(Actor)
        choice = dataclasses.asdict(_choice(chosen))
        bases = [folder / f"actor-{number}" for number in range(chosen.actors)]
        self.all = [made.remote(str(ROOT), str(base), choice) for base in bases]

    def start(self, hand: Any, item: Item) -> Any:
        """Give an item to an actor; returns what to wait for."""
        return hand.run.remote(item.workflow, {name: path.read_bytes() for name, path in item.files.items()})

    def next(self, waiting: Sequence[Any]) -> Any | None:
        """Wait a moment for one of them; None where none is ready."""
        ready, _ = self._ray.wait(list(waiting), num_returns=1, timeout=0.5)
        return ready[0] if ready else None

    def result(self, reference: Any) -> dict[str, Any]:
        """What the actor returned, or the sentence of its death."""
        errors = self._ray.exceptions
        try:
            return dict(self._ray.get(reference))
        except errors.RayActorError:
            return {"status": "failed", "error": f"its actor ended more than {self._retries} times under this item."}
        except errors.RayTaskError as error:
            return {"status": "failed", "error": f"its actor failed: {error.cause}"}

    def end(self) -> None:
        """End every ComfyUI: with its actor, whatever that does."""
        stops = [hand.stop.remote(self._keep) for hand in self.all]
        self._ray.wait(stops, num_returns=len(stops), timeout=30)
        self.kill()

    def kill(self) -> None:
        """End the actors at once; the leash of each ComfyUI ends it too."""
        for hand in self.all:
            self._ray.kill(hand)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    chosen = _parser().parse_args(arguments)
    try:
        require_folder(chosen.output)
        settings = [parse_setting(text) for text in chosen.set]
        items = read_items(chosen.source, load_workflow(chosen.workflow), settings, chosen.input)
        return _work(items, chosen)
    except QueueingError as error:
        print(error, file=sys.stderr)
        return error.code
    except KeyboardInterrupt:
        print("stopped; what is done stays done, and a rerun does the rest.", file=sys.stderr)
        return Cancelled.code


def _work(items: list[Item | Unusable], chosen: argparse.Namespace) -> int:
    shift = Shift(items, chosen.output, quiet=chosen.quiet)
    try:
        if shift.missing:
            _run_on_ray(shift, chosen)
    finally:
        report = shift.report(str(chosen.workflow))
        shift.write_report(report)
    if chosen.json:
        print(json.dumps(report, ensure_ascii=False, indent=1))
    counts = ", ".join(f"{report[name]} {name}" for name in ("done", "kept", "failed"))
    print(f"{counts} of {report['items_in_all']}; report: {shift.report_file}", file=sys.stderr)
    return 1 if report["failed"] else 0


def _run_on_ray(shift: Shift, chosen: argparse.Namespace) -> None:
    ray = _start_ray(chosen)
    folder = chosen.work or Path(tempfile.mkdtemp(prefix="likeness-farm-"))
    try:
        chosen.actors = min(chosen.actors, shift.missing)
        hands = RayHands(ray, chosen, folder.resolve())
        try:
            shift.work(hands)
        except KeyboardInterrupt:
            hands.kill()
            raise
        hands.end()
    finally:
        ray.shutdown()
        if chosen.work is None:
            shutil.rmtree(folder, ignore_errors=True)


def _start_ray(chosen: argparse.Namespace) -> Any:
    """Ray on 127.0.0.1 alone, or in the cluster at --address; it sends no statistics of use."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    # Ray lowers the priority of its workers, and each ComfyUI would inherit that.
    os.environ.setdefault("RAY_worker_niceness", "0")
    if not chosen.address or is_this_machine(chosen.address):
        # Ray takes the machine's outer address for 127.0.0.1 unless clusters are off; the name of the switch is Ray's.
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    if chosen.address:
        check_answers(chosen.address)
    elif "RAY_AUTH_MODE" not in os.environ:
        os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    try:
        import ray
    except ImportError as error:
        raise WrongUsage(
            "Ray is missing: python -m pip install -r requirements-farm.txt, or run .venv-farm."
        ) from error
    own = {"num_cpus": max(1, round(chosen.actors * chosen.cpus_per_actor)), "object_store_memory": OBJECT_STORE}
    where = {"address": chosen.address} if chosen.address else {"address": "local", "include_dashboard": False, **own}
    try:
        ray.init(**where, log_to_driver=False, logging_level="ERROR")
    except (ConnectionError, ValueError, RuntimeError, TimeoutError) as error:
        told = " ".join(str(error).split())[:300].rstrip(".")
        cure = "; check --address and the token (RAY_AUTH_MODE, RAY_AUTH_TOKEN)" if chosen.address else ""
        raise NoServer(f"Ray does not start or answer: {told}{cure}.") from error
    _check_resources(ray, chosen)
    return ray


def _check_resources(ray: Any, chosen: argparse.Namespace) -> None:
    there = ray.cluster_resources()
    for kind, each in (("CPU", chosen.cpus_per_actor), ("GPU", chosen.gpus_per_actor)):
        if each * chosen.actors > there.get(kind, 0):
            ray.shutdown()
            raise WrongUsage(
                f"{chosen.actors} actors of {each:g} {kind} need more than Ray has: {there.get(kind, 0):g}."
            )


def _choice(chosen: argparse.Namespace) -> HostChoice:
    python = chosen.python or os.environ.get("COMFYUI_PYTHON") or _own_python()
    named = {name: str(path.resolve()) for name in ("models", "custom_nodes") if (path := getattr(chosen, name))}
    return HostChoice(
        python=python,
        checkout=os.environ.get("COMFYUI_PATH", ""),
        device="cuda" if chosen.gpus_per_actor else "cpu",
        timeout=chosen.timeout,
        attempts=chosen.retries + 1,
        **named,
    )


def _own_python() -> str:
    return str(ROOT / ".venv" / ("Scripts/python.exe" if os.name == "nt" else "bin/python"))


def _stop(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help="a folder of photos or clips, or a JSONL file")
    parser.add_argument("--workflow", type=Path, required=True, help="a workflow in API form")
    parser.add_argument("--input", default="", metavar="TITLE.INPUT", help="with a folder: which input takes each file")
    parser.add_argument("--set", action="append", default=[], metavar="TITLE.INPUT=VALUE", help="for all items")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="outputs, records and report.json")
    parser.add_argument("--actors", type=int, default=1, help="how many ComfyUI at a time")
    parser.add_argument("--cpus-per-actor", type=float, default=1.0)
    parser.add_argument("--gpus-per-actor", type=float, default=0.0, help="0: ComfyUI runs on the CPU")
    parser.add_argument("--address", default="", help="a Ray cluster, such as 10.0.0.5:6379")
    parser.add_argument("--python", default="", help="the Python with ComfyUI; else COMFYUI_PYTHON, else .venv")
    parser.add_argument(
        "--models", type=Path, metavar="DIR", help="folder with checkpoints and the other model folders"
    )
    parser.add_argument("--custom-nodes", type=Path, metavar="DIR", help="folder with further node packs")
    parser.add_argument("--work", type=Path, metavar="DIR", help="where the ComfyUI processes live; kept at the end")
    parser.add_argument("--retries", type=int, default=2, help="how often an item is tried again when a process dies")
    parser.add_argument("--timeout", type=float, default=0.0, metavar="SECONDS", help="for one item; 0: any")
    parser.add_argument("--json", action="store_true", help="print the report")
    parser.add_argument("--quiet", action="store_true", help="no progress")
    return parser


if __name__ == "__main__":
    # A service manager stops it as Ctrl-C does.
    signal.signal(signal.SIGTERM, _stop)
    sys.exit(main())
