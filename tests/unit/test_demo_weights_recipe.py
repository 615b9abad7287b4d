"""The recipe of the demo weights in small: every stage's task runs, resumes, and its figures mean what they say."""

from __future__ import annotations

import pytest
import torch
from likeness_pack.adapters.encoders.transface.arch import TransFaceConfig
from likeness_pack.adapters.identity import Identity
from likeness_pack.evaluation.identity_sheet import SheetRow, identity_sheet, mean_distance
from likeness_pack.nodes.drawn_faces import LikenessIdentitySheet
from likeness_pack.training.demo.autoencoder import AutoencoderTask
from likeness_pack.training.demo.base import BaseTask
from likeness_pack.training.demo.conditioning import AttributeTokens
from likeness_pack.training.demo.evaluate import at_distance, leak
from likeness_pack.training.demo.figures import bars, curves, sheet
from likeness_pack.training.demo.portrait_data import encode_portraits, encode_references, joined, portraits_of
from likeness_pack.training.demo.portraits import portrait_attributes
from likeness_pack.training.demo.recipe import BUDGETS, STARTS, adapter_options
from likeness_pack.training.demo.recognition import (
    EncoderTask,
    JudgeTask,
    attribute_names,
    attribute_targets,
    expected_landmarks,
    pair_loss,
)
from likeness_pack.training.demo.requests import asked_attributes, drawn_person, expected_faces
from likeness_pack.training.drawn_faces import draw, sample_identities
from likeness_pack.training.drawn_faces.parameters import BadParameters
from likeness_pack.training.loop import LoopOptions, train
from likeness_pack.training.seeds import generator_for
from PIL import Image

SMALL = TransFaceConfig(width=16, depth=1, patch=28, embedding=8)


def task(kind):
    if kind == "autoencoder":
        return AutoencoderTask((4, 4, 8, 8), 32, 4, 0)
    return EncoderTask(8, 0, SMALL) if kind == "encoder" else JudgeTask(8, 0)


@pytest.mark.parametrize("kind", ["autoencoder", "encoder", "judge"])
def test_stages_stop_and_go_on_as_if_they_had_not(kind, tmp_path):
    losses = []
    straight = task(kind)
    train(straight, LoopOptions(4, 1e-3), None, on_step=lambda number, one: losses.append(one["total"]))
    state = tmp_path / "state.safetensors"
    train(task(kind), LoopOptions(4, 1e-3), state, stop_after=2)
    resumed, rest = task(kind), []
    train(resumed, LoopOptions(4, 1e-3), state, on_step=lambda number, one: rest.append(one["total"]))
    assert rest == losses[2:]
    for name, value in straight.network.state_dict().items():
        assert torch.equal(value, resumed.network.state_dict()[name]), name


def test_the_decoder_alone_leaves_latents_as_they_are():
    start = task("autoencoder").network.state_dict()
    later = AutoencoderTask((4, 4, 8, 8), 32, 4, 1, start)
    train(later, LoopOptions(3, 1e-2), None)
    after = later.network.state_dict()
    moved = {name.split(".")[0] for name in start if not torch.equal(start[name], after[name])}
    assert moved == {"taesd_decoder"}


def test_portraits_are_encoded_in_parts():
    people, attributes = portraits_of(2, 3, 0, 1)
    assert torch.equal(people.values[0], people.values[2]) and not torch.equal(people.values[2], people.values[3])
    assert not torch.equal(portraits_of(2, 3, 0, 0)[0].values, people.values), "parts differ"
    encoded = encode_portraits(task("autoencoder").network, people, attributes, 32)
    assert encoded["latents"].shape == (6, 4, 4, 4) and encoded["masks"].shape == (6, 4, 4)
    assert 0.05 < float(encoded["masks"].mean()) < 0.9
    tokens = encode_references(EncoderTask(8, 0, SMALL).network.encoder.eval(), people, attributes)
    assert tokens.shape == (6, 16, 16) and torch.isfinite(tokens).all()
    assert len(joined([encoded, encoded])["latents"]) == 12


def test_the_base_model_learns_noise():
    pytest.importorskip("diffusers")
    people, attributes = portraits_of(4, 2, 0, 0)
    encoded = encode_portraits(task("autoencoder").network, people, attributes, 32)
    losses = []
    base = BaseTask(encoded, (32, 32, 32, 32), 8, 0)
    train(base, LoopOptions(8, 3e-3), None, on_step=lambda number, one: losses.append(one["total"]))
    assert sum(losses[-3:]) < sum(losses[:3])


def test_portraits_vary_in_what_a_prompt_says_and_in_nothing_else():
    attributes = portrait_attributes(50, generator_for("a"))
    for name in ("roll", "gaze", "clothes", "shift_x", "zoom", "light_warmth"):
        assert float(attributes[name].std()) < 1e-6, name
    tokens = AttributeTokens()(attributes)
    assert tokens.shape == (50, 4, 768) and float(tokens.std(dim=0).min()) > 0


def test_requests_become_attributes_and_places():
    asked = asked_attributes({"yaw": 20.0, "glasses": True}, 3, 0.0, 0)
    assert torch.allclose(asked["yaw"], torch.full((3,), 20.0), atol=1e-4) and (asked["glasses"] >= 0.5).all()
    varied = asked_attributes({"yaw": 20.0}, 3, 1.0, 4)
    assert torch.equal(varied.values, portrait_attributes(3, generator_for("requests", 4)).values)
    images, masks, faces = drawn_person(5, asked, 64)
    assert images.shape == (3, 64, 64, 3) and masks.shape == (3, 64, 64) and faces.counts == (1, 1, 1)
    assert torch.equal(drawn_person(5, asked, 64)[0], images)
    expected = expected_faces(asked, 64)
    for wrong, pictures, word in (
        ({"yaw": "left"}, 3, "a number for yaw"),
        ({"yaw": float("nan")}, 3, "a number for yaw"),
        ({}, 10**12, "1024"),
        ({}, 0, "1024"),
    ):
        with pytest.raises(BadParameters, match=word):
            asked_attributes(wrong, pictures, 0.0, 0)
    for variety in (-1.0, 1.01):
        with pytest.raises(BadParameters, match="a variety of 0 to 1"):
            asked_attributes({}, 1, variety, 0)
    gaps = [
        (a.landmarks5 - b.landmarks5).norm(dim=-1).mean() for a, b in zip(expected.images, faces.images, strict=True)
    ]
    assert expected.counts == (1, 1, 1) and max(map(float, gaps)) < 6


def test_expected_points_follow_the_pose():
    people = sample_identities(30, generator_for("p"))
    attributes = portrait_attributes(30, generator_for("q"))
    true, expected = draw(people, attributes, 64).landmarks5, expected_landmarks(attributes, 64)
    still = expected_landmarks(portrait_attributes(30, generator_for("r")), 64)
    assert float((true - expected).norm(dim=-1).mean()) < 0.6 * float((true - still).norm(dim=-1).mean())


def test_pair_loss_is_small_for_partners():
    embeddings = torch.eye(8)[torch.arange(4).repeat_interleave(2)]
    assert float(pair_loss(embeddings)) < 0.01 < float(pair_loss(embeddings[[0, 2, 4, 6, 1, 3, 5, 7]]))


def test_leak_is_the_slope_towards_the_reference():
    towards = torch.randn(20, 5, generator=torch.Generator().manual_seed(0))
    assert leak(0.3 * towards, towards) == pytest.approx(0.3, abs=1e-5)
    assert abs(leak(torch.randn(20, 5, generator=torch.Generator().manual_seed(1)) * 0.01, towards)) < 0.01


def test_figures_are_compared_at_one_identity_distance():
    curve = {0.5: {"identity_distance": 0.8, "x": 1.0}, 1.0: {"identity_distance": 0.4, "x": 3.0}}
    assert at_distance(curve, 0.6, "x") == pytest.approx(2.0)
    assert at_distance(curve, 0.9, "x") == 1.0 and at_distance(curve, 0.1, "x") == 3.0


def test_judged_attributes_have_names_and_ranges():
    targets = attribute_targets(portrait_attributes(40, generator_for("t")))
    assert targets.shape == (40, len(attribute_names())) and targets.min() >= 0 and targets.max() <= 1


def test_ablations_differ_in_one_thing():
    pairs = {("fact_open", "fact_open_unshuffled"): "shuffle", ("fact_with_fair", "fact_without_fair"): "fair_weight"}
    for (first, second), name in pairs.items():
        one, other = adapter_options(first).plain(), adapter_options(second).plain()
        assert [key for key in one if one[key] != other[key]] == [name]
        assert BUDGETS[first] == BUDGETS[second] and STARTS.get(first) == STARTS.get(second)


def test_plots_and_sheets_are_written(tmp_path):
    figure = {"mean": 0.5, "spread": 0.1}
    models = {name: {"identity_distance": figure, "outside_change": figure} for name in ("plain", "fact@0.5", "fact@1")}
    bars(tmp_path / "bars.png", models, "identity_distance")
    curves(tmp_path / "curves.png", models)
    sheet(tmp_path / "sheet.png", [torch.rand(3, 16, 16, 3)] * 2, ("one", "two"), columns=3)
    for name in ("bars", "curves", "sheet"):
        with Image.open(tmp_path / f"{name}.png") as image:
            assert len(image.convert("RGB").getcolors(100_000) or [0] * 9) > 2, name


def test_a_row_of_the_sheet_needs_no_name():
    images = torch.rand(1, 20, 20, 3)
    identity = Identity("transface_128x4", {"embedding": torch.ones(1, 4)})
    made = LikenessIdentitySheet().make(images, identity, 40, images_2=images, identity_2=identity)
    assert "row 2: identity distance" in made["result"][1]


def test_identity_sheet_tells_the_distance():
    rows = torch.nn.functional.normalize(torch.randn(3, 8, generator=torch.Generator().manual_seed(0)), dim=1)
    reference = Identity("transface_128x4", {"embedding": rows[:1]})
    other = Identity("transface_128x4", {"embedding": rows[1:]})
    wanted = 1 - float((rows[1:] @ rows[0]).mean())
    assert mean_distance(reference, other) == pytest.approx(wanted, abs=1e-5)
    images = torch.rand(2, 20, 20, 3)
    picture, report = identity_sheet(reference, [SheetRow("reference", images[:1]), SheetRow("new", images, other)], 40)
    assert picture.shape == (1, 2 * (40 + 26), 80, 3)
    assert report.splitlines() == ["reference", f"new: identity distance to the reference {wanted:.2f}"]
