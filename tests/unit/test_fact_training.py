"""FACT and FaceID training on a tiny diffusers UNet: layers, FAIR, drop, shuffle, resume, files, refusals."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch
from likeness_pack.adapters import registry
from likeness_pack.adapters.checkpoint import read_header
from likeness_pack.adapters.errors import BaseModelMismatch
from likeness_pack.adapters.families.fact.layout import BLOCK_PATHS
from likeness_pack.training.fact.attached import (
    AttachedGatedLayers,
    Increment,
    block_widths,
    file_order,
    grid_tokens,
)
from likeness_pack.training.fact.curriculum import Ramp, kept_rows, shuffled_rows
from likeness_pack.training.fact.errors import BadOptions
from likeness_pack.training.fact.fair import enlarged, fair, token_masks
from likeness_pack.training.fact.models import FaceIDModel, FactModel, ResamplerShape, save_adapter
from likeness_pack.training.fact.options import AdapterOptions
from likeness_pack.training.fact.people import BadMaterial, People
from likeness_pack.training.fact.task import AdapterTask, biased_timesteps
from likeness_pack.training.fact.trainer import AdapterTrainer
from likeness_pack.training.loop import LoopOptions, TrainingFailed, train

diffusers = pytest.importorskip("diffusers")

SHAPE = ResamplerShape(width=32, depth=1, heads=1, queries=4, feed_forward=64)
OPTIONS = AdapterOptions(
    steps=6, persons=2, pictures=2, fair_weight=0.5, drop=Ramp(0.0, 0.3), shuffle=Ramp(0.2, 0.9), gate_rate=10.0
)


@pytest.fixture(scope="module")
def unet():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return diffusers.UNet2DConditionModel(
            sample_size=8, block_out_channels=(32, 32, 64, 64), cross_attention_dim=768, attention_head_dim=8
        ).eval()


def people(conditions=None, count=8, **other):
    generator = torch.Generator().manual_seed(3)
    masks = torch.zeros(count, 8, 8)
    masks[:, 2:6, 2:6] = 1
    values = {
        "latents": torch.randn(count, 4, 8, 8, generator=generator),
        "text": torch.randn(1, 3, 768, generator=generator),
        "conditions": torch.randn(count, 5, 16, generator=generator) if conditions is None else conditions,
        "masks": masks,
        "persons": torch.arange(count) // 2,
        "encoder": "transface_s",
    }
    return People(**{**values, **other})


def run_unet(unet, seed=5):
    generator = torch.Generator().manual_seed(seed)
    latents, text = (torch.randn(size, generator=generator) for size in ((2, 4, 8, 8), (2, 3, 768)))
    with torch.no_grad():
        return unet(latents, torch.tensor([10, 700]), encoder_hidden_states=text).sample


def open_gates(model):
    for name, value in model.network.named_parameters():
        if name.endswith(("alpha_attn", "alpha_dense")):
            value.data.fill_(0.7)


def test_layers_change_the_unet_only_while_they_read(unet):
    plain = run_unet(unet)
    model = FactModel(unet, 16, SHAPE)
    tokens = model.tokens(torch.randn(2, 5, 16, generator=torch.Generator().manual_seed(1)))
    with model.attached.reading(tokens):
        assert torch.allclose(run_unet(unet), plain, atol=1e-5), "closed gates add nothing"
    open_gates(model)
    model.attached.taken_increments()
    with model.attached.reading(tokens):
        changed = run_unet(unet)
    assert not torch.allclose(changed, plain, atol=1e-3)
    increments = model.attached.taken_increments()
    assert {one.path for one in increments} == set(BLOCK_PATHS) and len(increments) == 16
    with model.attached.reading(tokens, scale=0.0):
        assert torch.allclose(run_unet(unet), plain, atol=1e-5)
    assert torch.equal(run_unet(unet), plain)
    model.attached.close()
    with model.attached.reading(tokens):
        assert torch.equal(run_unet(unet), plain)


def test_gated_layers_stand_where_diffusers_own_gligen_stands(unet):
    """The block's own place for such a layer (its fuser) gives the same numbers as the hooks."""
    block = unet.get_submodule(BLOCK_PATHS[0])
    model = FactModel(unet, 16, SHAPE)
    open_gates(model)
    layer = model.network.get_submodule(f"{BLOCK_PATHS[0]}.attn2.processor")
    tokens = model.tokens(torch.randn(1, 5, 16, generator=torch.Generator().manual_seed(1)))
    x, text = torch.randn(1, 64, 32), torch.randn(1, 3, 768)
    with model.attached.reading(tokens), torch.no_grad():
        got = block(x, encoder_hidden_states=text)
    model.attached.close()

    class Fuser(torch.nn.Module):
        def forward(self, stream, objs):
            return layer(stream, layer.face_keys_values(objs), 1.0)

    block.fuser = Fuser()
    with torch.no_grad():
        wanted = block(x, encoder_hidden_states=text, cross_attention_kwargs={"gligen": {"objs": tokens}})
    del block.fuser
    assert torch.allclose(got, wanted, atol=1e-5)


@pytest.mark.parametrize("norm", ["l2", "l1"])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_fair_is_the_formula(norm, reduction):
    generator = torch.Generator().manual_seed(0)
    masks = torch.rand(2, 8, 8, generator=generator).round()
    increments = [
        Increment(str(tokens), *(torch.randn(2, tokens, 6, generator=generator) for _ in range(2)))
        for tokens in (64, 16)
    ]
    terms = []
    for one, cells in zip(increments, (1, 2), strict=True):
        ratios = []
        for row in range(2):
            outside = []
            for y in range(8 // cells):
                for x in range(8 // cells):
                    inside = masks[row, y * cells : (y + 1) * cells, x * cells : (x + 1) * cells].max()
                    outside.append(1 - float(inside))
            kept = torch.tensor(outside)[:, None]
            order = 2 if norm == "l2" else 1
            above, below = ((part[row] * kept).flatten().norm(p=order) for part in (one.added, one.stream))
            ratios.append(above / (below + 1e-6))
        terms.append(torch.stack(ratios).mean())
    wanted = sum(terms) / (1 if reduction == "sum" else 2)
    assert torch.allclose(fair(increments, masks, norm, reduction), wanted, atol=1e-5)


def test_fair_sees_only_what_lies_outside_the_face():
    masks = torch.zeros(1, 8, 8)
    masks[:, :4] = 1
    stream, added = torch.ones(1, 64, 2), torch.zeros(1, 64, 2)
    added[:, :32] = 5
    assert float(fair([Increment("a", stream, added)], masks)) < 1e-5
    added[:, 32:] = 5
    assert float(fair([Increment("a", stream, added)], masks)) == pytest.approx(5, rel=1e-4)
    # A mask that leaves nothing outside, as on a grid of one token, gives zero and a gradient without NaN.
    added.requires_grad_()
    fair([Increment("a", stream, added)], torch.ones(1, 8, 8)).backward()
    assert torch.isfinite(added.grad).all()


def test_masks_grow_and_shrink_to_the_layers_grid():
    masks = torch.zeros(1, 8, 8)
    masks[0, 3, 3] = 1
    assert enlarged(masks, 0).sum() == 1 and enlarged(masks, 1).sum() == 9 and enlarged(masks, 2).sum() == 25
    assert token_masks(masks, 16).view(4, 4).nonzero().tolist() == [[1, 1]]
    assert token_masks(masks, 1).shape == (1, 1, 1)
    assert token_masks(torch.zeros(2, 8, 16), 32).shape == (2, 32, 1)
    assert token_masks(masks, 16, "share").view(4, 4)[1, 1] == 0.25 and token_masks(masks, 1, "share") == 1 / 64


def test_curriculum_grows_to_its_end():
    ramp = Ramp(0.1, 0.5, over=0.5)
    amounts = [ramp.at(step, 100) for step in range(100)]
    assert amounts[0] == pytest.approx(0.1) and amounts == sorted(amounts) and amounts[50:] == [0.5] * 50


def test_shuffle_stays_within_a_person():
    persons = torch.tensor([4, 4, 4, 9, 9, 9, 4, 9])
    moved = 0
    for seed in range(20):
        rows = shuffled_rows(persons, 1.0, torch.Generator().manual_seed(seed))
        assert sorted(rows.tolist()) == list(range(8)) and torch.equal(persons[rows], persons)
        moved += int((rows != torch.arange(8)).sum())
    assert moved > 60
    assert torch.equal(shuffled_rows(persons, 0.0, torch.Generator()), torch.arange(8))


def test_drop_takes_its_share():
    kept = kept_rows(4000, 0.25, torch.Generator().manual_seed(0))
    assert set(kept.unique().tolist()) == {0.0, 1.0} and float(kept.mean()) == pytest.approx(0.75, abs=0.03)


def test_material_reaches_the_loss_as_told(unet):
    """With shuffle of 1 a person's rows get each other's conditions; with drop of 1 the projector sees zeros."""
    model = FactModel(unet, 16, SHAPE)
    seen = []
    model.network.local_fac_prj.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    material = people()
    for drop, shuffle in ((0.0, 0.0), (0.0, 1.0), (1.0, 0.0)):
        told = dataclasses.replace(OPTIONS, drop=Ramp(drop, drop), shuffle=Ramp(shuffle, shuffle))
        AdapterTask(unet, model, material, told).losses(0)
    model.attached.close()
    own, exchanged, dropped = seen
    assert torch.count_nonzero(dropped) == 0 and not torch.equal(own, exchanged)
    both = {tuple(row.flatten().tolist()) for row in own}
    assert {tuple(row.flatten().tolist()) for row in exchanged} == both


def test_grids_are_those_of_the_unets_run(unet):
    model = FactModel(unet, 16, SHAPE)
    with model.attached.reading(model.tokens(torch.zeros(2, 5, 16))):
        run_unet(unet)
    found = {one.path: one.stream.shape[1] for one in model.attached.taken_increments()}
    model.attached.close()
    assert found == {path: grid_tokens(path, 8, 8) for path in BLOCK_PATHS} and set(found.values()) == {64, 16, 4, 1}
    assert [grid_tokens(f"down_blocks.{level}.x", 12, 20) for level in range(3)] == [240, 60, 15]


def test_layers_on_coarse_grids_can_stay_closed(unet, tmp_path):
    """They neither act nor learn, even when the run goes on from open ones; the file keeps all layers."""
    model = FactModel(unet, 16, SHAPE)
    open_gates(model)
    before = {name: value.clone() for name, value in model.network.state_dict().items()}
    told = dataclasses.replace(OPTIONS, least_tokens=16)
    try:
        train(AdapterTask(unet, model, people(), told), LoopOptions(2, 1e-2))
        with model.attached.reading(model.tokens(torch.zeros(2, 5, 16))):
            run_unet(unet)
        acting = {one.path for one in model.attached.taken_increments()}
        with pytest.raises(BadOptions, match="65 or more tokens"):
            model.attached.close_coarse(65, 8, 8)
    finally:
        model.attached.close()
    assert acting == {path for path in BLOCK_PATHS if grid_tokens(path, 8, 8) >= 16} and len(acting) == 10
    for name, value in model.network.state_dict().items():
        closed = "attn2.processor" in name and name.split(".attn2")[0] not in acting
        gate = name.endswith(("alpha_attn", "alpha_dense"))
        assert (float(value) == 0 if gate else torch.equal(value, before[name])) if closed else True, name
    path = tmp_path / "fine.safetensors"
    save_adapter(path, model, people(), told, finished=2)
    assert len(registry.load(path).layers) == 16


def fact_run(unet, folder, stop_after=None, options=OPTIONS, rate=1e-2):
    model = FactModel(unet, 16, SHAPE)
    task = AdapterTask(unet, model, people(), options)
    losses = []
    loop = LoopOptions(options.steps, rate, save_every=2)
    try:
        train(
            task, loop, folder / "state.safetensors", stop_after=stop_after, on_step=lambda n, one: losses.append(one)
        )
    finally:
        model.attached.close()
    return model, losses


def test_stop_and_resume_are_equal_and_the_base_stays(unet, tmp_path):
    before = {name: value.clone() for name, value in unet.state_dict().items()}
    straight, losses = fact_run(unet, tmp_path / "a")
    fact_run(unet, tmp_path / "b", stop_after=3)
    resumed, rest = fact_run(unet, tmp_path / "b")
    assert rest == losses[3:]
    for name, value in straight.network.state_dict().items():
        assert torch.equal(value, resumed.network.state_dict()[name]), name
    assert all(torch.equal(value, before[name]) for name, value in unet.state_dict().items())
    assert set(losses[0]) == {"total", "noise", "fair"}
    assert losses[0]["fair"] < 1e-3 < losses[-1]["fair"], "gates open"
    fresh = FactModel(unet, 16, SHAPE)
    fresh.attached.close()
    moved = [n for n, v in fresh.network.state_dict().items() if not torch.equal(v, straight.network.state_dict()[n])]
    assert len(moved) == len(fresh.network.state_dict()), "every tensor is trained"


def test_training_lowers_the_loss_and_fair_holds_the_layers_back(unet, tmp_path):
    """On one fixed step: less noise error than without the adapter, and a smaller increment outside with FAIR."""
    told = dataclasses.replace(OPTIONS, steps=25, drop=Ramp(0, 0), shuffle=Ramp(0, 0), fair_weight=0.0)
    free, losses = fact_run(unet, tmp_path / "free", options=told)
    held, held_losses = fact_run(unet, tmp_path / "held", options=dataclasses.replace(told, fair_weight=2.0))
    assert sum(one["noise"] for one in losses[-5:]) < sum(one["noise"] for one in losses[:5])
    assert held_losses[-1]["fair"] < 0.5 * losses[-1]["fair"]


def test_fact_file_reloads_through_the_normal_loader(unet, tmp_path):
    model, _ = fact_run(unet, tmp_path)
    path = tmp_path / "trained.safetensors"
    save_adapter(path, model, people(), OPTIONS, finished=6, dtype=torch.float32)
    adapter = registry.load(path)
    assert adapter.report.family == "fact" and adapter.report.variant == "v1"
    conditions = people().conditions[:2]
    from likeness_pack.adapters.adapter import TokenOptions
    from likeness_pack.adapters.identity import TOKENS, Identity

    identity = Identity("transface_s", {TOKENS: conditions})
    got = adapter.tokens(identity, TokenOptions())
    wanted = model.tokens(conditions).detach().flatten(0, 1)[None]
    assert torch.allclose(got.cond, wanted, atol=1e-6)
    assert torch.allclose(got.uncond[:, :4], model.tokens(torch.zeros(1, 5, 16)).detach(), atol=1e-6)
    for block, layer in adapter.layers.items():
        trained = model.network.get_submodule(f"{block}.attn2.processor").state_dict()
        assert all(torch.equal(value, trained[name]) for name, value in layer.state_dict().items())
    metadata = read_header(path).metadata
    assert metadata["encoder"] == "transface_s" and metadata["finished_steps"] == "6"
    assert json.loads(metadata["training"])["fair_weight"] == 0.5


def test_a_file_of_another_encoder_asks_for_that_encoder(unet, tmp_path):
    from likeness_pack.adapters.adapter import TokenOptions
    from likeness_pack.adapters.errors import EncoderMismatch
    from likeness_pack.adapters.identity import TOKENS, Identity

    model = FactModel(unet, 16, SHAPE)
    model.attached.close()
    path = tmp_path / "small.safetensors"
    save_adapter(path, model, people(encoder="transface_128x4"), OPTIONS, finished=0)
    adapter = registry.load(path)
    small = Identity("transface_128x4", {TOKENS: torch.randn(1, 5, 16)})
    assert adapter.tokens(small, TokenOptions()).cond.shape == (1, 4, 768)
    with pytest.raises(EncoderMismatch, match="transface_128x4"):
        adapter.tokens(Identity("transface_s", {TOKENS: torch.randn(1, 5, 16)}), TokenOptions())


def test_faceid_trains_resumes_and_reloads(unet, tmp_path):
    conditions = torch.randn(8, 512, generator=torch.Generator().manual_seed(2))
    material = people(conditions, encoder="arcface_buffalo_l")

    def run(folder, stop_after=None):
        model = FaceIDModel(unet, 512, tokens=16)
        task = AdapterTask(unet, model, material, OPTIONS)
        losses = []
        train(
            task,
            LoopOptions(4, 1e-3, save_every=2),
            tmp_path / folder,
            stop_after=stop_after,
            on_step=lambda number, one: losses.append(one),
        )
        model.attached.close()
        return model, losses

    straight, losses = run("a.safetensors")
    run("b.safetensors", stop_after=2)
    resumed, rest = run("b.safetensors")
    assert rest == losses[2:] and set(losses[0]) == {"total", "noise"}
    for name, value in straight.network.state_dict().items():
        assert torch.equal(value, resumed.network.state_dict()[name]), name
    path = tmp_path / "faceid.safetensors"
    save_adapter(path, straight, material, OPTIONS, finished=4, dtype=torch.float32)
    adapter = registry.load(path)
    assert adapter.report.family == "ip_adapter_faceid"
    loaded = dict(adapter.network.named_parameters())
    order = file_order(list(block_widths(unet)))
    assert order[0] == BLOCK_PATHS[0] and order[-1].startswith("mid_block")
    for number in range(16):
        trained = straight.network.ip_adapter[str(2 * number + 1)].to_k_ip.weight
        assert torch.equal(loaded[f"keys_values.{number}.to_k_ip.weight"], trained)


def test_faceid_layers_read_the_face_beside_the_text(unet):
    plain = run_unet(unet)
    model = FaceIDModel(unet, 512)
    tokens = model.tokens(torch.randn(2, 512, generator=torch.Generator().manual_seed(1)))
    with model.attached.reading(tokens):
        changed = run_unet(unet)
    with model.attached.reading(tokens, scale=0.0):
        assert torch.equal(run_unet(unet), plain)
    model.attached.close()
    assert not torch.allclose(changed, plain, atol=1e-4) and torch.equal(run_unet(unet), plain)


REFUSALS = {
    "none": ({"latents": torch.zeros(0, 4, 8, 8)}, "pictures of persons"),
    "counts": ({"masks": torch.zeros(3, 8, 8)}, "8 of everything"),
    "nan": ({"latents": torch.full((8, 4, 8, 8), float("nan"))}, "values that are not numbers"),
    "infinite": ({"conditions": torch.full((8, 5, 16), float("inf"))}, "values that are not numbers"),
    "lonely": ({"persons": torch.arange(8)}, "2 or more of every person"),
}


@pytest.mark.parametrize("case", sorted(REFUSALS))
def test_bad_material_is_refused_in_one_sentence(case):
    other, told = REFUSALS[case]
    with pytest.raises(BadMaterial, match=told) as refused:
        people(**other)
    assert "\n" not in str(refused.value)


def test_bad_options_and_base_models_are_refused():
    with pytest.raises(BadOptions, match="shares of 0..1"):
        AdapterOptions(drop=Ramp(0.0, 1.5))
    with pytest.raises(BadOptions, match="norm l1 or l2"):
        AdapterOptions(fair_norm="max")  # type: ignore[arg-type]
    with pytest.raises(BadOptions, match="mask largest or share"):
        AdapterOptions(fair_mask="middle")  # type: ignore[arg-type]
    with pytest.raises(BaseModelMismatch, match="16 transformer blocks of SD1.5"):
        block_widths(torch.nn.Linear(2, 2))


def test_a_loss_that_is_not_a_number_stops_the_run(unet, tmp_path):
    model = FactModel(unet, 16, SHAPE)
    model.network.local_fac_prj.norm_out.bias.data.fill_(float("nan"))
    try:
        with pytest.raises(TrainingFailed, match="lower the learning rate"):
            train(AdapterTask(unet, model, people(), OPTIONS), LoopOptions(2), tmp_path / "state.safetensors")
    finally:
        model.attached.close()
    assert isinstance(model.attached, AttachedGatedLayers) and not (tmp_path / "state.safetensors").exists()


def test_trainer_stops_goes_on_previews_and_saves(unet, tmp_path):
    model = FactModel(unet, 16, SHAPE)
    trainer = AdapterTrainer(unet, model, people(), OPTIONS, 1e-2, tmp_path / "state.safetensors")
    assert trainer.run(stop_after=2) == 2 and trainer.run() == OPTIONS.steps
    plain, shown = trainer.preview(torch.tensor([0, 3]), steps=2)
    assert plain.shape == shown.shape == (2, 4, 8, 8) and not torch.equal(plain, shown)
    trainer.save(tmp_path / "adapter.safetensors")
    trainer.close()
    assert read_header(tmp_path / "adapter.safetensors").metadata["finished_steps"] == "6"
    other = AdapterTrainer(unet, FactModel(unet, 16, SHAPE), people(), OPTIONS)
    again, _ = other.preview(torch.tensor([0, 3]), steps=2)
    other.close()
    assert torch.equal(again, plain)


def test_timesteps_may_prefer_noise():
    even = biased_timesteps(4000, 0.0, torch.Generator().manual_seed(0)).float()
    noisy = biased_timesteps(4000, 1.0, torch.Generator().manual_seed(0)).float()
    assert float(even.mean()) == pytest.approx(500, abs=20) and float(noisy.median()) == pytest.approx(750, abs=25)
    assert noisy.min() >= 0 and noisy.max() <= 999
