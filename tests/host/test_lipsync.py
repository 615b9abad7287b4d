"""Lip-sync in the host: loading, identity on and off, frames."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest
import torch
from clip_people import RED, ColourDetector, frame_of
from host_inprocess import engine, tiny_model
from identities import arcface_identity, transface_identity
from likeness_pack.adapters.audio_features import AudioFeatures
from likeness_pack.adapters.audio_sound import BadSound
from likeness_pack.adapters.errors import (
    AmbiguousCheckpoint,
    BaseModelMismatch,
    EncoderMismatch,
    KeyMismatch,
    PatchIncomplete,
)
from likeness_pack.adapters.families.musetalk.layout import PUBLISHED_WIDTHS, unet_shapes
from likeness_pack.adapters.families.unavglip.arch import NumberOfFaces
from likeness_pack.faces.detect import detect_faces
from likeness_pack.faces.errors import BadImage, FaceChoice, NoFaceFound
from likeness_pack.faces.parts import ParsedFaces
from likeness_pack.faces.types import FaceBatch
from likeness_pack.inject import model_folders, musetalk
from likeness_pack.inject.apply import ApplyOptions, apply_identity
from likeness_pack.inject.lip_sync import LipSync, LipSyncOptions
from likeness_pack.inject.loaded_parser import LoadedParser
from likeness_pack.inject.mean_latent import encode_mean
from likeness_pack.inject.musetalk import load_for, predict
from likeness_pack.inject.patching import attention_slot
from likeness_pack.inject.unavglip import LipIdentityOptions, apply_lip_identity
from likeness_pack.nodes.lipsync import (
    LikenessApplyLipIdentity,
    LikenessLipSync,
    LikenessLoadMuseTalk,
)
from module_folders import ModuleFolders
from musetalk_models import (
    WIDTHS,
    SmallVae,
    adapter_of,
    model_of,
    seeded,
    write_musetalk,
    write_tensors,
    write_unavglip,
)
from tiny_parser import tiny_parser
from torch import Tensor

PAINT = {"paste": "auto", "shift": 0, "margin": -1, "cheek": 90, "batch": 3, "on_missing_face": "keep"}


@pytest.fixture(scope="module")
def folder(module_folders: ModuleFolders) -> Path:
    engine()
    folder = module_folders.mktemp("lips 唇")
    write_musetalk(folder / "unet.pth.safetensors")
    write_unavglip(folder / "identity.safetensors")
    return folder


@pytest.fixture(scope="module")
def model(folder: Path) -> Any:
    return model_of(folder / "unet.pth.safetensors", "v15")


@pytest.fixture(scope="module")
def first_version(folder: Path) -> Any:
    return model_of(folder / "unet.pth.safetensors", "v1")


@pytest.fixture(scope="module")
def adapter(folder: Path) -> Any:
    return adapter_of(folder / "identity.safetensors")


@pytest.fixture(scope="module")
def vae() -> SmallVae:
    return SmallVae()


def call(model: Any, frames: int = 2) -> Tensor:
    """One call of the network on seeded numbers."""
    load_for(model, frames, 8)
    with torch.inference_mode():
        return predict(model, seeded(frames, 8, 8, 8), seeded(frames, 50, 384, seed=1))


def people(count: int, missing: tuple[int, ...] = ()) -> tuple[Tensor, FaceBatch]:
    """Frames of one person who walks, and the faces found in them."""
    frames = [frame_of({} if n in missing else {RED: (60.0 + n, 52.0, 1.0)}) for n in range(count)]
    images = torch.stack(frames).float() / 255
    return images, detect_faces(images, ColourDetector(), 0.9, "keep", retry=False)[0]


def features(frames: int, system: Any = "musetalk_v15", tracks: int = 1, fps: float = 25.0) -> AudioFeatures:
    return AudioFeatures(
        system, seeded(tracks, frames, 10, 5, 384, seed=4), fps, 640 * frames, (0.0,) * tracks, ("",) * tracks
    )


def ran(node: Any, *args: Any, **named: Any) -> tuple[Any, ...]:
    """A node's outputs."""
    found = getattr(node(), node.FUNCTION)(*args, **named)
    return found["result"] if isinstance(found, dict) else found


# The model


def test_it_loads_as_the_host_runs_nodes(folder: Path) -> None:
    """In inference mode, and a LoRA can be merged into its weights later."""
    with torch.inference_mode():
        model = model_of(folder / "unet.pth.safetensors", "v15")
    parameters = list(model.model.diffusion_model.parameters())
    assert parameters and not any(one.is_inference() or one.is_meta for one in parameters)


def test_the_node_builds_the_hosts_unet_and_says_what_it_is(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_folders, "find_file", lambda kind, name: folder / name)
    loaded, report = ran(LikenessLoadMuseTalk, "unet.pth.safetensors", "v1")
    assert "MuseTalk" in report and "v1" in report and "OpenRAIL" in report
    unet = loaded.model.diffusion_model
    assert type(unet).__module__ == "comfy.ldm.modules.diffusionmodules.openaimodel"
    assert unet.input_blocks[0][0].weight.shape == (WIDTHS[0], 8, 3, 3)
    with pytest.raises(AmbiguousCheckpoint, match="set the option version|set the option variant to v1 or v15"):
        ran(LikenessLoadMuseTalk, "unet.pth.safetensors", "auto")
    with pytest.raises(EncoderMismatch, match="found a file of UnAvgLip; put it into models/face_adapters"):
        ran(LikenessLoadMuseTalk, "identity.safetensors", "auto")


def test_the_published_widths_fit_the_hosts_unet() -> None:
    """All 686 tensors have their place and their shape in it, told without holding one of them."""
    table = importlib.import_module("comfy.utils").unet_to_diffusers(musetalk.unet_config(PUBLISHED_WIDTHS))
    renamed = {table[name]: torch.Size(shape) for name, shape in unet_shapes().items()}
    places = musetalk._empty_model(PUBLISHED_WIDTHS, 849_900_000).diffusion_model.state_dict()
    assert renamed == {name: place.shape for name, place in places.items()} and len(places) == 686


def test_a_missing_tensor_is_named(folder: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    tensors = load_file(folder / "unet.pth.safetensors")
    del tensors["mid_block.resnets.0.conv1.weight"]
    with pytest.raises(KeyMismatch, match="1 missing: middle_block"):
        model_of(write_tensors(tensors, tmp_path / "short.safetensors"))


def test_the_result_is_one_call_at_timestep_0_without_scaling(model: Any) -> None:
    load_for(model, 2, 8)
    latents, audio = seeded(2, 8, 8, 8), seeded(2, 50, 384, seed=1)
    with torch.inference_mode():
        direct = model.model.diffusion_model(latents, torch.zeros(2), context=audio, transformer_options={})
        assert torch.equal(predict(model, latents, audio), direct)
    # The masked latents come first.
    assert not torch.allclose(call(model), predict(model, torch.cat(latents.chunk(2, 1)[::-1], 1), audio))


def test_a_sampler_of_one_step_ends_at_the_same_latent(model: Any) -> None:
    sampling = model.get_model_object("model_sampling")
    latent = seeded(1, 4, 8, 8)
    start = sampling.noise_scaling(sampling.sigma_max, seeded(1, 4, 8, 8, seed=9), latent)
    assert torch.equal(start, latent)
    assert torch.equal(sampling.timestep(torch.tensor([1.0, 0.5])), torch.zeros(2))
    assert torch.equal(sampling.calculate_denoised(None, latent, start * 7), latent)


def test_other_models_are_refused(vae: Any) -> None:
    with pytest.raises(BaseModelMismatch, match="expected a MuseTalk model, found the model BaseModel"):
        LipSync(tiny_model(), vae, LipSyncOptions())


# Identity


def test_identity_changes_the_latent_and_its_removal_is_bit_equal(first_version: Any, adapter: Any) -> None:
    before = call(first_version)
    patched = apply_lip_identity(first_version, adapter, arcface_identity(photos=4), LipIdentityOptions())
    other = apply_lip_identity(first_version, adapter, arcface_identity(seed=8), LipIdentityOptions())
    one, two = call(patched), call(other)
    assert not torch.allclose(one, before) and not torch.allclose(one, two)
    assert torch.equal(call(first_version), before)


def test_the_common_node_applies_it_too(first_version: Any, adapter: Any, vae: Any) -> None:
    own = apply_lip_identity(first_version, adapter, arcface_identity(), LipIdentityOptions(0.5, 1.0))
    common = apply_identity(first_version, adapter, arcface_identity(), ApplyOptions(0.5))
    assert torch.equal(call(own), call(common))
    neither = apply_lip_identity(first_version, adapter, arcface_identity(), LipIdentityOptions(0.0, 0.0))
    kept = [LipSync(one, vae, LipSyncOptions()).keeps_person for one in (own, common, neither, first_version)]
    assert kept == [True, True, False, False]


def test_both_strengths_0_are_bit_equal_and_the_lora_alone_is_not(first_version: Any, adapter: Any) -> None:
    before = call(first_version)
    neither = apply_lip_identity(first_version, adapter, arcface_identity(), LipIdentityOptions(0.0, 0.0))
    lora = apply_lip_identity(first_version, adapter, arcface_identity(), LipIdentityOptions(0.0, 1.0))
    assert torch.equal(call(neither), before)
    assert not torch.allclose(call(lora), before)
    assert torch.equal(call(first_version), before)


def test_the_lora_is_merged_with_scale_1(first_version: Any, adapter: Any) -> None:
    name = "diffusion_model.output_blocks.3.1.transformer_blocks.0.attn2.to_k.weight"
    plain = first_version.model.state_dict()[name].clone()
    patched = apply_lip_identity(first_version, adapter, arcface_identity(), LipIdentityOptions(0.5, 1.0))
    load_for(patched, 1, 8)
    # Index 13: the first transformer behind the six of the way down, its attn2.
    change = adapter.adapter.low_rank()[13, "k"]
    assert torch.allclose(patched.model.state_dict()[name], plain + change.up @ change.down, atol=1e-6)
    assert change.down.shape[1] == 384 and torch.equal(call(first_version), call(first_version))


def test_sixteen_layers_are_called_or_it_is_an_error(first_version: Any, adapter: Any) -> None:
    patched = apply_lip_identity(first_version, adapter, arcface_identity(), LipIdentityOptions())
    slots = patched.model_options["transformer_options"]["patches_replace"]["attn2"]
    blocks = {("input", n) for n in (1, 2, 4, 5, 7, 8)} | {("output", n) for n in range(3, 12)} | {("middle", 0)}
    assert {key[:2] for key in slots} == blocks and all(attention_slot(patched, key) is not None for key in slots)
    del slots["middle", 0, 0]
    with pytest.raises(PatchIncomplete, match="all 16 attn2 layers of the model, found 15"):
        call(patched)


def test_identities_and_models_that_do_not_fit(first_version: Any, adapter: Any, folder: Path) -> None:
    with pytest.raises(EncoderMismatch, match="expected embedding .N, 512. of the encoder arcface_buffalo_l"):
        apply_lip_identity(first_version, adapter, transface_identity(), LipIdentityOptions())
    with pytest.raises(BaseModelMismatch, match="connect the model of 'Load MuseTalk'"):
        ran(LikenessApplyLipIdentity, tiny_model(), adapter, arcface_identity(), 0.5, 1.0)
    with pytest.raises(BaseModelMismatch, match="expected a MuseTalk model with 16 .*text context 384"):
        apply_identity(tiny_model(), adapter, arcface_identity(), ApplyOptions())
    wide = adapter_of(write_unavglip(folder / "wide.safetensors", (64, 64, 64, 64)))
    with pytest.raises(BaseModelMismatch, match="6 of width 64|16 of width 64"):
        apply_lip_identity(first_version, wide, arcface_identity(), LipIdentityOptions())


def test_the_repaired_perceiver_takes_one_face_or_four(first_version: Any, folder: Path) -> None:
    decoder = adapter_of(write_unavglip(folder / "decoder.safetensors", decoder=True))
    assert "as repaired here" in decoder.adapter.report.as_text()
    for photos in (1, 4):
        call(apply_lip_identity(first_version, decoder, arcface_identity(photos=photos), LipIdentityOptions()))
    with pytest.raises(NumberOfFaces, match="expected 1 face or 4, found 2; give 1 or 4 photos"):
        apply_lip_identity(first_version, decoder, arcface_identity(photos=2), LipIdentityOptions())


# Frames


def test_frames_keep_their_number_and_every_pixel_outside_the_mask(model: Any, vae: Any) -> None:
    images, faces = people(5, missing=(2,))
    found, count, report = ran(LikenessLipSync, model, vae, images, faces, features(4), 1, "clip", None, **PAINT)
    assert found.shape == images.shape and count == 5
    changed = [int((found[n] != images[n]).any(-1).sum()) for n in range(5)]
    assert changed[2] == 0 and changed[4] == 0 and min(changed[0], changed[1], changed[3]) > 200
    box = LipSync(model, vae, LipSyncOptions()).boxes(faces)[0]
    assert box is not None
    rows, columns = torch.nonzero((found[0] != images[0]).any(-1), as_tuple=True)
    # Only the lower half, softened by a few pixels.
    assert int(rows.min()) > box[1] + (box[3] - box[1]) // 3 and int(columns.min()) > box[0] - 8
    assert "3 with a new mouth" in report and "1 frames without a face" in report
    assert "1 frames behind the end of the sound" in report and "pasted by box" in report


def test_another_sound_paints_another_mouth_and_the_same_one_the_same(model: Any, vae: Any) -> None:
    images, faces = people(2)
    heard = features(2, tracks=2)
    first, again, other = (
        ran(LikenessLipSync, model, vae, images, faces, heard, track, "clip", None, **PAINT)[0] for track in (1, 1, 2)
    )
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_a_batch_paints_what_single_frames_do(model: Any, vae: Any) -> None:
    images, faces = people(3)
    together, alone = (
        ran(LikenessLipSync, model, vae, images, faces, features(3), 1, "clip", None, **{**PAINT, "batch": size})[0]
        for size in (3, 1)
    )
    assert float((together - alone).abs().max()) <= 1.01 / 255


def test_sound_longer_than_the_frames_goes_backwards(model: Any, vae: Any) -> None:
    images, faces = people(3)
    found, count, _ = ran(LikenessLipSync, model, vae, images, faces, features(7), 1, "sound", None, **PAINT)
    assert count == 7
    outside = found[:, :20]
    assert [int(torch.equal(outside[n], images[m, :20])) for n, m in enumerate((0, 1, 2, 2, 1, 0, 0))] == [1] * 7


def test_regions_with_a_parser_and_with_parsed_faces(model: Any, first_version: Any, vae: Any, adapter: Any) -> None:
    images, faces = people(1)
    parser = LoadedParser(tiny_parser())
    named = apply_lip_identity(first_version, adapter, arcface_identity(), LipIdentityOptions())
    assert LipSync(model, vae, LipSyncOptions(), parser).region_of(faces) == "jaw"
    assert LipSync(first_version, vae, LipSyncOptions(), parser).region_of(faces) == "raw"
    assert LipSync(named, vae, LipSyncOptions(), parser).region_of(faces) == "full_face"
    assert LipSync(named, vae, LipSyncOptions()).region_of(faces) == "box"
    with pytest.raises(FaceChoice, match="paste jaw: expected faces whose parts are known, found no parser"):
        LipSync(model, vae, LipSyncOptions("jaw")).region_of(faces)
    *_, report = ran(LikenessLipSync, model, vae, images, faces, features(1), 1, "clip", parser, **PAINT)
    assert "pasted by jaw" in report
    skin = torch.full((96, 160), parser.parts.index("skin"), dtype=torch.uint8)
    parsed = _parsed(faces, parser.parts, torch.nn.functional.pad(skin, (0, 0, 0, 64)))
    by_parts = ran(LikenessLipSync, model, vae, images, parsed, features(1), 1, "clip", None, **PAINT)[0]
    nothing = _parsed(faces, parser.parts, torch.zeros(160, 160, dtype=torch.uint8))
    unchanged = ran(LikenessLipSync, model, vae, images, nothing, features(1), 1, "clip", None, **PAINT)[0]
    assert not torch.equal(by_parts, images) and torch.equal(unchanged, images)


def _parsed(faces: FaceBatch, parts: tuple[str, ...], labels: Tensor) -> ParsedFaces:
    """Faces whose parts lie in a map of the picture's own pixels."""
    matrix = torch.tensor([[[1.0, 0, 0], [0, 1, 0]]], dtype=torch.float64)
    return ParsedFaces(faces.images, faces.image_size, faces.detector, parts=parts, labels=(labels,), matrices=matrix)


def test_an_identity_keeps_the_upper_half_and_pastes_the_whole_face(first_version: Any, vae: Any, adapter: Any) -> None:
    images, faces = people(1)
    named = apply_lip_identity(first_version, adapter, arcface_identity(), LipIdentityOptions())
    parsed = _parsed(faces, ("background", "skin"), torch.ones(160, 160, dtype=torch.uint8))
    heard = features(1, "musetalk_v1")
    found, _, report = ran(LikenessLipSync, named, vae, images, parsed, heard, 1, "clip", None, **PAINT)
    assert "MuseTalk v1 with UnAvgLip, pasted by full_face" in report
    box = LipSync(named, vae, LipSyncOptions()).boxes(faces)[0]
    assert box is not None
    change = (found - images).abs().amax(-1)[0]
    middle = (box[1] + box[3]) // 2
    # The upper half comes back through 256 pixels and 8 bits, the lower half is another picture.
    assert float(change[box[1] : middle - 3, box[0] : box[2]].mean()) < 0.1 * float(
        change[middle:, box[0] : box[2]].mean()
    )


def test_refusals_of_frames(model: Any, vae: Any) -> None:
    images, faces = people(3, missing=(1,))

    def sync(heard: AudioFeatures, given: Tensor = images, **changes: Any) -> None:
        ran(LikenessLipSync, model, vae, given, faces, heard, changes.pop("track", 1), "clip", None, **PAINT | changes)

    with pytest.raises(EncoderMismatch, match="expected audio features for MuseTalk v1.5"):
        sync(features(3, "musetalk_v1"))
    with pytest.raises(BadSound, match="expected one of 1 tracks, found track 2; set track to 1"):
        sync(features(3), track=2)
    with pytest.raises(NoFaceFound, match="expected a face in every frame, found none in 1 of 3 frames .1, counted"):
        sync(features(3), on_missing_face="error")
    with pytest.raises(BadImage, match="expected the 3 frames of 160 x 96 of the faces, found 2"):
        sync(features(3), images[:2])


def test_cancel_stops_within_a_batch(model: Any, vae: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    images, faces = people(4)
    calls = []

    class Stopped(Exception):
        pass

    def stop() -> None:
        calls.append(1)
        if len(calls) > 3:
            raise Stopped

    from likeness_pack.inject import lip_sync

    monkeypatch.setattr(lip_sync, "stop_if_cancelled", stop)
    with pytest.raises(Stopped):
        ran(LikenessLipSync, model, vae, images, faces, features(4), 1, "clip", None, **{**PAINT, "batch": 2})
    assert len(calls) == 4


def test_latents_repeat_where_the_host_draws_samples() -> None:
    """The package host's own VAE takes a random sample; ours is the mean, and its switch is put back."""

    class Chance:
        sample = True

    class Network:
        regularization = Chance()

    class Vae:
        first_stage_model = Network()

        def encode(self, pictures: Tensor) -> Tensor:
            assert not self.first_stage_model.regularization.sample
            return torch.zeros(len(pictures), 4, 2, 2)

    vae = Vae()
    encode_mean(vae, torch.zeros(1, 3, 16, 16), "a test")
    assert vae.first_stage_model.regularization.sample is True
    with pytest.raises(BaseModelMismatch, match="VAE for a test: expected latents"):
        vae.encode = lambda pictures: torch.zeros(1, 16, 2, 2)  # type: ignore[method-assign]
        encode_mean(vae, torch.zeros(1, 3, 16, 16), "a test")
