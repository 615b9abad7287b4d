"""HunyuanVideo-Avatar: the added parts alone, and the reduced video model through the host's own HunyuanVideo."""

from __future__ import annotations

import importlib
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from harness import Golden, NeedsNewerHost, part
from torch import Tensor


def _filled(golden: Golden, module: torch.nn.Module, prefix: str) -> Any:
    """The module with the rule's weights, which are told by their names in the whole checkpoint."""
    names = {name: shape for name, shape in golden.keys.items() if name.startswith(prefix)}
    module.load_state_dict({name.removeprefix(prefix): tensor for name, tensor in golden.filled(names).items()})
    return module


@part("hyavatar_audio_proj")
def hyavatar_audio_proj(golden: Golden) -> None:
    """Tokens of each video frame, and those that a latent frame hears."""
    from likeness_pack.adapters.families.hunyuan_avatar.arch import AudioProjection, AvatarSizes, grouped

    windows = golden.input("audio_prompts", golden.metadata["inputs"]["audio_prompts"])
    hidden, inputs = golden.keys["audio_proj.proj1.weight"]
    width = golden.keys["audio_proj.norm.weight"][0]
    sizes = AvatarSizes(width=width, audio_hidden=hidden, audio_inputs=inputs)
    tokens = _filled(golden, AudioProjection(sizes), "audio_proj.")(windows)
    golden.check("tokens", tokens)
    golden.check("grouped", grouped(tokens))


@part("hyavatar_audio_adapter")
def hyavatar_audio_adapter(golden: Golden) -> None:
    """One adapter, its mask on the tokens, and the gated sum beside the reference tokens."""
    from likeness_pack.adapters.families.hunyuan_avatar.arch import AudioAdapter, AvatarSizes
    from likeness_pack.adapters.families.hunyuan_avatar.face_mask import token_masks

    prefix = next(iter(golden.keys)).rsplit(".", 2)[0] + "."
    inner, width = golden.keys[f"{prefix}to_q.weight"]
    adapter = _filled(golden, AudioAdapter(AvatarSizes(width=width, inner=inner)), prefix)
    inputs, mask = golden.metadata["inputs"], golden.tensors["face_mask_latent"]
    audio, tokens = (
        golden.input("audio_tokens", inputs["audio_tokens"]),
        golden.input("img_tokens", inputs["img_tokens"]),
    )
    batch, frames = audio.shape[:2]
    own = golden.tensors["delta"].shape[1]
    video = tokens[:, -own:]
    delta = adapter(audio, video.unflatten(1, (frames, -1))).flatten(1, 2)
    golden.check("delta", delta)
    height, width = (size // 2 for size in mask.shape[-2:])
    weights = torch.stack([token_masks(one[0], frames, height, width).reshape(-1, 1) for one in mask])
    golden.check("face_mask_tokens", weights)
    after = torch.cat((tokens[:, :-own], video + delta * weights), dim=1)
    golden.check("img_after", after[:, :: round(tokens.shape[1] / golden.tensors["img_after"].shape[1])])


@part("hyavatar_vec")
def hyavatar_vec(golden: Golden) -> None:
    """Motion, pose, frame rate and time as parts of the modulation vector."""
    from likeness_pack.adapters.families.hunyuan_avatar.arch import NumberEmbedder, sinusoid

    stored = golden.tensors
    given = {"motion_exp": "in_motion_exp", "motion_pose": "in_motion_pose", "fps_proj": "in_fps", "time_in": "in_t"}
    told: dict[str, Tensor] = {}
    for name, key in given.items():
        module = _filled(golden, NumberEmbedder(golden.keys[f"{name}.mlp.0.weight"][0]), f"{name}.")
        told[name] = module(stored[key].flatten()).reshape(len(stored[key]), -1)
    for name, key in zip(given, ("motion_exp", "motion_pose", "fps", "time"), strict=True):
        golden.check(key, told[name])
    golden.check("sum", sum(told.values()))  # type: ignore[arg-type]
    golden.check("sinusoid_25", sinusoid(torch.tensor([25.0])))


@part("hyavatar_ref")
def hyavatar_ref(golden: Golden) -> None:
    """Tokens of the video with the character's picture in both places."""
    from likeness_pack.adapters.families.hunyuan_avatar.arch import PatchEmbed
    from likeness_pack.adapters.layers.casting import Linear

    width, channels = golden.keys["ref_in.proj.weight"][:2]
    image, reference = (_filled(golden, PatchEmbed(channels, width), f"{name}.") for name in ("img_in", "ref_in"))
    before = _filled(golden, Linear(width, width), "before_proj.")
    x, latents = (golden.input(name, golden.metadata["inputs"][name]) for name in ("x", "ref_latents"))
    video = before(reference(latents)) + image(x)
    golden.check("tokens", torch.cat((image(latents[:, :, :1]), video), dim=1))


def _host() -> Any:
    """ComfyUI's HunyuanVideo. Raises NeedsNewerHost."""
    from host_inprocess import engine

    if not engine().has_wrappers:
        raise NeedsNewerHost("this ComfyUI has no HunyuanVideo")
    return importlib.import_module("comfy.ldm.hunyuan_video.model")


@part("hyavatar_rope")
def hyavatar_rope(golden: Golden) -> None:
    """The host's rotary embedding with the reference's positions put right."""
    from likeness_pack.inject.hunyuan_avatar_parts import unshifted

    host, hyper = _host(), golden.metadata["hyper_parameters"]
    axes, (frames, height, width) = hyper["rope_dim_list"], hyper["grid"]
    video = torch.cartesian_prod(*(torch.arange(float(size)) for size in (frames, height, width)))
    reference = video[: height * width].clone()
    # As the host writes them: before the video in time, and to the right of it.
    reference[:, 0], reference[:, 2] = hyper["bias"], reference[:, 2] + width
    embed = host.EmbedND(dim=sum(axes), theta=hyper["theta"], axes_dim=axes)
    turned = embed(unshifted(torch.cat((reference, video))[None]))
    for name, column in (("cos", 0), ("sin", 1)):
        golden.check(name, turned[0, 0, :, :, column, 0].repeat_interleave(2, dim=-1))
    apply_rope = importlib.import_module("comfy.ldm.flux.math").apply_rope
    q, k = (golden.input(name, golden.metadata["inputs"][name]).transpose(1, 2) for name in ("q", "k"))
    for name, rotated in zip(("q_rot", "k_rot"), apply_rope(q, k, turned), strict=True):
        golden.check(name, rotated.transpose(1, 2))


@part("hyavatar_dit")
def hyavatar_dit(golden: Golden) -> None:
    """Two double and two single blocks, by the host's own loader, nodes' functions and sampler."""
    _host()
    from avatar_models import ReducedRun

    with TemporaryDirectory() as folder:
        run = ReducedRun(golden, Path(folder))
        for row in range(run.rows):
            run.sample(row)
        for name in ("vec", "img_embedded", "img_after_double0", "img_after_double1_and_audio"):
            golden.check(name, run.seen(name))
        golden.check("img_before_last_single", run.seen("img_before_last_single"))
        golden.check("txt_refined", run.refined())
        golden.check("out", run.seen("out"))
        golden.check("out_cached_t600", run.cached())
