"""The pack in a running server: every node is there, and failures arrive with the server's own words."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from host_process import PACK_FOLDER, ComfyProcess, HostFailed
from module_folders import ModuleFolders
from pack import register

register()

from likeness_pack.tools.dev.import_cost import measure  # noqa: E402


@pytest.fixture(scope="module")
def server(module_folders: ModuleFolders) -> Iterator[ComfyProcess]:
    # A base directory with a space and Chinese letters, as users have them.
    with ComfyProcess(module_folders.mktemp("server") / "my host 面") as host:
        yield host


def picture(color: int = 255, **changes: object) -> dict:
    size = {"width": 64, "height": 32, "batch_size": 1, "color": color}
    return {
        "1": {"class_type": "EmptyImage", "inputs": {**size, **changes}},
        "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "picture"}},
    }


def test_every_node_is_registered(server: ComfyProcess) -> None:
    expected = set(measure().nodes)
    found = {name for name in server.object_info() if name.startswith("Likeness")}
    assert expected
    assert found == expected


def test_the_pack_loads_without_complaint(server: ComfyProcess) -> None:
    complaints = ("IMPORT FAILED", "Cannot import", "Skip ")
    assert not [line for line in server.log.splitlines() if PACK_FOLDER in line and any(c in line for c in complaints)]


def test_a_workflow_gives_its_pictures(server: ComfyProcess) -> None:
    files = server.images(server.run(picture()))
    assert [file.parent.name for file in files] == ["output"]
    assert files[0].read_bytes().startswith(b"\x89PNG")


def test_a_refused_workflow_says_why(server: ComfyProcess) -> None:
    with pytest.raises(HostFailed, match="NoSuchNode"):
        server.run({"1": {"class_type": "NoSuchNode", "inputs": {}}})
    with pytest.raises(HostFailed, match="width"):
        server.run(picture(width="wide"))


def test_a_failed_node_is_named(server: ComfyProcess) -> None:
    broken = server.base / "models" / "checkpoints" / "broken.safetensors"
    broken.write_bytes(b"no header here")
    loader = {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": broken.name}}
    prompt = {
        "1": loader,
        "2": {"class_type": "EmptyLatentImage", "inputs": {"width": 64, "height": 64, "batch_size": 1}},
        "3": {"class_type": "VAEDecode", "inputs": {"samples": ["2", 0], "vae": ["1", 2]}},
        "4": {"class_type": "SaveImage", "inputs": {"images": ["3", 0], "filename_prefix": "never"}},
    }
    with pytest.raises(HostFailed, match=r"node 1 \(CheckpointLoaderSimple\)"):
        server.run(prompt)
