"""HunyuanVideo-Avatar in the host: its own loader and sampler; a host without HunyuanVideo says which it takes."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import avatar_models as avatar
import pytest
import torch
from host_inprocess import engine, tiny_model
from likeness_pack.adapters import registry
from likeness_pack.adapters.errors import (
    BaseModelMismatch,
    EncoderMismatch,
    HostTooOld,
    KeyMismatch,
    PatchIncomplete,
)
from likeness_pack.adapters.families.hunyuan_avatar.layout import is_block_linear
from likeness_pack.evaluation.operations import count_calls
from likeness_pack.faces.errors import BadImage, BadMask, LikenessError
from likeness_pack.inject.hunyuan_avatar import AvatarOptions, apply_avatar
from likeness_pack.inject.hunyuan_avatar_call import TEXT_MASK
from likeness_pack.inject.hunyuan_avatar_files import load_avatar
from likeness_pack.inject.hunyuan_avatar_report import avatar_report
from likeness_pack.inject.loaded import LoadedAdapter
from likeness_pack.tools.standins import hunyuan_avatar as standin
from module_folders import ModuleFolders
from safetensors.torch import save_file
from torch import Tensor

DOUBLE, SINGLE, TEXT = 4, 2, 64
HEIGHT, WIDTH, FRAMES = 6, 8, 3
VIDEO_FRAMES = 4 * FRAMES - 3
LEFT, RIGHT = torch.zeros(HEIGHT, WIDTH), torch.zeros(HEIGHT, WIDTH)
LEFT[:, :4], RIGHT[:, 4:] = 1.0, 1.0


@pytest.fixture(scope="module")
def has_hunyuan() -> bool:
    """Whether this engine has HunyuanVideo."""
    return engine().has_wrappers


@pytest.fixture(scope="module")
def tensors() -> dict[str, Tensor]:
    """The official names, narrow and shallow."""
    return standin.filled(standin.checkpoint(standin.HEAD, DOUBLE, SINGLE, TEXT))


@pytest.fixture(scope="module")
def file(module_folders: ModuleFolders, tensors: dict[str, Tensor]) -> Path:
    """As the official pickle is packed."""
    path = module_folders.mktemp("avatar") / "states.pt"
    torch.save(standin.packed(tensors), path)
    return path


@pytest.fixture(scope="module")
def parts(has_hunyuan: bool, file: Path) -> tuple[Any, LoadedAdapter]:
    """MODEL and adapter by the loader."""
    if not has_hunyuan:
        pytest.skip("needs a newer host: this ComfyUI has no HunyuanVideo")
    model, loaded, _ = load_avatar(file, None)
    return model, loaded


@pytest.fixture(autouse=True)
def without_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


def noise(frames: int = FRAMES, seed: int = 1) -> Tensor:
    return torch.randn(1, 16, frames, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(seed))


PICTURE = noise(1, seed=2)
POSITIVE = avatar.text(14, 9, TEXT, seed=1)
NEGATIVE = avatar.text(14, 7, TEXT, seed=2)


def sampled(model: Any, negative: Any = None, cfg: float = 1.0, frames: int = FRAMES, positive: Any = None) -> Tensor:
    return avatar.sample(model, positive or POSITIVE, negative, noise(frames), cfg=cfg)


def test_a_host_without_hunyuan_video_says_what_it_needs(has_hunyuan: bool, file: Path) -> None:
    """The pack and its nodes load everywhere; only the work needs the newer host."""
    from likeness_pack import nodes

    known = nodes.NODE_CLASS_MAPPINGS
    apply: Any = known["LikenessApplyHunyuanAvatar"]
    assert all(f"Likeness{name}" in known for name in ("LoadHunyuanAvatar", "EncodeAvatarPrompt"))
    loaded = LoadedAdapter(registry.load(file))
    given = {"strength": 1.0, "character_image_strength": 1.0, "expression": 30, "pose": 25, "fps": 25.0}
    given |= {"start_percent": 0.0, "end_percent": 1.0, "character": {"samples": PICTURE}}
    call = lambda: apply().apply(tiny_model("SD15"), loaded, audio=avatar.sound(1, 4), **given)  # noqa: E731
    if has_hunyuan:
        with pytest.raises(BaseModelMismatch, match="HunyuanVideo model of width 128 with 4 double blocks"):
            call()
        return
    sentence = r"ComfyUI 0\.3\.64 or newer, found one without HunyuanVideo; update ComfyUI"
    with pytest.raises(HostTooOld, match=sentence):
        call()
    with pytest.raises(HostTooOld, match=sentence):
        load_avatar(file, None)
    encode: Any = known["LikenessEncodeAvatarPrompt"]
    with pytest.raises(HostTooOld, match=sentence):
        encode().encode(None, None, torch.zeros(1, 8, 8, 3), "", "", "")


def test_the_report_tells_the_memory_before_a_run(parts: Any) -> None:
    model, loaded = parts
    options = AvatarOptions(masks=(LEFT, None, RIGHT), fps=12.0)
    report = avatar_report(model, loaded, PICTURE, avatar.sound(2, 9), options)
    lines = report.splitlines()
    assert lines[0].startswith("character 1: 0.36 s of sound, strength 1, inside its mask")
    assert lines[1].endswith("strength 1, everywhere") and lines[2].startswith("mask 3: no track")
    assert "made for 25" in lines[3]
    assert lines[-1].startswith("memory: ") and "64 x 48, 9 frames, 33 latent ones (408 tokens)" in lines[-1]


def test_the_weights_can_be_those_of_a_connected_model(parts: Any, file: Path) -> None:
    model, _ = parts
    found, loaded, report = load_avatar(file, None, model)
    assert found is model and "only the added tensors are read from this file (ref_in" in report
    options = AvatarOptions()
    got = apply_avatar(found, loaded, PICTURE, avatar.sound(1, VIDEO_FRAMES), options)
    assert got.model is model.model
    assert torch.equal(sampled(got), sampled(apply_avatar(*parts, PICTURE, avatar.sound(1, VIDEO_FRAMES), options)))


def test_nothing_stays(parts: Any) -> None:
    """Node removed, or both strengths 0, applied on a speaking model too: bit-equal to the model never patched."""
    model, loaded = parts
    audio, off = avatar.sound(2, VIDEO_FRAMES), AvatarOptions(strength=0.0, image_strength=0.0)
    before = sampled(model, NEGATIVE, cfg=3.0)
    speaking = apply_avatar(model, loaded, PICTURE, audio)
    assert not torch.equal(sampled(speaking, NEGATIVE, cfg=3.0), before)
    assert torch.equal(sampled(model, NEGATIVE, cfg=3.0), before)
    for silent in (
        apply_avatar(model, loaded, PICTURE, audio, off),
        apply_avatar(speaking, loaded, PICTURE, audio, off),
    ):
        assert torch.equal(sampled(silent, NEGATIVE, cfg=3.0), before)


def test_the_last_application_counts(parts: Any) -> None:
    model, loaded = parts
    first = apply_avatar(model, loaded, PICTURE, avatar.sound(1, VIDEO_FRAMES))
    second = apply_avatar(first, loaded, PICTURE, avatar.sound(1, VIDEO_FRAMES, seed=7))
    alone = apply_avatar(model, loaded, PICTURE, avatar.sound(1, VIDEO_FRAMES, seed=7))
    assert torch.equal(sampled(second), sampled(alone))
    assert not torch.equal(sampled(second), sampled(first))


def test_either_strength_alone_acts(parts: Any) -> None:
    model, loaded = parts
    audio = avatar.sound(1, VIDEO_FRAMES)
    results = [sampled(model)]
    for sound, image in ((1.0, 0.0), (0.0, 1.0), (0.0, 0.5), (1.0, 1.0)):
        options = AvatarOptions(strength=sound, image_strength=image)
        results.append(sampled(apply_avatar(model, loaded, PICTURE, audio, options)))
    for number, one in enumerate(results):
        assert all(not torch.equal(one, other) for other in results[:number])


def first_additions(parts: Any, audio: Any, options: AvatarOptions) -> Tensor:
    """What the characters add behind the first block where sound enters, (1, T n, width), at the first step."""
    model, loaded = parts
    network, taken = model.model.diffusion_model, {}
    patched = apply_avatar(model, loaded, PICTURE, audio, options)

    def behind(module: Any, args: Any, out: Any) -> None:
        taken.setdefault("block", out[0].clone())

    def before(module: Any, args: Any, kwargs: Any) -> None:
        taken.setdefault("next", kwargs["img"].clone())

    hooks = [
        network.double_blocks[1].register_forward_hook(behind),
        network.double_blocks[2].register_forward_pre_hook(before, with_kwargs=True),
    ]
    sampled(patched)
    for hook in hooks:
        hook.remove()
    added = taken["next"] - taken["block"]
    reference = HEIGHT // 2 * WIDTH // 2
    assert not added[:, :reference].any(), "the picture's own tokens hear nothing"
    return added[:, reference:]


def test_swapped_tracks_change_each_one_s_tokens_only(parts: Any) -> None:
    """And what a character adds is exactly zero outside its mask."""
    tracks = avatar.sound(2, VIDEO_FRAMES)
    swapped = avatar.features(tracks.features.flip(0))
    options = AvatarOptions(masks=(LEFT, RIGHT))
    left, right = (mask[::2, ::2].flatten().repeat(FRAMES).bool() for mask in (LEFT, RIGHT))
    both, other = first_additions(parts, tracks, options), first_additions(parts, swapped, options)
    one = first_additions(parts, tracks.track(0), AvatarOptions(masks=(LEFT,)))
    two = first_additions(parts, tracks.track(1), AvatarOptions(masks=(RIGHT,)))
    assert not one[:, right].any() and one[:, left].abs().amax(-1).min() > 0
    assert not two[:, left].any() and two[:, right].abs().amax(-1).min() > 0
    assert torch.equal(both[:, left], one[:, left]) and torch.equal(both[:, right], two[:, right])
    assert (other - both)[:, left].abs().amax(-1).min() > 0 and (other - both)[:, right].abs().amax(-1).min() > 0
    silent = first_additions(parts, tracks, AvatarOptions(masks=(LEFT, RIGHT), strengths=(1.0, 0.0)))
    changed = first_additions(parts, swapped, AvatarOptions(masks=(LEFT, RIGHT), strengths=(0.0, 1.0)))
    assert not silent[:, right].any() and not changed[:, left].any()


def test_masks_move_with_time(parts: Any) -> None:
    moving = torch.stack((LEFT, LEFT, RIGHT))
    added = first_additions(parts, avatar.sound(1, VIDEO_FRAMES), AvatarOptions(masks=(moving,)))
    frames = added.unflatten(1, (FRAMES, HEIGHT // 2, WIDTH // 2)).abs().amax(-1)[0]
    assert torch.equal(frames > 0, moving[:, ::2, ::2] > 0)


def test_negative_rows_hear_silence(parts: Any) -> None:
    """The guided result is that of two runs, one with the sound and one with zeros; silence is not no adapter."""
    model, loaded = parts
    audio, options = avatar.sound(1, VIDEO_FRAMES), AvatarOptions(masks=(LEFT,))
    quiet = avatar.features(torch.zeros_like(audio.features))
    heard, silent = (apply_avatar(model, loaded, PICTURE, one, options) for one in (audio, quiet))
    unheard = apply_avatar(model, loaded, PICTURE, audio, AvatarOptions(strength=0.0))
    steps = (1.0, 0.0)
    x, scale = noise(), 4.0
    runs = [avatar.sample(one, POSITIVE, None, x, steps) for one in (heard, silent, unheard)]
    assert not torch.allclose(runs[1], runs[2])
    guided = avatar.sample(heard, POSITIVE, POSITIVE, x, steps, cfg=scale)
    torch.testing.assert_close(guided, runs[1] + scale * (runs[0] - runs[1]), atol=1e-4, rtol=1e-4)
    mixed = avatar.sample(heard, POSITIVE, NEGATIVE, x, steps, cfg=scale)
    below = avatar.sample(silent, NEGATIVE, None, x, steps)
    torch.testing.assert_close(mixed, below + scale * (runs[0] - below), atol=1e-4, rtol=1e-4)


def test_sound_acts_in_its_steps_only(parts: Any) -> None:
    model, loaded = parts
    audio = avatar.sound(1, VIDEO_FRAMES)
    never = apply_avatar(model, loaded, PICTURE, audio, AvatarOptions(start_percent=1.0))
    without = apply_avatar(model, loaded, PICTURE, audio, AvatarOptions(strength=0.0))
    assert torch.equal(sampled(never), sampled(without))


def test_every_adapter_is_called_and_counted(parts: Any) -> None:
    """Another pack's replacement of a block is called; one that takes ours away is an error."""
    model, loaded = parts
    called: list[int] = []
    other = model.clone()
    other.set_model_patch_replace(lambda a, b: (called.append(3), b["original_block"](a))[1], "dit", "double_block", 3)
    audio = avatar.sound(1, VIDEO_FRAMES)
    both = apply_avatar(other, loaded, PICTURE, audio)
    assert torch.equal(sampled(both), sampled(apply_avatar(model, loaded, PICTURE, audio))) and called
    robbed = both.clone()
    robbed.set_model_patch_replace(lambda a, b: b["original_block"](a), "dit", "double_block", 1)
    with pytest.raises(PatchIncomplete, match="in all 3 avatar layers"):
        sampled(robbed)


def test_a_window_of_the_clip_has_its_own_sound_and_masks(parts: Any) -> None:
    """A call that names its frames gives what a clip of these frames alone gives."""
    from likeness_pack.adapters.families.hunyuan_avatar.windows import WindowPlan
    from likeness_pack.inject.avatar_windows import apply_windows

    model, loaded = parts
    total, window = 6, (2, 3, 4)
    audio = avatar.sound(1, 4 * total - 3)
    masks = torch.stack([LEFT, LEFT, RIGHT, LEFT, RIGHT, RIGHT])
    heard = [frame for place in window for frame in range(4 * place - 3, 4 * place + 1)][3:]
    alone = avatar.features(audio.features[:, heard])
    apart = apply_avatar(model, loaded, PICTURE, alone, AvatarOptions(masks=(masks[list(window)],)))
    whole = apply_avatar(model, loaded, PICTURE, audio, AvatarOptions(masks=(masks,)))
    module = importlib.import_module("comfy.context_windows")
    place = module.IndexListContextWindow(list(window), dim=2)
    place.total_frames = total
    windowed = whole.clone()
    windowed.model_options["transformer_options"]["context_window"] = place
    assert torch.equal(sampled(windowed), sampled(apart))
    long = sampled(apply_windows(whole, WindowPlan(3, 1)), frames=total)
    assert long.shape[2] == total and bool(torch.isfinite(long).all())


def test_fp8_files_are_scaled_and_need_their_scales(parts: Any, tensors: dict[str, Tensor], tmp_path: Path) -> None:
    """Weights on the grid, in one byte or two, give what their products with the scales give in the plain model."""
    fp8 = torch.float8_e4m3fn
    scales = {name: tensor.abs().max() / 400 for name, tensor in tensors.items() if is_block_linear(name)}
    stored = {n: (t / scales[n]).to(fp8) if n in scales else t for n, t in tensors.items()}
    plain = {n: t.float() * scales[n] if n in scales else t for n, t in stored.items()}
    told = {name.removesuffix(".weight"): scale for name, scale in scales.items()}
    for kind in ("one", "two"):
        weights = stored if kind == "one" else {n: t.bfloat16() if n in scales else t for n, t in stored.items()}
        torch.save(standin.packed(weights), tmp_path / f"{kind}.pt")
    with pytest.raises(KeyMismatch, match=r"scales of its fp8 weights \(one_map\.pt\) beside it, found none"):
        load_avatar(tmp_path / "one.pt", None)
    with pytest.raises(KeyMismatch, match=r"scales of its fp8 weights \(two_map\.pt\)"):
        load_avatar(tmp_path / "two.pt", None)
    torch.save({"module": told}, tmp_path / "one_map.pt")
    torch.save({"module": {name: float(scale) for name, scale in told.items()}}, tmp_path / "other.pt")
    save_file(plain, tmp_path / "plain.safetensors")
    expected = sampled(load_avatar(tmp_path / "plain.safetensors", None)[0])
    for name, chosen in (("one", None), ("two", tmp_path / "other.pt")):
        model = load_avatar(tmp_path / f"{name}.pt", chosen)[0]
        weights = model.model.diffusion_model.state_dict()
        assert weights["double_blocks.0.img_attn.qkv.weight"].dtype == fp8
        assert weights["txt_in.input_embedder.weight"].dtype == torch.float32
        torch.testing.assert_close(sampled(model), expected, atol=1e-4, rtol=1e-4)
    short = dict(list(told.items())[1:])
    torch.save({"module": short}, tmp_path / "short.pt")
    with pytest.raises(KeyMismatch, match="1 layers without one"):
        load_avatar(tmp_path / "one.pt", tmp_path / "short.pt")


def test_refusals_tell_what_to_do(parts: Any, tensors: dict[str, Tensor], tmp_path: Path) -> None:
    model, loaded = parts
    audio = avatar.sound(1, VIDEO_FRAMES)
    with pytest.raises(BadImage, match="latent of the video's size, 8 x 6 cells, found 8 x 4"):
        sampled(apply_avatar(model, loaded, PICTURE[..., :4, :], audio))
    with pytest.raises(BadImage, match="the latent of one picture by HunyuanVideo's VAE"):
        apply_avatar(model, loaded, PICTURE[0, 0], audio)
    with pytest.raises(BadMask, match="at least one pixel"):
        apply_avatar(model, loaded, PICTURE, audio, AvatarOptions(masks=(torch.zeros(1, 0, 4),)))
    with pytest.raises(BadMask, match="character 1: expected a mask that is white where the character is"):
        apply_avatar(model, loaded, PICTURE, audio, AvatarOptions(masks=(LEFT * 0,)))
    with pytest.raises(BadMask, match="character 2: expected a sound of its own, track 2, found 1 track"):
        apply_avatar(model, loaded, PICTURE, audio, AvatarOptions(masks=(LEFT, RIGHT)))
    apply_avatar(model, loaded, PICTURE, audio, AvatarOptions(masks=(LEFT, RIGHT * 0, None)))
    with pytest.raises(EncoderMismatch, match="windows of 19200 numbers"):
        apply_avatar(model, loaded, PICTURE, avatar.features(torch.zeros(1, 9, 10, 5, 8)))
    words = [[POSITIVE[0][0], {**POSITIVE[0][1], "ref_latent": PICTURE}]]
    with pytest.raises(BaseModelMismatch, match="conditioning without a reference latent"):
        sampled(apply_avatar(model, loaded, PICTURE, audio), positive=words)
    mixed = [[POSITIVE[0][0].repeat(2, 1, 1), {**POSITIVE[0][1], TEXT_MASK: torch.eye(14).cumsum(0)[[3, 9]]}]]
    with pytest.raises(LikenessError, match=r"one length of text in a conditioning, found lengths \[4, 10\]"):
        sampled(apply_avatar(model, loaded, PICTURE, audio), positive=mixed)
    added = {name: tensor for name, tensor in tensors.items() if name in standin.added(adapters=DOUBLE // 2)}
    save_file(added, tmp_path / "added.safetensors")
    with pytest.raises(KeyMismatch, match="found the added tensors alone"):
        load_avatar(tmp_path / "added.safetensors", None)
    assert load_avatar(tmp_path / "added.safetensors", None, model)[0] is model
    less = {name: tensor for name, tensor in tensors.items() if not name.startswith("single_blocks.0.linear2")}
    save_file(less, tmp_path / "less.safetensors")
    with pytest.raises(KeyMismatch, match=r"2 missing: single_blocks\.0 \(2\)"):
        load_avatar(tmp_path / "less.safetensors", None)


def test_other_lengths_of_picture_and_plain_prompts(parts: Any) -> None:
    """One, three or all frames of the picture; text without a mask of positions; several videos in a batch."""
    model, loaded = parts
    audio = avatar.sound(1, VIDEO_FRAMES)
    still = PICTURE.expand(-1, -1, FRAMES, -1, -1)
    same = [sampled(apply_avatar(model, loaded, one, audio)) for one in (PICTURE, PICTURE[:, :, 0], still)]
    assert torch.equal(same[0], same[1]) and torch.allclose(same[0], same[2], atol=1e-5)
    words = [[POSITIVE[0][0], {"pooled_output": POSITIVE[0][1]["pooled_output"]}]]
    speaking = apply_avatar(model, loaded, PICTURE, audio)
    plain = sampled(speaking, positive=words)
    assert not torch.equal(plain, same[0])
    two = avatar.sample(speaking, words, None, noise().repeat(2, 1, 1, 1, 1))
    torch.testing.assert_close(two[:1], plain, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(two[0], two[1], atol=1e-5, rtol=1e-5)


def test_the_work_of_one_two_and_four_characters(parts: Any, tmp_path: Path) -> None:
    """At the published depth: 1.10, 1.15 and 1.25 times the plain model's calls, and no more waiting in a step."""
    save_file(standin.filled(standin.checkpoint(text=TEXT)), tmp_path / "deep.safetensors")
    model, loaded, _ = load_avatar(tmp_path / "deep.safetensors", None)

    def calls(given: Any, steps: int = 1) -> Any:
        def run() -> Tensor:
            return avatar.sample(given, POSITIVE, None, noise(2), torch.linspace(1, 0, steps + 1).tolist())

        run()
        return count_calls(run)

    plain = calls(model)
    for characters, limit in ((1, 1.10), (2, 1.15), (4, 1.25)):
        options = AvatarOptions(masks=(LEFT, RIGHT, LEFT, RIGHT)[:characters])
        speaking = apply_avatar(model, loaded, PICTURE, avatar.sound(characters, 5), options)
        found = calls(speaking)
        assert plain.compute < found.compute <= limit * plain.compute
    more = calls(speaking, 3).synchronisations - found.synchronisations
    assert more == calls(model, 3).synchronisations - plain.synchronisations
