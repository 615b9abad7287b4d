"""The emotion module: its file, its numbers, gates at zero, and training that tells two emotions apart."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from likeness_pack.adapters.adapter import TokenOptions
from likeness_pack.adapters.checkpoint import read_header
from likeness_pack.adapters.errors import BadCheckpoint, EncoderMismatch, KeyMismatch
from likeness_pack.adapters.families.avatar_emotion.arch import EmotionNetwork, EmotionSizes, patches
from likeness_pack.adapters.families.avatar_emotion.family import FAMILY
from likeness_pack.adapters.families.avatar_emotion.layout import EmotionFacts, picture_sides
from likeness_pack.adapters.families.hunyuan_avatar.arch import AvatarNetwork, AvatarSizes
from likeness_pack.adapters.identity import Identity
from likeness_pack.adapters.registry import describe, load
from likeness_pack.faces.errors import BadImage
from likeness_pack.training.avatar_clips import BadClip, ClipFolder, ClipList
from likeness_pack.training.avatar_emotion import (
    AvatarBase,
    BadEmotionOptions,
    EmotionOptions,
    emotion_after,
    fresh_network,
    save_emotion,
    train_emotion,
)
from likeness_pack.training.loop import LoopOptions, TrainingFailed
from safetensors.torch import load_file, save_file
from tiny_avatar_emotion import SIZES, clip, emotion_picture, filled, held_out_loss, options, tiny_base, training_clips

FACTS = EmotionFacts(steps=1, clips=6, picture_size=64)


@pytest.fixture(scope="module")
def base():
    return tiny_base()


@pytest.fixture
def network(base):
    """Random weights and open gates."""
    made = fresh_network(options(), base)
    with torch.no_grad():
        for number, block in enumerate(made.attentions):
            block.gate.weight.fill_(0.5 + number)
    return made


@pytest.fixture
def path(tmp_path, network):
    save_emotion(tmp_path / "any.safetensors", network, FACTS)
    return tmp_path / "any.safetensors"


# The network


def test_patches_are_the_transformers_own():
    """Two by two cells of each frame, channel by channel, as a convolution with unit weights has them."""
    latents = torch.arange(16.0 * 2 * 4 * 6).view(1, 16, 2, 4, 6)
    unit = torch.eye(64).view(64, 16, 1, 2, 2)
    expected = torch.nn.functional.conv3d(latents, unit, stride=(1, 2, 2)).flatten(2).transpose(1, 2)
    assert torch.equal(patches(latents), expected)
    assert patches(latents[..., :3, :5]).shape == (1, 4, 64)


def test_what_is_added_is_the_papers_formula(network):
    """``gate * out(softmax(q k / sqrt(d)) v)`` with keys and values of the projected patches, head by head."""
    generator = torch.Generator().manual_seed(0)
    video, picture = torch.randn(1, 6, SIZES.width, generator=generator), emotion_picture(0)
    block = network.attentions[1]
    tokens = patches(picture[None]) @ network.proj.weight.T + network.proj.bias
    normed = torch.nn.functional.layer_norm(video, (SIZES.width,), block.norm.weight, block.norm.bias)
    q = normed @ block.to_q.weight.T
    k, v = (tokens @ block.to_kv.weight.T).chunk(2, dim=-1)
    heads = [
        (q[..., part] @ k[..., part].transpose(1, 2) / 16**0.5).softmax(-1) @ v[..., part]
        for part in (slice(0, 16), slice(16, 32))
    ]
    expected = 1.5 * (torch.cat(heads, dim=-1) @ block.to_out.weight.T)
    torch.testing.assert_close(emotion_after(network, picture)(3, video), expected, atol=1e-5, rtol=1e-5)
    assert not emotion_after(network, picture)(2, video).any()


def test_a_fresh_module_changes_nothing(base):
    """Gates at zero: bit-equal to the model without it."""
    fresh, one = fresh_network(options(), base), clip(0, 0)
    x, level = torch.randn(1, 16, 2, 4, 4, generator=torch.Generator().manual_seed(1)), torch.tensor([0.5])
    plain = base.velocity(one, x, level, None)
    assert torch.equal(base.velocity(one, x, level, emotion_after(fresh, one.emotion)), plain)
    fresh.attentions[0].gate.weight.data.fill_(1)
    assert not torch.equal(base.velocity(one, x, level, emotion_after(fresh, one.emotion)), plain)


# The file


def test_a_file_is_recognised_loaded_and_described(path, network):
    adapter = load(path)
    assert adapter.report.family == "avatar_emotion" and adapter.report.layers == 2
    assert "2 heads; 1 steps on 6 clips, pictures of 64 px" in describe(path).as_text()
    expected = network.tokens(emotion_picture(1)[None])
    tokens = adapter.emotion_tokens(emotion_picture(1)[None])
    assert torch.equal(tokens, expected)
    k, v = adapter.keys_values(tokens)[1]
    video = torch.randn(1, 5, SIZES.width, generator=torch.Generator().manual_seed(3))
    got = adapter.added(
        1,
        video,
        k,
        v,
        lambda q, k, v, heads: (
            torch.nn.functional.scaled_dot_product_attention(
                *(one.unflatten(-1, (heads, -1)).transpose(1, 2) for one in (q, k, v))
            )
            .transpose(1, 2)
            .flatten(2)
        ),
    )
    torch.testing.assert_close(got, emotion_after(network, emotion_picture(1))(3, video))


def test_places_are_those_of_the_audio_adapters():
    with torch.device("meta"):
        network = EmotionNetwork(EmotionSizes())
    assert sum(parameter.numel() for parameter in network.parameters()) == 84_014_090
    from likeness_pack.adapters.families.avatar_emotion.adapter import AvatarEmotionAdapter

    adapter = AvatarEmotionAdapter.__new__(AvatarEmotionAdapter)
    adapter._parts = network
    assert adapter.insertions(20, 40) == [("double_block", number) for number in range(1, 20, 2)]


def test_network_and_step_network_share_nothing_and_hold_all(path, network):
    adapter = load(path)
    once, always = ({id(one) for one in part.parameters()} for part in (adapter.network, adapter.block_network))
    assert not once & always
    assert len(once | always) == len(list(network.parameters()))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"format": "other"}, "expected format avatar_emotion_v1 for hunyuan_video"),
        ({"base": "wan"}, "expected format avatar_emotion_v1 for hunyuan_video, found avatar_emotion_v1 for wan"),
        ({"heads": "5"}, "a number of heads that divides 32"),
        ({"heads": "two"}, "expected whole numbers in the metadata"),
        ({"steps": "0"}, "expected a trained file, found one of 0 training steps"),
        ({"clips": None}, "none for clips"),
    ],
)
def test_metadata_that_do_not_fit_are_refused(path, change, told):
    metadata = {**read_header(path).metadata, **change}
    save_file(load_file(path), path, {name: value for name, value in metadata.items() if value is not None})
    with pytest.raises(BadCheckpoint, match=f"{told}.*train a file with tools/train_avatar_emotion.py"):
        load(path)


def test_other_tensors_are_refused(path):
    tensors, metadata = load_file(path), dict(read_header(path).metadata)
    save_file({**tensors, "more.weight": torch.zeros(1)}, path, metadata)
    with pytest.raises(KeyMismatch, match="1 left over: more"):
        load(path)
    save_file({name: one for name, one in tensors.items() if name != "proj.weight"}, path, metadata)
    assert FAMILY.recognise(read_header(path)) == "no proj.weight with blocks.0.to_q, to_kv and gate (emotion module)"
    save_file({**tensors, "proj.weight": torch.zeros(32, 60)}, path, metadata)
    assert "an emotion module has (width, 64)" in FAMILY.recognise(read_header(path))
    save_file({**tensors, "blocks.0.to_kv.weight": torch.zeros(64, 30)}, path, metadata)
    assert "an emotion module has (64, 32)" in FAMILY.recognise(read_header(path))


def test_identities_and_other_latents_are_refused(path):
    adapter = load(path)
    identity = Identity("arcface_antelopev2", {"embedding": torch.ones(1, 512)}, photos=("0" * 64,))
    with pytest.raises(EncoderMismatch, match="expected a picture of an emotion.*use 'Apply Avatar Emotion'"):
        adapter.tokens(identity, TokenOptions())
    with pytest.raises(BadImage, match="connect the VAE of HunyuanVideo"):
        adapter.emotion_tokens(torch.zeros(1, 4, 1, 8, 8))


def test_sides_of_pictures_are_whole_tokens():
    assert picture_sides(1000, 1000, 512) == (512, 512)
    assert picture_sides(720, 1280, 512) == (384, 688)
    assert picture_sides(1, 4000, 64) == (16, 4048)


# Training


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_right_picture_scores_better_than_the_swapped_one(tmp_path, seed):
    """100 steps on clips of two emotions; then new clips, on noises never drawn."""
    base = tiny_base(seed)
    losses = []
    network = train_emotion(
        training_clips(),
        base,
        tmp_path / "emotion.safetensors",
        options(seed),
        LoopOptions(100, 1e-2),
        on_step=lambda step, found: losses.append(found["total"]),
    )
    for emotion in range(2):
        new = clip(emotion, number=99)
        plain = held_out_loss(base, None, new)
        right = held_out_loss(base, network, new)
        swapped = held_out_loss(base, network, replace(new, emotion=emotion_picture(1 - emotion)))
        assert right < swapped - 0.1
        assert right < plain
    assert sum(losses[-20:]) < 0.9 * sum(losses[:20])
    assert load(tmp_path / "emotion.safetensors").facts.steps == 100


def test_a_stopped_run_ends_with_the_same_file(tmp_path):
    base, loop = tiny_base(), LoopOptions(6, 1e-2, save_every=2)
    whole, parted = tmp_path / "whole.safetensors", tmp_path / "parted.safetensors"
    train_emotion(training_clips(), base, whole, options(), loop)
    train_emotion(training_clips(), base, parted, options(), loop, stop_after=3)
    assert load(parted).facts.steps == 3
    train_emotion(training_clips(), base, parted, options(), loop)
    first, second = load_file(whole), load_file(parted)
    assert first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)
    assert any(bool(first[f"blocks.{number}.gate.weight"]) for number in range(2))
    with pytest.raises(BadCheckpoint, match="go on with the options it was started with"):
        train_emotion(training_clips(), base, parted, options(seed=5), loop)


def test_every_part_learns_once_the_gates_are_open(base):
    from likeness_pack.training.avatar_emotion import EmotionTask

    task = EmotionTask(training_clips(), base, options())
    for block in task.network.attentions:
        block.gate.weight.data.fill_(0.1)
    task.losses(0)["total"].backward()
    assert all(one.grad is not None and one.grad.abs().max() > 0 for one in task.network.parameters())
    assert all(not one.requires_grad for one in base.dit.parameters())


def test_saving_memory_changes_no_number(base):
    one, network = clip(0, 0), fresh_network(options(), base)
    network.attentions[0].gate.weight.data.fill_(1)
    gradients = []
    for saving in (False, True):
        base.dit.save_memory = saving
        network.zero_grad()
        x = torch.randn(1, 16, 2, 4, 4, generator=torch.Generator().manual_seed(1))
        base.velocity(one, x, torch.tensor([0.5]), emotion_after(network, one.emotion)).square().sum().backward()
        gradients.append(network.attentions[0].to_q.weight.grad.clone())
    base.dit.save_memory = False
    torch.testing.assert_close(gradients[0], gradients[1])


def test_reference_sound_and_mask_take_part():
    """With HunyuanVideo-Avatar's own parts the emotion is added beside what the character hears."""
    sizes = AvatarSizes(SIZES.width, 16, 16, 10 * 5 * 8, 16, SIZES.double // 2)
    torch.manual_seed(0)
    base = AvatarBase(tiny_base().dit, filled(AvatarNetwork(sizes)))
    generator = torch.Generator().manual_seed(2)
    one = replace(
        clip(0, 0),
        reference=torch.randn(16, 1, 4, 4, generator=generator),
        audio=torch.randn(5, 10, 5, 8, generator=generator),
        face_mask=torch.ones(1, 4, 4),
    )
    x, level = torch.randn(1, 16, 2, 4, 4, generator=generator), torch.tensor([0.5])
    found = base.velocity(one, x, level, None)
    for other in ({"reference": None}, {"audio": torch.zeros(5, 10, 5, 8)}, {"face_mask": torch.zeros(1, 4, 4)}):
        assert not torch.allclose(base.velocity(replace(one, **other), x, level, None), found, atol=1e-5)


# Refusals


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"latents": torch.full((16, 2, 4, 4), float("nan"))}, "expected finite numbers in latents, found NaN"),
        ({"emotion": torch.full((16, 1, 8, 8), float("inf"))}, "expected finite numbers in emotion"),
        (
            {"latents": torch.zeros(16, 0, 4, 4)},
            r"latents of 4 axes that is not empty, found the shape \(16, 0, 4, 4\)",
        ),
        ({"pooled": torch.zeros(1, 8)}, "pooled of 1 axes"),
        ({"latents": torch.zeros(16, 2, 5, 4)}, "16 channels with even sides"),
        ({"emotion": torch.zeros(4, 1, 8, 8)}, "16 channels with even sides"),
        ({"audio": torch.zeros(4, 10, 5, 8)}, "expected 5 audio windows, found 4"),
        ({"reference": torch.zeros(16, 1, 8, 8)}, "a reference of shape"),
    ],
)
def test_clips_that_cannot_be_trained_on(change, told):
    with pytest.raises(BadClip, match=told):
        replace(clip(0, 0), **change)


def test_no_clip_is_refused(tmp_path):
    with pytest.raises(BadClip, match="expected 1 clip or more, found none; encode some clips first"):
        ClipList([])
    with pytest.raises(BadClip, match=r"expected encoded clips \(.safetensors\), found none"):
        ClipFolder(tmp_path)
    with pytest.raises(BadClip, match="found no such folder"):
        ClipFolder(tmp_path / "absent")


def test_a_folder_of_clips(tmp_path):
    one = clip(0, 0)
    names = ("latents", "emotion", "text_states", "text_mask", "pooled")
    save_file({name: getattr(one, name).contiguous() for name in names}, tmp_path / "a.safetensors")
    save_file({"latents": one.latents.contiguous()}, tmp_path / "b.safetensors")
    folder = ClipFolder(tmp_path)
    assert len(folder) == 2
    assert torch.equal(folder.clip(0).latents, one.latents)
    with pytest.raises(BadClip, match="clip b.safetensors: .*none called emotion, text_states, text_mask, pooled"):
        folder.clip(1)


def test_a_loss_that_is_no_number_stops_the_run(tmp_path):
    base = tiny_base()
    base.dit.final_layer.linear.bias.data.fill_(float("nan"))
    with pytest.raises(TrainingFailed, match="expected a loss that is a number"):
        train_emotion(training_clips(), base, tmp_path / "a.safetensors", options(), LoopOptions(3))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("wrong", [{"batch": 0}, {"inner": 30, "heads": 4}, {"emotion_width": 0}])
def test_options_that_fit_nothing(wrong):
    with pytest.raises(BadEmotionOptions, match="keep the defaults where you are not sure"):
        EmotionOptions(**wrong)


# The command


def run_tool(*arguments):
    """The command in this process."""
    import importlib

    return importlib.import_module("train_avatar_emotion").main([str(one) for one in arguments])


@pytest.fixture
def base_file(tmp_path):
    """A checkpoint under the official names, with HunyuanVideo-Avatar's own tensors."""
    added = filled(AvatarNetwork(AvatarSizes(SIZES.width, 16, 16, 10 * 5 * 8, 16, SIZES.double // 2)))
    tensors = {**tiny_base().dit.state_dict(), **added.state_dict()}
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, tmp_path / "base.safetensors")
    return tmp_path / "base.safetensors"


@pytest.mark.parametrize("extra", [(), ("--bfloat16", "--save-memory")])
def test_the_command_trains_a_file(tmp_path, base_file, extra, monkeypatch, capsys):
    from likeness_pack.tools.likeness_path import ROOT

    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    (tmp_path / "clips").mkdir()
    for number in range(2):
        one = clip(number, 0)
        names = ("latents", "emotion", "text_states", "text_mask", "pooled")
        tensors = {name: getattr(one, name).contiguous() for name in names}
        tensors["audio"] = torch.zeros(5, 10, 5, 8)
        save_file(tensors, tmp_path / "clips" / f"{number}.safetensors")
    out = tmp_path / "emotion.safetensors"
    sizes = ("--inner", 32, "--heads", 2, "--emotion-width", 32, "--steps", 2, "--device", "cpu")
    told = ("--clips", tmp_path / "clips", "--base", base_file, "--output", out)
    assert run_tool(*told, *sizes, *extra) == 0
    assert "put it into models/face_adapters" in capsys.readouterr().out
    adapter = load(out)
    assert (adapter.facts.steps, adapter.facts.clips, adapter.width) == (2, 2, SIZES.width)
    # Depths and widths were found in the checkpoint.
    assert len(adapter.insertions(SIZES.double, SIZES.single)) == SIZES.double // 2
    assert run_tool("--clips", tmp_path / "absent", "--base", base_file, "--output", out, *sizes) == 1
    wrong = tmp_path / "clips" / "0.safetensors"
    assert run_tool("--clips", tmp_path / "clips", "--base", wrong, "--output", out, *sizes) == 1
    assert "expected HunyuanVideo's transformer under the official names" in capsys.readouterr().err
