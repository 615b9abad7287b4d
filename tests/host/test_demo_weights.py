"""The small base model in the host: same numbers as the trained network, and the whole drawn workflow."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from graph_runner import run_graph
from host_inprocess import engine
from likeness_pack.adapters import registry
from likeness_pack.adapters.checkpoint import read_header
from likeness_pack.adapters.demo_weights import DRAWN_BASE, DRAWN_ENCODER, UNET_PREFIX
from likeness_pack.adapters.errors import BadCheckpoint, MissingModelFile
from likeness_pack.inject import drawn_model, model_folders
from likeness_pack.inject.host import folder_paths
from likeness_pack.training.demo.autoencoder import Autoencoder, published_tensors
from likeness_pack.training.demo.requests import asked_attributes, prompt_network, prompt_tokens
from pack import ROOT
from workflow_files import api_workflow

WEIGHTS = ROOT / "demo_weights"


@pytest.fixture(scope="module")
def loaded() -> Any:
    engine()
    return drawn_model.load_drawn_model()


@pytest.fixture(scope="module")
def placed() -> None:
    """The model folders as the pack registers them at the start: nothing is copied anywhere."""
    engine()
    model_folders.register_model_folders()


def test_a_fresh_machine_lists_the_files_that_come_with_the_pack(placed: None, tmp_path: Path) -> None:
    """Its first graph names them, and ComfyUI refuses names that are not in a dropdown."""
    for kind, name in ((model_folders.ADAPTERS, "drawn_fact"), (model_folders.ENCODERS, "drawn_encoder")):
        file = f"{name}.safetensors"
        assert model_folders.list_files(kind).count(file) == 1
        assert model_folders.find_file(kind, file) == WEIGHTS / file
        folder = folder_paths().folder_names_and_paths[kind.own][0]
        (tmp_path / file).write_bytes(b"of the user")
        folder.append(str(tmp_path))
        try:
            assert model_folders.list_files(kind).count(file) == 1
            assert model_folders.find_file(kind, file) == tmp_path / file
        finally:
            folder.remove(str(tmp_path))
        with pytest.raises(MissingModelFile, match="put the file into"):
            model_folders.find_file(kind, "drawn_judge.safetensors")


def test_the_weights_are_small_and_known_to_their_loaders() -> None:
    files = sorted(WEIGHTS.glob("*.safetensors"))
    assert len(files) == 5 and sum(path.stat().st_size for path in files) < 30e6
    adapter = registry.describe(WEIGHTS / "drawn_fact.safetensors", kind="adapter")
    encoder = registry.describe(WEIGHTS / DRAWN_ENCODER, kind="encoder")
    assert (adapter.family, encoder.family) == ("fact", "transface")
    for path in files:
        assert "no photographs" in read_header(path).metadata["note"]


def test_the_hosts_unet_gives_the_trained_networks_numbers(loaded: Any) -> None:
    """The host's SD1.5 class against diffusers' UNet with the same weights."""
    diffusers = pytest.importorskip("diffusers")
    from likeness_pack.adapters.checkpoint import load_tensors
    from likeness_pack.training.dreamid_names import to_diffusers

    header = read_header(WEIGHTS / DRAWN_BASE)
    unet = diffusers.UNet2DConditionModel(
        sample_size=8,
        block_out_channels=tuple(json.loads(header.metadata["widths"])),
        cross_attention_dim=768,
        attention_head_dim=8,
    ).eval()
    tensors = to_diffusers(load_tensors(header, UNET_PREFIX))
    unet.load_state_dict({name: one.float() for name, one in tensors.items()})
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(2, 4, 8, 8, generator=generator)
    text, times = torch.randn(2, 4, 768, generator=generator) * 0.3, torch.tensor([40, 800])
    with torch.no_grad():
        wanted = unet(latents, times, encoder_hidden_states=text).sample
        got = loaded.model.model.diffusion_model(latents, timesteps=times, context=text, transformer_options={})
    assert torch.allclose(got, wanted, atol=3e-4)


def test_the_hosts_vae_is_the_trained_autoencoder(loaded: Any) -> None:
    """A picture through the host's VAE comes back, and latents carry SD1.5's scale."""
    from likeness_pack.training.demo.requests import drawn_person

    images, _, _ = drawn_person(11, asked_attributes({}, 3, 1.0, 2), 64)
    with torch.inference_mode():
        latents = loaded.vae.encode(images)
        back = loaded.vae.decode(latents)
    assert latents.shape == (3, 4, 8, 8) and 0.5 < float((latents * 0.18215).std()) < 2.0
    assert float((back.float() - images).abs().mean()) < 0.06


def test_a_narrow_autoencoder_is_the_same_at_the_published_width() -> None:
    narrow = Autoencoder((4, 8, 8, 12)).eval()
    with torch.no_grad():
        for parameter in narrow.parameters():
            parameter.add_(
                torch.randn(parameter.shape, generator=torch.Generator().manual_seed(parameter.numel())) * 0.05
            )
    wide = Autoencoder().eval()
    tensors = published_tensors(narrow)
    assert float(tensors.pop("vae_scale")) == pytest.approx(0.18215)
    wide.load_state_dict(tensors)
    images = torch.rand(2, 32, 32, 3, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        latents = narrow.encode(images)
        assert torch.allclose(wide.encode(images), latents, atol=1e-5)
        assert torch.allclose(wide.decode(latents), narrow.decode(latents), atol=1e-5)


def test_missing_and_foreign_files_are_refused(tmp_path: Path) -> None:
    engine()
    with pytest.raises(MissingModelFile, match="install the pack again"):
        drawn_model.load_drawn_model(tmp_path)
    (tmp_path / DRAWN_BASE).write_bytes((WEIGHTS / DRAWN_ENCODER).read_bytes())
    with pytest.raises(BadCheckpoint, match="base model for drawn faces"):
        drawn_model.load_drawn_model(tmp_path)


def test_a_prompt_moves_the_picture(loaded: Any) -> None:
    prompt = prompt_network(loaded.prompt, loaded.context, loaded.tokens)
    left, right = (prompt_tokens(prompt, asked_attributes({"yaw": yaw}, 1, 0.0, 0)) for yaw in (-30.0, 30.0))
    assert left.shape == (1, 4, 768) and float((left - right).abs().max()) > 0.05


def test_the_drawn_workflow_brings_the_person_nearer(placed: None) -> None:
    from likeness_pack.evaluation.identity_sheet import mean_distance

    done = run_graph(api_workflow("drawn_fact_portrait"), {"SaveImage": lambda given: (given["images"],)})
    reference = done["Identity"][0]
    plain, person = (
        mean_distance(reference, done[title][0]) for title in ("Identities, plain", "Identities, with the person")
    )
    assert person < 0.8 * plain
    sheet, report = done["Sheet"]
    assert sheet.shape[1] > 3 * 192 and f"with FACT: identity distance to the reference {person:.2f}" in report
    assert torch.equal(done["Drawn person"][0], done["Drawn person"][0].clamp(0, 1))


def test_no_strength_is_the_plain_model(placed: None) -> None:
    """The identity at strength 0 changes nothing, bit by bit."""
    from host_inprocess import conditioning, sample
    from likeness_pack.adapters.encoders.base import encode_photos
    from likeness_pack.inject.apply import ApplyOptions, apply_identity
    from likeness_pack.inject.loaded import LoadedAdapter
    from likeness_pack.inject.loaded_networks import LoadedEncoder
    from likeness_pack.training.demo.requests import drawn_person

    model = drawn_model.load_drawn_model().model
    images, masks, faces = drawn_person(3, asked_attributes({}, 1, 0.0, 0), 96)
    encoder = LoadedEncoder(registry.load(WEIGHTS / DRAWN_ENCODER, kind="encoder"))
    identity = encode_photos(encoder, images, faces, masks, "best", "error", None)
    adapter = LoadedAdapter(registry.load(WEIGHTS / "drawn_fact.safetensors", kind="adapter"))
    text = conditioning("SD15", tokens=4)
    plain = sample(model, text, text)
    assert torch.equal(sample(apply_identity(model, adapter, identity, ApplyOptions(strength=0.0)), text, text), plain)
    assert not torch.equal(
        sample(apply_identity(model, adapter, identity, ApplyOptions(strength=1.0)), text, text), plain
    )
