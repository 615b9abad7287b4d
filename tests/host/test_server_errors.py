"""A failure reaches whoever queued the workflow: our sentence, the node, and a server that goes on."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from host_process import HostFailed
from likeness_pack.tools import demo
from likeness_pack.tools.standins.command import write_standin
from PIL import Image
from server_fixtures import Server, titled

SENTENCE = r"[^\n]+: expected [^\n]+, found [^\n]+; [^\n]+\."


def failure(server: Server, prompt: dict[str, Any]) -> dict[str, Any]:
    """The execution_error of a workflow, as the history keeps it for a headless user."""
    number = server.post_prompt(prompt)
    with pytest.raises(HostFailed):
        server.wait(number)
    messages = dict(server.get(f"/history/{number}")[number]["status"]["messages"])
    return dict(messages["execution_error"])


def assert_told(error: dict[str, Any], node: str, kind: str, words: str) -> None:
    assert error["node_type"] == node
    assert error["exception_type"].rpartition(".")[2] == kind
    assert re.fullmatch(SENTENCE, error["exception_message"].strip()), error["exception_message"]
    assert words in error["exception_message"]


def with_photo(server: Server, name: str, pixels: np.ndarray) -> dict[str, Any]:
    Image.fromarray(pixels).save(server.base / "input" / name)
    prompt = server.portrait(strength=0.5)
    demo.set_input(prompt, "Photo of the person", image=name)
    return prompt


def test_a_file_that_is_not_there(server: Server) -> None:
    """Refused before the run, with what to get and where to put it, in place of the host's "not in list"."""
    graph = demo.load_workflow("ip_adapter_face")
    loader = {name: node for name, node in graph.items() if node["class_type"] == "LikenessLoadAdapter"}
    with pytest.raises(HostFailed, match=r"98183288 bytes; Apache-2\.0\) in models/face_adapters"):
        server.post_prompt(loader)


def test_a_photo_without_a_face(server: Server) -> None:
    prompt = with_photo(server, "wall 墙.png", np.full((128, 128, 3), 128, np.uint8))
    assert_told(failure(server, prompt), "LikenessDetectFaces", "NoFaceFound", "on_missing_face")


def test_a_photo_of_one_pixel(server: Server) -> None:
    prompt = with_photo(server, "pixel.png", np.zeros((1, 1, 3), np.uint8))
    assert_told(failure(server, prompt), "LikenessDetectFaces", "NoFaceFound", "image")


def test_a_cut_adapter(server: Server) -> None:
    path = server.files[demo.ADAPTER]
    cut = path.with_name("cut.ckpt")
    cut.write_bytes(path.read_bytes()[:100_000])
    prompt = server.portrait()
    demo.set_input(prompt, demo.ADAPTER, file=cut.name)
    assert_told(failure(server, prompt), "LikenessLoadAdapter", "BadCheckpoint", "cut.ckpt")
    assert cut.stat().st_size == 100_000
    cut.unlink()


def test_an_adapter_for_another_base_model(server: Server) -> None:
    path = write_standin("fact-v1", server.base / "models" / "face_adapters", (32,))
    prompt = server.portrait()
    demo.set_input(prompt, demo.ADAPTER, file=path.name)
    assert_told(failure(server, prompt), "LikenessApplyIdentity", "BaseModelMismatch", "16")
    path.unlink()


def test_an_identity_of_another_encoder(server: Server) -> None:
    prompt = server.portrait()
    demo.set_input(prompt, demo.ENCODER, encoder="dlib_resnet")
    assert_told(failure(server, prompt), "LikenessApplyIdentity", "EncoderMismatch", "dlib_resnet")


def test_a_range_that_ends_before_it_begins(server: Server) -> None:
    prompt = server.portrait(start_percent=0.8, end_percent=0.2)
    assert_told(failure(server, prompt), "LikenessApplyIdentity", "LikenessError", "end_percent")


def test_a_file_that_is_not_there_is_refused_before_anything_runs(server: Server) -> None:
    prompt = server.portrait()
    demo.set_input(prompt, demo.ADAPTER, file="not there.ckpt")
    with pytest.raises(HostFailed, match=r"not there\.ckpt"):
        server.run(prompt)


def test_the_server_goes_on_after_failures(server: Server) -> None:
    prompt = server.portrait(strength=0.5)
    before = server.pixels(server.run(prompt))
    broken = server.portrait(start_percent=0.8, end_percent=0.2)
    failure(server, broken)
    again = server.portrait(strength=0.5)
    again[titled(again, "Portrait")]["inputs"]["filename_prefix"] = "again"
    assert np.array_equal(server.pixels(server.run(again)), before)
    assert server.running


def test_cancel_stops_a_run_and_the_next_is_right(server: Server) -> None:
    expected = server.pixels(server.run(server.portrait(strength=0.4)))
    long = server.portrait(strength=0.4)
    demo.set_input(long, "Sampler", steps=1000, seed=99)
    number = server.post_prompt(long)
    with pytest.raises(HostFailed, match="interrupted"):
        for _ in range(100):
            server.interrupt()
            try:
                server.wait(number, timeout=0.3)
            except HostFailed as error:
                if "no result" not in str(error):
                    raise
    again = server.portrait(strength=0.4)
    again[titled(again, "Portrait")]["inputs"]["filename_prefix"] = "after cancel"
    server.free()
    assert np.array_equal(server.pixels(server.run(again)), expected)
