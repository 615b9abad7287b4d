"""TransFace S, B and L against the official vision transformer."""

from __future__ import annotations

import re

from harness import Golden, part
from likeness_pack.adapters.encoders.transface.arch import TransFace, TransFaceConfig
from torch import Tensor, nn


def _config(golden: Golden) -> TransFaceConfig:
    hyper, keys = golden.metadata["hyper_parameters"], golden.keys
    return TransFaceConfig(
        width=int(hyper["embed_dim"]),
        depth=int(hyper["depth"]),
        patch=int(hyper["patch_size"]),
        embedding=int(hyper["num_classes"]),
        heads=int(hyper["num_heads"]),
        hidden=int(keys["blocks.0.mlp.fc1.weight"][0]),
        gated="senet.0.weight" in keys,
    )


def _check_layout(network: nn.Module, golden: Golden) -> None:
    """The module has exactly the published names and shapes."""
    ours = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    assert ours == {name: tuple(shape) for name, shape in golden.keys.items()}


def _input(golden: Golden, name: str) -> Tensor:
    """An input by its recipe: a shape, as a list or as text with D for the width, and the factor in its scaling."""
    recipe, width = golden.metadata["inputs"][name], str(golden.metadata["hyper_parameters"]["embed_dim"])
    shape = [int(size) for size in re.findall(r"\d+", str(recipe["shape"]).replace("D", width))]
    factor = re.search(r"\*\s*([\d.]+)", recipe["scaling"])
    return golden.input(name, shape) * (float(factor[1]) if factor else 1.0)


def _run(golden: Golden) -> None:
    network = TransFace(_config(golden))
    _check_layout(network, golden)
    golden.fill(network)
    out = network(_input(golden, "image").clamp(-1, 1))
    golden.check("embedding", out.embedding)
    assert out.weight is not None
    golden.check("weight", out.weight)
    golden.check("patch_entropy", out.patch_entropy)
    golden.check("tokens", out.tokens[:, ::4, ::4])
    golden.check("tokens_token_mean", out.tokens.mean(-1))
    golden.check("tokens_token_std", out.tokens.std(-1))
    block = network.blocks[0]
    golden.check("mlp_probe", block.mlp(_input(golden, "mlp_probe")))
    golden.check("attn_probe", block.attn(_input(golden, "attn_probe"))[:, ::6])


@part("transface_s")
def transface_s(golden: Golden) -> None:
    """Width 512, 12 blocks."""
    _run(golden)


@part("transface_b")
def transface_b(golden: Golden) -> None:
    """Width 512, 24 blocks."""
    _run(golden)


@part("transface_l")
def transface_l(golden: Golden) -> None:
    """Width 768, 24 blocks."""
    _run(golden)
