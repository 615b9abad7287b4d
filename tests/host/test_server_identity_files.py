"""Save Identity and Load Identity in a running server."""

from __future__ import annotations

import json
from typing import Any

import pytest
from host_process import HostFailed
from likeness_pack.adapters.identity_ops import load_identity
from likeness_pack.tools import demo
from server_fixtures import Server, text_of, titled


def saving(name: str) -> tuple[dict[str, Any], str]:
    """Photo of a person to a saved identity; the prompt and the number of its Save node."""
    prompt = demo.load_workflow("identity_check")
    kept = {titled(prompt, title) for title in ("Photo of a person", "Detector", "Face of the person", "Encoder")}
    identity = titled(prompt, "Identity of the person")
    rest = {number: entry for number, entry in prompt.items() if number in {*kept, identity}}
    rest["90"] = {"class_type": "LikenessSaveIdentity", "inputs": {"identity": [identity, 0], "name": name}}
    return rest, "90"


def comparing(first: list[Any], second: list[Any], prompt: dict[str, Any]) -> dict[str, Any]:
    inputs = {"identity_a": first, "identity_b": second}
    return prompt | {"95": {"class_type": "LikenessIdentitySimilarity", "inputs": inputs}}


def loading(file: str) -> dict[str, Any]:
    return {"91": {"class_type": "LikenessLoadIdentity", "inputs": {"file": file}}}


def test_an_identity_comes_back_as_it_was(server: Server) -> None:
    prompt, save = saving("Ada Lovelace 面")
    name = text_of(server.run(prompt), save).removeprefix("saved ")
    path = server.base / "output" / "identities" / name
    assert name == "Ada Lovelace 面_00001.safetensors"
    saved = load_identity(path)
    assert (saved.encoder, len(saved)) == ("dlib_resnet", 1)
    fresh, _ = saving("Ada Lovelace 面")
    del fresh["90"]
    identity = next(n for n, e in fresh.items() if e["class_type"] == "LikenessEncodeIdentity")
    report = text_of(server.run(comparing([identity, 0], ["91", 0], fresh | loading(name))), "95")
    assert report.splitlines()[-1].split()[1] == "0.000"
    assert "same person" in report


def test_a_second_save_takes_the_next_number(server: Server) -> None:
    prompt, save = saving("second")
    first = text_of(server.run(prompt), save)
    server.free()
    prompt["90"]["inputs"]["name"] = "second "
    again = text_of(server.run(prompt), save)
    assert (first, again) == ("saved second_00001.safetensors", "saved second_00002.safetensors")


@pytest.mark.parametrize("name", ["../../outside", "C:\\outside", "/outside", "con|<>", "", "...."])
def test_no_name_leads_out_of_the_folder(server: Server, name: str) -> None:
    prompt, save = saving(name)
    file = text_of(server.run(prompt), save).removeprefix("saved ")
    folder = server.base / "output" / "identities"
    assert (folder / file).is_file()
    assert not [path for path in server.base.parent.rglob("*outside*") if path.parent != folder]


def test_a_broken_file_is_told(server: Server) -> None:
    folder = server.base / "input" / "identities"
    folder.mkdir(exist_ok=True)
    (folder / "broken.safetensors").write_bytes(b"nothing of use")
    with pytest.raises(HostFailed, match=r"LikenessLoadIdentity\): .*broken\.safetensors: expected .*, found .*; .*\."):
        server.run(comparing(["91", 0], ["91", 0], loading("[input] broken.safetensors")))


def test_a_file_of_something_else_is_told(server: Server) -> None:
    folder = server.base / "input" / "identities"
    folder.mkdir(exist_ok=True)
    header = json.dumps({"x": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    content = len(header).to_bytes(8, "little") + header + b"\0" * 4
    (folder / "other.safetensors").write_bytes(content)
    with pytest.raises(HostFailed, match=r"other\.safetensors: expected .*identity.*, found .*; .*\."):
        server.run(comparing(["91", 0], ["91", 0], loading("[input] other.safetensors")))
    assert (folder / "other.safetensors").read_bytes() == content


def test_a_file_written_again_is_read_again(server: Server) -> None:
    prompt, save = saving("changing")
    name = text_of(server.run(prompt), save).removeprefix("saved ")
    path = server.base / "output" / "identities" / name
    both = comparing(["91", 0], ["91", 0], loading(name))
    server.run(both)
    content = path.read_bytes()
    path.write_bytes(content[:100])
    with pytest.raises(HostFailed, match=r"changing_00001\.safetensors: expected"):
        server.run(both)
    path.write_bytes(content)
