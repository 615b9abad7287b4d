"""What made a file: the manifest, where it is written, and who reads it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
from likeness_pack.adapters.provenance import (
    FORMAT,
    NAME,
    VERSION,
    BadManifest,
    Manifest,
    ModelUse,
    from_dict,
    identity_digests,
    in_prompt,
    manifest_of,
    manifest_text,
)
from likeness_pack.faces.errors import LikenessError
from likeness_pack.media.invisible_mark import MarkFailed, is_marked, mark_picture
from likeness_pack.media.texts import read_texts
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from sample_faces import face_crops

ROOT = Path(__file__).resolve().parents[2]
MADE = Manifest(
    ("LikenessApplyIdentity",),
    (ModelUse("fact.ckpt", "fact", "ab" * 32, "Apache-2.0", "CC BY-NC 4.0", False),),
    ("cd" * 32,),
    ("not for commercial use: fact.ckpt",),
)


def read_manifest(path: Path) -> Manifest:
    return manifest_of(read_texts(path), path.name)


def _png(folder: Path, **texts: str) -> Path:
    info = PngInfo()
    for name, value in texts.items():
        info.add_text(name, value)
    path = folder / "picture.png"
    Image.new("RGB", (8, 8)).save(path, pnginfo=info)
    return path


def _with_model(**model: object) -> dict[str, object]:
    return {**MADE.as_dict(), "models": [{"file": "a", **model}]}


class TestManifest:
    @pytest.mark.parametrize(
        "values",
        [
            _with_model(digest=5),
            _with_model(commercial="yes"),
            _with_model(commercial=[]),
            {**MADE.as_dict(), "nodes": [1]},
        ],
    )
    def test_values_of_another_kind_are_refused(self, values):
        with pytest.raises(BadManifest, match="another shape"):
            manifest_of({NAME: json.dumps(values)}, "x.png")

    def test_what_a_terminal_would_obey_or_refuse_is_not_shown(self):
        found = manifest_of({NAME: json.dumps({**MADE.as_dict(), "nodes": ["\x1b[31m我\n\ud800"]})}, "x.png")
        assert found.nodes == ("?[31m我??",)

    def test_the_version_is_that_of_the_package(self):
        text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
        assert f'version = "{VERSION}"' in text

    def test_plain_values_and_back(self):
        assert from_dict(json.loads(json.dumps(MADE.as_dict())), "here") == MADE

    @pytest.mark.parametrize(
        "values",
        [None, [], {"format": "other"}, {"format": FORMAT}, {**MADE.as_dict(), "models": [{"file": "a", "more": 1}]}],
    )
    def test_other_contents_are_one_sentence(self, values):
        with pytest.raises(BadManifest, match=FORMAT):
            from_dict(values, "here")

    def test_a_picture_says_what_made_it(self, tmp_path):
        assert read_manifest(_png(tmp_path, likeness=json.dumps(MADE.as_dict()))) == MADE
        text = manifest_text(MADE)
        assert "fact.ckpt (fact)" in text and "commercial use not allowed" in text and "cdcdcdcdcdcd" in text

    def test_a_graph_without_a_canvas_carries_it_with_one_of_our_nodes(self, tmp_path):
        prompt = {"1": {"class_type": "A", "inputs": {}}, "2": {"class_type": "B", "_meta": {NAME: MADE.as_dict()}}}
        assert in_prompt(prompt) == MADE.as_dict() and in_prompt({"1": {"_meta": "x"}, "2": 3}) is None
        assert read_manifest(_png(tmp_path, prompt=json.dumps(prompt))) == MADE

    @pytest.mark.parametrize("texts", [{}, {"prompt": "{}"}, {"likeness": "no json"}, {"prompt": "[" * 100_000}])
    def test_a_picture_without_one_is_one_sentence(self, tmp_path, texts):
        with pytest.raises(BadManifest, match=r"picture\.png"):
            read_manifest(_png(tmp_path, **texts))

    def test_no_picture_is_one_sentence(self, tmp_path):
        path = tmp_path / "broken.png"
        path.write_bytes(b"\x89PNG\r\n\x1a\n broken")
        with pytest.raises(LikenessError, match="no picture"):
            read_manifest(path)


def test_other_values_are_no_identities():
    with pytest.raises(LikenessError, match="Encode Identity"):
        identity_digests([object()])


class TestInvisibleMark:
    def test_it_is_found_again_and_hardly_seen(self):
        picture = face_crops(256)[0]
        marked = mark_picture(picture)
        assert is_marked(marked) and not is_marked(picture)
        assert (marked - picture).abs().mean() < 0.02

    def test_small_pictures_and_a_missing_package_are_one_sentence(self, monkeypatch):
        with pytest.raises(MarkFailed, match="256 x 256"):
            mark_picture(torch.zeros(64, 300, 3))
        monkeypatch.setitem(sys.modules, "imwatermark", None)
        with pytest.raises(LikenessError, match="invisible-watermark"):
            mark_picture(torch.zeros(256, 256, 3))


def test_texts_behind_the_pixels_are_read(tmp_path):
    info, path = PngInfo(), tmp_path / "late.png"
    info.add(b"tEXt", b"likeness\0" + json.dumps(MADE.as_dict()).encode(), after_idat=True)
    Image.new("RGB", (8, 8)).save(path, pnginfo=info)
    assert read_manifest(path) == MADE


def test_texts_of_a_picture_whose_pixels_are_cut_are_read(tmp_path):
    path = _png(tmp_path, likeness=json.dumps(MADE.as_dict()))
    path.write_bytes(path.read_bytes()[:-20])
    assert read_manifest(path) == MADE


def test_the_command_reads_files(tmp_path, capsys, monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    import provenance

    path = _png(tmp_path, likeness=json.dumps(MADE.as_dict()))
    assert provenance.main([str(path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["models"][0]["family"] == "fact"
    assert provenance.main([str(tmp_path / "none.png")]) == 1
    assert "none.png" in capsys.readouterr().err
