"""The farm joins clusters that were started by hand: one on 127.0.0.1, and one of two machines' addresses."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from farm_yard import LONGEST, Yard, alive, pids
from module_folders import ModuleFolders

TOKEN = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "c1" * 32}
QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0", "RAY_worker_niceness": "0"}
PHOTOS = 3
NAMES = [f"photo {place:02d}.png" for place in range(PHOTOS)]


if os.name == "nt":
    pytest.skip("Ray has clusters on Linux alone", allow_module_level=True)


@pytest.fixture(scope="module")
def yard(module_folders: ModuleFolders) -> Yard:
    made = Yard(module_folders.mktemp("cluster"), PHOTOS, **TOKEN)
    lines: list[dict[str, Any]] = [{"name": name, "set": {"Photo.image": f"@{name}"}} for name in NAMES]
    lines.append({"name": "too many rounds", "set": {"Photo.image": f"@{NAMES[0]}", "Degrade.rounds": 9}})
    (made.photos / "items.jsonl").write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    return made


@contextlib.contextmanager
def nodes(addresses: Sequence[str], before: Sequence[str] = (), **more: str) -> Iterator[str]:
    """Nodes of one processor each, as ``ray start`` starts them; the first is the head, whose address is told."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        head = f"{addresses[0]}:{probe.getsockname()[1]}"
    # Ray's sockets lie in it, and their names must be short.
    folder = Path(tempfile.mkdtemp(prefix="ray-"))
    ray = str(Path(os.environ["LIKENESS_FARM_PYTHON"]).with_name("ray"))
    common = ["--block", "--num-cpus", "1", "--object-store-memory", str(100 * 2**20)]
    place = ["--head", "--port", head.rpartition(":")[2], "--include-dashboard", "false", "--temp-dir", str(folder)]
    started: list[subprocess.Popen[bytes]] = []
    try:
        for number, address in enumerate(addresses):
            command = [*before, ray, "start", "--node-ip-address", address, *common]
            command += ["--address", head] if number else place
            log = folder / f"node-{number}.log"
            with log.open("wb") as out:
                started.append(
                    subprocess.Popen(
                        command,
                        env={**os.environ, **QUIET, **TOKEN, **more},
                        stdin=subprocess.DEVNULL,
                        stdout=out,
                        stderr=subprocess.STDOUT,
                        start_new_session=True,
                    )
                )
            wait_for(log, started[-1])
        yield head
    finally:
        for process in reversed(started):
            end(process)
        shutil.rmtree(folder, ignore_errors=True)


def wait_for(log: Path, process: subprocess.Popen[bytes]) -> None:
    """Until a node has started."""
    limit = time.monotonic() + LONGEST
    while "Ray runtime started" not in log.read_text(encoding="utf-8", errors="replace"):
        assert process.poll() is None and time.monotonic() < limit, log.read_text(encoding="utf-8", errors="replace")
        time.sleep(0.1)


def end(process: subprocess.Popen[bytes]) -> None:
    """A node and what it started: it ends them on this signal, and the rest is of its process group."""
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(timeout=30)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@pytest.fixture
def own_network() -> Iterator[list[str]]:
    """Words before a command that give it a network of its own, with nothing but loopback: Ray listens everywhere."""
    loopback = "import fcntl, socket, struct, time; s = socket.socket(); "
    loopback += "fcntl.ioctl(s, 0x8914, struct.pack('16sh14x', b'lo', 1)); print('up', flush=True); time.sleep(9999)"
    python = os.environ["LIKENESS_FARM_PYTHON"]
    if not (shutil.which("unshare") and shutil.which("nsenter")):
        pytest.skip("needs unshare and nsenter of util-linux")
    holder = subprocess.Popen(
        ["unshare", "--net", python, "-c", loopback], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        if holder.stdout is None or holder.stdout.readline() != "up\n":
            pytest.skip("a network of one's own is not permitted here")
        yield ["nsenter", "--net", f"--target={holder.pid}"]
    finally:
        holder.kill()
        holder.communicate()


@pytest.fixture(scope="module")
def joined(yard: Yard) -> tuple[str, dict[str, Any]]:
    """A cluster on this machine, joined and left: its address, and the report."""
    work, source = yard.folder / "work", yard.photos / "items.jsonl"
    with nodes(["127.0.0.1"], RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER="0") as address:
        code, report = yard.run("joined", "--address", address, "--work", str(work), source=source)
        assert code == 1
        (state,) = pids(work).values()
        limit = time.monotonic() + 60
        while (alive(state["comfyui"]) or alive(state["owner"])) and time.monotonic() < limit:
            time.sleep(0.1)
        assert not alive(state["comfyui"]) and not alive(state["owner"])
        host, port = address.split(":")
        socket.create_connection((host, int(port)), timeout=10).close()
    return address, report


def check(report: dict[str, Any]) -> None:
    assert [item["status"] for item in report["items"]] == ["done"] * PHOTOS + ["failed"]
    assert report["items"][-1]["error"].startswith("node 2 'Degrade' (LikenessDegradePictures): ")


def test_a_cluster_on_this_machine_is_joined_and_left(yard: Yard, joined: tuple[str, dict[str, Any]]) -> None:
    """Ray itself would look for 127.0.0.1 at the machine's outer address, where nothing listens, for many minutes."""
    address, report = joined
    check(report)
    process = yard.start("none", "--address", address, source=yard.photos / "items.jsonl")
    words, _ = process.communicate(timeout=LONGEST)
    assert process.returncode == 3
    assert f"no Ray cluster answers at {address} (" in words


def test_the_nodes_of_a_cluster_share_the_items(
    yard: Yard, joined: tuple[str, dict[str, Any]], own_network: list[str]
) -> None:
    """Two nodes with one processor each, so one actor on each; the pictures are those of one actor."""
    source = yard.photos / "items.jsonl"
    with nodes(["127.0.0.2", "127.0.0.3"], own_network) as address:
        process = yard.start("shared", "--address", address, "--actors", "2", source=source, before=own_network)
        code, report = yard.end(process, "shared")
    assert code == 1
    check(report)
    expected = yard.pictures("joined", joined[1])
    assert len(set(expected.values())) == PHOTOS
    assert yard.pictures("shared", report) == expected
