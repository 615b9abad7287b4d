"""Metadata of models that are written here: what trained files say, and copies that say more."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from likeness_pack.adapters.checkpoint import read_header
from likeness_pack.adapters.errors import BadCheckpoint
from likeness_pack.evaluation.lineage.report import check_file
from likeness_pack.evaluation.lineage.rewrite import described, hidden_change, write_with_metadata
from likeness_pack.training.checkpointing import write_model
from safetensors import safe_open
from safetensors.torch import load_file, save_file

TO_K = "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k.lora_A.weight"


def _lora(folder: Path, **metadata: str) -> Path:
    path = folder / "some lora.safetensors"
    half = torch.arange(6, dtype=torch.bfloat16).reshape(2, 3)
    save_file({TO_K: torch.randn(4, 768), "层.b": half, "empty": torch.zeros(0, 4)}, path, metadata)
    return path


def _copy(source: Path, name: str = "copy", **entries: str) -> Path:
    header, target = read_header(source), source.with_name(f"{name}.safetensors")
    write_with_metadata(header, target, described(header, name, entries))
    return target


def _says(path: Path) -> dict[str, str]:
    with safe_open(path, "pt") as file:
        return dict(file.metadata())


def test_a_copy_says_what_it_was_told_and_holds_the_same_tensors(tmp_path):
    source = _lora(tmp_path, ss_network_dim="4", note="人")
    before = source.read_bytes()
    copy = _copy(source, title="My LoRA 我", license="cc-by-nc-4.0", merged_from="a, b")
    assert source.read_bytes() == before
    first, second = load_file(source), load_file(copy)
    assert list(first) == list(second) and all(torch.equal(first[name], second[name]) for name in first)
    said = _says(copy)
    assert (said["ss_network_dim"], said["note"]) == ("4", "人")
    assert (said["modelspec.title"], said["modelspec.license"]) == ("My LoRA 我", "cc-by-nc-4.0")
    assert said["modelspec.architecture"] == "stable-diffusion-v1/lora"
    assert "modelspec.author" not in said


def test_the_copy_passes_the_check_and_a_changed_one_does_not(tmp_path):
    copy = _copy(_lora(tmp_path), license="mit")
    report = check_file(read_header(copy), base_licences=["mit"])
    assert report.ok and report.licence == "mit"
    told = report.as_text()
    assert "agree on SD1.x" in told and "tensors are as they were saved" in told
    drifted = check_file(read_header(copy), base_licences=["creativeml-openrail-m"])
    assert not drifted.ok and "has lost USE" in drifted.as_text()
    copy.write_bytes(copy.read_bytes()[:-1] + b"\x7f")
    assert "changed after saving" in check_file(read_header(copy), base_licences=["mit"]).as_text()


def test_what_the_file_said_stays_and_an_old_hash_of_the_whole_goes(tmp_path):
    said = {
        "modelspec.title": "Old",
        "modelspec.author": "A",
        "modelspec.implementation": "other",
        "modelspec.date": "2020",
        "modelspec.hash_sha256": "0x00",
        "sshs_model_hash": "f" * 64,
    }
    source = _lora(tmp_path, **said)
    said = _says(_copy(source, author="B"))
    assert (said["modelspec.title"], said["modelspec.author"]) == ("Old", "B")
    assert (said["modelspec.implementation"], said["modelspec.date"]) == ("other", "2020")
    assert "modelspec.hash_sha256" not in said and said["sshs_model_hash"] != "f" * 64


def test_the_header_of_a_copy_ends_where_tensors_may_begin(tmp_path):
    for letters in range(9):
        copy = _copy(_lora(tmp_path), f"copy {letters}", title="x" * letters)
        length = int.from_bytes(copy.read_bytes()[:8], "little")
        assert length % 8 == 0 and json.loads(copy.read_bytes()[8 : 8 + length])["__metadata__"]


def test_a_pickle_and_a_taken_name_are_refused(tmp_path):
    source, pickled = _lora(tmp_path), tmp_path / "a.bin"
    torch.save({"a": torch.ones(2)}, pickled)
    for refused in (described, lambda header, name, _: write_with_metadata(header, tmp_path / name, {})):
        with pytest.raises(BadCheckpoint, match="found a pickle file; convert it"):
            refused(read_header(pickled), "copy", {})
    with pytest.raises(BadCheckpoint, match="choose another name"):
        _copy(source, "some lora")


def test_a_stopped_copy_leaves_nothing(tmp_path):
    source, calls = _lora(tmp_path), []

    def stop() -> None:
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_with_metadata(read_header(source), tmp_path / "copy.safetensors", {}, stop)
    assert [path.name for path in tmp_path.iterdir()] == [source.name]


def _replace(path: Path, content: bytes) -> None:
    path.write_bytes(content)


@pytest.mark.parametrize("replaced", [b"", b"\xff" * 4000, b"\x09" + bytes(4000)])
def test_a_file_that_changes_while_it_is_copied_is_refused(tmp_path, replaced):
    source = _lora(tmp_path)
    header = read_header(source)
    with pytest.raises(BadCheckpoint, match="while it is copied, found it changed"):
        write_with_metadata(header, tmp_path / "c.safetensors", {}, lambda: _replace(source, replaced))
    assert [path.name for path in tmp_path.iterdir()] == [source.name]


def test_other_tensors_than_the_header_was_read_of_are_refused(tmp_path):
    source = _lora(tmp_path)
    header = read_header(source)
    save_file({"other": torch.zeros(3)}, source)
    with pytest.raises(BadCheckpoint, match="found it changed"):
        write_with_metadata(header, tmp_path / "c.safetensors", {})


def test_half_a_letter_of_a_graph_does_not_spoil_the_file(tmp_path):
    assert _says(_copy(_lora(tmp_path), title="a\ud83d"))["modelspec.title"] == "a?"


def test_a_copy_that_a_dead_process_left_behind_is_no_obstacle(tmp_path):
    source = _lora(tmp_path)
    (tmp_path / "copy.safetensors.part").write_bytes(b"half")
    assert load_file(_copy(source)).keys() == load_file(source).keys()


def test_a_new_hash_does_not_hide_that_tensors_were_changed(tmp_path):
    header = read_header(_lora(tmp_path, sshs_model_hash="f" * 64))
    said = write_with_metadata(header, tmp_path / "copy.safetensors", {})
    assert hidden_change(header, said).startswith("! some lora.safetensors: changed after saving")
    copied = read_header(tmp_path / "copy.safetensors")
    assert hidden_change(copied, write_with_metadata(copied, tmp_path / "again.safetensors", {})) == ""


def test_what_trainers_write_says_what_it_is_and_passes(tmp_path):
    path = tmp_path / "mine 我.safetensors"
    tensors = {"ip_adapter.1.to_k_ip.weight": torch.zeros(4, 768)}
    write_model(path, tensors, {"finished_steps": "3"}, "face-adapter", "sd15")
    said = _says(path)
    assert said["modelspec.architecture"] == "stable-diffusion-v1/face-adapter" and said["finished_steps"] == "3"
    assert said["modelspec.title"] == "mine 我 (face-adapter)"
    report = check_file(read_header(path))
    assert report.ok and "agree on SD1.x" in report.as_text() and "as they were saved" in report.as_text()
