"""EVA02-CLIP's picture half: the authors' numbers, recognition, the pictures it sees, the identity for PuLID."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import parity
import pytest
import torch
from likeness_pack.adapters.checkpoint import read_header
from likeness_pack.adapters.encoders.base import FaceEncoder, encode_photos
from likeness_pack.adapters.encoders.eva_clip.arch import EvaConfig, EvaVision, rotary_table
from likeness_pack.adapters.encoders.eva_clip.family import (
    DEVIATION,
    FAMILY,
    MEAN,
    EvaClipEncoder,
    face_feature_pictures,
)
from likeness_pack.adapters.encoders.eva_clip.pulid_identity import check_encoders, with_eva_features
from likeness_pack.adapters.errors import EncoderMismatch, IdentityMismatch, KeyMismatch
from likeness_pack.adapters.identity import Identity
from likeness_pack.adapters.registry import load, recognise
from likeness_pack.faces.templates import template_points
from likeness_pack.faces.types import FaceBatch, Faces
from safetensors.torch import save_file
from sparse_files import write_sparse_safetensors
from torch import Tensor

SMALL = EvaConfig(width=64, depth=24, feed_forward=170, patch=14, grid=24, output=12)
# Outputs of the authors' eva_vit_model.py (EVAVisionTransformer with the switches of EVA02-CLIP-L-14-336 and the sizes
# of SMALL) for weights and picture of the parity rule with the salt "eva".
POOLED = [
    0.171815, -0.619568, 0.166736, 1.128897, -1.161209, 0.857291,
    0.717494, -0.131997, 1.681843, -0.774336, -0.300724, -0.03125,
]  # fmt: skip
PLACES, CHANNEL = (0, 1, 288, 576), 7
HIDDEN = [
    [-3.77467, -1.82394, 1.07842, -1.61967],
    [-0.29812, 0.54613, 3.98366, 3.06588],
    [2.78716, 3.55499, 9.49354, 6.07375],
    [-4.09311, -1.29062, 4.14913, 2.41989],
    [-2.58921, 2.10292, 9.02557, 2.90016],
]
MEANS = [2.51879, 3.326991, 4.470009, 4.831406, 5.292757]


def tensors(prefix: str = "") -> dict[str, Tensor]:
    """A file's tensors for SMALL, by the parity rule."""
    filled = parity.fill_module(EvaVision(SMALL), "eva").state_dict()
    return {f"{prefix}{name}": tensor.contiguous() for name, tensor in filled.items()}


@pytest.fixture(scope="module")
def network() -> EvaVision:
    built = EvaVision(SMALL)
    parity.fill_module(built, "eva")
    return built


def test_the_authors_numbers(network: EvaVision) -> None:
    with torch.no_grad():
        pooled, hidden = network(parity.input_for("pictures", (1, 3, 336, 336), "eva"))
    assert hidden.shape == (1, 5, 577, 64)
    torch.testing.assert_close(pooled[0], torch.tensor(POOLED), atol=2e-5, rtol=2e-5)
    torch.testing.assert_close(hidden[0][:, PLACES, CHANNEL], torch.tensor(HIDDEN), atol=1e-4, rtol=2e-5)
    torch.testing.assert_close(hidden[0].abs().mean((1, 2)), torch.tensor(MEANS), atol=1e-5, rtol=1e-5)


def test_positions_turn_by_row_and_column() -> None:
    cosines, sines = rotary_table(3, torch.zeros(()))
    assert cosines.shape == sines.shape == (9, 64)
    angle = torch.tensor(2 / 3 * 16)
    assert torch.allclose(sines[6, 0], angle.sin(), atol=1e-5)  # third row, first column: the row's half turns
    assert torch.equal(sines[6, 32:], torch.zeros(32))
    assert torch.allclose(cosines[2, 32], angle.cos(), atol=1e-5)
    assert torch.equal(sines[2, :32], torch.zeros(32))


@pytest.mark.parametrize("prefix", ["visual.", ""])
def test_a_published_file_is_recognised_and_loaded(tmp_path: Path, prefix: str) -> None:
    """The text half, its weight and the stored rotary tables are left out; half precision is kept."""
    stored = {name: tensor.half() for name, tensor in tensors(prefix).items()}
    stored |= {f"{prefix}rope.freqs_cos": torch.ones(576, 64), f"{prefix}blocks.3.attn.rope.freqs_sin": torch.ones(2)}
    stored |= {"text.positional_embedding": torch.ones(77, 8), "logit_scale": torch.tensor(4.6)}
    torch.save(stored, tmp_path / "eva.pt")
    match = recognise(read_header(tmp_path / "eva.pt"))
    assert match.family is FAMILY or match.family.id == "eva_clip"
    encoder = load(tmp_path / "eva.pt")
    assert encoder.id == "eva02_clip_l_336"
    assert {parameter.dtype for parameter in encoder.network.parameters()} == {torch.float16}
    assert torch.equal(encoder.network.state_dict()["blocks.23.mlp.w3.bias"], stored[f"{prefix}blocks.23.mlp.w3.bias"])


def test_a_missing_key_is_an_error(tmp_path: Path) -> None:
    stored = tensors("visual.")
    del stored["visual.blocks.9.attn.q_bias"]
    save_file(stored, tmp_path / "e.safetensors")
    with pytest.raises(KeyMismatch, match="1 missing: blocks.9"):
        load(tmp_path / "e.safetensors")


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        (EvaConfig(64, 24, 170, 14, 16, 12), "pictures of 224 pixels"),
        (EvaConfig(64, 12, 170, 14, 24, 12), "12 blocks"),
    ],
)
def test_relatives_are_refused_with_the_reason(tmp_path: Path, config: EvaConfig, reason: str) -> None:
    with torch.device("meta"):
        shapes = {name: tuple(tensor.shape) for name, tensor in EvaVision(config).state_dict().items()}
    answer = FAMILY.recognise(read_header(write_sparse_safetensors(tmp_path / "x.safetensors", shapes)))
    assert isinstance(answer, str) and reason in answer


def test_what_is_no_face_becomes_white_and_the_rest_grey() -> None:
    """The crop is facexlib's; a mask's edge is hard; outside the photo is white too."""
    landmarks = template_points("face_restore_512", 512)[None].float()
    images = torch.zeros(1, 512, 400, 3)
    images[..., 0], images[..., 1], images[..., 2] = 0.5, 0.25, 1.0
    mask = torch.zeros(1, 512, 400)
    mask[:, :256] = 1
    pictures = face_feature_pictures(images, torch.tensor([0]), landmarks, mask)
    mean, deviation = torch.tensor(MEAN)[:, None, None], torch.tensor(DEVIATION)[:, None, None]
    shown = pictures[0] * deviation + mean
    assert pictures.shape == (1, 3, 336, 336)
    grey = 0.299 * 0.5 + 0.587 * 0.25 + 0.114 * 1.0
    assert torch.allclose(shown[:, 20:150, 20:250], torch.tensor(grey), atol=1e-4)
    assert torch.allclose(shown[:, 180:], torch.tensor(1.0), atol=1e-4)
    assert torch.allclose(shown[:, :, 275:], torch.tensor(1.0), atol=1e-4)
    whole = face_feature_pictures(images, torch.tensor([0]), landmarks, None)[0] * deviation + mean
    assert torch.allclose(whole[:, 180:300, 20:250], torch.tensor(grey), atol=1e-4)


class _Face(FaceEncoder):
    """An embedding that tells which picture it is of."""

    id = "arcface_antelopev2"
    title = "test"

    def encode_faces(
        self, images: Tensor, index: Sequence[int], boxes: Tensor, landmarks5: Tensor, masks: Tensor | None
    ) -> dict[str, Tensor]:
        assert masks is None
        return {"embedding": torch.as_tensor(list(index)).float()[:, None].expand(-1, 512) + 1}


def photos(count: int, empty: Sequence[int] = ()) -> tuple[Tensor, FaceBatch]:
    """Noise pictures with one face each, but for those in ``empty``."""
    images = torch.rand(count, 64, 64, 3, generator=torch.Generator().manual_seed(4))
    points = template_points("face_restore_512", 512)[None].float() / 8
    one = Faces(torch.tensor([[8.0, 8.0, 56.0, 56.0]]), points, torch.ones(1))
    none = one.take([])
    return images, FaceBatch(tuple(none if i in empty else one for i in range(count)), (64, 64), "test")


def eva(network: EvaVision) -> EvaClipEncoder:
    return EvaClipEncoder("EVA", FAMILY.licence, network)


def test_an_identity_for_pulid_holds_both(network: EvaVision) -> None:
    images, faces = photos(3, empty=[1])
    face = encode_photos(_Face(), images, faces, None, "best", "keep")
    seen = encode_photos(eva(network), images, faces, torch.ones(64, 64), "best", "keep")
    identity = with_eva_features(face, seen)
    assert identity.encoder == "arcface_antelopev2" and identity.masked
    assert {name: tuple(tensor.shape) for name, tensor in identity.features.items()} == {
        "embedding": (3, 512),
        "eva_pooled": (3, 12),
        "eva_hidden": (3, 5, 577, 64),
    }
    assert torch.equal(identity.features["embedding"][:, 0], torch.tensor([1.0, 0.0, 3.0]))
    lengths = identity.features["eva_pooled"].norm(dim=-1)
    assert torch.allclose(lengths, torch.tensor([1.0, 0.0, 1.0]), atol=1e-5)
    assert identity.digest != face.digest


def test_without_a_mask_the_report_says_so(network: EvaVision) -> None:
    images, faces = photos(1)
    identity = encode_photos(eva(network), images, faces)
    assert not identity.masked
    assert any(note.startswith("no face mask: PuLID was trained") for note in identity.notes)


def test_other_faces_are_refused(network: EvaVision) -> None:
    images, faces = photos(2)
    both = encode_photos(_Face(), images, faces)
    one = Identity("eva02_clip_l_336", {"eva_hidden": torch.zeros(1, 5, 2, 2), "eva_pooled": torch.zeros(1, 2)})
    with pytest.raises(IdentityMismatch, match="same 2 faces"):
        with_eva_features(both, one)
    with pytest.raises(IdentityMismatch, match="EVA-CLIP features"):
        with_eva_features(both, both)


def test_other_encoders_are_refused_before_anything_runs() -> None:
    check_encoders("arcface_antelopev2", "eva02_clip_l_336")
    for pair in (("arcface_buffalo_l", "eva02_clip_l_336"), ("eva02_clip_l_336", "arcface_antelopev2")):
        with pytest.raises(EncoderMismatch, match=f"found {pair[0]} and {pair[1]}"):
            check_encoders(*pair)
