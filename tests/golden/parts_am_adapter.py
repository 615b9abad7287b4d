"""AM-Adapter: matcher, ControlNeXt, its injection, augmented attention, and one step of both UNets in the host."""

from __future__ import annotations

import re
from types import SimpleNamespace
from typing import Any

import torch
from harness import Golden, part
from likeness_pack.adapters.families.am_adapter.arch import Matcher
from likeness_pack.adapters.families.am_adapter.attention import MatchBias, attend, hard_bias, soft_bias
from likeness_pack.adapters.families.am_adapter.controlnext.arch import ControlNeXt, inject_control
from likeness_pack.adapters.families.am_adapter.maps import agreement
from torch import Tensor
from torch.nn.functional import linear

Weights = dict[str, Tensor]
MATCHER = "matcher."


def sizes(golden: Golden, name: str) -> list[int]:
    """The shape that the metadata's entry of an input names, as a list or in a text such as ``(2,4,8)``."""
    entry = golden.metadata["inputs"][name]
    if isinstance(entry, str):
        entry = re.findall(r"\(((?:\d+,)+\d+)\)", entry.replace(" ", ""))[0].split(",")
    return [int(size) for size in entry]


@part("am_adapter_matcher")
def am_adapter_matcher(golden: Golden) -> None:
    """Each of the three encoders of the file."""
    hyper = golden.metadata["hyper_parameters"]
    matcher = Matcher(hyper["levels"], hyper["encoders"])
    assert {name: list(value.shape) for name, value in matcher.state_dict().items()} == golden.keys
    golden.fill(matcher)
    pairs = golden.input("corr", sizes(golden, "corr"))
    for encoder, block in enumerate(("down_blocks", "mid_block", "up_blocks")):
        golden.check(block, matcher(pairs, encoder))


@part("am_adapter_controlnext")
def am_adapter_controlnext(golden: Golden) -> None:
    """A map and a time to one feature map."""
    network = ControlNeXt(golden.keys["mid_convs.1.weight"][0])
    assert {name: list(value.shape) for name, value in network.state_dict().items()} == golden.keys
    golden.fill(network)
    picture = torch.sigmoid(golden.input("seg", sizes(golden, "seg")))
    golden.check("output", network(picture, torch.tensor([golden.metadata["inputs"]["timestep"]])))


@part("am_adapter_control_injection")
def am_adapter_control_injection(golden: Golden) -> None:
    """The feature map takes the statistics of the hidden state."""
    numbers = re.findall(r"\d[\d.]*", golden.metadata["inputs"]["sample"])
    shape = [int(number) for number in numbers[1:-1]]
    hidden = float(numbers[0]) * golden.input("sample", shape) + float(numbers[-1])
    control = golden.input("control", sizes(golden, "control"))
    golden.check("out", inject_control(hidden, control, golden.metadata["hyper_parameters"]["scale"]))


@part("am_adapter_attn")
def am_adapter_attn(golden: Golden) -> None:
    """Every case: without matcher, soft in a batch of two and of one, hard, over itself alone."""
    layer = _Layer(golden)
    hidden, ref = (golden.input(name, sizes(golden, name)) for name in ("hidden", "ref"))
    same = _agreement(golden)
    for case in golden.tensors:
        golden.check(case, layer.run(case, hidden, ref, same))


@part("am_adapter_attn_big")
def am_adapter_attn_big(golden: Golden) -> None:
    """The branch of resized logits, on a smaller grid."""
    layer = _Layer(golden)
    hidden, ref = (golden.input(name, sizes(golden, name)) for name in ("hidden", "ref"))
    side = sizes(golden, "seg_app")[-1]
    for case in golden.tensors:
        golden.check(case, layer.run(case, hidden, ref, _agreement(golden), grid=side))


class _Layer:
    """One attention layer and the matcher, from the filled key list."""

    def __init__(self, golden: Golden) -> None:
        filled = golden.filled({name: shape for name, shape in golden.keys.items() if "processor." not in name})
        self.weights = {name.removeprefix("attn."): value for name, value in filled.items()}
        self.heads = golden.metadata["hyper_parameters"]["heads"]
        self.matcher = _matcher(golden)

    def run(self, case: str, hidden: Tensor, ref: Tensor, same: Tensor, grid: int = 32) -> Tensor:
        """The layer's output for one case of the file."""
        if case.endswith("_batch1"):
            hidden, ref, same = hidden[:1], ref[:1], same[:1]
        bank = hidden[:, :0] if case == "self_only" else ref
        q, k, v = (linear(hidden, self.weights[f"to_{name}.weight"]) for name in "qkv")
        bank_k, bank_v = (linear(bank, self.weights[f"to_{name}.weight"]) for name in "kv")
        bias = self._bias(case, q, bank_k, same, grid)
        rows = []
        for row in range(len(q)):
            one = slice(row, row + 1)
            own = None if bias is None else bias[row]
            rows.append(attend(q[one], k[one], v[one], bank_k[one], bank_v[one], self.heads, own))
        return linear(torch.cat(rows), self.weights["to_out.0.weight"], self.weights["to_out.0.bias"])

    def _bias(self, case: str, q: Tensor, bank_k: Tensor, same: Tensor, grid: int) -> list[MatchBias | None] | None:
        if case == "hard":
            return [hard_bias(one[None], q.shape[1], grid) for one in same]
        if not case.startswith("soft"):
            return None
        layers = self.matcher.folded(torch.device("cpu"))
        found = soft_bias(q, bank_k, self.heads, layers, same, grid)
        # The official processor gives no bias to the first of two rows, which it holds to be the negative one.
        return [found.row(row) if row > 0 or len(q) == 1 else None for row in range(len(q))]


def _matcher(golden: Golden) -> Matcher:
    weights = {
        name: shape for name, shape in golden.keys.items() if name.startswith(MATCHER) and ".processor." not in name
    }
    filled = {name.removeprefix(MATCHER): value for name, value in golden.filled(weights).items()}
    encoders = len({name.split(".")[1] for name in filled})
    kernels = [filled[f"encoders.0.conv4d.{layer}.0.supp_conv.weight"] for layer in range(4)]
    matcher = Matcher((kernels[0].shape[1], *(len(kernel) for kernel in kernels)), encoders)
    matcher.load_state_dict(filled, strict=True)
    return matcher.eval().requires_grad_(False)


def _agreement(golden: Golden) -> Tensor:
    """(B, M, M) of the metadata's maps."""
    first, second = ((golden.input(name, sizes(golden, name)) > 0).float() for name in ("seg_app", "seg_tgt"))
    side = first.shape[-1]
    return torch.stack([agreement(a, b, side=side) for a, b in zip(first, second, strict=True)])


@part("am_adapter_step")
def am_adapter_step(golden: Golden) -> None:
    """One step of both UNets through the host's own network, with nothing but our patches."""
    from host_inprocess import tiny_model
    from parts_id_animator import model_config

    hyper = golden.metadata["hyper_parameters"]
    widths = hyper["block_out_channels"]
    config = {
        "channel_mult": [width // widths[0] for width in widths],
        "context_dim": hyper["cross_attention_dim"],
        "num_heads": hyper["attention_head_dim"],
    }

    def model(role: str) -> Any:
        names = {name: shape for name, shape in golden.keys.items() if name.startswith(f"{role}.")}
        weights = {name.removeprefix(f"{role}."): value for name, value in golden.filled(names).items()}
        return tiny_model(
            "SD15", widths[0], fill=lambda unet: _fill_unet(unet, model_config(widths, hyper), weights), **config
        )

    run = _Step(golden, model("semantic"), model("appearance"))
    with torch.no_grad():
        golden.check("noise_app", run.appearance())
        golden.check("noise_tgt", run.semantic())


class _Step:
    """Both models, patched, and the inputs of the step."""

    def __init__(self, golden: Golden, semantic: Any, appearance: Any) -> None:
        from likeness_pack.inject.am_adapter import put_matching
        from likeness_pack.inject.augmented_attention import Matching
        from likeness_pack.inject.controlnext import ControlPass, put_injection
        from likeness_pack.inject.exemplar_pass import AppearanceModel, ExemplarPass, Trajectory, capturing
        from likeness_pack.inject.layer_map import unet_layers
        from likeness_pack.inject.patching import clone_model
        from likeness_pack.inject.schedule import StepRange
        from unet_calls import load_model

        inputs = golden.metadata["inputs"]
        self.golden = golden
        sampling = semantic.get_model_object("model_sampling")
        self.sigma = sampling.sigmas[inputs["t"]].view(1)
        self.text = golden.input("text", inputs["text"])
        latent = golden.input("app_latent", sizes(golden, "app_latent"))
        strength = float(re.findall(r"scale (\d[\d.]*)", inputs["ctrl_app"])[0])

        def controlled(model: Any, name: str, beneath: Any = None) -> Any:
            clone = clone_model(model)
            put_injection(clone, strength)
            source = SimpleNamespace(control=lambda time: golden.input(name, sizes(golden, name)))
            clone.set_model_unet_function_wrapper(ControlPass(source, sampling, beneath))
            return clone

        seen = AppearanceModel(capturing(controlled(appearance, "ctrl_app")), resident=False)
        trajectory = Trajectory(torch.cat((self.sigma / 2, self.sigma)), torch.cat((torch.zeros_like(latent), latent)))
        layers = unet_layers(semantic)
        self.passing = ExemplarPass(seen, trajectory, len(layers), StepRange(0.0, 1.0, 0.0, 0.0), None)
        self.patched = controlled(semantic, "ctrl_tgt", self.passing)
        put_matching(self.patched, layers, Matching(_matcher(golden), _agreement(golden)))
        for loaded in (seen.patcher, self.patched):
            load_model(loaded)
        self.latent = latent

    def appearance(self) -> Tensor:
        """The appearance model's raw predictions for both rows."""
        model = self.passing.model
        options = {**model.patcher.model_options["transformer_options"], "cond_or_uncond": [1, 0]}
        x = self._scaled(self.latent)
        clean = model.forward(x, self.sigma.expand(2), {"c_crossattn": self.text, "transformer_options": options})
        return (x - clean) / self.sigma

    def semantic(self) -> Tensor:
        """The semantic model's raw predictions, its wrapper running the appearance pass."""
        options = {**self.patched.model_options["transformer_options"], "cond_or_uncond": [1, 0]}
        x = self._scaled(self.golden.input("tgt_latent", sizes(self.golden, "tgt_latent")))
        conditions = {"c_crossattn": self.text, "transformer_options": options}
        wrapper = self.patched.model_options["model_function_wrapper"]
        args = {"input": x, "timestep": self.sigma.expand(2), "c": conditions, "cond_or_uncond": [1, 0]}
        return (x - wrapper(self.patched.model.apply_model, args)) / self.sigma

    def _scaled(self, latent: Tensor) -> Tensor:
        return (latent * (self.sigma**2 + 1).sqrt()).expand(2, -1, -1, -1)


def _fill_unet(unet: torch.nn.Module, config: dict[str, Any], weights: Weights) -> None:
    import importlib

    names = importlib.import_module("comfy.utils").unet_to_diffusers(config)
    tensors = {host: weights[name] for name, host in names.items() if name in weights}
    places = unet.state_dict()
    unet.load_state_dict({name: value.reshape(places[name].shape) for name, value in tensors.items()}, strict=True)
