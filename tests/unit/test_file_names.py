"""Names that lead out are refused, and a disk that is full is told in one sentence."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest
from fuzz_counts import SENTENCE
from likeness_pack.inject import identity_files
from likeness_pack.inject.file_names import BadFileName, NotWritten, checked_prefix, writing


@pytest.mark.parametrize(
    "name",
    ["../x", "a/../../x", "..\\x", "/etc/x", "C:\\x", "C:x", "\\\\server\\x", "a\x00b", "CON", "a/nul.png", "x" * 201],
)
def test_a_name_that_leads_out_is_refused(name: str) -> None:
    with pytest.raises(BadFileName) as caught:
        checked_prefix(name)
    assert SENTENCE.fullmatch(str(caught.value))


@pytest.mark.parametrize("name", ["", "likeness/picture", "脸 1", "a..b", "%date:yyyy%/x", "console"])
def test_a_plain_name_is_taken(name: str) -> None:
    assert checked_prefix(name) == name


def test_a_long_name_of_an_identity_is_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(identity_files, "output_folder", lambda: tmp_path)
    path = identity_files.next_path("脸" * 3000)
    path.write_bytes(b"")
    assert path.parent == tmp_path / "identities"
    assert identity_files.next_path("../../evil").parent == path.parent


def test_a_full_disk_is_told_and_leaves_no_half_file(tmp_path: Path) -> None:
    path = tmp_path / "picture.png"
    with pytest.raises(NotWritten, match="no space left") as caught, writing(path, is_new=True):
        path.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")
    assert SENTENCE.fullmatch(str(caught.value))
    assert not path.exists()


def test_what_was_there_stays(tmp_path: Path) -> None:
    path = tmp_path / "picture.png"
    path.write_bytes(b"whole")
    with pytest.raises(NotWritten), writing(path):
        raise OSError(errno.EACCES, "Permission denied")
    assert path.read_bytes() == b"whole"
