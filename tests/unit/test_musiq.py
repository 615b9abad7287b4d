"""MUSIQ: tokens of pictures of any size, recognition, and what it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from likeness_pack.adapters import registry
from likeness_pack.adapters.checkpoint import read_header
from likeness_pack.adapters.encoders.musiq.arch import Musiq, StdConv
from likeness_pack.adapters.encoders.musiq.encoder import MusiqEncoder
from likeness_pack.adapters.encoders.musiq.family import FAMILY
from likeness_pack.adapters.encoders.musiq.patches import pad_same, picture_tokens, same_padding
from likeness_pack.adapters.errors import EncoderMismatch
from likeness_pack.faces.errors import BadImage
from likeness_pack.tools.standins.command import write_standin
from likeness_pack.tools.standins.restorerid import musiq
from module_folders import ModuleFolders
from sparse_files import write_zero_storage_torch


@pytest.fixture(scope="module")
def encoder(module_folders: ModuleFolders) -> MusiqEncoder:
    return registry.load(write_standin("musiq", module_folders.mktemp("musiq")), kind="encoder")


@pytest.mark.parametrize(
    ("height", "width", "patches"), [(128, 96, 12), (256, 256, 64), (33, 65, 6), (512, 512, 256), (32, 900, 29)]
)
def test_the_original_is_cut_whole_and_the_others_are_padded(height: int, width: int, patches: int) -> None:
    tokens = picture_tokens(torch.rand(2, 3, height, width))
    assert tokens.values.shape == (2, 49 + 144 + patches, 3072)
    assert tokens.scales.unique(return_counts=True)[1].sum() == 49 + 144 + patches
    assert bool(tokens.mask[-patches:].all())
    assert int(tokens.places.max()) <= 99
    padding = tokens.mask == 0
    assert bool((tokens.values[:, padding] == 0).all())
    if height == width:
        assert not padding.any()


def test_pixels_of_the_original_are_its_tokens() -> None:
    picture = torch.rand(1, 3, 64, 64)
    tokens = picture_tokens(picture)
    expected = (picture[0, :, 32:, :32] - 0.5) * 2
    torch.testing.assert_close(tokens.values[0, -2], expected.flatten())
    assert tokens.places[-4:].tolist() == [0, 5, 50, 55]


def test_same_padding_is_tensorflows() -> None:
    assert same_padding(32, 7, 2) == (2, 3)
    assert same_padding(33, 7, 2) == (3, 3)
    assert same_padding(64, 32, 32) == (0, 0)
    assert same_padding(65, 32, 32) == (15, 16)
    assert pad_same(torch.ones(1, 1, 65, 64), 32, 32).shape == (1, 1, 96, 64)


def test_standardised_convolutions_ignore_scale_and_shift_of_their_weights() -> None:
    torch.manual_seed(0)
    conv, x = StdConv(3, 8, 7, 2), torch.randn(1, 3, 32, 32)
    before = conv(x)
    with torch.no_grad():
        conv.weight.mul_(3).add_(0.7)
    torch.testing.assert_close(conv(x), before, atol=1e-3, rtol=1e-3)


def test_padding_has_no_part_in_a_score(encoder: MusiqEncoder) -> None:
    network, picture = encoder.network, torch.rand(1, 3, 64, 96)
    tokens = picture_tokens(picture)
    flat = tokens.values[0].unflatten(-1, (3, 32, 32))
    with torch.no_grad():
        embedded = network._embedded(flat)[None]
        score = network.head(network.transformer_encoder(embedded, tokens))
        embedded[:, tokens.mask == 0] += 1.0
        disturbed = network.head(network.transformer_encoder(embedded, tokens))
    torch.testing.assert_close(score, network(picture), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(disturbed, score, atol=1e-5, rtol=1e-5)


def test_each_picture_has_a_score_of_its_own(encoder: MusiqEncoder) -> None:
    images = torch.rand(2, 70, 40, 3)
    together = encoder.scores(images)
    assert len(together) == 2
    assert together[0] != together[1]
    assert encoder.scores(images[1:]) == pytest.approx(together[1:], abs=1e-4)
    with pytest.raises(BadImage, match="at least 32 x 32"):
        encoder.scores(torch.rand(1, 31, 200, 3))


def test_it_is_no_face_encoder(encoder: MusiqEncoder) -> None:
    with pytest.raises(EncoderMismatch, match="MUSIQ, which scores"):
        encoder.encode_faces(torch.rand(1, 64, 64, 3), [0], torch.zeros(1, 4), torch.zeros(1, 5, 2), None)


def test_recognition(tmp_path: Path) -> None:
    shapes = musiq()
    assert len(shapes) == 248
    wrapped = write_zero_storage_torch(tmp_path / "a.pth", {f"module.{name}": shape for name, shape in shapes.items()})
    report = registry.describe(wrapped, kind="encoder")
    assert (report.family, report.commercial) == ("musiq", False)
    other = write_zero_storage_torch(tmp_path / "b.pth", shapes | {"head.weight": (10, 384), "head.bias": (10,)})
    assert "(10, 384)" in str(FAMILY.recognise(read_header(other)))
    assert isinstance(Musiq(1).head, torch.nn.Linear)
