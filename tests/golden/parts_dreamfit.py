"""DreamFit: adaptive attention alone; both passes through the host's own SD1.5 UNet and through its own Flux."""

from __future__ import annotations

import re
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from harness import Golden, NeedsNewerHost, part
from torch import Tensor

ATTENTION = "middle_block.1.transformer_blocks.0."
# The embedding of guidance 4 is cos(4000 f) with frequencies f = exp(...) in float32: one unit in the last place of f,
# by which math libraries differ, moves every output of the plain model by up to 5e-5 (tried entry by entry).
FLUX_TOLERANCE = 1e-4


@part("dreamfit_sd15_attn")
def dreamfit_sd15_attn(golden: Golden) -> None:
    """Encoder self and text attention with their LoRA, and the denoiser's attention with a reference."""
    hyper = golden.metadata["hyper_parameters"]
    text = golden.input("text", golden.metadata["inputs"]["text"])
    for width in hyper["query_dim"]:
        reference, target = (
            golden.input(
                f"{name}{width}", [width if size == "D" else size for size in golden.metadata["inputs"][name + "D"]]
            )
            for name in ("ref", "tgt")
        )
        heads = hyper["heads"]
        encoder, cross, plain = (_weights(golden, f"{name}{width}.") for name in ("enc", "enc_x", "tgt"))
        golden.check(f"enc{width}_out", _attention(encoder, reference, reference, heads))
        golden.check(f"enc_x{width}_out", _attention(cross, reference, text, heads))
        pair = _reference_pair(encoder, reference)
        for got, name in zip(pair, ("ref_k", "ref_v"), strict=True):
            golden.check(f"enc{width}_{name}", got)
        golden.check(f"tgt{width}_out_plain", _attention(plain, target, target, heads))
        name = next(name for name in golden.tensors if name.startswith(f"tgt{width}_out_ref"))
        scale = float(name.rpartition("ref")[2])
        golden.check(name, _attention(plain, target, target, heads, pair, scale))


def _weights(golden: Golden, prefix: str) -> dict[str, Tensor]:
    """The weights of one attention with its LoRA in, as the family finds it in a file."""
    from likeness_pack.adapters.families.dreamfit import layout

    filled = golden.filled({name: shape for name, shape in golden.keys.items() if name.startswith(prefix)})
    weights = {name.removeprefix(prefix): tensor for name, tensor in filled.items()}
    start = f"{ATTENTION}attn1."
    for target in layout.unet_targets():
        down, up = (end.removeprefix(start) for end in layout.ends(target.source))
        if target.source.startswith(start) and down in weights:
            scale = 1.0 if target.alpha is None else target.alpha / weights[down].shape[0]
            weights[target.weight.removeprefix(start)] += scale * weights[up] @ weights[down]
    return weights


def _reference_pair(weights: dict[str, Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
    from likeness_pack.adapters.families.dreamfit.arch import ReferenceKeysValues

    layer = ReferenceKeysValues(x.shape[-1])
    layer.load_state_dict({name: weights[name] for name in layer.state_dict()})
    return layer(x)


def _attention(
    weights: dict[str, Tensor],
    x: Tensor,
    context: Tensor,
    heads: int,
    pair: tuple[Tensor, Tensor] | None = None,
    scale: float = 0.0,
) -> Tensor:
    """The host's attention layer, patched by the project where there is a reference."""
    from host_inprocess import engine
    from likeness_pack.inject.attention import AttentionTerm
    from likeness_pack.inject.reference_features import ReferenceAttention
    from likeness_pack.inject.row_values import RowKeysValues
    from likeness_pack.inject.schedule import StepRange

    engine()
    terms = []
    if pair is not None:
        (k, v), steps = pair, StepRange(0.0, 1.0, 0.0, 0.0)
        values = RowKeysValues([(k[:1], v[:1])], [(k[1:], v[1:])])
        terms.append(AttentionTerm(key="", keys_values=values, strength=scale, steps=steps))
    q, k, v = x @ weights["to_q.weight"].T, context @ weights["to_k.weight"].T, context @ weights["to_v.weight"].T
    extra = {"n_heads": heads, "cond_or_uncond": [0, 1], "block": ("middle", 0)}
    out = ReferenceAttention(0, tuple(terms))(q, k, v, extra)
    return torch.nn.functional.linear(out, weights["to_out.0.weight"], weights["to_out.0.bias"])


@part("dreamfit_sd15_unet")
def dreamfit_sd15_unet(golden: Golden) -> None:
    """Encoder and denoiser are two models of the host; each has its own weights."""
    from host_inprocess import tiny_model
    from likeness_pack.adapters import registry
    from likeness_pack.inject.loaded import LoadedAdapter

    inputs, hyper = golden.metadata["inputs"], golden.metadata["hyper_parameters"]
    sizes = {"model_channels": hyper["ch"], "channel_mult": hyper["ch_mult"]}
    target, encoder = (
        tiny_model("SD15", fill=lambda unet, name=name: _fill(golden, unet, f"{name}."), **sizes)
        for name in ("target", "ref")
    )
    shapes = {n.removeprefix("ref."): s for n, s in golden.keys.items() if n.startswith("ref.")}
    with TemporaryDirectory() as folder:
        added = {n: s for n, s in shapes.items() if "lora" in n or ".ref_to_" in n}
        tensors = golden.filled({f"ref.{name}": shape for name, shape in added.items()})
        path = Path(folder) / "any_name.ckpt"
        torch.save({"state_dict": {f"target_unet.{n.removeprefix('ref.')}": t for n, t in tensors.items()}}, path)
        loaded = LoadedAdapter(registry.load(path))
    latent = _described(golden, "ref_latent")[0]
    texts = golden.input("text_ref", inputs["text_ref"])
    reference = _encode(loaded, encoder, latent, texts)
    for index, (k, v) in enumerate(reference.keys_values.rows(i, (0, 1), latent) for i in range(10)):
        golden.check(f"kv{index}_k_mean", k.mean(1))
        golden.check(f"kv{index}_v_mean", v.mean(1))
    golden.check("eps_plain", _eps(golden, target))
    for name in golden.tensors:
        if name.startswith("eps_ref"):
            golden.check(name, _eps(golden, _applied(target, reference, float(name.removeprefix("eps_ref")))))


def _described(golden: Golden, name: str) -> tuple[Tensor, tuple[int, ...]]:
    """The input whose metadata begin with its shape in brackets, and the numbers that follow it in the text."""
    shape, _, rest = str(golden.metadata["inputs"][name]).partition(")")
    numbers = tuple(map(int, re.findall(r"\d+", rest)))
    return golden.input(name, tuple(map(int, re.findall(r"\d+", shape)))), numbers


def _fill(golden: Golden, unet: torch.nn.Module, prefix: str) -> None:
    shapes = {f"{prefix}{name}": tensor.shape for name, tensor in unet.state_dict().items()}
    unet.load_state_dict({n.removeprefix(prefix): t for n, t in golden.filled(shapes).items()})


def _encode(loaded: Any, encoder: Any, latent: Tensor, texts: Tensor) -> Any:
    from likeness_pack.inject.garment import encode_reference

    # The golden's latent is what the network sees; a VAE's is that without the model's scaling.
    latent = encoder.model.process_latent_out(latent)
    return encode_reference(loaded, encoder, latent, [[texts[:1], {}]], [[texts[1:], {}]])


def _applied(target: Any, reference: Any, strength: float) -> Any:
    from likeness_pack.inject.garment import ReferenceOptions, apply_reference

    return apply_reference(target, reference, ReferenceOptions(strength=strength))


def _eps(golden: Golden, model: Any) -> Tensor:
    from unet_calls import load_model

    load_model(model)
    inputs = golden.metadata["inputs"]
    x, (rows, *_) = _described(golden, "x_t")
    x = x.repeat(rows, 1, 1, 1)
    options = {**model.model_options["transformer_options"], "cond_or_uncond": [0, 1]}
    times = torch.full((rows,), float(inputs["t"]))
    text = golden.input("text_target", inputs["text_target"])
    return model.model.diffusion_model(x, times, context=text, transformer_options=options)


@part("dreamfit_flux")
def dreamfit_flux(golden: Golden) -> None:
    """Plain, write and read pass of the host's Flux at real width; the bank before rotation."""
    from dreamfit_models import flux_call, flux_latent, flux_model, flux_tokens
    from host_inprocess import engine

    if not engine().has_wrappers:
        raise NeedsNewerHost("this ComfyUI has no Flux")
    from likeness_pack.adapters import registry
    from likeness_pack.inject.garment import encode_reference
    from likeness_pack.inject.loaded import LoadedAdapter

    hyper, inputs = golden.metadata["hyper_parameters"], golden.metadata["inputs"]
    model = flux_model(hyper, lambda network: _fill(golden, network, ""))
    with TemporaryDirectory() as folder:
        path = Path(folder) / "any_name.bin"
        torch.save(golden.filled({n: s for n, s in golden.keys.items() if "lora" in n}), path)
        loaded = LoadedAdapter(registry.load(path))
    img = flux_latent(*_described(golden, "img"))
    time = float(str(inputs["timesteps"]).split()[0])
    text = golden.input("txt", inputs["txt"]), golden.input("vec", inputs["vec"]), inputs["guidance"]
    golden.check("plain", flux_tokens(flux_call(model, img, time, *text)), FLUX_TOLERANCE)
    tokens, grid = _described(golden, "ref")
    ref = flux_latent(tokens, grid)
    _check_write(golden, model, loaded.adapter, ref)
    context, pooled = golden.input("txt_ref", inputs["txt_ref"]), golden.input("vec_ref", inputs["vec_ref"])
    condition = [[context, {"pooled_output": pooled, "guidance": inputs["guidance"]}]]
    reference = encode_reference(loaded, model, model.model.process_latent_out(ref), condition)
    _check_bank(golden, model, reference.network.network, context.shape[1], grid)
    golden.check("read", flux_tokens(flux_call(_applied(model, reference, 1.0), img, time, *text)), FLUX_TOLERANCE)
    golden.check("plain", flux_tokens(flux_call(model, img, time, *text)), FLUX_TOLERANCE)


def _check_write(golden: Golden, model: Any, adapter: Any, ref: Tensor) -> None:
    from dreamfit_models import flux_tokens
    from likeness_pack.inject.reference_features import run_pass, with_changes

    inputs = golden.metadata["inputs"]
    more = {"y": golden.input("vec_ref", inputs["vec_ref"]), "guidance": torch.tensor([inputs["guidance"]])}
    encoder = with_changes(model, adapter.changes, 1.0)
    latent, context = model.model.process_latent_out(ref), golden.input("txt_ref", inputs["txt_ref"])
    golden.check("write", flux_tokens(run_pass(encoder, latent, context, {}, more)), FLUX_TOLERANCE)


def _check_bank(golden: Golden, model: Any, bank: Any, text: int, grid: tuple[int, int]) -> None:
    """Turn the kept keys back by their positions: the file holds them as they were before."""
    rows, columns = (axis.reshape(-1) for axis in torch.meshgrid(*map(torch.arange, grid), indexing="ij"))
    ids = torch.stack((torch.zeros_like(rows), rows, columns), dim=-1)[None].float()
    for kind, positions in (("double", ids), ("single", torch.cat((torch.zeros(1, text, 3), ids), dim=1))):
        turn = model.model.diffusion_model.pe_embedder(positions)
        k, v = bank.pair((f"{kind}_block", 0), positions.new_zeros(1, 1, 1, 1))
        parts = k.reshape(*k.shape[:-1], -1, 1, 2)
        # A rotation matrix transposed is its inverse.
        before = (turn[..., 0, :] * parts[..., :1, 0] + turn[..., 1, :] * parts[..., :1, 1]).reshape(k.shape)
        heads = golden.tensors[f"bank_{kind}_k"].shape[1]
        golden.check(f"bank_{kind}_k", before[:, :heads], FLUX_TOLERANCE)
        golden.check(f"bank_{kind}_v", v[:, :heads], FLUX_TOLERANCE)
