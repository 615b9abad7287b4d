"""The pack in the package host's RabbitMQ workers: custom nodes run there; results are taken from files.

Only that is asserted: version 0.0.1 of the host tells a failed node as a success there, and may lose outputs from the
history.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from host_process import ComfyProcess, find_host
from module_folders import ModuleFolders
from PIL import Image

RABBIT = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")
PROMPTS = 6
LONGEST = 900.0

if os.environ.get("COMFYUI_PATH"):
    pytest.skip("upstream ComfyUI has no RabbitMQ workers", allow_module_level=True)
if not RABBIT.is_file():
    pytest.skip("Debian's rabbitmq-server is not installed", allow_module_level=True)


def until(reached: Callable[[], bool], what: str) -> None:
    limit = time.monotonic() + LONGEST
    while not reached():
        assert time.monotonic() < limit, what
        time.sleep(0.1)


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [int(each.getsockname()[1]) for each in sockets]
    for each in sockets:
        each.close()
    return ports


def is_whole(file: Path) -> bool:
    """A picture has its name before its last byte."""
    try:
        with Image.open(file) as picture:
            picture.load()
    except OSError:
        return False
    return True


def answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(timeout=30)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def broker(module_folders: ModuleFolders) -> Iterator[str]:
    """A broker of this test alone, on 127.0.0.1; its address."""
    folder = module_folders.mktemp("broker")
    port, dist, epmd = free_ports(3)
    plugins = folder / "plugins"
    plugins.write_text("[].", encoding="utf-8")
    environment = {
        **os.environ,
        "HOME": str(folder),
        "RABBITMQ_MNESIA_BASE": str(folder / "data"),
        "RABBITMQ_LOG_BASE": str(folder / "log"),
        "RABBITMQ_PID_FILE": str(folder / "pid"),
        "RABBITMQ_NODENAME": f"likeness{port}@localhost",
        "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
        "RABBITMQ_NODE_PORT": str(port),
        "RABBITMQ_DIST_PORT": str(dist),
        "ERL_EPMD_PORT": str(epmd),
        "ERL_EPMD_ADDRESS": "127.0.0.1",
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(plugins),
        "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}",
    }
    with (folder / "out").open("wb") as out:
        process = subprocess.Popen(
            [str(RABBIT)], env=environment, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT
        )
        try:
            until(lambda: answers(port) or process.poll() is not None, "the broker does not answer")
            assert process.poll() is None, (folder / "out").read_text(encoding="utf-8", errors="replace")
            yield f"amqp://guest:guest@127.0.0.1:{port}/"
        finally:
            end(process)
            # The port mapper goes on after its node.
            if epmd_tool := shutil.which("epmd"):
                subprocess.run([epmd_tool, "-port", str(epmd), "-kill"], capture_output=True, check=False)


@pytest.fixture(scope="module")
def front(broker: str, module_folders: ModuleFolders) -> Iterator[ComfyProcess]:
    """A front end that runs nothing itself, with two workers on the same folders."""
    base = module_folders.mktemp("rabbit") / "host"
    options = ("--distributed-queue-connection-uri", broker, "--distributed-queue-frontend")
    host = ComfyProcess(base, options=options)
    for place in range(PROMPTS):
        pixels = np.full((24, 32, 3), 30 * place + 10, dtype=np.uint8)
        Image.fromarray(pixels).save(host.base / "input" / f"photo {place}.png")
    host.start(timeout=LONGEST)
    command = [str(Path(sys.executable).with_name("comfyui-worker")), *find_host().options]
    # A worker listens to the broker alone.
    place = command.index("--listen")
    command[place : place + 2] = []
    command += ["--cwd", str(host.base), "--distributed-queue-connection-uri", broker]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    workers = []
    try:
        for number in range(2):
            with (host.base / f"worker-{number}.log").open("wb") as log:
                streams: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": log, "stderr": subprocess.STDOUT}
                workers.append(subprocess.Popen(command, cwd=host.base, env=environment, **streams))
        warm_up(host)
        yield host
    finally:
        for worker in workers:
            end(worker)
        host.stop()


def warm_up(host: ComfyProcess) -> None:
    """Post until a worker answers: a prompt from before the first worker listened is lost."""
    limit = time.monotonic() + LONGEST
    while not any((host.base / "output").rglob("*.png")):
        assert time.monotonic() < limit, "no worker takes a prompt"
        host.post_prompt(prompt(0, "warm"))
        pause = time.monotonic() + 10
        while time.monotonic() < pause and not any((host.base / "output").rglob("*.png")):
            time.sleep(0.1)


def prompt(place: int, folder: str = "worker") -> dict[str, Any]:
    numbers = {"rounds": 0, "blur": 1.0, "resize": 1.0, "noise": 1.0, "jpeg": 1.0}
    degrade = {"images": ["1", 0], "seed": 1, "each_picture": True, **numbers}
    save = {"images": ["2", 0], "filename_prefix": f"{folder}/{place}"}
    return {
        "1": {"class_type": "LoadImage", "inputs": {"image": f"photo {place}.png"}},
        "2": {"class_type": "LikenessDegradePictures", "inputs": degrade},
        "3": {"class_type": "SaveImage", "inputs": save},
    }


def test_workers_run_the_packs_nodes(front: ComfyProcess) -> None:
    for place in range(PROMPTS):
        front.post_prompt(prompt(place))
    found = front.base / "output" / "worker"
    until(lambda: sum(map(is_whole, found.glob("*.png"))) >= PROMPTS, "the workers did not save all pictures")
    for place in range(PROMPTS):
        (file,) = found.glob(f"{place}_*.png")
        with Image.open(file) as picture:
            assert np.unique(np.asarray(picture.convert("RGB"))).tolist() == [30 * place + 10]
    logs = [(front.base / f"worker-{number}.log").read_text(encoding="utf-8", errors="replace") for number in range(2)]
    assert not [log for log in logs if "IMPORT FAILED" in log or "Cannot import" in log]
