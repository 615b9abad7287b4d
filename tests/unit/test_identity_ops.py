"""Joining identities, adding picture tokens, and the identity file."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest
import torch
from likeness_pack.adapters.errors import BadCheckpoint, IdentityMismatch
from likeness_pack.adapters.identity import Identity
from likeness_pack.adapters.identity_ops import (
    METHODS,
    combine,
    identity_report,
    load_identity,
    save_identity,
    with_image_tokens,
)
from safetensors.torch import save_file


def _identity(seed: int, count: int = 2, encoder: str = "transface_s", tokens: bool = True, width: int = 6) -> Identity:
    generator = torch.Generator().manual_seed(seed)
    features = {"embedding": torch.randn(count, width, generator=generator) * (seed + 1)}
    if tokens:
        features["tokens"] = torch.randn(count, 4, 3, generator=generator)
    photos = tuple(f"{seed}-{number}" for number in range(count))
    return Identity(encoder, features, photos, masked=True, notes=(f"photo of {seed}",))


class TestCombine:
    def test_concat_keeps_every_face_in_order(self):
        a, b = _identity(1), _identity(2, 3)
        joined = combine([a, b], "concat")
        for name in ("embedding", "tokens"):
            assert torch.equal(joined.features[name], torch.cat([a.features[name], b.features[name]]))
        assert joined.photos == a.photos + b.photos
        assert joined.notes == ("photo of 1", "photo of 2") and joined.masked

    def test_average_counts_every_face_once(self):
        a, b = _identity(1), _identity(2, 3)
        mean = combine([a, b], "average")
        assert len(mean) == 1
        for name in ("embedding", "tokens"):
            expected = torch.cat([a.features[name], b.features[name]]).mean(0, keepdim=True)
            assert torch.allclose(mean.features[name], expected, atol=1e-6)
        assert any("tokens averaged" in note for note in mean.notes)

    def test_average_of_one_face_is_that_face(self):
        one = _identity(3, 1)
        for method in ("average", "normalised average"):
            mean = combine([one], method)
            assert torch.allclose(mean.features["embedding"], one.features["embedding"], atol=1e-6)
            assert not any("averaged" in note for note in mean.notes)

    def test_normalised_average_is_not_ruled_by_length_but_keeps_it(self):
        x, y = torch.tensor([[100.0, 0.0]]), torch.tensor([[0.0, 1.0]])
        mean = combine([Identity("e", {"embedding": x}), Identity("e", {"embedding": y})], "normalised average")
        row = mean.features["embedding"][0]
        assert row[0] == pytest.approx(row[1])
        assert float(row.norm()) == pytest.approx(50.5)

    def test_weights_belong_to_identities_and_not_to_faces(self):
        a, b = _identity(1, 1), _identity(2, 3)
        mean = combine([a, b], "weighted", [1.0, 3.0])
        expected = 0.25 * a.features["embedding"].mean(0) + 0.75 * b.features["embedding"].mean(0)
        assert torch.allclose(mean.features["embedding"][0], expected, atol=1e-6)
        only_b = combine([a, b], "weighted", [0.0, 2.0])
        assert torch.allclose(only_b.features["embedding"][0], b.features["embedding"].mean(0), atol=1e-6)

    def test_pictures_without_a_face_never_enter_an_average(self):
        a = _identity(1, 3)
        with_gap = Identity(a.encoder, {name: rows.clone() for name, rows in a.features.items()})
        for rows in with_gap.features.values():
            rows[1] = 0
        mean = combine([with_gap], "average")
        assert torch.allclose(mean.features["embedding"][0], a.features["embedding"][[0, 2]].mean(0), atol=1e-6)
        assert any(note.startswith("1 row without a face") for note in mean.notes)
        # CLIP has looked at a black crop.
        with_gap.features["tokens"][1] = 1
        assert combine([with_gap], "average").digest == mean.digest
        nobody = Identity("e", {"embedding": torch.zeros(2, 4)})
        with pytest.raises(IdentityMismatch, match="without a face only"):
            combine([nobody], "average")

    @pytest.mark.parametrize("weights", [None, [1.0], [1.0, -1.0], [0.0, 0.0], [1.0, float("nan")]])
    def test_bad_weights_are_refused(self, weights):
        with pytest.raises(IdentityMismatch, match="weight"):
            combine([_identity(1), _identity(2)], "weighted", weights)

    @pytest.mark.parametrize("method", METHODS)
    def test_what_does_not_go_together_is_named_on_both_sides(self, method):
        a, weights = _identity(1), [1.0, 1.0]
        with pytest.raises(IdentityMismatch, match=r"transface_s.*dlib_resnet"):
            combine([a, _identity(2, encoder="dlib_resnet")], method, weights)
        with pytest.raises(IdentityMismatch, match=r"embedding, tokens, found features embedding;"):
            combine([a, _identity(2, tokens=False)], method, weights)
        with pytest.raises(IdentityMismatch, match=r"\(6,\).*\(8,\)"):
            combine([a, _identity(2, width=8)], method, weights)

    def test_nothing_and_unknown_methods_are_refused(self):
        with pytest.raises(IdentityMismatch, match="none"):
            combine([])
        with pytest.raises(IdentityMismatch, match="median"):
            combine([_identity(1)], "median")

    def test_a_mixture_of_masked_and_unmasked_is_told(self):
        plain = Identity("transface_s", dict(_identity(2).features))
        joined = combine([_identity(1), plain])
        assert not joined.masked and any("some were not" in note for note in joined.notes)


class TestImageTokens:
    def test_they_are_added_and_the_zero_picture_is_shared(self):
        tokens, zero = torch.randn(2, 257, 5), torch.randn(1, 257, 5)
        a = with_image_tokens(_identity(1), tokens.half(), zero)
        b = with_image_tokens(_identity(2), tokens, zero)
        assert a.features["image_tokens"].dtype == torch.float32 and len(a) == 2
        joined, mean = combine([a, b]), combine([a, b], "average")
        assert joined.features["image_tokens"].shape == (4, 257, 5)
        assert mean.features["image_tokens"].shape == (1, 257, 5)
        for one in (joined, mean):
            assert torch.equal(one.features["image_tokens_zero"], zero)
        other = with_image_tokens(_identity(2), tokens, zero + 1)
        with pytest.raises(IdentityMismatch, match="image_tokens_zero"):
            combine([a, other])

    @pytest.mark.parametrize(
        ("tokens", "zero"),
        [((3, 257, 5), (1, 257, 5)), ((2, 257, 5), (2, 257, 5)), ((2, 257, 5), (1, 257, 4)), ((2, 5), (1, 5))],
    )
    def test_other_shapes_are_refused(self, tokens, zero):
        with pytest.raises(IdentityMismatch, match="image tokens"):
            with_image_tokens(_identity(1), torch.zeros(tokens), torch.zeros(zero))

    def test_nan_is_refused(self):
        with pytest.raises(IdentityMismatch, match="NaN"):
            with_image_tokens(_identity(1), torch.full((2, 257, 5), float("nan")), torch.zeros(1, 257, 5))


class TestFile:
    def test_round_trip(self, tmp_path):
        identity = Identity(
            "arcface_buffalo_l", _identity(5).features, ("a", "b"), masked=True, notes=("\u5f20\u4e09", 'with "quotes"')
        )
        path = tmp_path / "new folder" / "\u5f20\u4e09 face.safetensors"
        save_identity(identity, path)
        loaded = load_identity(path)
        assert loaded.digest == identity.digest
        for name in ("encoder", "photos", "masked", "notes"):
            assert getattr(loaded, name) == getattr(identity, name)
        assert {name: rows.dtype for name, rows in loaded.features.items()} == dict.fromkeys(
            identity.features, torch.float32
        )
        assert [entry.name for entry in path.parent.iterdir()] == [path.name]

    def test_saving_again_replaces_the_whole_file(self, tmp_path):
        path = tmp_path / "p.safetensors"
        save_identity(_identity(1, 5), path)
        save_identity(_identity(2, 1), path)
        assert load_identity(path).digest == _identity(2, 1).digest

    def test_a_failed_write_leaves_the_old_file(self, tmp_path, monkeypatch):
        path = tmp_path / "p.safetensors"
        save_identity(_identity(1), path)

        def full_disk(self, target):
            raise OSError("no space left")

        monkeypatch.setattr(Path, "replace", full_disk)
        with pytest.raises(OSError, match="no space"):
            save_identity(_identity(2), path)
        monkeypatch.undo()
        assert load_identity(path).digest == _identity(1).digest
        assert len(list(tmp_path.iterdir())) == 1

    def test_foreign_files_are_refused(self, tmp_path):
        other = tmp_path / "other.safetensors"
        save_file({"weight": torch.zeros(3)}, str(other), metadata={"format": "pt"})
        with pytest.raises(BadCheckpoint, match="another kind"):
            load_identity(other)
        with pytest.raises(BadCheckpoint, match="none there"):
            load_identity(tmp_path / "missing.safetensors")
        for content in (b"", b"\x80\x04}q", b"\xff" * 64, struct.pack("<Q", 4) + b"nope"):
            other.write_bytes(content)
            with pytest.raises(BadCheckpoint, match="not safetensors"):
                load_identity(other)

    @pytest.mark.parametrize("cut", [1, 40, 200])
    def test_a_cut_file_is_refused(self, tmp_path, cut):
        path = tmp_path / "p.safetensors"
        save_identity(_identity(1), path)
        path.write_bytes(path.read_bytes()[:-cut])
        with pytest.raises(BadCheckpoint):
            load_identity(path)

    def test_changed_numbers_are_refused(self, tmp_path):
        path = tmp_path / "p.safetensors"
        save_identity(_identity(1), path)
        content = bytearray(path.read_bytes())
        content[-1] ^= 1
        path.write_bytes(bytes(content))
        with pytest.raises(BadCheckpoint, match="digest"):
            load_identity(path)

    @pytest.mark.parametrize(
        ("entry", "value", "told"),
        [
            ("format_version", "99", "99"),
            ("encoder", None, "damaged"),
            ("photos", "[", "damaged"),
            ("photos", "7", "damaged"),
        ],
    )
    def test_a_bad_header_is_refused(self, tmp_path, entry, value, told):
        path = tmp_path / "p.safetensors"
        save_identity(_identity(1), path)
        content = path.read_bytes()
        (length,) = struct.unpack("<Q", content[:8])
        header = json.loads(content[8 : 8 + length])
        header["__metadata__"][entry] = value
        if value is None:
            del header["__metadata__"][entry]
        text = json.dumps(header).encode()
        path.write_bytes(struct.pack("<Q", len(text)) + text + content[8 + length :])
        with pytest.raises(BadCheckpoint, match=told):
            load_identity(path)

    @pytest.mark.parametrize(
        "shapes",
        [
            {"embedding": (), "tokens": (2, 4, 3)},
            {"embedding": (6,)},
            {"embedding": (0, 6)},
            {"embedding": (2, 6), "tokens": (1, 4, 3)},
            {"tokens": (2, 4, 3), "w_plus": (3, 18, 8)},
            {"image_tokens_zero": (1, 4, 3)},
        ],
        ids=str,
    )
    def test_features_that_do_not_go_together_are_refused(self, tmp_path, shapes):
        """Their digest may be right; what counts faces by rows would fail on them without a sentence."""
        path = tmp_path / "p.safetensors"
        save_identity(Identity("e", {name: torch.ones(shape) for name, shape in shapes.items()}), path)
        with pytest.raises(BadCheckpoint, match="a row for each face in every feature"):
            load_identity(path)


def test_the_report_tells_what_is_inside():
    text = identity_report(_identity(1))
    for fact in ("encoder: transface_s", "faces: 2", "tokens (2, 4, 3)", "background removed: yes", "note: photo of 1"):
        assert fact in text
