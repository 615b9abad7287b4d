"""Whole photos through the nodes: six faces, two references, stand-in weights of published layout; MUSIQ; sampling."""

from __future__ import annotations

import importlib
import importlib.util
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from host_encoders import clip_vision as small_clip_vision
from host_inprocess import engine
from identities import SeededEncoder
from likeness_pack.adapters import registry
from likeness_pack.adapters.encoders.base import with_embeddings
from likeness_pack.adapters.errors import EncoderMismatch, IdentityMismatch, UnknownCheckpoint
from likeness_pack.faces.errors import BadImage, NoFaceFound
from likeness_pack.inject.loaded_networks import LoadedEncoder
from likeness_pack.inject.model_folders import register_model_folders
from likeness_pack.nodes.colour import LikenessMatchColour
from likeness_pack.nodes.crops import LikenessCropFaces, LikenessMatchReferences, LikenessPasteFaces
from likeness_pack.nodes.detect import LikenessDetectFaces, LikenessLoadDetector
from likeness_pack.nodes.encoder import LikenessEncodeIdentity, LikenessLoadEncoder
from likeness_pack.nodes.quality import LikenessPictureQuality
from likeness_pack.nodes.restore import (
    LikenessApplyRestorer,
    LikenessEncodeReference,
    LikenessLoadRestorerCheckpoint,
    LikenessRestorerSampler,
)
from likeness_pack.tools.standins.command import write_standin
from module_folders import ModuleFolders
from torch import Tensor

PEOPLE = (1, 4)
SIZE = 64
DEFAULTS = {
    "id_scale_mode": "manual",
    "id_scale": 0.75,
    "id_multiplier": 1.0,
    "structure_strength": 1.0,
    "fir_strength": 1.0,
    "lora_strength": 1.0,
    "start_percent": 0.0,
    "end_percent": 1.0,
}


@pytest.fixture(autouse=True, scope="module")
def as_the_host_runs_nodes() -> Iterator[None]:
    """Nodes run without gradients."""
    with torch.inference_mode():
        yield


@pytest.fixture(scope="module")
def photo() -> Tensor:
    from PIL import Image

    spec = importlib.util.find_spec("insightface")
    assert spec is not None
    assert spec.origin is not None
    with Image.open(Path(spec.origin).parent / "data" / "images" / "t1.jpg") as picture:
        return torch.from_numpy(np.asarray(picture.convert("RGB")).copy()).float()[None] / 255


@pytest.fixture(scope="module")
def detector() -> Any:
    return LikenessLoadDetector().load("mtcnn")[0]


@pytest.fixture(scope="module")
def dlib() -> LoadedEncoder:
    return LikenessLoadEncoder().load("dlib_resnet")[0]


@pytest.fixture(scope="module")
def faces(photo: Tensor, detector: Any) -> Any:
    found = LikenessDetectFaces().detect(photo, detector, 0.0, "error")["result"][0]
    assert found.counts == (6,)
    return found


@pytest.fixture(scope="module")
def clip_vision(module_folders: ModuleFolders) -> Any:
    return small_clip_vision(module_folders.mktemp("clip"), projection=64, depth=3, patch=14)


@pytest.fixture(scope="module")
def references(photo: Tensor, faces: Any, dlib: LoadedEncoder, clip_vision: Any) -> list[tuple[Any, Any]]:
    """For two of the people: dlib's identity, and what RestorerID reads, of a softened and darkened copy."""
    altered = (photo * 0.85).pow(1.1)
    found = []
    for number in PEOPLE:
        one = faces.with_images([faces.images[0].take([number])])
        who = LikenessEncodeIdentity().encode(altered, one, dlib, "best", "error")["result"][0]
        encoder = LoadedEncoder(SeededEncoder())
        what = LikenessEncodeReference().encode(altered, one, encoder, clip_vision, "best", "error")["result"][0]
        found.append((who, what))
    return found


@pytest.fixture(scope="module")
def restorer() -> tuple[Any, Any, Any, Any]:
    """The official file's stand-in, thin, through the loader node."""
    register_model_folders()
    folder = engine().models / "face_adapters"
    path = write_standin("restorerid-full", folder, (320, 320, 320, 320))
    try:
        out = LikenessLoadRestorerCheckpoint().load(path.name)
    finally:
        path.unlink()
    assert "RestorerID" in out["ui"]["text"][0]
    return out["result"][:4]


def matched(photo: Tensor, faces: Any, dlib: LoadedEncoder, references: Any, **changes: Any) -> tuple[Any, ...]:
    (who_1, what_1), (who_2, what_2) = references
    values = {"limit": -1.0, "once": True, "person_2": who_2, "reference_1": what_1, "reference_2": what_2, **changes}
    return LikenessMatchReferences().match(photo, faces, dlib, who_1, **values)["result"]


def sampled(model: Any, latent: dict[str, Tensor], steps: int = 3, cfg: float = 4.0) -> Tensor:
    """SamplerCustom with the official pair."""
    model, sampler, sigmas = LikenessRestorerSampler().make(model, steps, 1.0)
    comfy_sample = importlib.import_module("comfy.sample")
    context = torch.randn(2, 1, 77, 768, generator=torch.Generator().manual_seed(1))
    positive, negative = ([[one, {}]] for one in context)
    noise = comfy_sample.prepare_noise(latent["samples"], 7)
    with torch.inference_mode():
        return comfy_sample.sample_custom(
            model, noise, cfg, sampler, sigmas, positive, negative, latent["samples"], disable_pbar=True, seed=7
        )


def test_two_of_six_faces_are_restored_and_nothing_else_changes(
    photo: Tensor, faces: Any, dlib: LoadedEncoder, references: Any, restorer: Any
) -> None:
    model, _, vae, adapter = restorer
    chosen, identity, report, count = matched(photo, faces, dlib, references)
    assert (count, len(identity), chosen.counts) == (2, 2, (2,))
    assert report.startswith("2 of 6 faces matched, 4 left alone")
    assert report.count("left alone (not alike enough)") == 4
    crops, cropped, _ = LikenessCropFaces().crop(photo, chosen, SIZE, "face_restore_512")
    latent = {"samples": vae.encode(crops)}
    out = LikenessApplyRestorer().apply(model, adapter, identity, latent, **DEFAULTS)["result"]
    restored, empty, quality, scale, told = out
    assert (quality, scale, tuple(empty["samples"].shape)) == (-1.0, 0.75, (2, 4, 8, 8))
    assert "non-commercial" in told
    decoded = vae.decode(sampled(restored, empty)).float()
    assert torch.isfinite(decoded).all()
    (matching,) = LikenessMatchColour().match(decoded, crops, "wavelet", 1.0)
    (whole,) = LikenessPasteFaces().paste(photo, cropped, matching, 1.0)
    changed = (whole != photo).any(-1)[0]
    near = torch.zeros_like(changed)
    for number in PEOPLE:
        x1, y1, x2, y2 = faces.images[0].boxes[number].tolist()
        # The template's square is about twice the face's box, turned at most by its diagonal.
        half = 1.5 * max(x2 - x1, y2 - y1)
        x, y = (x1 + x2) / 2, (y1 + y2) / 2
        assert changed[int(y1) : int(y2), int(x1) : int(x2)].float().mean() > 0.9
        near[max(0, int(y - half)) : int(y + half), max(0, int(x - half)) : int(x + half)] = True
    assert not changed[~near].any()
    centres = [(faces.images[0].boxes[i, :2] + faces.images[0].boxes[i, 2:]) / 2 for i in range(6) if i not in PEOPLE]
    assert not any(changed[int(y) - 20 : int(y) + 20, int(x) - 20 : int(x) + 20].any() for x, y in centres)
    assert torch.equal(LikenessPasteFaces().paste(photo, cropped, matching, 0.0)[0], photo)


def test_each_face_gets_its_own_reference(photo: Tensor, faces: Any, dlib: LoadedEncoder, references: Any) -> None:
    chosen, identity, _, _ = matched(photo, faces, dlib, references)
    for row, number in enumerate(PEOPLE):
        expected = references[row][1].features
        place = chosen.images[0].boxes.tolist().index(faces.images[0].boxes[number].tolist())
        assert torch.equal(identity.features["embedding"][place], expected["embedding"][0])
        assert torch.equal(identity.features["image_tokens_bgr"][place], expected["image_tokens_bgr"][0])


def test_matching_by_limits(photo: Tensor, faces: Any, dlib: LoadedEncoder, references: Any) -> None:
    with pytest.raises(NoFaceFound, match="0 of 6 faces matched"):
        matched(photo, faces, dlib, references, limit=0.01)
    everybody = matched(photo, faces, dlib, references, limit=1.9, once=False)
    assert everybody[3] == 6
    once = matched(photo, faces, dlib, references, limit=1.9)
    assert once[3] == 2
    assert once[2].count("another face is more like this person") == 4
    with pytest.raises(IdentityMismatch, match="one encoder"):
        matched(photo, faces, LoadedEncoder(SeededEncoder()), references)


def test_the_picture_encoder_sees_blue_green_red(photo: Tensor, faces: Any, clip_vision: Any) -> None:
    from likeness_pack.adapters.identity import Identity
    from likeness_pack.inject.clip_vision import image_tokens
    from likeness_pack.inject.references import with_reference_tokens

    crops = torch.rand(1, 3, 224, 224)
    known = Identity("arcface_buffalo_l", {"embedding": torch.ones(1, 512)})
    features = with_reference_tokens(known, clip_vision, crops).features
    swapped, zero = image_tokens(clip_vision, crops[:, [2, 1, 0]])
    assert torch.equal(features["image_tokens_bgr"], swapped)
    assert torch.equal(features["image_tokens_zero"], zero)
    assert "image_tokens" not in features


def test_the_base_model_inside_is_the_one_of_its_own_file(restorer: Any) -> None:
    """The loader's MODEL carries no trace of the adapter: every tensor is the file's own SD1.5."""
    model = restorer[0]
    from likeness_pack.tools.standins.base_models import unet
    from likeness_pack.tools.standins.fill import filled

    shapes = unet((320, 320, 320, 320))
    state = model.model.diffusion_model.state_dict()
    assert set(shapes) == set(state)
    for name in list(shapes)[:: len(shapes) // 9]:
        expected = filled(f"model.diffusion_model.{name}", shapes[name], torch.float16)
        assert torch.equal(state[name].half(), expected), name


def test_clip_and_vae_of_the_file_work(restorer: Any) -> None:
    _, clip, vae, _ = restorer
    tokens = clip.tokenize("best quality, high quality")
    assert clip.encode_from_tokens(tokens).shape[-2:] == (77, 768)
    assert vae.decode(torch.zeros(1, 4, 4, 4)).shape == (1, 32, 32, 3)


def test_other_files_are_told_by_the_loader(tmp_path: Path) -> None:
    register_model_folders()
    folder = engine().models / "face_adapters"
    path = write_standin("restorerid-slim", folder, (32, 64, 128, 128))
    try:
        with pytest.raises(UnknownCheckpoint, match="slim adapter file"):
            LikenessLoadRestorerCheckpoint().load(path.name)
        assert registry.load(path, kind="adapter").report.family == "restorerid"
    finally:
        path.unlink()


@pytest.fixture(scope="module")
def musiq(module_folders: ModuleFolders) -> LoadedEncoder:
    path = write_standin("musiq", module_folders.mktemp("musiq"))
    return LoadedEncoder(registry.load(path, kind="encoder"))


def test_the_adaptive_scale_follows_each_pictures_quality(
    photo: Tensor, faces: Any, dlib: LoadedEncoder, references: Any, restorer: Any, musiq: LoadedEncoder
) -> None:
    model, _, vae, adapter = restorer
    chosen, identity, _, _ = matched(photo, faces, dlib, references)
    crops, _, _ = LikenessCropFaces().crop(photo, chosen, SIZE, "face_restore_512")
    latent = {"samples": vae.encode(crops)}
    adaptive = {**DEFAULTS, "id_scale_mode": "adaptive", "id_multiplier": 2.0}
    out = LikenessApplyRestorer().apply(model, adapter, identity, latent, **adaptive, images=crops, quality=musiq)
    _, _, quality, scale, report = out["result"]
    scores = musiq.encoder.scores(crops)  # type: ignore[attr-defined]
    assert quality == pytest.approx(sum(scores) / 2)
    assert scale == pytest.approx(sum(2 * math.exp(0.1 * (9.5 - score)) for score in scores) / 2)
    assert report.startswith(f"face 0: quality {scores[0]:.2f}, ID scale ")
    with pytest.raises(BadImage, match="no quality"):
        LikenessApplyRestorer().apply(model, adapter, identity, latent, **adaptive, images=crops)
    with pytest.raises(BadImage, match="the 2 damaged pictures"):
        LikenessApplyRestorer().apply(model, adapter, identity, latent, **adaptive, images=crops[:1], quality=musiq)


def test_quality_as_a_node_of_its_own(photo: Tensor, musiq: LoadedEncoder, dlib: LoadedEncoder) -> None:
    pictures = torch.stack([photo[0, :96, :128], photo[0, 300:396, 400:528]])
    out = LikenessPictureQuality().score(pictures, musiq)
    score, report = out["result"]
    scores = musiq.encoder.scores(pictures)  # type: ignore[attr-defined]
    assert score == pytest.approx(sum(scores) / 2)
    assert report.splitlines()[1] == f"image 1: {scores[1]:.2f}"
    with pytest.raises(EncoderMismatch, match="musiq_koniq"):
        LikenessPictureQuality().score(pictures, dlib)


def test_a_musiq_file_at_a_face_node_is_told(photo: Tensor, faces: Any, musiq: LoadedEncoder) -> None:
    with pytest.raises(EncoderMismatch, match="scores the quality"):
        with_embeddings(faces, photo, musiq)


def test_any_sampler_works_on_the_official_timesteps(restorer: Any) -> None:
    """Off the official levels the model is told its usual timesteps, on them the official ones."""
    model, sampler, sigmas = LikenessRestorerSampler().make(restorer[0], 50, 1.0)
    sampling, usual = model.get_model_object("model_sampling"), restorer[0].get_model_object("model_sampling")
    told = sampling.timestep(sigmas).tolist()
    assert told[:3] == [999.0, 979.0, 958.0]
    assert told[-2:] == [20.0, 0.0]
    others = usual.sigmas[[7, 333, 991]]
    assert torch.equal(sampling.timestep(others).long(), usual.timestep(others).long())
    assert usual.timestep(sigmas).tolist()[0] == 980
    assert len(sigmas) == 50
    assert restorer[0].get_model_object("model_sampling") is usual
