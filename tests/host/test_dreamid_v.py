"""DreamID-V in the host's own Wan (upstream only): pose, conditioning, sampler, costs, and what stays as it was."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from dreamid_v_models import TEXT_TOKENS, conditions, load_file, wan_call
from host_inprocess import engine
from likeness_pack.adapters.errors import BaseModelMismatch, PatchIncomplete
from likeness_pack.adapters.families.dreamid_v import unipc
from likeness_pack.evaluation.operations import count_calls
from likeness_pack.faces.errors import BadImage, LikenessError
from likeness_pack.inject.call_state import CallState
from likeness_pack.inject.dreamid_v import SLOT, apply_pose
from likeness_pack.inject.dreamid_v_clip import SwapOptions, checked_clip, swap_clip
from likeness_pack.inject.dreamid_v_conditioning import condition, mask_pictures, no_photo
from likeness_pack.inject.dreamid_v_sampling import cfg_of, official_sampler, official_sigmas, run
from likeness_pack.inject.loaded import LoadedAdapter
from likeness_pack.tools.standins import dreamid_v as standins
from likeness_pack.tools.standins.fill import filled_all
from module_folders import ModuleFolders
from torch import Tensor

pytestmark = pytest.mark.skipif(not engine().has_wrappers, reason="this ComfyUI has no Wan")
WIDTHS, LAYERS = (128, 256), 3
FRAMES, HEIGHT, WIDTH = 5, 32, 48


def _noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def _pictures(frames: int = FRAMES, height: int = HEIGHT, width: int = WIDTH, seed: int = 0) -> Tensor:
    return torch.rand(frames, height, width, 3, generator=torch.Generator().manual_seed(seed))


X = _noise(1, 16, 2, HEIGHT // 8, WIDTH // 8, seed=1)
TEXT = _noise(1, TEXT_TOKENS, 4096, seed=2)
CLIP, PHOTO = _noise(1, 32, *X.shape[2:], seed=3), _noise(1, 16, 1, *X.shape[3:], seed=4)
POSE = _pictures(seed=5)
Files = tuple[Any, LoadedAdapter]


class Vae:
    """A stand-in with the interface of the host's VAE of Wan 2.1; keeps what it was given."""

    latent_channels, latent_dim = 16, 3

    def __init__(self) -> None:
        self.given: list[Tensor] = []

    def encode(self, pictures: Tensor) -> Tensor:
        self.given.append(pictures)
        frames = pictures.movedim(-1, 0)[None, :, ::4] * 2 - 1
        small = torch.nn.functional.avg_pool3d(frames, (1, 8, 8))
        return small.repeat(1, 6, 1, 1, 1)[:, :16]

    def decode(self, latent: Tensor) -> Tensor:
        frames = latent[:, :3].repeat_interleave(4, dim=2)[:, :, 3:]
        grown = torch.nn.functional.interpolate(frames, scale_factor=(1, 8, 8))
        return ((grown.movedim(1, -1) + 1) / 2).clamp(0, 1)


@pytest.fixture(scope="module")
def pose(module_folders: ModuleFolders) -> Files:
    folder = module_folders.mktemp("dreamidv")
    return load_file(folder / "a.safetensors", filled_all(standins.pose(WIDTHS, LAYERS), torch.float32))


@pytest.fixture(scope="module")
def faster(module_folders: ModuleFolders) -> Files:
    folder = module_folders.mktemp("dreamidv")
    return load_file(folder / "b.safetensors", filled_all(standins.faster(WIDTHS, LAYERS), torch.float32))


def _call(model: Any, **options: Any) -> Tensor:
    return wan_call(model, X, 500.0, conditions(model, X, TEXT, CLIP, PHOTO), **options)


def _sampled(model: Any, steps: int = 2) -> Tensor:
    texts = [
        [[TEXT, {"concat_latent_image": CLIP, "reference_latents": [photo]}]] for photo in (PHOTO, no_photo(PHOTO))
    ]
    return run(model, *texts, torch.zeros_like(X), 3, official_sigmas(steps), 4.0, lambda: None)


def test_pose_changes_the_clip_and_leaves_the_model_alone(pose: Files) -> None:
    model, loaded = pose
    before, sampled = _call(model), _sampled(model)
    patched = apply_pose(model, loaded, POSE)
    assert not torch.allclose(_call(patched), before, atol=1e-3)
    assert not torch.allclose(_sampled(patched), sampled, atol=1e-3)
    assert torch.equal(_call(model), before) and torch.equal(_sampled(model), sampled)
    assert "dit" not in model.model_options["transformer_options"].get("patches_replace", {})
    assert not model.object_patches and not model.patches


def test_strength_zero_is_the_plain_model(pose: Files) -> None:
    model, loaded = pose
    assert torch.equal(_sampled(apply_pose(model, loaded, POSE, 0.0)), _sampled(model))


def test_strength_is_linear_before_the_output_projection(pose: Files) -> None:
    """In the first block, whose queries the pose does not change."""
    model, loaded = pose
    seen: dict[float, Tensor] = {}
    for strength in (0.0, 1.0, 2.0):
        patched = apply_pose(model, loaded, POSE, strength)
        found: list[Tensor] = []
        hook = model.model.diffusion_model.blocks[0].self_attn.o.register_forward_pre_hook(
            lambda _, inputs, found=found: found.append(inputs[0])
        )
        _call(patched)
        hook.remove()
        (seen[strength],) = found
    assert torch.allclose(seen[2.0] - seen[0.0], 2 * (seen[1.0] - seen[0.0]), atol=1e-5)
    assert (seen[1.0] - seen[0.0]).abs().max() > 1e-2


def test_every_block_is_counted(pose: Files) -> None:
    model, loaded = pose
    patched = apply_pose(model, loaded, POSE)
    state = CallState()
    _call(patched, likeness_call=state)
    assert state.called == {SLOT: set(range(LAYERS))}
    patched.set_model_patch_replace(lambda args, extra: extra["original_block"](args), "dit", "double_block", 1)
    with pytest.raises(PatchIncomplete, match=f"all {LAYERS} pose layers"):
        _sampled(patched)


def test_a_step_costs_what_the_formula_says(pose: Files) -> None:
    """For each block two projections, one attention; the projector and its pictures cost nothing in a step."""
    model, loaded = pose
    patched = apply_pose(model, loaded, POSE)
    base, step = _counted(model), _counted(patched)
    for name, more in (("aten.addmm", 2), ("aten.convolution", 0), ("aten._fused_rms_norm", 1)):
        if base.names.get(name):
            assert step.names[name] - base.names[name] == more * LAYERS, name
    assert step.synchronisations == base.synchronisations


def _counted(model: Any) -> Any:
    made = conditions(model, X, TEXT, CLIP, PHOTO)
    wan_call(model, X, 500.0, made)
    options = {**model.model_options["transformer_options"], "cond_or_uncond": [0]}
    x, time = torch.cat((X, made["c_concat"]), dim=1), torch.tensor([500.0])
    with torch.inference_mode():
        return count_calls(
            lambda: model.model.diffusion_model(
                x, time, context=TEXT, transformer_options=options, reference_latent=made["reference_latent"]
            )
        )


def test_options_hold_no_copies_of_weights(pose: Files) -> None:
    model, loaded = pose
    patched = apply_pose(model, loaded, POSE)
    clone = patched.clone()
    tables = [one.model_options["transformer_options"]["patches_replace"]["dit"] for one in (patched, clone)]
    terms = [table[("double_block", 0)].term for table in tables]
    assert terms[0] is terms[1] and terms[0].network is loaded.managed
    assert loaded.managed.patcher in patched.model_patches_models()
    assert terms[0].tokens.patcher in patched.model_patches_models()


def test_pose_twice_does_not_stack(pose: Files) -> None:
    model, loaded = pose
    once = apply_pose(model, loaded, POSE)
    again = apply_pose(apply_pose(model, loaded, _pictures(seed=9)), loaded, POSE)
    assert torch.equal(_call(again), _call(once))


def test_another_strength_sees_the_pose_that_was_made(pose: Files) -> None:
    """The clip goes through the pose network once for as long as a model has it; another clip is another pose."""
    model, loaded = pose
    full, half = (apply_pose(model, loaded, POSE.clone(), strength) for strength in (1.0, 0.5))
    other = apply_pose(model, loaded, _pictures(seed=9))
    tables = [one.model_options["transformer_options"]["patches_replace"]["dit"] for one in (full, half, other)]
    first, second, third = (table[("double_block", 0)].term for table in tables)
    assert first.tokens is second.tokens and first.tokens is not third.tokens
    assert (first.strength, second.strength) == (1.0, 0.5)
    assert not torch.equal(_call(half), _call(full))


def test_it_stands_beside_patches_of_other_packs(pose: Files) -> None:
    """A replaced block is still called, and an attention of the user's choice computes the pose's attention too."""
    model, loaded = pose
    calls: list[tuple[int, int]] = []

    def attention(attend: Any, q: Tensor, k: Tensor, *rest: Any, **named: Any) -> Tensor:
        calls.append((q.shape[1], k.shape[1]))
        return attend(q, k, *rest, **named)

    seen: list[int] = []

    def block(args: dict[str, Any], extra: Mapping[str, Any]) -> dict[str, Any]:
        seen.append(2)
        return extra["original_block"](args)

    other = model.clone()
    other.model_options["transformer_options"]["optimized_attention_override"] = attention
    other.set_model_patch_replace(block, "dit", "double_block", 2)
    assert torch.equal(_call(apply_pose(other, loaded, POSE)), _call(apply_pose(model, loaded, POSE)))
    tokens = 3 * (HEIGHT // 16) * (WIDTH // 16)
    assert calls == [(tokens, tokens), (tokens, tokens), (tokens, TEXT_TOKENS)] * LAYERS
    assert seen == [2]


def test_both_rows_of_a_batch_see_the_pose(pose: Files) -> None:
    model, loaded = pose
    patched = apply_pose(model, loaded, POSE)
    one = conditions(model, X, TEXT, CLIP, PHOTO)
    rows = {name: value.repeat(2, *[1] * (value.ndim - 1)) for name, value in one.items()}
    both = wan_call(patched, X.repeat(2, 1, 1, 1, 1), 500.0, rows)
    assert torch.allclose(both, _call(patched).repeat(2, 1, 1, 1, 1), atol=1e-5)


def test_what_the_network_sees(faster: Files) -> None:
    """Groups of 16 channels in the network's scale; the mask as 0..1; a photo of exact zeros on the other side."""
    model, _ = faster
    vae, frames = Vae(), _pictures()
    mask = (torch.rand(FRAMES, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(8)) > 0.5).float()
    text = [[TEXT, {"kept": 1}]]
    positive, negative, latent = condition(vae, text, text, frames, frames[:1], mask)
    assert latent.shape == X.shape and not latent.any()
    assert torch.equal(vae.given[1] * 2 - 1, mask[..., None].expand(-1, -1, -1, 3))
    assert positive[0][1]["kept"] == 1 and "concat_latent_image" not in text[0][1]
    for side, zero in ((positive, False), (negative, True)):
        values = side[0][1]
        made = conditions(model, X, TEXT, values["concat_latent_image"], values["reference_latents"][0])
        assert made["c_concat"].shape[1] == 32
        clip = model.model.process_latent_in(values["concat_latent_image"][:, :16])
        assert torch.allclose(made["c_concat"][:, :16], clip, atol=1e-6)
        assert bool((made["reference_latent"] == 0).all()) is zero


def test_the_sampler_is_the_authors() -> None:
    """The host's way around it changes nothing: full noise at the start, whole timesteps told, the same steps."""
    sampling = importlib.import_module("comfy.model_sampling")

    class Model:
        latent_image = torch.zeros_like(X)
        told: list[float] = []

        def __call__(self, x: Tensor, sigma: Tensor, **_: Any) -> Tensor:
            self.told.append(float(sigma[0]) * 1000)
            return sampling.CONST().calculate_denoised(sigma, torch.tanh(0.7 * x), x)

    sigmas = official_sigmas(7)
    got = official_sampler().sampler_function(Model(), X * sigmas[0], sigmas)
    wanted = unipc.sample(X, sigmas, lambda x, _: torch.tanh(0.7 * x), lambda *_: None)
    assert torch.allclose(got, wanted, atol=1e-4)
    assert torch.allclose(torch.tensor(Model.told), unipc.told_timesteps(sigmas).float(), atol=1e-3)


def test_guidance_is_one_less_than_cfg() -> None:
    cond, uncond, g = _noise(4, seed=1), _noise(4, seed=2), 4.0
    assert torch.allclose(uncond + cfg_of(g) * (cond - uncond), cond + g * (cond - uncond), atol=1e-5)


TEXTS = ([[TEXT, {}]], [[TEXT, {}]])


@pytest.mark.parametrize(("count", "chunk", "overlap"), [(1, 81, 8), (6, 81, 8), (13, 5, 2), (11, 5, 0), (5, 5, 1)])
def test_as_many_frames_come_out_as_went_in(faster: Files, count: int, chunk: int, overlap: int) -> None:
    model, loaded = faster
    clip = checked_clip(_pictures(count), _pictures(1, 40, 30, seed=2), None, None)
    options = SwapOptions(steps=2, chunk=chunk, overlap=overlap)
    out, report = swap_clip(model, loaded, Vae(), *TEXTS, clip, options)
    assert out.shape == clip.frames.shape and torch.isfinite(out).all()
    assert f"frames: {count} in, {count} out" in report
    assert not torch.equal(out, clip.frames)
    assert torch.equal(swap_clip(model, loaded, Vae(), *TEXTS, clip, options)[0], out)


def test_a_large_clip_keeps_its_size_and_its_borders(pose: Files) -> None:
    model, loaded = pose
    frames = _pictures(5, 70, 101)
    mask = torch.zeros(5, 70, 101)
    mask[:, 20:50, 30:70] = 1
    clip = checked_clip(frames, frames[:1], mask, frames.flip(2))
    out, report = swap_clip(model, loaded, Vae(), *TEXTS, clip, SwapOptions(steps=2, area=48 * 32))
    assert out.shape == frames.shape and "worked on at" in report and "borders" in report
    inside = SwapOptions(steps=2, area=48 * 32, inside_mask=True)
    kept, _ = swap_clip(model, loaded, Vae(), *TEXTS, clip, inside)
    assert torch.equal(kept[mask == 0], frames[mask == 0])
    assert torch.equal(kept[mask == 1], out[mask == 1]) and not torch.equal(kept, frames)


def test_progress_and_cancel_at_every_step(faster: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    model, loaded = faster
    clip = checked_clip(_pictures(9), _pictures(1), None, None)
    management = importlib.import_module("comfy.model_management")
    steps: list[int] = []

    class Bar:
        def update(self, by: int) -> None:
            steps.append(by)
            if len(steps) == 3:
                management.interrupt_current_processing()

    monkeypatch.setattr("likeness_pack.inject.host.progress_bar", lambda total: Bar())
    with pytest.raises(management.InterruptProcessingException):
        swap_clip(model, loaded, Vae(), *TEXTS, clip, SwapOptions(steps=4, chunk=5, overlap=1))
    assert len(steps) == 3


def test_what_does_not_fit_is_refused(pose: Files, faster: Files, tmp_path: Path) -> None:
    model, loaded = pose
    with pytest.raises(LikenessError, match="the faster one, which takes no pose pictures"):
        apply_pose(*faster, POSE)
    shallow = load_file(tmp_path / "c.safetensors", filled_all(standins.faster(WIDTHS, 1), torch.float32))[0]
    with pytest.raises(BaseModelMismatch, match="connect the MODEL of 'Load DreamID-V'"):
        apply_pose(shallow, loaded, POSE)
    for pictures in (POSE[:4], POSE[:, :24]):
        with pytest.raises(BadImage, match="connect what 'Prepare Clip for DreamID-V' made"):
            apply_pose(model, loaded, pictures)
    clip = checked_clip(_pictures(), _pictures(1), None, None)
    with pytest.raises(LikenessError, match="pose_strength to 0"):
        swap_clip(model, loaded, Vae(), *TEXTS, clip, SwapOptions(steps=2))
    swap_clip(model, loaded, Vae(), *TEXTS, clip, SwapOptions(steps=2, pose_strength=0.0))
    for options in (SwapOptions(chunk=8), SwapOptions(chunk=5, overlap=5)):
        with pytest.raises(LikenessError, match="set chunk_frames to 81 and overlap to 8"):
            swap_clip(*faster, Vae(), *TEXTS, clip, options)
    with pytest.raises(LikenessError, match="make the pose pictures of the same frames"):
        checked_clip(_pictures(), _pictures(1), None, _pictures(4))


def test_another_text_vae_or_latent_is_refused(pose: Files) -> None:
    model, loaded = pose
    frames = _pictures()
    narrow = [[torch.zeros(1, 4, 768), {}]]
    with pytest.raises(BaseModelMismatch, match="umT5-xxl"):
        condition(Vae(), narrow, narrow, frames, frames[:1], None)
    other = Vae()
    other.latent_channels = 4
    with pytest.raises(BaseModelMismatch, match="the VAE of Wan 2.1"):
        condition(other, *TEXTS, frames, frames[:1], None)
    patched = apply_pose(model, loaded, POSE)
    longer = _noise(1, 16, 3, *X.shape[3:])
    made = conditions(model, longer, TEXT, _noise(1, 32, *longer.shape[2:]), PHOTO)
    with pytest.raises(BaseModelMismatch, match="without a node that cuts it into windows"):
        wan_call(patched, longer, 500.0, made)


def test_the_mask_in_the_vaes_scale() -> None:
    assert torch.equal(mask_pictures(torch.tensor([[[0.0, 1.0]]]))[0, 0, :, 0], torch.tensor([0.5, 1.0]))
