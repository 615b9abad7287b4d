"""No room left, and folders that may not be written to: one sentence each."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from fuzz_counts import SENTENCE, Tallies
from likeness_pack.adapters import registry
from likeness_pack.adapters.identity import Identity
from likeness_pack.faces.errors import LikenessError
from likeness_pack.inject import clips, host, identity_files
from likeness_pack.inject.file_names import NotWritten
from likeness_pack.nodes.identity import LikenessSaveIdentity
from likeness_pack.nodes.provenance import LikenessSavePicture
from swap_standins import write_reswapper

NOBODY = 65534


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 kilobytes."""
    folder = tmp_path / "small"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    if not shutil.which("mount") or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small file system is not permitted here")
    yield folder
    subprocess.run(["umount", str(folder)], capture_output=True, check=False)


def told(tallies: Tallies, kind: type[LikenessError], call: Callable[[], object]) -> str:
    """The one sentence of a typed failure."""
    tally = tallies["full disk and read-only folders"]
    tally.tried += 1
    with pytest.raises(kind) as caught:
        call()
    tally.typed[type(caught.value).__name__] += 1
    assert SENTENCE.fullmatch(str(caught.value)), str(caught.value)
    return str(caught.value)


def a_large_identity() -> Identity:
    return Identity("transface", {"embedding": torch.randn(400, 512)}, photos=("0" * 64,) * 400)


def test_an_identity_on_a_full_disk(small_disk: Path, tallies: Tallies, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(identity_files, "output_folder", lambda: small_disk)
    sentence = told(tallies, NotWritten, lambda: LikenessSaveIdentity().save(a_large_identity(), "anna"))
    assert "no space" in sentence
    assert not [path for path in small_disk.rglob("*") if path.is_file()]


def test_a_picture_on_a_full_disk(small_disk: Path, tallies: Tallies, monkeypatch: pytest.MonkeyPatch) -> None:
    path = small_disk / "picture_00001_.png"
    monkeypatch.setattr(clips, "new_file", lambda *_: (path, path.name))
    monkeypatch.setattr(host, "stop_if_cancelled", lambda: None)
    sentence = told(tallies, NotWritten, lambda: LikenessSavePicture().save(torch.rand(1, 512, 512, 3), "p", False))
    assert "no space" in sentence
    assert not path.exists()


def as_nobody(action: Callable[[], object]) -> dict[str, str]:
    """Run an action in a child process without privileges; the class and text of its error, empty without one."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        answer = {"kind": "", "text": ""}
        try:
            os.setgid(NOBODY)
            os.setuid(NOBODY)
            action()
        except Exception as error:  # noqa: BLE001 (told to the parent, which judges it)
            answer = {"kind": type(error).__name__, "text": str(error)}
        os.write(write, json.dumps(answer).encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        content = pipe.read()
    os.waitpid(child, 0)
    return dict(json.loads(content))


@pytest.fixture
def read_only() -> Iterator[Path]:
    """A model folder that everybody reads and nobody but root writes to, with one file that only root reads."""
    if os.name == "nt" or os.geteuid() != 0:
        pytest.skip("only root can become another user")
    folder = Path(tempfile.mkdtemp(prefix="likeness-read-only-"))
    write_reswapper(folder / "good.pth")
    shutil.copyfile(folder / "good.pth", folder / "closed.pth")
    (folder / "closed.pth").chmod(0)
    folder.chmod(0o555)
    yield folder
    shutil.rmtree(folder)


def test_a_read_only_model_folder(
    read_only: Path, tmp_path: Path, tallies: Tallies, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files load from it, an unreadable one and a save are one sentence each."""
    # The other user may not be allowed to read the interpreter's packages: everything is imported before.
    registry.load(read_only / "closed.pth", variant="128")
    monkeypatch.setattr(identity_files, "output_folder", lambda: tmp_path)
    LikenessSaveIdentity().save(a_large_identity(), "anna")
    tally = tallies["full disk and read-only folders"]
    names = sorted(path.name for path in read_only.iterdir())
    monkeypatch.setattr(identity_files, "output_folder", lambda: read_only)
    tally.tried += 3
    assert as_nobody(lambda: registry.load(read_only / "good.pth", variant="128"))["kind"] == ""
    tally.accepted += 1
    closed = as_nobody(lambda: registry.load(read_only / "closed.pth"))
    saved = as_nobody(lambda: LikenessSaveIdentity().save(a_large_identity(), "anna"))
    for answer, kind in ((closed, "BadCheckpoint"), (saved, "NotWritten")):
        assert answer["kind"] == kind, answer
        assert SENTENCE.fullmatch(answer["text"]), answer
        assert "permission denied" in answer["text"].lower()
        tally.typed[kind] += 1
    assert sorted(path.name for path in read_only.iterdir()) == names
