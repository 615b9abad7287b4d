"""InstantID in the real host: 70 layers of SDXL, and a ControlNet of the host's class that sees the face tokens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from common_adapters import save, tiny
from host_encoders import control_net
from host_inprocess import ATTENTION_LAYERS, conditioning, sample, tiny_model
from likeness_pack.adapters import registry
from likeness_pack.adapters.adapter import TokenOptions
from likeness_pack.adapters.errors import EncoderMismatch
from likeness_pack.adapters.identity import Identity
from likeness_pack.faces.errors import NoFaceFound
from likeness_pack.faces.types import FaceBatch, Faces
from likeness_pack.inject.apply import ApplyOptions, apply_identity
from likeness_pack.inject.loaded import LoadedAdapter
from likeness_pack.nodes.instantid import LikenessInstantIDConditioning, LikenessKeypointsPicture
from module_folders import ModuleFolders
from tiny_adapters import write_faceid
from unet_calls import patched_calls

POINTS = torch.tensor([[[20.0, 25], [44, 25], [32, 36], [23, 46], [41, 46]]])


@pytest.fixture(scope="module")
def model() -> Any:
    """A tiny SDXL model."""
    return tiny_model("SDXL")


@pytest.fixture(scope="module")
def loaded(module_folders: ModuleFolders) -> LoadedAdapter:
    """A file of InstantID's layout."""
    path = module_folders.mktemp("instantid") / "any.bin"
    save(path, tiny("sdxl", "instantid"))
    return LoadedAdapter(registry.load(path, variant="instantid"))


@pytest.fixture(scope="module")
def identity() -> Identity:
    """A raw antelopev2 embedding."""
    return Identity("arcface_antelopev2", {"embedding": torch.randn(1, 512, generator=torch.Generator()) * 20})


@pytest.fixture(scope="module")
def faces() -> FaceBatch:
    """One face in a picture of 64 px."""
    return FaceBatch((Faces(torch.tensor([[10.0, 10, 54, 54]]), POINTS, torch.ones(1)),), (64, 64), "user")


def test_every_layer_runs_and_nothing_stays(model: Any, loaded: LoadedAdapter, identity: Identity) -> None:
    before = sample(model, steps=1)
    patched = apply_identity(model, loaded, identity, ApplyOptions(strength=0.8))
    assert patched_calls(patched, "SDXL", (1, 0)) == ATTENTION_LAYERS["SDXL"] == 70
    assert (sample(patched, steps=1) - before).abs().max() > 1e-4
    assert torch.equal(sample(model, steps=1), before)


def test_both_conditionings_are_copies_with_their_own_tokens(loaded: LoadedAdapter, identity: Identity) -> None:
    positive, negative = conditioning("SDXL", seed=1), conditioning("SDXL", seed=2, width=3)
    first, second = LikenessInstantIDConditioning().apply(positive, negative, loaded, identity)
    tokens = loaded.adapter.tokens(identity, TokenOptions())
    torch.testing.assert_close(first[0][1]["cross_attn_controlnet"], tokens.cond)
    torch.testing.assert_close(second[0][1]["cross_attn_controlnet"], tokens.uncond)
    assert first[0][0] is positive[0][0] and second[0][1]["width"] == 3
    assert "cross_attn_controlnet" not in positive[0][1] and "cross_attn_controlnet" not in negative[0][1]


@pytest.mark.parametrize("with_tokens", [True, False])
def test_the_controlnet_sees_the_face_and_not_the_text(
    model: Any, loaded: LoadedAdapter, identity: Identity, faces: FaceBatch, with_tokens: bool
) -> None:
    """The host's own ControlNet gets 4 face tokens for each row (here: the queries of the file) instead of 77 words."""
    control = control_net()
    seen: list[torch.Tensor] = []
    control.control_model.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(kwargs["context"].clone()), with_kwargs=True
    )
    positive, negative = conditioning("SDXL", seed=1), conditioning("SDXL", seed=2)
    texts = [positive[0][0], negative[0][0]]
    if with_tokens:
        positive, negative = LikenessInstantIDConditioning().apply(positive, negative, loaded, identity)
    picture = LikenessKeypointsPicture().draw(faces, 0, 0)[0]
    hinted = [with_control(control, one, picture) for one in (positive, negative)]
    patched = apply_identity(model, loaded, identity, ApplyOptions(strength=0.8))
    result = sample(patched, *hinted, steps=1)
    tokens = loaded.adapter.tokens(identity, TokenOptions())
    wanted = [tokens.cond, tokens.uncond] if with_tokens else texts
    got = [row for context in seen for row in context]
    assert len(got) == 2
    for expected in wanted:
        assert any(row.shape == expected[0].shape and torch.allclose(row, expected[0], atol=1e-5) for row in got)
    assert torch.isfinite(result).all()
    assert (result - sample(patched, steps=1)).abs().max() > 1e-4


def with_control(control: Any, conditions: Any, picture: torch.Tensor) -> Any:
    """What the host's ControlNet nodes do to a conditioning."""
    hinted = control.copy().set_cond_hint(picture.movedim(-1, 1), 0.8, (0.0, 1.0))
    return [[text, {**values, "control": hinted, "control_apply_to_uncond": False}] for text, values in conditions]


def test_the_picture_may_have_another_size(faces: FaceBatch) -> None:
    node = LikenessKeypointsPicture()
    assert tuple(node.draw(faces, 0, 0)[0].shape) == (1, 64, 64, 3)
    large = node.draw(faces, 128, 192)[0]
    assert tuple(large.shape) == (1, 192, 128, 3) and large[0, 36 * 3, 32 * 2].tolist() == [0, 0, 1]
    with pytest.raises(NoFaceFound):
        node.draw(FaceBatch((Faces.none(),), (64, 64), "user"), 0, 0)


def test_other_adapters_are_refused(tmp_path: Path, identity: Identity) -> None:
    save(tmp_path / "same.bin", tiny("sdxl", "instantid"))
    faceid, portrait = write_faceid(tmp_path / "f.bin", "SDXL"), tmp_path / "same.bin"
    text = conditioning("SDXL")
    for path, variant in ((faceid, "auto"), (portrait, "portrait_unnorm")):
        other = LoadedAdapter(registry.load(path, variant=variant))
        with pytest.raises(EncoderMismatch, match="expected an InstantID adapter"):
            LikenessInstantIDConditioning().apply(text, text, other, identity)
