"""ID-Animator: resampler, attention with LoRA and face term, motion layer, and all of it in the host's own UNet."""

from __future__ import annotations

from typing import Any

import torch
from harness import Golden, part, resampler_sizes
from likeness_pack.adapters.adapter import LowRank
from likeness_pack.adapters.families.id_animator.arch import FaceMaps, IDAnimatorNetwork
from likeness_pack.adapters.families.id_animator.motion import MARK, PE, MotionNetwork
from likeness_pack.adapters.families.id_animator.motion_arch import MotionLayer
from likeness_pack.adapters.layers.attention import attention
from likeness_pack.adapters.layers.perceiver import Resampler
from torch import Tensor
from torch.nn.functional import linear

ROLES = {"q": "to_q", "k": "to_k", "v": "to_v", "out": "to_out"}


@part("id_animator_resampler")
def id_animator_resampler(golden: Golden) -> None:
    """Sixteen facial tokens of CLIP patches and of zeros."""
    resampler = golden.fill(Resampler(**resampler_sizes(golden.metadata["hyper_parameters"])))
    inputs = golden.metadata["inputs"]
    golden.check("tokens", resampler(golden.input("clip_hidden", inputs["clip_hidden"])))
    # Zeros pass the norms as zeros over epsilon, which amplifies rounding.
    golden.check("tokens_zero_input", resampler(torch.zeros(inputs["(zeros)"])), 1e-4)


@part("id_animator_attn")
def id_animator_attn(golden: Golden) -> None:
    """LoRA merged into the base weights, as the host does it; the face term beside the text attention."""
    hyper, inputs = golden.metadata["hyper_parameters"], golden.metadata["inputs"]
    text, face = golden.input("text", inputs["text"]), golden.input("face", inputs["face"])
    filled = golden.filled(golden.keys)
    heads = hyper["heads"]
    for name in golden.tensors:
        width, scale = int(name[3:].split("_")[0]), float(name.split("scale")[1])
        prefix = f"h{width}."
        w = {key.removeprefix(prefix): value for key, value in filled.items() if key.startswith(prefix)}
        x = golden.input(f"hidden{width}", inputs[f"hidden{width}"])
        maps = FaceMaps(face.shape[-1], width)
        maps.load_state_dict({f"{key}.weight": w[f"processor.{key}.weight"] for key in ("to_k_face", "to_v_face")})
        q, k, v = linear(x, _merged(w, "q")), linear(text, _merged(w, "k")), linear(text, _merged(w, "v"))
        out = attention(q, k, v, heads) + scale * attention(q, *maps(face), heads)
        golden.check(name, linear(out, _merged(w, "out"), w["to_out.0.bias"]))


def _merged(weights: dict[str, Tensor], role: str) -> Tensor:
    lora = f"processor.{ROLES[role]}_lora"
    base = "to_out.0" if role == "out" else ROLES[role]
    return weights[f"{base}.weight"] + weights[f"{lora}.up.weight"] @ weights[f"{lora}.down.weight"]


@part("id_animator_motion_module")
def id_animator_motion_module(golden: Golden) -> None:
    """One temporal transformer; the official layout (B, C, F, H, W) becomes frames in the batch."""
    hyper = golden.metadata["hyper_parameters"]
    layer = MotionLayer(hyper["in_channels"], hyper["temporal_position_encoding_max_len"])
    assert {name: list(value.shape) for name, value in layer.state_dict().items()} == golden.keys
    golden.fill(layer)
    shape = golden.metadata["inputs"]["hidden"].split("(")[1].split(")")[0].split(",")
    x = golden.input("hidden", [int(size) for size in shape])
    clips, _, frames = x.shape[:3]
    got = layer(x.transpose(1, 2).flatten(0, 1), frames)
    golden.check("out", got.unflatten(0, (clips, frames)).transpose(1, 2))


@part("id_animator_unet3d")
def id_animator_unet3d(golden: Golden) -> None:
    """Motion layers, LoRA and face term through the host's UNet at the golden's reduced width."""
    from host_inprocess import tiny_model
    from likeness_pack.inject.apply import ApplyOptions, apply_identity
    from likeness_pack.inject.loaded import LoadedAdapter
    from likeness_pack.inject.managed import ManagedNetwork
    from likeness_pack.inject.motion import apply_motion

    hyper, inputs = golden.metadata["hyper_parameters"], golden.metadata["inputs"]
    widths = hyper["block_out_channels"]
    weights = golden.filled(golden.keys)
    config = {
        "channel_mult": [width // widths[0] for width in widths],
        "context_dim": hyper["cross_attention_dim"],
        "num_heads": hyper["attention_head_dim"],
    }
    model = tiny_model(
        "SD15", widths[0], fill=lambda unet: _fill_unet(unet, model_config(widths, hyper), weights), **config
    )
    moving = apply_motion(model, ManagedNetwork(_motion(golden, weights)), linear_betas=False)
    from identities import arcface_identity

    adapter = _adapter(golden, weights)
    loaded = LoadedAdapter(adapter)
    face = golden.input("face", inputs["face"])
    # Row 0 of the golden is the host's negative row, row 1 its positive one.
    loaded.keys_values = lambda identity, options, device, dtype: _rows(adapter, face)  # type: ignore[method-assign]
    patched = apply_identity(moving, loaded, arcface_identity(), ApplyOptions(strength=hyper["scale"]))
    golden.check("eps", _run(golden, patched))


def model_config(widths: list[int], hyper: dict[str, Any]) -> dict[str, Any]:
    """What the host's own table of diffusers names asks of a UNet's configuration."""
    return {
        "num_res_blocks": [hyper["layers_per_block"]] * len(widths),
        "channel_mult": [width // widths[0] for width in widths],
        "transformer_depth": [1] * 6 + [0] * 2,
        "transformer_depth_output": [1] * 9 + [0] * 3,
        "transformer_depth_middle": 1,
    }


def _fill_unet(unet: torch.nn.Module, config: dict[str, Any], weights: dict[str, Tensor]) -> None:
    import importlib

    names = importlib.import_module("comfy.utils").unet_to_diffusers(config)
    tensors = {host: weights[name] for name, host in names.items() if name in weights}
    places = unet.state_dict()
    unet.load_state_dict({name: value.reshape(places[name].shape) for name, value in tensors.items()}, strict=True)


def _motion(golden: Golden, weights: dict[str, Tensor]) -> MotionNetwork:
    tensors = {name: value for name, value in weights.items() if MARK in name}
    tables = {name.removesuffix(f".{PE}"): value.shape for name, value in tensors.items() if name.endswith(PE)}
    network = MotionNetwork({name: (shape[2], shape[1]) for name, shape in tables.items()})
    network.load_state_dict(tensors, strict=True)
    return network.eval().requires_grad_(False)


def _adapter(golden: Golden, weights: dict[str, Tensor]) -> Any:
    from likeness_pack.adapters.families.id_animator.adapter import IDAnimatorAdapter
    from likeness_pack.adapters.report import DetectionReport
    from tiny_adapters import block_paths

    hyper = golden.metadata["hyper_parameters"]
    context = hyper["cross_attention_dim"]
    maps, low_rank = [], {}
    for number, block in enumerate(block_paths()):
        prefix = f"{block}.attn2.processor."
        w = {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}
        layer = FaceMaps(context, w["to_k_face.weight"].shape[0])
        layer.load_state_dict({name: value for name, value in w.items() if "_face" in name})
        maps.append(layer)
        for role, name in ROLES.items():
            low_rank[2 * number + 1, role] = LowRank(w[f"{name}_lora.up.weight"], w[f"{name}_lora.down.weight"])
    resampler = Resampler(
        input_dim=8, width=8, output_dim=context, queries=1, depth=0, heads=1, head_dim=8, feed_forward=8
    )
    report = DetectionReport(
        "id_animator",
        "ID-Animator",
        "sd15",
        16,
        16,
        "float32",
        0,
        0,
        0,
        code_licence="",
        weight_licence="",
        commercial=None,
    )
    return IDAnimatorAdapter(report, golden.salt, IDAnimatorNetwork(resampler, 8, maps), context, low_rank)


def _rows(adapter: Any, face: Tensor) -> Any:
    from likeness_pack.inject.row_values import RowKeysValues

    negative, positive = (adapter.keys_values(face[row : row + 1]) for row in (0, 1))
    return RowKeysValues(positive, negative)


def _run(golden: Golden, model: Any) -> Tensor:
    from unet_calls import load_model

    inputs = golden.metadata["inputs"]
    load_model(model)
    shape = inputs["x_t"].split("(")[1].split(")")[0].split(",")
    x = golden.input("x_t", [int(size) for size in shape]).transpose(1, 2)
    frames = x.shape[1]
    x = x.repeat(2, 1, 1, 1, 1).flatten(0, 1)
    text = golden.input("text", inputs["text"]).repeat_interleave(frames, dim=0)
    options = {**model.model_options["transformer_options"], "cond_or_uncond": [1, 0]}

    def unet(x: Tensor, t: Tensor, transformer_options: dict[str, Any], **rest: Any) -> Tensor:
        return model.model.diffusion_model(x, timesteps=t, context=text, transformer_options=transformer_options)

    t = torch.full((x.shape[0],), float(inputs["t"]))
    wrapper = model.model_options["model_function_wrapper"]
    out = wrapper(unet, {"input": x, "timestep": t, "c": {"transformer_options": options}, "cond_or_uncond": [1, 0]})
    return out.unflatten(0, (2, frames)).transpose(1, 2)
