"""LAFR: the codes, the file, training on real faces with a small width, and the second stage's levels."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import datetime

import pytest
import torch
from likeness_pack.adapters.adapter import TokenOptions
from likeness_pack.adapters.checkpoint import read_header
from likeness_pack.adapters.errors import BadCheckpoint, EncoderMismatch, KeyMismatch, UnknownCheckpoint
from likeness_pack.adapters.families.lafr.arch import LatentAlignAdapter
from likeness_pack.adapters.families.lafr.family import FAMILY
from likeness_pack.adapters.families.lafr.layout import BASES, LafrFacts
from likeness_pack.adapters.families.lafr.one_step import alpha_bar, clean_latent, sampler_start, sigma_of
from likeness_pack.adapters.identity import Identity
from likeness_pack.adapters.registry import describe, load
from likeness_pack.faces.errors import BadImage
from likeness_pack.training.codebook import k_means, perplexity
from likeness_pack.training.lafr import (
    AlignTask,
    BadOptions,
    LafrOptions,
    fresh_adapter,
    held_out,
    save_adapter,
    state_path,
    train_lafr,
)
from likeness_pack.training.lafr_restore import RestoreTask, train_restoration
from likeness_pack.training.levels import FaceLevel, Levels
from likeness_pack.training.loop import LoopOptions, train
from likeness_pack.training.low_rank import LowRank
from likeness_pack.training.pairs import draw_pairs
from likeness_pack.training.pictures import PictureBatch
from likeness_pack.training.seeds import generator_for
from safetensors.torch import load_file, save_file
from sample_faces import TinyVae, face_crops
from torch import nn

SMALL = {"batch": 4, "hidden": 32, "code_dim": 32, "codes": 128, "blocks": 1, "warmup": 20, "dead_after": 50}
FACTS = LafrFacts(steps=1, pictures=7, size=64)


@pytest.fixture(scope="module")
def pictures():
    return PictureBatch(face_crops(64), 64)


@pytest.fixture(scope="module")
def vae(pictures):
    return TinyVae(torch.stack([pictures.picture(number) for number in range(len(pictures))]))


@pytest.fixture
def network():
    """Small, with codes among its features, so that many are in use."""
    made = fresh_adapter(LafrOptions(seed=1, **SMALL)).requires_grad_(False)
    features = made.features(latents(8, seed=9)).movedim(1, -1).flatten(0, -2)
    made.codebook.weight.copy_(features[:128])
    return made


def latents(batch=1, height=8, width=8, seed=0):
    return torch.randn(batch, 4, height, width, generator=torch.Generator().manual_seed(seed))


# The network


def test_the_default_size_is_that_of_the_description():
    with torch.device("meta"):
        counts = [sum(p.numel() for p in LatentAlignAdapter(hidden=width).parameters()) for width in (96, 128)]
    assert counts == [1_181_316, 1_782_532]


def test_codes_are_the_nearest_in_double_precision(network, monkeypatch):
    features = network.features(latents(3, 12, 8))
    rows = features.movedim(1, -1).flatten(0, -2).double()
    brute = (rows[:, None] - network.codebook.weight.double()[None]).square().sum(-1).argmin(1)
    assert torch.equal(network.nearest(features).flatten(), brute)
    assert len(brute.unique()) > 20
    monkeypatch.setattr("likeness_pack.adapters.families.lafr.arch._CHUNK_VALUES", 128 * 7)
    assert torch.equal(network.nearest(features).flatten(), brute)


def test_the_order_of_codes_and_their_doubles_do_not_matter(network):
    latent = latents(2)
    before = network(latent)
    network.codebook.weight.copy_(network.codebook.weight[torch.randperm(128, generator=generator_for(1))])
    assert torch.equal(network(latent), before)
    network.codebook.weight[64:] = network.codebook.weight[:64]
    assert network.nearest(network.features(latent)).max() < 64


def test_nothing_but_the_codes_passes(network):
    features = network.features(latents())
    numbers = network.nearest(features)
    # Half way to the second nearest code is still the nearest one's.
    moved = features + 0.45 * (network.looked_up(numbers) - features)
    assert torch.equal(network.nearest(moved), numbers) and not torch.equal(moved, features)
    assert torch.equal(network.mapped(network.looked_up(numbers)), network(latents()))


@pytest.mark.parametrize("size", [(8, 8), (5, 13), (1, 1)])
def test_every_size_keeps_its_shape(network, size):
    assert network(latents(2, *size)).shape == (2, 4, *size)


# The file


@pytest.fixture
def saved(network, tmp_path):
    save_adapter(tmp_path / "any name.safetensors", network, FACTS)
    return tmp_path / "any name.safetensors"


def test_the_normal_loader_reads_what_training_wrote(saved, network):
    adapter = load(saved)
    assert (adapter.base, adapter.facts, adapter.report.family) == ("sd15", FACTS, "lafr")
    assert all(torch.equal(value, adapter.network.state_dict()[name]) for name, value in network.state_dict().items())
    assert not any(one.requires_grad for one in adapter.network.parameters())
    text = describe(saved).as_text()
    assert "128 codes of 32 numbers; 1 steps on 7 pictures of 64 px" in text and "not stated" in text


def test_metadata_are_complete(saved):
    metadata = dict(read_header(saved).metadata)
    assert len(metadata.pop("sshs_model_hash")) == 64
    assert datetime.fromisoformat(metadata.pop("modelspec.date")) <= datetime.now()
    assert metadata == {
        "format": "lafr_align_v1", "base": "sd15", "latent_scale": "0.18215", "hidden": "32", "d": "32", "N": "128",
        "n_res": "1", "prediction": "eps", "t_star": "399", "steps": "1", "pictures": "7", "size": "64",
        "modelspec.sai_model_spec": "1.0.1", "modelspec.implementation": "likeness",
        "modelspec.title": "any name (latent-adapter)", "modelspec.architecture": "stable-diffusion-v1/latent-adapter",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"format": "lafr_align_v2"}, "expected format lafr_align_v1, found lafr_align_v2"),
        ({"N": "64"}, r"N 64 \(shapes say 128\)"),
        ({"steps": "0"}, "expected a trained file, found one of 0 training steps"),
        ({"base": "sdxl"}, "base sdxl"),
        ({"latent_scale": "nan"}, "latent_scale nan"),
        ({"latent_scale": "much"}, "numbers in the metadata"),
        ({"t_star": "1000"}, "t_star 1000"),
        ({"prediction": ""}, "none for prediction"),
    ],
)
def test_metadata_that_do_not_fit_are_refused(saved, network, change, words):
    save_file(network.state_dict(), saved, {**FACTS.metadata(network), **change})
    with pytest.raises(BadCheckpoint, match=words):
        load(saved)


def test_broken_files_are_refused(saved, network):
    tensors = dict(network.state_dict())
    del tensors["mapper.0.conv2.bias"]
    save_file(tensors, saved, FACTS.metadata(network))
    with pytest.raises(KeyMismatch, match="1 missing: mapper"):
        load(saved)
    save_file({**network.state_dict(), "to_code.weight": torch.zeros(3, 32, 1, 1)}, saved, FACTS.metadata(network))
    with pytest.raises(UnknownCheckpoint, match="to_code.weight of shape"):
        load(saved)


@pytest.mark.parametrize("missing", ["codebook.weight", "conv_in.weight", "from_code.weight"])
def test_the_reason_names_the_missing_part(saved, network, missing):
    save_file({name: value for name, value in network.state_dict().items() if name != missing}, saved)
    assert FAMILY.recognise(read_header(saved)) == f"no {missing} (LAFR)"


def test_align_moves_between_the_bad_latent_and_the_codes(saved, network):
    adapter, samples = load(saved), latents(2) / 0.18215
    assert adapter.align(samples, 0.0) is samples
    full = network(samples * 0.18215) / 0.18215
    assert torch.allclose(adapter.align(samples, 1.0), full, atol=1e-5)
    assert torch.allclose(adapter.align(samples, 0.25), 0.75 * samples + 0.25 * full, atol=1e-4)
    half = adapter.align(samples.half(), 1.0)
    assert half.dtype == torch.float16 and torch.isfinite(half).all()
    with pytest.raises(BadImage, match=r"expected \(B, 4, H, W\) of a VAE of sd15, found \(1, 16, 8, 8\)"):
        adapter.align(torch.zeros(1, 16, 8, 8))


def test_it_takes_no_identity(saved):
    with pytest.raises(EncoderMismatch, match=r"use 'Align Latent \(LAFR\)'"):
        load(saved).tokens(Identity("dlib_resnet", {"embedding": torch.ones(1, 128)}), TokenOptions())


# One step


@pytest.mark.parametrize("prediction", ["eps", "v"])
def test_one_euler_step_is_the_formula(prediction):
    share = alpha_bar(399)
    sigma, latent, output = sigma_of(share), latents(2).double(), latents(2, seed=4).double()
    start = sampler_start(latent, sigma)
    assert torch.allclose(start / math.sqrt(sigma**2 + 1), latent)
    # What k-diffusion's samplers make of a model's output.
    denoised = start - sigma * output
    if prediction == "v":
        denoised = start / (sigma**2 + 1) - output * sigma / math.sqrt(sigma**2 + 1)
    ended = start + (start - denoised) / sigma * (0 - sigma)
    assert torch.allclose(ended, clean_latent(latent, output, share, prediction), atol=1e-10)


def test_the_noise_of_stable_diffusion():
    assert alpha_bar(0) == pytest.approx(0.99915) and sigma_of(alpha_bar(999)) == pytest.approx(14.6146, abs=1e-3)


# Training, first stage


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_training_lowers_the_loss_and_the_distance_to_clean_latents(seed, pictures, vae, tmp_path):
    """On degradations it never saw; a distance under that of the bad latents, not only under that of a fresh net."""
    options, seen = LafrOptions(seed=seed, **SMALL), []
    before = held_out(fresh_adapter(options), pictures, vae.encode, options, rounds=2)
    path = tmp_path / "lafr.safetensors"
    network = train_lafr(
        pictures, vae.encode, path, LafrFacts(), options, LoopOptions(140, 4e-3),
        on_step=lambda step, losses: seen.append(losses),
    )  # fmt: skip
    after = held_out(network, pictures, vae.encode, options, rounds=2)
    assert after.bad == before.bad
    assert after.aligned < 0.65 * before.aligned and after.aligned < 0.95 * after.bad
    mean = [sum(one["align"] for one in part) / len(part) for part in (seen[:10], seen[-20:])]
    assert mean[1] < 0.7 * mean[0]
    total = [sum(one["total"] for one in part) / len(part) for part in (seen[:10], seen[-20:])]
    # The two terms of the codebook join after the first steps, so the whole falls by less.
    assert total[1] < 0.95 * total[0]
    assert seen[-1]["perplexity"] > 20
    adapter = load(path)
    assert (adapter.facts.steps, adapter.facts.pictures, adapter.facts.size) == (140, 7, 64)
    bad = vae.encode(draw_pairs(pictures, 5, -1, 2, options.strengths).bad)
    assert torch.allclose(adapter.align(bad / 0.18215) * 0.18215, network(bad), atol=1e-4)


@pytest.mark.parametrize("stop", [3, 9])
def test_stop_and_resume_give_equal_weights(stop, pictures, vae, tmp_path):
    """Across the start of the codes (step 6) and the moving of dead ones."""
    options = LafrOptions(seed=4, **{**SMALL, "batch": 2, "warmup": 6, "dead_after": 2})
    whole = train_lafr(pictures, vae.encode, tmp_path / "a.safetensors", FACTS, options, LoopOptions(14, 1e-3))
    path = tmp_path / "b.safetensors"
    half = train_lafr(pictures, vae.encode, path, FACTS, options, LoopOptions(14, 1e-3), stop_after=stop)
    assert load(path).facts.steps == stop
    assert not torch.equal(half.conv_in.weight, whole.conv_in.weight)
    rest = train_lafr(pictures, vae.encode, path, FACTS, options, LoopOptions(14, 1e-3))
    assert all(torch.equal(value, rest.state_dict()[name]) for name, value in whole.state_dict().items())
    assert all(torch.equal(a, b) for a, b in zip(load_file(tmp_path / "a.safetensors").values(),
                                                 load_file(path).values(), strict=True))  # fmt: skip
    assert state_path(path).suffix not in {".safetensors", ".ckpt", ".pt", ".pth", ".bin"}


def test_other_pictures_and_another_base_do_not_go_on(pictures, vae, tmp_path):
    options, loop, path = LafrOptions(**{**SMALL, "batch": 2}), LoopOptions(2, 1e-3), tmp_path / "a.safetensors"
    train_lafr(pictures, vae.encode, path, FACTS, options, loop, stop_after=1)
    with pytest.raises(BadCheckpoint, match="expected files"):
        train_lafr(PictureBatch(face_crops(64).flip(2), 64), vae.encode, path, FACTS, options, loop)
    other = replace(FACTS, base=next(base for base in BASES if base != FACTS.base))
    with pytest.raises(BadCheckpoint, match=f"expected base {FACTS.base}"):
        train_lafr(pictures, vae.encode, path, other, options, loop)


def test_every_parameter_has_a_gradient_from_the_first_step(pictures, vae):
    """The first published defect: a network that starts at zero in such a way that most of it never learns."""
    task = AlignTask(pictures, vae.encode, LafrOptions(**{**SMALL, "warmup": 0}))
    losses = task.losses(0)
    losses["total"].backward()
    for name, parameter in task.network.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name
    used = task.network.codebook.weight.grad.abs().sum(dim=1) > 0
    numbers = task._last[1].unique()
    assert torch.equal(used.nonzero()[:, 0], numbers) and 0 < len(numbers) < 128


def test_pairs_belong_together(pictures):
    """The second published defect: parts of a pair that are shuffled apart."""
    clean = torch.stack([pictures.picture(number) for number in range(7)])
    for step in range(6):
        pairs = draw_pairs(pictures, 0, step, 5, LafrOptions().strengths)
        for row, number in enumerate(pairs.numbers):
            there = clean[number].flip(-1) if pairs.mirrored[row] else clean[number]
            assert torch.equal(pairs.clean[row], there)
        small = [torch.nn.functional.avg_pool2d(images, 16).flatten(1) for images in (pairs.bad, pairs.clean)]
        own = (small[0] - small[1]).square().sum(1)
        shuffled = (small[0] - small[1].roll(1, 0)).square().sum(1)
        apart = torch.tensor(pairs.numbers).roll(1) != torch.tensor(pairs.numbers)
        assert (own < shuffled)[apart].float().mean() > 0.7


def test_pairs_of_training_are_never_those_of_the_measure(pictures):
    options = LafrOptions()
    steps = [draw_pairs(pictures, 0, step, 1, options.strengths, mirror=False).bad for step in range(-3, 3)]
    assert all(not torch.equal(a, b) for index, a in enumerate(steps) for b in steps[:index])


def test_dead_codes_get_new_places(pictures, vae):
    task = AlignTask(pictures, vae.encode, LafrOptions(**{**SMALL, "warmup": 0, "dead_after": 1}))
    task.losses(0)
    task.network.codebook.weight.data[100:] = 1e6
    task.losses(1)
    task.after_step(1)
    assert task.network.codebook.weight.abs().max() < 1e5
    with torch.no_grad():
        numbers = task.losses(2)["perplexity"]
    assert numbers > 1


def test_codes_start_as_the_centres_of_clusters():
    generator = generator_for("test")
    places = torch.tensor([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]])
    rows = places.repeat(50, 1) + 0.1 * torch.randn(150, 2, generator=generator)
    centres = k_means(rows, 3, generator)
    assert torch.cdist(places, centres).min(dim=1).values.max() < 8
    many = k_means(rows, 12, generator)
    assert torch.cdist(places, many).min(dim=1).values.max() < 0.5
    assert k_means(rows[:4], 10, generator).isfinite().all()
    assert perplexity(torch.tensor([0, 1, 2, 3]), 8) == pytest.approx(4)
    assert perplexity(torch.zeros(9, dtype=torch.int64), 8) == pytest.approx(1)


def test_fresh_weights_depend_on_the_seed_alone():
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first, second = (fresh_adapter(LafrOptions(seed=3, **SMALL)) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    other = fresh_adapter(LafrOptions(seed=4, **SMALL))
    assert not torch.equal(first.conv_in.weight, other.conv_in.weight)


def test_sizes_that_cannot_be_are_refused():
    with pytest.raises(BadOptions, match="multiple of 32"):
        LafrOptions(hidden=48)


# Training, second stage


class Denoiser(nn.Module):
    """One block with the names of a UNet's attention."""

    def __init__(self):
        super().__init__()
        self.block = nn.ModuleDict(
            {"attn1": nn.ModuleDict({name: nn.Linear(4, 4) for name in ("to_q", "to_k", "to_v")})}
        )
        self.block["attn1"]["to_out"] = nn.Sequential(nn.Linear(4, 4))
        self.other = nn.Linear(4, 4)
        generator = generator_for("denoiser")
        for parameter in self.parameters():
            parameter.data.uniform_(-0.5, 0.5, generator=generator)
        self.requires_grad_(False)

    def forward(self, x):
        x = x.movedim(1, -1)
        attn = self.block["attn1"]
        mixed = attn["to_out"][0](attn["to_v"](x) * torch.sigmoid(attn["to_q"](x) * attn["to_k"](x)))
        return (x + self.other(mixed)).movedim(-1, 1)


def judge(channels, seed):
    made = nn.Sequential(nn.Conv2d(3, channels, 5, 4), nn.Tanh(), nn.Conv2d(channels, channels, 3, 2)).requires_grad_(
        False
    )
    generator = generator_for("judge", seed)
    for parameter in made.parameters():
        parameter.uniform_(-0.3, 0.3, generator=generator)
    return made


@pytest.fixture
def levels():
    identity, structure = judge(8, 0), judge(4, 1)
    points = torch.tensor([[22.0, 26.0], [42.0, 26.0], [32.0, 36.0], [24.0, 46.0], [40.0, 46.0]])
    return Levels(
        perceptual=lambda a, b: (judge(4, 2)(a) - judge(4, 2)(b)).square().mean((1, 2, 3)),
        face=FaceLevel(lambda crops: identity(crops).flatten(1), points.expand(7, 5, 2)),
        structure=lambda images: [structure(images), images.mean(1, keepdim=True)],
    )


@pytest.fixture
def restore(pictures, vae, network, levels):
    denoiser = Denoiser()
    return RestoreTask(pictures, vae.encode, vae.decode, denoiser, denoiser, network, FACTS, levels, rank=2)


def test_every_level_counts_and_reaches_the_trained_parts(restore):
    losses = restore.losses(3)
    assert set(losses) == {"pixel", "perceptual", "identity", "structure", "total"}
    weighted = 0.004 * losses["pixel"] + 2 * losses["perceptual"] + 0.5 * losses["identity"] + 0.5 * losses["structure"]
    assert torch.allclose(losses["total"], weighted)
    for name in ("pixel", "perceptual", "identity", "structure"):
        restore.network.zero_grad()
        losses[name].backward(retain_graph=True)
        assert restore.adapter.from_code.weight.grad.abs().sum() > 0, name
        assert restore.low_rank.changes[2].up.grad.abs().sum() > 0, name
        assert restore.adapter.conv_in.weight.grad is None and restore.adapter.codebook.weight.grad is None
        assert all(parameter.grad is None for parameter in restore.model.parameters())


def test_a_perfect_restoration_costs_nothing(levels, pictures):
    pairs = draw_pairs(pictures, 0, 0, 4, LafrOptions().strengths)
    total, found = levels.losses(pairs.clean, pairs, 5000)
    assert total < 1e-5 and all(value < 1e-5 for value in found.values())
    assert levels.losses(pairs.bad, pairs, 5000)[0] > 100 * total.clamp(min=1e-6)


def test_mirrored_faces_are_cut_like_the_others(levels, pictures):
    plain, seen = draw_pairs(pictures, 0, 0, 4, LafrOptions().strengths, mirror=False), []
    face = FaceLevel(lambda crops: seen.append(crops) or crops.flatten(1), levels.face.landmarks)
    face.distance(plain.clean, plain)
    mirrored = type(plain)(plain.numbers, plain.clean.flip(-1), plain.bad, torch.ones(4, dtype=torch.bool))
    face.distance(mirrored.clean, mirrored)
    assert torch.allclose(seen[0], seen[2], atol=1e-4)


def test_the_second_stage_lowers_the_loss(restore, tmp_path):
    seen = []

    def judged(step, losses):
        seen.append(losses["identity"] + losses["perceptual"] + losses["structure"])

    train(restore, LoopOptions(40, 2e-2, save_every=10), tmp_path / "s.training_state", on_step=judged)
    assert sum(seen[-8:]) < 0.8 * sum(seen[:8])


def test_the_change_is_that_of_its_file(tmp_path):
    model, latent = Denoiser(), latents()
    change = LowRank(model, rank=2, seed=1)
    plain = model(latent)
    with change.attached(model):
        assert torch.equal(model(latent), plain)
    for one in change.changes:
        one.up.data.normal_(generator=generator_for("up"))
    with change.attached(model):
        changed = model(latent)
    assert torch.equal(model(latent), plain) and not torch.equal(changed, plain)
    tensors = change.file_tensors()
    assert len(tensors) == 12 and tensors["lora_unet_block_attn1_to_out_0.alpha"] == 2
    for name in change.names:
        key = f"lora_unet_{name.replace('.', '_')}"
        layer = model.get_submodule(name)
        layer.weight.data += tensors[f"{key}.lora_up.weight"] @ tensors[f"{key}.lora_down.weight"]
    assert torch.allclose(model(latent), changed, atol=1e-5)


def test_the_second_stage_stops_resumes_and_writes_both_files(pictures, vae, levels, tmp_path):
    def task():
        denoiser, start = Denoiser(), fresh_adapter(LafrOptions(seed=1, **SMALL))
        return RestoreTask(pictures, vae.encode, vae.decode, denoiser, denoiser, start, FACTS, levels, rank=2)

    files = {name: (tmp_path / f"{name}.safetensors", tmp_path / f"{name}_adapter.safetensors") for name in "ab"}
    assert train_restoration(task(), *files["a"], LoopOptions(6, 1e-2)) == 6
    assert train_restoration(task(), *files["b"], LoopOptions(6, 1e-2), stop_after=2) == 2
    assert train_restoration(task(), *files["b"], LoopOptions(6, 1e-2)) == 6
    for first, second in zip(files["a"], files["b"], strict=True):
        one, other = load_file(first), load_file(second)
        assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
    assert dict(read_header(files["a"][0]).metadata)["t_star"] == "399"
    assert "lora_unet_block_attn1_to_q.lora_up.weight" in load_file(files["a"][0])
    adapter, before = load(files["a"][1]), fresh_adapter(LafrOptions(seed=1, **SMALL))
    assert adapter.facts.steps == FACTS.steps + 6
    moved = {
        name
        for name, value in before.state_dict().items()
        if not torch.equal(value, adapter.network.state_dict()[name])
    }
    assert moved and all(name.startswith(("from_code.", "mapper.", "norm_out.", "conv_out.")) for name in moved)
