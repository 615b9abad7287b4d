"""RestorerID: modulations, attention, tokens, structure encoder, residual blocks, UNet, sampler, colours, MUSIQ."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from harness import Golden, part
from likeness_pack.adapters.families.ip_adapter_faceid.arch import FaceKeysValues, PlusProjection
from likeness_pack.adapters.families.restorerid.arch import IDBalance, Spade
from likeness_pack.adapters.families.restorerid.structure import StructureEncoder
from likeness_pack.adapters.layers.attention import attention
from torch import Tensor
from torch.nn import functional

# Rounding adds up over some forty layers.
STRUCTURE_TOLERANCE = 1e-4
# A LoRA merged into its weights rounds otherwise than one added to their result.
MERGED_TOLERANCE = 5e-5
BLOCK_TOLERANCE = 3e-5
UNET_TOLERANCE = 1e-4


def _input(golden: Golden, name: str) -> Tensor:
    return golden.input(name, golden.metadata["inputs"][name]["shape"])


def _named(golden: Golden, module: str) -> dict[str, Tensor]:
    """Weights of one module of the file, filled under names relative to it."""
    shapes = {key.split("::")[1]: shape for key, shape in golden.keys.items() if key.startswith(f"{module}::")}
    return golden.filled(shapes)


def _loaded(golden: Golden, name: str, module: torch.nn.Module) -> Any:
    module.load_state_dict(_named(golden, name))
    return module.eval()


def _numbers(golden: Golden, case: str) -> Tensor:
    """The decimal numbers in the description of an output."""
    return torch.tensor([float(found) for found in re.findall(r"\d+\.\d+", golden.metadata["outputs"][case])])


def _modules(golden: Golden) -> list[str]:
    return sorted({key.split("::")[0] for key in golden.keys})


@part("restorerid_spade")
def restorerid_spade(golden: Golden) -> None:
    """The structure's modulation at three widths."""
    hyper = golden.metadata["hyper_parameters"]
    for name in _modules(golden):
        width = int(name.split("_")[1])
        module = _loaded(golden, name, Spade(width, hyper["label_nc"], hyper["nhidden"]))
        case = f"spade{width}"
        golden.check(case, module(_input(golden, f"{case}.h"), _input(golden, f"{case}.struct")))


@part("restorerid_fir")
def restorerid_fir(golden: Golden) -> None:
    """The FIR-Adapter at three widths."""
    hyper = golden.metadata["hyper_parameters"]
    for name in _modules(golden):
        width = int(name.split("_")[1])
        sizes = (width, hyper["label_nc"], hyper["nhidden"], hyper["context_dim"])
        module = _loaded(golden, name, IDBalance(*sizes))
        h, structure, tokens = (_input(golden, f"fir{width}.{end}") for end in ("h", "struct", "ref_tokens"))
        golden.check(f"fir{width}", module(h, structure, module.crossattn.keys_values(tokens)), BLOCK_TOLERANCE)


def _merged(weights: Mapping[str, Tensor], name: str) -> Tensor:
    lora = f"{name.split('.')[0]}_lora"
    return weights[f"{name}.weight"] + weights[f"{lora}.up.weight"] @ weights[f"{lora}.down.weight"]


def _attended(
    w: Mapping[str, Tensor], x: Tensor, heads: int, text: Tensor | None, ref: Tensor | None = None, scale: Any = 0.0
) -> Tensor:
    """An attention with its LoRA merged, and the reference's own keys and values beside the text's."""
    context = x if text is None else text
    q, k, v = (
        functional.linear(source, _merged(w, f"to_{end}"))
        for end, source in zip("qkv", (x, context, context), strict=True)
    )
    out = attention(q, k, v, heads)
    if ref is not None:
        extra = FaceKeysValues(ref.shape[-1], x.shape[-1])
        extra.load_state_dict({f"{end}.weight": w[f"{end}.weight"] for end in ("to_k_ip", "to_v_ip")})
        factor = scale[:, None, None] if isinstance(scale, Tensor) else scale
        keys, values = extra(ref)
        # As the patch does: the scale is folded into the values.
        out = out + attention(q, keys, values * factor, heads)
    return functional.linear(out, _merged(w, "to_out.0"), w["to_out.0.bias"])


@part("restorerid_attn")
def restorerid_attn(golden: Golden) -> None:
    """Self-attention with LoRA; cross-attention with LoRA and reference; a whole transformer block."""
    hyper = golden.metadata["hyper_parameters"]
    heads = hyper["heads"]
    own = _attended(_named(golden, "attn1_320"), _input(golden, "attn1_320.x"), heads, None)
    golden.check("attn1_320", own, MERGED_TOLERANCE)
    for case in (name for name in golden.tensors if name.startswith("attn2")):
        module, told = case.split(".", 1)
        scale: Any = _numbers(golden, case) if told == "svec" else float(told.removeprefix("s"))
        x, text, ref = (_input(golden, f"{module}.{end}") for end in ("x", "text", "ref_tokens"))
        golden.check(case, _attended(_named(golden, module), x, heads, text, ref, scale), MERGED_TOLERANCE)
    context, scale = _input(golden, "spatial_640.context"), float(_numbers(golden, "spatial_640")[-1])
    text, ref = context[:, : hyper["text_tokens"]], context[:, hyper["text_tokens"] :]
    whole = _transformer(golden, _input(golden, "spatial_640.x"), heads, text, ref, scale)
    golden.check("spatial_640", whole, MERGED_TOLERANCE)


def _transformer(golden: Golden, x: Tensor, heads: int, text: Tensor, ref: Tensor, scale: float) -> Tensor:
    w = _named(golden, "spatial_640")
    block = {name.removeprefix("transformer_blocks.0."): value for name, value in w.items() if "blocks.0." in name}

    def part_of(prefix: str) -> dict[str, Tensor]:
        return {name.removeprefix(prefix): value for name, value in block.items() if name.startswith(prefix)}

    def norm(h: Tensor, number: int) -> Tensor:
        return functional.layer_norm(h, h.shape[-1:], block[f"norm{number}.weight"], block[f"norm{number}.bias"])

    h = functional.group_norm(x, 32, w["norm.weight"], w["norm.bias"], eps=1e-6)
    h = functional.conv2d(h, w["proj_in.weight"], w["proj_in.bias"]).flatten(2).transpose(1, 2)
    h = h + _attended(part_of("attn1."), norm(h, 1), heads, None)
    h = h + _attended(part_of("attn2."), norm(h, 2), heads, text, ref, scale)
    ff = functional.linear(norm(h, 3), block["ff.net.0.proj.weight"], block["ff.net.0.proj.bias"])
    value, gate = ff.chunk(2, dim=-1)
    h = h + functional.linear(value * functional.gelu(gate), block["ff.net.2.weight"], block["ff.net.2.bias"])
    h = h.transpose(1, 2).unflatten(2, x.shape[2:])
    return x + functional.conv2d(h, w["proj_out.weight"], w["proj_out.bias"])


@part("restorerid_projplus")
def restorerid_projplus(golden: Golden) -> None:
    """Reference tokens; with the shortcut that RestorerID does not use; of an embedding of zeros."""
    hyper = golden.metadata["hyper_parameters"]
    width = hyper["cross_attention_dim"]
    module = PlusProjection(
        hyper["id_embeddings_dim"],
        golden.keys["image_proj_model::proj.0.weight"][0],
        hyper["num_tokens"],
        width,
        image_dim=hyper["clip_embeddings_dim"],
        depth=hyper["depth"],
        feed_forward=width * hyper["ff_mult"],
    )
    _loaded(golden, "image_proj_model", module)
    embedding = functional.normalize(_input(golden, "projplus.id"), dim=-1)
    patches = _input(golden, "projplus.clip")
    golden.check("tokens", module.refined(embedding, patches, None))
    golden.check("tokens_shortcut", module.refined(embedding, patches, float(_numbers(golden, "tokens_shortcut")[-1])))
    golden.check("tokens_uncond", module.refined(torch.zeros_like(embedding), patches, None))


@part("restorerid_structenc")
def restorerid_structenc(golden: Golden) -> None:
    """Four maps of a latent that is not square, two timesteps."""
    hyper, inputs = golden.metadata["hyper_parameters"], golden.metadata["inputs"]
    encoder = StructureEncoder(hyper["model_channels"], hyper["out_channels"], hyper["in_channels"])
    module = _loaded(golden, "structcond_stage_model", encoder)
    maps = module(_input(golden, "structenc.latent"), torch.tensor(inputs["structenc.timesteps"]))
    assert len(maps) == len(golden.tensors)
    for found in maps:
        golden.check(f"struct.{found.shape[-1]}", found, STRUCTURE_TOLERANCE)


@part("restorerid_resblock")
def restorerid_resblock(golden: Golden) -> None:
    """The host's residual blocks with our patch in place of their forward."""
    from host_inprocess import engine

    engine()
    from comfy.ldm.modules.diffusionmodules.openaimodel import ResBlock

    hyper = golden.metadata["hyper_parameters"]
    for case in golden.tensors:
        w = _named(golden, case)
        inputs, outputs = (w[name].shape[0] for name in ("in_layers.0.weight", "out_layers.0.weight"))
        block = ResBlock(inputs, hyper["emb_channels"], 0.0, out_channels=outputs, dtype=torch.float32)
        modulations = _modulations(w, outputs, hyper["semb_channels"])
        block.load_state_dict({k: v for k, v in w.items() if not k.startswith(("spade.", "IDBalance."))})
        x, emb, structure, context = (_input(golden, f"{case}.{end}") for end in ("x", "emb", "struct", "context"))
        restored = _restored(block.eval(), modulations, x, emb, structure, context[:, 77:])
        golden.check(case, restored, BLOCK_TOLERANCE)


def _modulations(w: Mapping[str, Tensor], channels: int, labels: int) -> Any:
    from likeness_pack.adapters.families.restorerid.network import BlockModulations

    hidden, context = w["spade.mlp_shared.0.weight"].shape[0], w["IDBalance.crossattn.to_k.weight"].shape[1]
    module = BlockModulations(channels, labels, hidden, context)
    module.load_state_dict({k: v for k, v in w.items() if k.startswith(("spade.", "IDBalance."))})
    return module.eval()


def _restored(block: Any, modulations: Any, x: Tensor, emb: Tensor, structure: Tensor, ref: Tensor) -> Tensor:
    from likeness_pack.inject.residual_blocks import CallHolder, ReferenceTokens, RestorationCall, RestoredBlock

    holder = CallHolder()
    patch = RestoredBlock("block", block, modulations, holder, ReferenceTokens(ref, ref[:1]))
    with holder.holding(RestorationCall({tuple(structure.shape[-2:]): structure}, (0,), {}, None)):
        return patch(x, emb)


@part("restorerid_unet_small")
def restorerid_unet_small(golden: Golden) -> None:
    """The host's own UNet with our patches, its whole output and four activations."""
    from restorer_cases import GoldenUNet

    unet = GoldenUNet(golden)
    for name in golden.tensors:
        if name.startswith("eps."):
            golden.check(name, unet.run(float(name.removeprefix("eps.s")))[0], UNET_TOLERANCE)
    activations = unet.run(0.3)[1]
    for name in golden.tensors:
        if name.startswith("act."):
            found = activations[name.removeprefix("act.")]
            expected = golden.tensors[name].shape
            golden.check(name, found[: expected[0], : expected[1]], UNET_TOLERANCE)


@part("restorerid_sampler")
def restorerid_sampler(golden: Golden) -> None:
    """The tables, and the whole official loop with a toy network through the host's sampler."""
    from likeness_pack.adapters.families.restorerid import schedule
    from restorer_cases import run_toy_sampler

    hyper = golden.metadata["hyper_parameters"]
    golden.check("alphas_cumprod", schedule.alphas_cumprod())
    for steps in sorted({int(name[1:].split(".")[0]) for name in golden.tensors if name.endswith(".sigmas")}):
        table = schedule.tables(steps, hyper["eta"])
        found = {
            "model_timesteps": torch.tensor(table.timesteps),
            "alpha_indices": torch.tensor(schedule.alpha_indices(steps)),
            "alphas": table.alphas,
            "alphas_prev": table.alphas_prev,
            "sigmas": table.sigmas,
        }
        for name, value in found.items():
            golden.check(f"s{steps}.{name}", value)
    run_toy_sampler(golden)


@part("restorerid_colorfix")
def restorerid_colorfix(golden: Golden) -> None:
    """Both colour fixes, and the bands."""
    from likeness_pack.faces.colour import adain, bands, wavelet

    inputs = golden.metadata["inputs"]
    restored, lq = (_input(golden, name) * inputs[name]["scale"] for name in ("colorfix.restored", "colorfix.lq"))
    levels = golden.metadata["hyper_parameters"]["levels"]
    high, low = bands(restored, levels)
    golden.check("restored.high", high)
    golden.check("restored.low", low)
    golden.check("wavelet", wavelet(restored, lq, levels))
    golden.check("adain", adain(restored, lq))


@part("restorerid_musiq")
def restorerid_musiq(golden: Golden) -> None:
    """Tokens, their places, and the scores of two pictures."""
    from likeness_pack.adapters.encoders.musiq.arch import Musiq
    from likeness_pack.adapters.encoders.musiq.patches import picture_tokens

    hyper = golden.metadata["hyper_parameters"]
    network = _loaded(golden, "musiq", Musiq(layers=hyper["layers"], heads=hyper["heads"]))
    for case in "ab":
        picture = _input(golden, f"musiq.{case}").sigmoid()
        tokens = picture_tokens(picture)
        golden.check(f"{case}.positions", torch.stack([tokens.places, tokens.scales, tokens.mask], dim=1)[:].float())
        golden.check(f"{case}.patches_mean", tokens.values[0].mean(-1))
        golden.check(f"{case}.patches_std", tokens.values[0].std(-1))
        golden.check(f"{case}.score", network(picture))
