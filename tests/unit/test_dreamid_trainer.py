"""DreamID's trainer: two UNets, the losses' gradients, stopping and going on, the saved file, and that it learns."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from likeness_pack.adapters import registry
from likeness_pack.adapters.errors import BadCheckpoint, KeyMismatch
from likeness_pack.adapters.families.dreamid.layout import DreamIdFacts
from likeness_pack.adapters.families.lafr.one_step import alpha_bar, clean_latent
from likeness_pack.adapters.unet_shapes import unet_shapes
from likeness_pack.training.dreamid import (
    BadOptions,
    DreamIdOptions,
    SwapTask,
    Tools,
    held_out,
    model_of,
    prepare,
    state_path,
    swap,
    train_dreamid,
)
from likeness_pack.training.dreamid_drawn import drawn_triplets, face_similarity, pose_error, read_faces
from likeness_pack.training.dreamid_losses import aim, embedded, identity_loss, noised, picture_loss, renoised
from likeness_pack.training.dreamid_names import to_diffusers, to_original
from likeness_pack.training.dreamid_proof import CONTEXT, FACTS, HEAD_CHANNELS, LEVELS, DrawnTools, prove, untrained
from likeness_pack.training.dreamid_unet import Conditions, SwapModel, random_base, started
from likeness_pack.training.loop import TOTAL, LoopOptions, TrainingFailed
from safetensors.torch import load_file
from torch import Tensor

OPTIONS = DreamIdOptions(seed=4, batch=2)
LOOP = LoopOptions(steps=3, learning_rate=1e-3, save_every=100)


@pytest.fixture(scope="module")
def world() -> DrawnTools:
    return DrawnTools(held=24)


@pytest.fixture(scope="module")
def triplets() -> Any:
    return drawn_triplets(6, "trainer").triplets


@pytest.fixture(scope="module")
def base() -> dict[str, Tensor]:
    return random_base(LEVELS, CONTEXT, HEAD_CHANNELS, 1)


def fresh(base: dict[str, Tensor]) -> SwapModel:
    return started(base, HEAD_CHANNELS, 32, 4, 2)


def conditions(rows: int = 2, seed: int = 0) -> Conditions:
    generator = torch.Generator().manual_seed(seed)
    latents = torch.randn(2, rows, 4, 8, 8, generator=generator)
    embedding = torch.nn.functional.normalize(torch.randn(rows, 32, generator=generator), dim=1)
    marks = torch.rand(rows, 3, 64, 64, generator=generator)
    return Conditions(latents[0], latents[1], embedding, marks, torch.randn(1, 4, CONTEXT, generator=generator))


def noisy(rows: int = 2) -> Tensor:
    return torch.randn(rows, 4, 8, 8, generator=torch.Generator().manual_seed(9))


def test_names_go_both_ways_and_are_the_originals(base: dict[str, Tensor]) -> None:
    model = fresh(base)
    theirs = model.swapnet.state_dict()
    ours = to_original(theirs)
    assert {name: tuple(one.shape) for name, one in ours.items()} == unet_shapes(LEVELS, 8, CONTEXT)
    assert list(to_diffusers(ours)) == list(theirs)


def test_a_model_starts_as_its_base(base: dict[str, Tensor]) -> None:
    model = fresh(base)
    first = model.swapnet.conv_in.weight
    assert torch.equal(first[:, :4], base["input_blocks.0.0.weight"])
    assert not first[:, 4:].any()
    facenet = to_original(model.facenet.state_dict())
    assert all(torch.equal(one, base[name]) for name, one in facenet.items())
    for layer, name in ((0, "input_blocks.1.1"), (6, "output_blocks.3.1"), (15, "middle_block.1")):
        text = base[f"{name}.transformer_blocks.0.attn2.to_k.weight"]
        assert torch.equal(model.added.layers()[layer].to_k_ip.weight, text)
    assert not model.added.pose_guider.conv_out.weight.any()
    with pytest.raises(KeyMismatch):
        started({**base, "extra.weight": torch.zeros(1)}, HEAD_CHANNELS, 32, 4, 2)


@torch.no_grad()
def test_without_conditions_swapnet_is_the_base(base: dict[str, Tensor]) -> None:
    """With no features of FaceNet, no tokens, no pose and zero weights for the target."""
    model, told = fresh(base), conditions()
    times = torch.tensor([999, 999])
    model.read_source(told)
    changed = model.predict(noisy(), times, told)
    with model.plain():
        found = model.predict(noisy(), times, told)
    # FaceNet still is the base UNet.
    expected = model.facenet(noisy(), times, encoder_hidden_states=told.text.expand(2, -1, -1)).sample
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(changed, expected, atol=1e-3)
    model.read_source(told)
    torch.testing.assert_close(model.predict(noisy(), times, told), changed)


@torch.no_grad()
def test_its_own_tokens_a_second_time_change_nothing(base: dict[str, Tensor]) -> None:
    """Attention treats keys as a set: each key twice gives the same weighted mean."""
    model, told = fresh(base), conditions()
    model.read_source(told)
    layer = model.swapnet.down_blocks[0].attentions[0].transformer_blocks[0].attn1
    x = torch.randn(2, 64, 32, generator=torch.Generator().manual_seed(3))
    reads = layer.processor.reads
    reads.note = x
    twice = layer(x)
    reads.note = None
    torch.testing.assert_close(layer(x), twice, atol=1e-5, rtol=1e-5)
    reads.note = x.flip(-1)
    other = layer(x)
    assert other.shape == x.shape
    assert not torch.allclose(other, twice, atol=1e-3)


@torch.no_grad()
def test_facenet_sees_the_clean_source_once_at_time_zero(base: dict[str, Tensor]) -> None:
    model, told = fresh(base), conditions()
    seen: list[tuple[Tensor, Tensor]] = []
    model.facenet.register_forward_pre_hook(lambda layer, args: seen.append((args[0], args[1])))
    model(noisy(), torch.tensor([999, 999]), told)
    model.predict(noisy(), torch.tensor([749, 749]), told)
    assert len(seen) == 1
    assert torch.equal(seen[0][0], told.source)
    assert seen[0][1].tolist() == [0, 0]


def test_the_identity_loss_reaches_the_first_convolution_and_every_part(
    base: dict[str, Tensor], world: DrawnTools, triplets: Any
) -> None:
    """Through encoder, warp, decoder, one-step formula and both UNets."""
    model = fresh(base)
    with torch.no_grad():
        model.added.pose_guider.conv_out.weight.normal_(std=0.01, generator=torch.Generator().manual_seed(0))
    ready = prepare(triplets, [0, 1], world.tools)
    predicted = model(noisy(), torch.tensor([999, 999]), ready.conditions)
    pictures = world.codec.decode(clean_latent(noisy(), predicted, alpha_bar(999), "eps"))
    identity_loss(world.tools.embed, pictures, ready.rows.truth5, ready.conditions.embedding).backward()
    parts = {
        "conv_in": model.swapnet.conv_in.weight,
        "target": model.swapnet.conv_in.weight.grad[:, 4:],
        "facenet": model.facenet.conv_in.weight,
        "facenet's last norm": model.facenet.up_blocks[3].attentions[2].transformer_blocks[0].norm1.weight,
        "tokens": model.added.image_proj.proj.weight,
        "keys": model.added.layers()[15].to_k_ip.weight,
        "guider": model.added.pose_guider.conv_in.weight,
    }
    for name, part in parts.items():
        gradient = part if name == "target" else part.grad
        assert gradient is not None, name
        assert float(gradient.abs().max()) > 0, name
    assert all(one.grad is not None for one in model.trained())
    dead = {id(one) for one in model.parameters()} - {id(one) for one in model.trained()}
    assert len(dead) == 24
    assert all(one.grad is None for one in model.parameters() if id(one) in dead)


def test_the_identity_loss_is_the_cosine_of_aligned_faces(world: DrawnTools, triplets: Any) -> None:
    rows = triplets.rows([0, 1])
    source = embedded(world.tools.embed, rows.truth, rows.truth5)
    assert float(identity_loss(world.tools.embed, rows.truth, rows.truth5, source)) == pytest.approx(0, abs=1e-6)
    other = embedded(world.tools.embed, rows.target, rows.truth5)
    expected = 1 - float((source * other).sum(1).mean())
    assert float(identity_loss(world.tools.embed, rows.target, rows.truth5, source)) == pytest.approx(expected)
    assert float(picture_loss(rows.truth, rows.truth + 0.5)) == pytest.approx(1.0, abs=1e-5)


@pytest.mark.parametrize("prediction", ["eps", "v"])
@pytest.mark.parametrize("timestep", [999, 249])
def test_the_aim_leads_back_to_the_clean_latent(prediction: str, timestep: int) -> None:
    clean, noise = noisy(), torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    seen = noised(clean, noise, timestep)
    predicted = aim(clean, noise, timestep, prediction)
    found = clean_latent(seen, predicted, alpha_bar(timestep), prediction)
    torch.testing.assert_close(found, clean, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(renoised(clean, seen, timestep, 100), noised(clean, noise, 100), atol=1e-4, rtol=1e-4)
    assert math.sqrt(alpha_bar(999)) == pytest.approx(0.0683, abs=1e-4)


def test_the_total_has_the_papers_weights(base: dict[str, Tensor], world: DrawnTools, triplets: Any) -> None:
    task = SwapTask(fresh(base), triplets, world.tools, FACTS, OPTIONS)
    found = {name: float(one) for name, one in task.losses(0).items()}
    expected = found["identity"] + found["diffusion"] + 10 * found["reconstruction"]
    assert found[TOTAL] == pytest.approx(expected, rel=1e-5)
    again = {name: float(one) for name, one in task.losses(0).items()}
    assert again == found, "a step's random numbers depend on nothing but seed and step"
    assert float(task.losses(1)[TOTAL]) != found[TOTAL]


def test_checkpointed_gradients_are_the_same(base: dict[str, Tensor], world: DrawnTools, triplets: Any) -> None:
    gradients = []
    for checkpointed in (False, True):
        options = replace(OPTIONS, checkpoint_gradients=checkpointed)
        task = SwapTask(fresh(base), triplets, world.tools, FACTS, options)
        task.losses(0)[TOTAL].backward()
        gradients.append([one.grad for one in task.model.trained()])
    for plain, again in zip(*gradients, strict=True):
        torch.testing.assert_close(again, plain, atol=1e-5, rtol=1e-4)


def trained(base: dict[str, Tensor], world: DrawnTools, triplets: Any, path: Path, **other: Any) -> SwapModel:
    given = {"facts": FACTS, "options": OPTIONS, "loop": LOOP, "dtype": torch.float32, **other}
    return train_dreamid(fresh(base), triplets, world.tools, path, **given)


def test_stop_and_resume_end_with_the_same_bits(
    base: dict[str, Tensor], world: DrawnTools, triplets: Any, tmp_path: Path
) -> None:
    whole, parts = tmp_path / "whole.safetensors", tmp_path / "parts.safetensors"
    trained(base, world, triplets, whole)
    trained(base, world, triplets, parts, stop_after=1)
    half = load_file(parts)
    assert registry.load(parts).facts.steps == 1
    trained(base, world, triplets, parts)
    first, second = load_file(whole), load_file(parts)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert any(not torch.equal(half[name], second[name]) for name in half)
    with pytest.raises(BadCheckpoint, match="batch"):
        trained(base, world, triplets, parts, options=replace(OPTIONS, batch=3))


def test_the_saved_file_is_the_trained_model(
    base: dict[str, Tensor], world: DrawnTools, triplets: Any, tmp_path: Path
) -> None:
    """Through the normal loader, and from there on to a fine-tune; four steps."""
    facts = replace(FACTS, timesteps=(999, 749, 499, 249))
    path = tmp_path / "four.safetensors"
    model = trained(base, world, triplets, path, facts=facts)
    adapter = registry.load(path, kind="adapter")
    assert adapter.facts == replace(facts, steps=3, triplets=6, points=12, size=32, head_channels=HEAD_CHANNELS)
    again = model_of(adapter)
    ready = prepare(triplets, [0, 1], world.tools)
    first, second = (swap(one, ready.conditions, world.codec, facts) for one in (model, again))
    assert torch.equal(first, second)
    assert first.shape == (2, 3, 32, 32)
    tuned = tmp_path / "tuned.safetensors"
    train_dreamid(again, triplets, world.tools, tuned, facts, OPTIONS, replace(LOOP, steps=1), dtype=torch.float32)
    assert registry.load(tuned).facts.steps == 1
    found = held_out(model, triplets, world.tools, facts, limit=2)
    assert -1 <= found.after <= 1
    assert found.difference == pytest.approx(float((first - ready.rows.truth).abs().mean()), abs=0.2)


def test_half_precision_files_load_too(
    base: dict[str, Tensor], world: DrawnTools, triplets: Any, tmp_path: Path
) -> None:
    path = tmp_path / "half.safetensors"
    trained(base, world, triplets, path, dtype=torch.float16, loop=replace(LOOP, steps=1))
    report = registry.load(path).report
    assert (report.dtype, report.layers, report.tokens) == ("float16", 16, 4)


def test_a_loss_that_is_no_number_is_refused(
    base: dict[str, Tensor], world: DrawnTools, triplets: Any, tmp_path: Path
) -> None:
    path = tmp_path / "nan.safetensors"
    bad = Tools(world.codec, lambda crops: world.tools.embed(crops) * torch.nan, world.tools.text)
    with pytest.raises(TrainingFailed, match="a loss that is a number"):
        train_dreamid(fresh(base), triplets, bad, path, FACTS, OPTIONS, LOOP)
    assert not path.exists()
    assert not state_path(path).exists()


def test_options_that_fit_nothing_are_refused() -> None:
    for wrong in ({"batch": 0}, {"identity": -1.0}, {"identity": 0.0, "diffusion": 0.0, "reconstruction": 0.0}):
        with pytest.raises(BadOptions, match="weights of 0 or more"):
            DreamIdOptions(**wrong)


def test_pictures_are_read_as_what_they_show(world: DrawnTools) -> None:
    """The measure of the proof: right answers read as the source, pseudo-targets as the other person, both in pose."""
    held = world.held
    rows = held.triplets.rows(range(24))
    for pictures, people, others in (
        (rows.truth, held.people, held.others),
        (rows.target, held.others, held.people),
    ):
        shown = world.codec.decode(world.codec.encode(pictures))
        reading = read_faces(shown, world.codec, held.people, held.attributes)
        assert float(face_similarity(reading, people).mean()) > 0.25
        assert abs(float(face_similarity(reading, others).mean())) < 0.15
        assert float(pose_error(reading, held.attributes).mean()) < 3.0
    grey = read_faces(torch.full_like(rows.truth, 0.5), world.codec, held.people, held.attributes)
    assert float(pose_error(grey, held.attributes).mean()) > 10.0


def test_training_brings_likeness_and_keeps_the_pose(world: DrawnTools, tmp_path: Path) -> None:
    """One seed, a short run; the command's --trial makes whole ones. All persons measured are new to the run."""
    proof = prove(0, 45, tmp_path / "short.safetensors", world)
    assert proof.after.encoder > proof.before.encoder + 0.15, proof.as_text()
    assert proof.after.encoder > proof.wrong_source.encoder + 0.08, proof.as_text()
    assert proof.after.pose < proof.before.pose, proof.as_text()
    assert registry.load(tmp_path / "short.safetensors").facts.steps == 45


def test_a_model_is_decided_by_its_seed() -> None:
    first, again, other = (untrained(seed).state_dict() for seed in (3, 3, 4))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


def test_facts_have_the_papers_prompt() -> None:
    assert DreamIdFacts().prompt == "cinematic full head portrait"
    assert DreamIdFacts().timesteps == (999,)
