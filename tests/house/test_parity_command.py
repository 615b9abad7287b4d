"""``make parity``: what it prints, what counts as failed, and that each file's own salt is used."""

from __future__ import annotations

import shutil
from pathlib import Path

import harness
import pytest
import run_parity
import torch
from harness import DATA, Golden, NeedsNewerHost
from safetensors import safe_open
from safetensors.torch import save_file

# Parts that fill weights and inputs by the rule; small ones, which the repository carries.
SALTED = ("common_faceid_proj_sd15", "fact_resampler", "faceswap_identity", "fact_attn_320")


def copy(stem: str, folder: Path, name: str = "") -> Path:
    """A golden file and its key list in a folder, under another name if one is given."""
    for suffix in (".safetensors", ".keys.json"):
        if (DATA / f"{stem}{suffix}").exists():
            shutil.copyfile(DATA / f"{stem}{suffix}", folder / f"{name or stem}{suffix}")
    return folder / f"{name or stem}.safetensors"


def salted(stem: str, folder: Path, salt: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The golden file with another salt, and with what our modules give for that salt."""
    path = copy(stem, folder)
    with safe_open(str(path), framework="pt") as file:
        metadata = {**file.metadata(), "salt": salt}
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
    save_file(tensors, path, metadata=metadata)
    given = dict(tensors)
    with monkeypatch.context() as patch, torch.no_grad():
        patch.setattr(Golden, "check", lambda self, name, got, tolerance=0.0: given.update({name: got.detach()}))
        harness.load_parts()[stem](Golden(path))
    assert any(not torch.equal(given[name], tensor) for name, tensor in tensors.items())
    whole = {name: tensor.to(tensors[name].dtype).contiguous().clone() for name, tensor in given.items()}
    save_file(whole, path, metadata=metadata)
    return path


def test_the_last_line_counts_and_a_file_without_a_test_fails(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy("fact_resampler", tmp_path)
    assert run_parity.main(tmp_path) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "1 passed, 0 failed, 0 need a newer host"
    copy("fact_resampler", tmp_path, "of_no_part")
    assert run_parity.main(tmp_path) == 1
    lines = capsys.readouterr().out.splitlines()
    assert "of_no_part: FAILED (no test for this part)" in lines
    assert lines[-1] == "1 passed, 1 failed, 0 need a newer host"


def test_an_empty_folder_is_no_success(tmp_path: Path) -> None:
    assert run_parity.main(tmp_path) == 1


@pytest.mark.parametrize("stem", SALTED)
def test_the_salt_is_the_files(
    stem: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = salted(stem, tmp_path, "another salt ä", monkeypatch)
    assert run_parity.main(tmp_path) == 0
    with safe_open(str(path), framework="pt") as file:
        metadata = {**file.metadata(), "salt": "a third"}
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
    save_file(tensors, path, metadata=metadata)
    assert run_parity.main(tmp_path) == 1
    assert f"{stem}: FAILED" in capsys.readouterr().out


def test_a_part_for_a_newer_host_is_counted_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def needs(golden: Golden) -> None:
        raise NeedsNewerHost("a network of later years")

    copy("fact_resampler", tmp_path)
    monkeypatch.setitem(harness.load_parts(), "fact_resampler", needs)
    assert run_parity.main(tmp_path) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "0 passed, 0 failed, 1 need a newer host"


def test_a_broken_module_of_parts_fails_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    copy("fact_resampler", tmp_path)
    parts = harness.load_parts()

    def load(broken: dict[str, str]) -> dict[str, harness.Part]:
        broken["parts_of_tomorrow.py"] = "No module named 'tomorrow'"
        return parts

    monkeypatch.setattr(run_parity, "load_parts", load)
    assert run_parity.main(tmp_path) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("parts_of_tomorrow.py: FAILED")
    assert lines[-1] == "1 passed, 1 failed, 0 need a newer host"
