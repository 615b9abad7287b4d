"""The shipped workflows in a running server, on real photographs and on stand-ins of real layout."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import pytest
from likeness_pack.tools import demo
from server_fixtures import Server, text_of, titled, without_node

MODEL = {0: "model"}


@pytest.fixture(scope="module")
def portrait(server: Server) -> np.ndarray:
    """fact_portrait at strength 0.5."""
    return server.pixels(server.run(server.portrait(strength=0.5)))


@pytest.fixture(scope="module")
def plain(server: Server) -> np.ndarray:
    """The same without the Apply node."""
    prompt = server.portrait()
    return server.pixels(server.run(without_node(prompt, titled(prompt, "Apply identity"), MODEL)))


@pytest.fixture(scope="module")
def check(server: Server) -> dict[str, Any]:
    """The outputs of identity_check."""
    return server.run(demo.load_workflow("identity_check"))


def test_six_faces_in_the_group(check: dict[str, Any]) -> None:
    lines = text_of(check, "5").splitlines()
    assert lines[0].startswith("6 faces in 1 images of 1280x886")
    assert len(lines) == 7


def test_the_altered_photo_is_recognised_among_seven_people(check: dict[str, Any]) -> None:
    report = text_of(check, "13")
    assert "b7 (same person)" in report
    distances = [float(word) for word in report.splitlines()[-1].split()[1:8]]
    assert distances[6] < 0.6 < min(distances[:6])


def test_the_overlays_are_saved(server: Server, check: dict[str, Any]) -> None:
    group, photo = server.images(check)
    assert (demo.texts(check, "5"), group.parent.name) == (text_of(check, "5"), "likeness")
    assert photo.stat().st_size > 10_000


def test_a_portrait_is_a_picture(portrait: np.ndarray) -> None:
    assert portrait.shape == (64, 64, 3)
    assert portrait.std() > 5.0


def test_the_identity_shows(portrait: np.ndarray, plain: np.ndarray) -> None:
    assert np.abs(portrait.astype(int) - plain.astype(int)).mean() > 1.0


def test_strength_zero_is_as_without_the_node(server: Server, plain: np.ndarray) -> None:
    assert np.array_equal(server.pixels(server.run(server.portrait(strength=0.0))), plain)


def test_a_range_that_begins_after_the_last_step_is_as_without_the_node(server: Server, plain: np.ndarray) -> None:
    pixels = server.pixels(server.run(server.portrait(start_percent=1.0, end_percent=1.0)))
    assert np.array_equal(pixels, plain)


def test_removing_the_node_again_leaves_no_trace(server: Server, portrait: np.ndarray, plain: np.ndarray) -> None:
    prompt = server.portrait()
    prompt = without_node(prompt, titled(prompt, "Apply identity"), MODEL)
    # Another seed in between, so that the second picture is sampled and not taken from the host's cache.
    demo.set_input(prompt, "Sampler", seed=8)
    assert not np.array_equal(server.pixels(server.run(prompt)), plain)
    demo.set_input(prompt, "Sampler", seed=7)
    assert np.array_equal(server.pixels(server.run(prompt)), plain)
    assert not np.array_equal(portrait, plain)


def test_the_same_identity_twice_gives_the_same_picture(server: Server, portrait: np.ndarray) -> None:
    server.free()
    assert np.array_equal(server.pixels(server.run(server.portrait(strength=0.5))), portrait)


async def watched(server: Server, prompt: dict[str, Any]) -> list[dict[str, Any]]:
    """Queue a workflow and return what the interface would be told, until it is done."""
    events: list[dict[str, Any]] = []
    address = f"{server.url}/ws?clientId={server.client_id}"
    async with aiohttp.ClientSession() as session, session.ws_connect(address) as socket:
        number = await asyncio.to_thread(server.post_prompt, prompt)
        async for message in socket:
            if message.type is not aiohttp.WSMsgType.TEXT:
                continue
            events.append(json.loads(message.data))
            data = events[-1]["data"]
            if events[-1]["type"] == "executing" and data["node"] is None and data["prompt_id"] == number:
                return events
    raise AssertionError("the server closed the connection")


def test_a_new_strength_encodes_nothing_again(server: Server, portrait: np.ndarray) -> None:
    # A wish to free memory, as the test before has, may be heard only behind the next run.
    assert np.array_equal(server.pixels(server.run(server.portrait(strength=0.5))), portrait)
    prompt = server.portrait(strength=0.7)
    events = asyncio.run(asyncio.wait_for(watched(server, prompt), 120))
    again = {event["data"]["node"] for event in events if event["type"] == "executing"} - {None}
    new = {titled(prompt, title) for title in ("Apply identity", "Sampler", "Decode", "Portrait")}
    assert again == new
    cached = {node for event in events if event["type"] == "execution_cached" for node in event["data"]["nodes"]}
    assert {titled(prompt, title) for title in ("Identity", "Adapter (FACT)", "Face", "Base model (SD1.5)")} <= cached


def test_the_interface_sees_progress_and_pictures(server: Server, portrait: np.ndarray) -> None:
    assert portrait.size
    prompt = server.portrait(strength=0.6)
    events = asyncio.run(asyncio.wait_for(watched(server, prompt), 120))
    steps = [event["data"] for event in events if event["type"] == "progress"]
    assert (steps[-1]["value"], steps[-1]["max"]) == (2, 2)
    shown = {event["data"]["node"]: event["data"]["output"] for event in events if event["type"] == "executed"}
    assert shown[titled(prompt, "Portrait")]["images"]


def test_encoding_shows_its_progress(server: Server) -> None:
    prompt = demo.load_workflow("identity_check")
    node = titled(prompt, "Identities of the group")
    demo.set_input(prompt, "Faces of the group", score=0.95)
    events = asyncio.run(asyncio.wait_for(watched(server, prompt), 120))
    order = [event for event in events if event["type"] in ("executing", "progress")]
    begun = next(i for i, event in enumerate(order) if event["data"].get("node") == node)
    assert any(event["type"] == "progress" and event["data"]["max"] == 6 for event in order[begun:])


def test_the_guard_notes_and_refuses_ways_out(server: Server, tmp_path: Path) -> None:
    notes = tmp_path / "notes.txt"
    environment = {**os.environ, **server.guarded, "LIKENESS_TEST_WAYS_OUT": str(notes)}
    for attempt in ("socket.socket().connect(('192.0.2.1', 9))", "socket.getaddrinfo('example.invalid', 80)"):
        command = [sys.executable, "-c", f"import socket; {attempt}"]
        result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert "the network is closed in tests" in result.stderr
    assert notes.read_text(encoding="utf-8").splitlines() == ["connect ('192.0.2.1', 9)", "look up example.invalid"]


def test_nothing_leaves_the_machine(server: Server, check: dict[str, Any], portrait: np.ndarray) -> None:
    assert check and portrait.size
    assert server.ways_out == []
