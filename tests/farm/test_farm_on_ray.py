"""Forty items on one and on two actors, killed processes, hostile items, and reruns: with Ray and real ComfyUI."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from farm_yard import LONGEST, Yard, alive, pids, until
from module_folders import ModuleFolders
from pack import ROOT

ITEMS = 40


@pytest.fixture(scope="module")
def yard(module_folders: ModuleFolders) -> Yard:
    return Yard(module_folders.mktemp("farm"), ITEMS)


@pytest.fixture(scope="module")
def by_one(yard: Yard) -> tuple[int, dict[str, Any]]:
    return yard.run("one")


@pytest.fixture(scope="module")
def by_two(yard: Yard) -> dict[str, Any]:
    """Two actors; in the middle a ComfyUI and the other actor are killed. Report, and process ids before and after."""
    work = yard.folder / "work"
    process = yard.start("two", "--actors", "2", "--work", str(work))
    records = lambda count: lambda: len(list((yard.folder / "two").glob("*.record.json"))) >= count  # noqa: E731
    until(records(3), process)
    until(lambda: len(list(work.glob("actor-*/owner.json"))) == 2, process)
    before = pids(work)
    os.killpg(before["actor-0"]["comfyui"], signal.SIGKILL)
    os.kill(before["actor-1"]["owner"], signal.SIGKILL)
    code, report = yard.end(process, "two")
    return {"code": code, "report": report, "before": before, "after": pids(work)}


def test_one_actor_does_all_but_the_hostile_item(by_one: tuple[int, dict[str, Any]]) -> None:
    code, report = by_one
    assert code == 1
    assert (report["done"], report["failed"], report["items_in_all"]) == (ITEMS, 1, ITEMS + 1)
    (failed,) = (item for item in report["items"] if item["status"] == "failed")
    assert failed["name"] == "hostile.png"
    assert failed["error"].startswith("node 1 'Photo' (LoadImage): ")
    assert "\n" not in failed["error"]
    assert failed["attempts"] == 1


@pytest.mark.skipif(os.name == "nt", reason="kills by signals")
def test_killed_processes_lose_nothing_and_double_nothing(
    yard: Yard, by_one: tuple[int, dict[str, Any]], by_two: dict[str, Any]
) -> None:
    report = by_two["report"]
    assert by_two["code"] == 1
    assert (report["done"], report["failed"], report["missing"]) == (ITEMS, 1, 0)
    expected = yard.pictures("one", by_one[1])
    assert len(expected) == ITEMS
    assert len(set(expected.values())) == ITEMS, "the items must differ for the comparison to tell anything"
    assert yard.pictures("two", report) == expected
    listed = {name for item in report["items"] for name in item["files"]}
    assert {file.name for file in (yard.folder / "two").glob("*.png")} == listed
    assert len(listed) == ITEMS


@pytest.mark.skipif(os.name == "nt", reason="kills by signals")
def test_killed_processes_were_replaced_and_none_is_left(by_two: dict[str, Any]) -> None:
    before, after = by_two["before"], by_two["after"]
    assert before["actor-0"]["comfyui"] != after["actor-0"]["comfyui"]
    assert before["actor-0"]["owner"] == after["actor-0"]["owner"], "a dead ComfyUI does not take its actor with it"
    assert before["actor-1"]["owner"] != after["actor-1"]["owner"]
    assert before["actor-1"]["comfyui"] != after["actor-1"]["comfyui"]
    every = [
        pid for state in (before, after) for each in state.values() for name, pid in each.items() if name != "port"
    ]
    limit = time.monotonic() + 60
    while any(map(alive, every)) and time.monotonic() < limit:
        time.sleep(0.1)
    assert [pid for pid in every if alive(pid)] == []


def test_a_rerun_does_only_what_is_missing(yard: Yard, by_one: tuple[int, dict[str, Any]]) -> None:
    folder = yard.folder / "one"
    before = {item["name"]: item["files"] for item in by_one[1]["items"]}
    (yard.photos / "hostile.png").unlink()
    (yard.photos / "photo 05.png").rename(yard.photos / "renamed.png")
    times = {file.name: file.stat().st_mtime_ns for file in folder.glob("*.png")}
    code, report = yard.run("one")
    assert code == 0
    assert (report["kept"], report["done"]) == (ITEMS, 0)
    lost = before["photo 07.png"][0]
    (folder / lost).unlink()
    lines = [{"name": name, "set": {"Photo.image": f"@{name}"}} for name in ("photo 06.png", "photo 07.png")]
    lines.append({"name": "too many rounds", "set": {"Photo.image": "@photo 06.png", "Degrade.rounds": 9}})
    source = yard.photos / "items.jsonl"
    source.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    code, report = yard.run("one", source=source)
    assert code == 1
    assert [item["status"] for item in report["items"]] == ["kept", "done", "failed"]
    assert report["items"][2]["error"].startswith("node 2 'Degrade' (LikenessDegradePictures): ")
    changed = [file.name for file in folder.glob("*.png") if times.get(file.name) != file.stat().st_mtime_ns]
    assert changed == [lost]


def test_ray_listens_on_loopback_alone(yard: Yard) -> None:
    code = (
        "import sys, argparse; sys.path.insert(0, sys.argv[1]); import farm\n"
        "before = farm_ports = set()\n"
        "def ports():\n"
        "    rows = [r.split() for f in ('tcp', 'tcp6') for r in open(f'/proc/net/{f}').read().splitlines()[1:]]\n"
        "    return {r[1].rpartition(':')[0] for r in rows if r[3] == '0A' and r[9] not in known}\n"
        "known = {r.split()[9] for f in ('tcp', 'tcp6') for r in open(f'/proc/net/{f}').read().splitlines()[1:]}\n"
        "options = argparse.Namespace(address='', actors=1, cpus_per_actor=1.0, gpus_per_actor=0.0)\n"
        "ray = farm._start_ray(options); print(sorted(ports())); ray.shutdown()\n"
    )
    if not Path("/proc/net/tcp").exists():
        pytest.skip("reads the open ports from /proc/net")
    command = [os.environ["LIKENESS_FARM_PYTHON"], "-c", code, str(ROOT / "tools")]
    result = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=LONGEST)
    assert result.returncode == 0, result.stderr
    ports = json.loads(result.stdout.strip().splitlines()[-1].replace("'", '"'))
    assert ports
    assert set(ports) <= {"0100007F", "0000000000000000FFFF00000100007F", "00000000000000000000000001000000"}
