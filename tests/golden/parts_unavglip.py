"""UnAvgLip: both forms of the identity perceiver, attention with LoRA and face tokens, and the whole UNet."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import parity
import torch
from harness import Golden, part
from musetalk_models import adapter_of, filled_model, write_tensors
from torch import Tensor
from torch.nn import functional


def _faces(golden: Golden, case: str) -> Tensor:
    count = int(case.removeprefix("tokens_ncond"))
    return functional.normalize(golden.input(f"face_{count}", (2, count, 512)), dim=-1)


def _projection(golden: Golden, variant: str) -> Any:
    from likeness_pack.adapters.families.unavglip.arch import projection_of
    from likeness_pack.adapters.families.unavglip.layout import Sizes

    hyper, keys = golden.metadata["hyper"], golden.keys
    second = keys["layers.0.1.linear1.weight" if variant == "perceiver" else "layers.0.1.1.weight"]
    sizes = Sizes(variant, hyper["num_queries"], hyper["depth"], hyper["heads"], second[0], 1, ())
    module = projection_of(sizes)
    module.load_state_dict(golden.filled(dict(keys)))
    return module.eval()


@part("unavglip_resampler_ff")
def unavglip_resampler_ff(golden: Golden) -> None:
    """The form of resampler.py, on one, four and six faces."""
    module = _projection(golden, "resampler")
    for case in golden.tensors:
        golden.check(case, module(_faces(golden, case)))


@part("unavglip_perceiver_repaired")
def unavglip_perceiver_repaired(golden: Golden) -> None:
    """The form of identity_perceiver.py, repaired, on one face and on four."""
    from likeness_pack.adapters.families.unavglip.layout import DECODER_HEADS

    assert golden.metadata["hyper"]["nhead"] == DECODER_HEADS
    module = _projection(golden, "perceiver")
    for case in golden.tensors:
        golden.check(case, module(_faces(golden, case)))


@part("unavglip_attn")
def unavglip_attn(golden: Golden) -> None:
    """The host's own attention with our LoRA patches and our identity patch, at three widths."""
    hyper = golden.metadata["hyper"]
    audio, tokens = golden.input("audio", (2, 50, 384)), golden.input("id_tokens", (2, 4, 384))
    for case in golden.tensors:
        name, width, *scale = case.split("_")
        layer = _Layer(golden, name, int(width), hyper["heads"])
        rows = golden.tensors[f"{name}_{width}"].shape[1]
        x = golden.input(f"x_{width}", (2, rows, int(width)))
        strength = 0.0 if scale else float(hyper["scale"])
        found = layer.run(x, audio, tokens, strength) if name == "attn2" else layer.run(x, x)
        golden.check(case, found[:, : golden.tensors[case].shape[1]])


class _Layer:
    """One attention of the host with the adapter's weights."""

    def __init__(self, golden: Golden, name: str, width: int, heads: int) -> None:
        from host_inprocess import engine

        engine()
        from comfy.ldm.modules.attention import CrossAttention
        from likeness_pack.adapters.families.ip_adapter_faceid.attention_layers import attention_layer, taken_apart

        crosses = name == "attn2"
        group, processor = f"{name}_{width}", f"{'ip' if crosses else 'lora'}_{width}"
        weights = _named(golden, group, f"{golden.salt}:{group}")
        module = attention_layer(int(crosses), width, 384, golden.metadata["hyper"]["rank"])
        module.load_state_dict(_named(golden, processor, f"{golden.salt}:{processor}"))
        keys_values, low_rank = taken_apart(torch.nn.ModuleDict({str(int(crosses)): module}))
        self.keys_values, self.width = keys_values, width
        for (_, end), change in low_rank.items():
            place = "to_out.0.weight" if end == "out" else f"to_{end}.weight"
            weights[place] = weights[place] + change.up @ change.down
        self.attention = CrossAttention(width, 384 if crosses else None, heads, width // heads, dtype=torch.float32)
        self.attention.load_state_dict(weights)

    @torch.no_grad()
    def run(self, x: Tensor, context: Tensor, tokens: Tensor | None = None, strength: float = 0.0) -> Tensor:
        """The attention of x (2, N, C) to its context, and to the identity of each row."""
        attention = self.attention
        q, k, v = attention.to_q(x), attention.to_k(context), attention.to_v(context)
        from likeness_pack.inject import host

        extra: dict[str, Any] = {"n_heads": attention.heads, "cond_or_uncond": [0, 1]}
        if tokens is None:
            return attention.to_out(host.attention(q, k, v, attention.heads, extra))
        return attention.to_out(_identity_patch(self.keys_values[0], tokens, strength)(q, k, v, extra))


def _identity_patch(keys_values: Any, tokens: Tensor, strength: float) -> Any:
    from likeness_pack.inject.attention import AttentionTerm, IdentityAttention
    from likeness_pack.inject.row_values import RowKeysValues
    from likeness_pack.inject.schedule import StepRange

    # Two rows with tokens of their own: the rows are told apart as positive and negative.
    positive, negative = ([keys_values(tokens[row : row + 1])] for row in (0, 1))
    term = AttentionTerm(
        key="golden",
        keys_values=RowKeysValues(positive, negative),
        strength=strength,
        steps=StepRange(0.0, 1.0, 1.0, 0.0),
        mask=None,
        positive_only=False,
    )
    return IdentityAttention(0, (term,))


def _named(golden: Golden, group: str, salt: str) -> dict[str, Tensor]:
    shapes = {name.split("/")[1]: shape for name, shape in golden.keys.items() if name.split("/")[0] == group}
    return {name: parity.tensor_for(name, tuple(shape) or (1,), salt) for name, shape in shapes.items()}


@part("unavglip_unet_small")
def unavglip_unet_small(golden: Golden) -> None:
    """MuseTalk's UNet with an adapter of its width, both from files, applied by the node's own code."""
    from likeness_pack.inject.musetalk import load_for, predict
    from likeness_pack.inject.unavglip import LipIdentityOptions, apply_lip_identity

    unet = {name: shape for name, shape in golden.keys.items() if not name.startswith("adapter_modules.")}
    inputs = golden.metadata["inputs"]
    case = next(iter(golden.tensors.values()))
    latents = golden.input("latents", (1, 8, *case.shape[2:])) * float(inputs["latents"].rsplit("*", 1)[1])
    audio, tokens = golden.input("audio", (1, 50, 384)), golden.input("id_tokens", inputs["id_tokens"])
    with TemporaryDirectory() as folder:
        model = filled_model(golden, unet, Path(folder), "v1")
        loaded = _adapter(golden, Path(folder), tokens)
    for name in golden.tensors:
        strength = float(name.removeprefix("pred_scale"))
        patched = apply_lip_identity(model, loaded, _anyone(), LipIdentityOptions(strength))
        load_for(patched, 1, latents.shape[-1])
        golden.check(name, predict(patched, latents, audio))


def _adapter(golden: Golden, folder: Path, tokens: Tensor) -> Any:
    """The adapter of the file, with the file's own tokens for every identity."""
    from likeness_pack.adapters.adapter import IdentityTokens
    from likeness_pack.tools.standins.fill import filled_all
    from likeness_pack.tools.standins.musetalk import unavglip

    adapter = {name: shape for name, shape in golden.keys.items() if name.startswith("adapter_modules.")}
    projection = {name: shape for name, shape in unavglip(heads=2).items() if name.startswith("image_proj_model.")}
    tensors = {**golden.filled(adapter), **filled_all(projection, torch.float32)}
    loaded = adapter_of(write_tensors(tensors, folder / "adapter.safetensors"))
    loaded.adapter.tokens = lambda identity, options: IdentityTokens(tokens, None)  # type: ignore[method-assign]
    return loaded


def _anyone() -> Any:
    from identities import arcface_identity

    return arcface_identity()
