"""Files that are damaged, lie or attack: one typed error each, quickly, and the file stays as it is."""

from __future__ import annotations

import json
import os
import struct
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from likeness_pack.adapters.checkpoint import load_tensors, read_header
from likeness_pack.adapters.errors import BadCheckpoint, UnsafeCheckpoint
from likeness_pack.faces.errors import LikenessError
from safetensors.torch import save_file
from sparse_files import write_sparse_safetensors


def safetensors_bytes(header: Any, data: bytes = b"", length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode("utf-8")
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def entry(shape: Any, begin: Any, end: Any, dtype: Any = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def refused(path: Path, kind: type[LikenessError] = BadCheckpoint) -> str:
    """Reading fails with ``kind``; the file keeps its bytes and its time. Returns the sentence."""
    before = (path.read_bytes(), path.stat().st_mtime_ns)
    with pytest.raises(kind) as caught:
        load_tensors(read_header(path))
    assert (path.read_bytes(), path.stat().st_mtime_ns) == before
    sentence = str(caught.value)
    assert sentence.startswith(path.name) and "\n" not in sentence and len(sentence) < 600
    return sentence


LIES = {
    "shape product": {"a": entry([3], 0, 8)},
    "negative": {"a": entry([-2], 0, 8)},
    "two negatives": {"a": entry([-2, -1], 0, 8)},
    "2^63": {"a": entry([2**63], 0, 8)},
    "2^32 squared": {"a": entry([2**32, 2**32], 0, 8)},
    "long number": {"a": entry([10**4000], 0, 8)},
    "fraction": {"a": entry([2.0], 0, 8)},
    "true": {"a": entry([True, 2], 0, 8)},
    "text": {"a": entry("2", 0, 8)},
    "empty and endless": {"a": entry([2], 0, 8), "b": entry([0, 2**40], 8, 8)},
    "offsets beyond": {"a": entry([200], 0, 800)},
    "offsets reversed": {"a": entry([2], 8, 0)},
    "offsets negative": {"a": entry([2], -8, 0)},
    "offset text": {"a": entry([2], "0", 8)},
    "overlap": {"a": entry([2], 0, 8), "b": entry([1], 4, 8)},
    "gap": {"a": entry([1], 0, 4), "b": entry([0], 8, 8)},
    "unused end": {"a": entry([1], 0, 4)},
    "dtype": {"a": entry([2], 0, 8, "F99")},
    "dtype number": {"a": entry([2], 0, 8, 32)},
    "no dtype": {"a": {"shape": [2], "data_offsets": [0, 8]}},
    "entry is a list": {"a": [1, 2]},
    "metadata": {"__metadata__": {"a": 1}, "a": entry([2], 0, 8)},
    "metadata is a list": {"__metadata__": [], "a": entry([2], 0, 8)},
    "rank": {"a": entry([1] * 70 + [2], 0, 8)},
    "list": [1, 2],
    "no tensors": {},
    "duplicate": b'{"a": ENTRY, "a": ENTRY}'.replace(b"ENTRY", json.dumps(entry([2], 0, 8)).encode()),
    "duplicate inside": b'{"a":{"dtype":"F32","dtype":"F16","shape":[2],"data_offsets":[0,8]}}',
    "not JSON": b'{"a": ',
    "not text": b'{"\xff\xfe": 1}',
    "deep": b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
}  # fmt: skip


@pytest.mark.parametrize("lie", LIES)
def test_safetensors_headers_that_lie(tmp_path, lie):
    path = tmp_path / "a.safetensors"
    path.write_bytes(safetensors_bytes(LIES[lie] if lie != "list" else b"[1, 2]", b"\0" * 8))
    refused(path)


@pytest.mark.parametrize("length", [2**63, 2**64 - 1, 100_000_001, 5000])
def test_header_lengths_that_lie(tmp_path, length):
    path = tmp_path / "a.safetensors"
    path.write_bytes(safetensors_bytes({"a": entry([2], 0, 8)}, b"\0" * 8, length))
    refused(path)


def test_an_honest_header_is_read(tmp_path):
    path = tmp_path / "a.safetensors"
    path.write_bytes(safetensors_bytes({"a": entry([2], 0, 8), "e": entry([0], 8, 8)}, b"\0" * 8))
    assert torch.equal(load_tensors(read_header(path))["a"], torch.zeros(2))


def test_a_truncated_safetensors_file_tells_both_sizes(tmp_path):
    path = write_sparse_safetensors(tmp_path / "a.safetensors", {"a": (100, 100)})
    whole = path.stat().st_size
    with path.open("r+b") as file:
        file.truncate(whole // 2)
    assert f"the file is {whole // 2} bytes, its header needs {whole}" in refused(path)


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("part", [0.02, 0.2, 0.5, 0.9, 0.999])
def test_truncated_torch_files(tmp_path, legacy, part):
    path = tmp_path / "a.ckpt"
    torch.save({f"layer.{i}": torch.ones(50, 50) for i in range(20)}, path, _use_new_zipfile_serialization=not legacy)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * part)])
    refused(path)


def test_every_truncation_of_a_small_file_is_one_typed_error(tmp_path):
    content = {"a": torch.ones(3), "b": {"c": torch.ones(2)}}
    for kind in ("zip", "legacy", "safetensors"):
        whole = tmp_path / kind
        if kind == "safetensors":
            save_file({"a": torch.ones(3)}, whole)
        else:
            torch.save(content, whole, _use_new_zipfile_serialization=kind == "zip")
        data = whole.read_bytes()
        for length in range(0, len(data) - 1, 1 if len(data) < 800 else 13):
            whole.write_bytes(data[:length])
            with pytest.raises(BadCheckpoint):
                load_tensors(read_header(whole))


def test_every_flipped_byte_is_read_or_refused_but_never_crashes(tmp_path):
    generator = torch.Generator().manual_seed(3)
    for kind in ("zip", "legacy", "safetensors"):
        path = tmp_path / kind
        if kind == "safetensors":
            save_file({"a": torch.ones(3), "b": torch.ones(2)}, path)
        else:
            torch.save({"a": torch.ones(3)}, path, _use_new_zipfile_serialization=kind == "zip")
        data = path.read_bytes()
        outcomes = set()
        for _ in range(300):
            position = int(torch.randint(len(data), (1,), generator=generator))
            value = int(torch.randint(256, (1,), generator=generator))
            path.write_bytes(data[:position] + bytes([value]) + data[position + 1 :])
            try:
                load_tensors(read_header(path))
                outcomes.add("read")
            except LikenessError:
                outcomes.add("refused")
        assert "refused" in outcomes


OTHER_FILES = {
    "empty": (b"", "an empty file"),
    "web page": (b"\n<!DOCTYPE html><html>Sign in</html>", "a web page"),
    "git-lfs": (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n", "git lfs pull"),
    "random": (bytes(range(7, 207)) * 10, "2000 bytes that begin with"),
    "few bytes": (b"abc", "3 bytes"),
    "JSON": (b'{"error": "not found"}', "a JSON text"),
    "GGUF": (b"GGUF\x03\0\0\0" + b"\0" * 100, "GGUF"),
    "gzip": (b"\x1f\x8b\x08" + b"\0" * 2000, "gzip"),
    "pickle": (b"\x80\x04\x95\x02\0\0\0\0\0\0\0}.", "convert_checkpoint.py"),
}


@pytest.mark.parametrize("kind", OTHER_FILES)
def test_other_files_are_named_for_what_they_are(tmp_path, kind):
    content, said = OTHER_FILES[kind]
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    assert said in refused(path)


def test_folders_and_missing_files(tmp_path):
    with pytest.raises(BadCheckpoint, match="a folder"):
        read_header(tmp_path)
    with pytest.raises(BadCheckpoint, match="no such file"):
        read_header(tmp_path / "none.ckpt")


def rewritten_zip(path: Path, change: Any, compression: int = zipfile.ZIP_STORED) -> Path:
    """A torch zip whose entries went through ``change(name, data) -> data or None``."""
    torch.save({"a": torch.ones(30), "b": torch.ones(20)}, path)
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in entries.items():
            changed = change(name, data)
            if changed is not None:
                archive.writestr(name, changed)
    return path


def test_zips_that_are_no_checkpoint(tmp_path):
    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as archive:
        archive.writestr("cat.jpg", b"x")
    assert "zip with 0 data.pkl" in refused(tmp_path / "photos.zip")


def test_zip_storages_that_are_missing_short_or_compressed(tmp_path):
    missing = rewritten_zip(tmp_path / "a", lambda name, data: None if name.endswith("data/1") else data)
    assert "no entry" in refused(missing)
    short = rewritten_zip(tmp_path / "b", lambda name, data: data[:8] if name.endswith("data/1") else data)
    assert "an entry of 8 bytes" in refused(short)
    packed = rewritten_zip(tmp_path / "c", lambda name, data: data, zipfile.ZIP_DEFLATED)
    assert "compressed" in refused(packed)
    twice = rewritten_zip(tmp_path / "d", lambda name, data: data)
    with zipfile.ZipFile(twice, "a") as archive:
        archive.writestr("other/data.pkl", b"\x80\x02}.")
    assert "2 data.pkl" in refused(twice)


def test_a_torchscript_archive_is_a_program(tmp_path):
    path = tmp_path / "detector.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("detector/data.pkl", b"\x80\x02}.")
        archive.writestr("detector/constants.pkl", b"\x80\x02).")
    assert "TorchScript" in refused(path, UnsafeCheckpoint)


class Attack:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.system, (f'echo ran > "{self.marker}"',)


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("with_tensors", [False, True])
def test_code_in_a_pickle_is_refused_and_not_run(tmp_path, legacy, with_tensors):
    marker = tmp_path / "ran"
    content: dict[str, Any] = {"attack": Attack(marker)} | ({"a": torch.ones(2)} if with_tensors else {})
    path = tmp_path / "a.ckpt"
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    sentence = refused(path, UnsafeCheckpoint)
    assert f"{os.system.__module__}.system" in sentence
    assert not marker.exists()


@pytest.mark.parametrize(
    "name", ["with space.ckpt", "人脸.safetensors", "ü/é è/x", "deep/er/than most/a.b.c", "noextension"]
)
def test_names_and_folders_do_not_matter(tmp_path, name):
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    for write in (lambda: save_file({"a": torch.ones(2)}, path), lambda: torch.save({"a": torch.ones(2)}, path)):
        write()
        assert torch.equal(load_tensors(read_header(path))["a"], torch.ones(2))


def test_a_wrapper_repeated_a_million_times_is_read_quickly(tmp_path):
    path = write_sparse_safetensors(tmp_path / "a.safetensors", {"model." * 300_000 + "a": (2,)})
    assert len(read_header(path).tensors) == 1
