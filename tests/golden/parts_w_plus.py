"""The W+ adapter: mapper, residual attention, e4e, its picture, FFHQ alignment, directions, StyleGAN2."""

from __future__ import annotations

import zlib

import numpy as np
import parity
import torch
from harness import Golden, part
from likeness_pack.adapters.encoders.e4e.align import align_face, e4e_input, ffhq_quad, quad_width, soft_background
from likeness_pack.adapters.encoders.e4e.arch import Encoder4Editing
from likeness_pack.adapters.encoders.e4e.stylegan2 import Generator
from likeness_pack.adapters.families.w_plus.arch import ResidualMaps, WPlusMapper, residual
from likeness_pack.adapters.families.w_plus.directions import ATTRIBUTES, component_direction, edit
from likeness_pack.adapters.layers.attention import attention
from torch import Tensor
from torch.nn.functional import avg_pool2d, linear

PCA = {"mean": (1, 512), "comp": (80, 1, 512)}


@part("w_plus_proj")
def w_plus_proj(golden: Golden) -> None:
    """Four tokens of a code, and of zeros."""
    hyper = golden.metadata["hyper_parameters"]
    mapper = WPlusMapper(hyper["embeddings_dim"], hyper["cross_attention_dim"], tuple(hyper["proj_index"]))
    assert {name: list(value.shape) for name, value in mapper.state_dict().items()} == golden.keys
    golden.fill(mapper)
    codes = golden.input("w", golden.metadata["inputs"]["w"])
    golden.check("tokens", mapper(codes))
    golden.check("tokens_zero", mapper(torch.zeros_like(codes[:1])))


@part("w_plus_attn")
def w_plus_attn(golden: Golden) -> None:
    """The layer's output with the folded residual attention."""
    hyper, inputs = golden.metadata["hyper_parameters"], golden.metadata["inputs"]
    text, tokens = golden.input("text", inputs["text"]), golden.input("wtok", inputs["wtok"])
    filled, heads = golden.filled(golden.keys), hyper["heads"]
    for name in golden.tensors:
        width, scale = int(name[3:].split("_")[0]), float(name.split("scale")[1])
        prefix = f"h{width}."
        w = {key.removeprefix(prefix): value for key, value in filled.items() if key.startswith(prefix)}
        maps = ResidualMaps(tokens.shape[-1], width)
        maps.load_state_dict({n: w[f"processor.{n}"] for n in maps.state_dict()})
        x = golden.input(f"hidden{width}", inputs[f"hidden{width}"])
        q, k, v = linear(x, w["to_q.weight"]), linear(text, w["to_k.weight"]), linear(text, w["to_v.weight"])
        out = attention(q, k, v, heads)
        out = out + scale * residual(out, *maps(tokens, heads), heads)
        golden.check(name, linear(out, w["to_out.0.weight"], w["to_out.0.bias"]))


def _pixels(golden: Golden, name: str, low: int, high: int, shape: tuple[int, ...], repeat: tuple[int, ...]) -> Tensor:
    """The rule for 8-bit pictures of coloured squares, (H, W) or (H, W, 3)."""
    stream = np.random.RandomState(zlib.crc32(f"{golden.salt}:input:{name}".encode()) & 0xFFFFFFFF)
    return torch.from_numpy(np.kron(stream.randint(low, high, shape), np.ones(repeat, dtype=np.int64)))


def _block_means(pixels: Tensor, size: int) -> Tensor:
    return avg_pool2d(pixels.double()[None], size)[0]


@part("w_plus_align")
def w_plus_align(golden: Golden) -> None:
    """FFHQ alignment of 68 landmarks: the official quad, shrinking, warp and Lanczos filter."""
    from likeness_pack.faces.landmarks import landmarks5_from_68

    hyper = golden.metadata["hyper_parameters"]
    pixels = _pixels(golden, "align_img", 0, 256, (30, 26, 3), (10, 10, 1)).to(torch.uint8).movedim(-1, 0)
    quad = ffhq_quad(landmarks5_from_68(golden.tensors["landmarks"].double()))
    golden.check("length", torch.tensor([quad_width(quad)]))
    crop = align_face(pixels, quad, hyper["output_size"], hyper["transform_size"])
    golden.check("aligned_blockmean8", _block_means(crop, 8))
    golden.check("aligned_crop", crop[:, 240:272, 240:272])


@part("w_plus_e4e_input")
def w_plus_e4e_input(golden: Golden) -> None:
    """The white background and the size e4e sees."""
    image = _pixels(golden, "pre_img", 0, 256, (32, 32, 3), (16, 16, 1)).to(torch.uint8).movedim(-1, 0)
    mask = (_pixels(golden, "pre_mask", 0, 256, (32, 32), (16, 16)) > 127).to(torch.uint8) * 255
    got = e4e_input(image, mask)
    golden.check("e4e_input_blockmean8", _block_means(got, 8))
    golden.check("e4e_input_crop", got[:, 96:128, 96:128])
    golden.check("mask_crop", soft_background(mask)[96:128, 96:128])


@part("w_plus_e4e")
def w_plus_e4e(golden: Golden) -> None:
    """The encoder without the mean code; statistics of its three feature maps."""
    network = Encoder4Editing()
    assert {name: list(value.shape) for name, value in network.state_dict().items()} == golden.keys
    golden.fill(network)
    features = network.features(golden.input("image", golden.metadata["inputs"]["image"]))
    for number, feature in enumerate(features, start=1):
        golden.check(f"c{number}_chmean", feature.mean((2, 3)))
        golden.check(f"c{number}_chstd", feature.flatten(2).std(2))
    golden.check("w", network.codes(features))


@part("w_plus_direction")
def w_plus_direction(golden: Golden) -> None:
    """GANSpace deltas on their own rows, zero elsewhere."""
    codes = golden.input("w", (1, 18, 512))
    mean, components = (parity.tensor_for(f"pca.{n}", s, golden.salt) for n, s in PCA.items())
    deviations = parity.tensor_for("pca.std", (80,), golden.salt).abs() + 0.1
    strengths = dict(entry.split(" ") for entry in golden.metadata["inputs"]["strength"].split(", "))
    for attribute, (index, start, end) in golden.metadata["hyper_parameters"].items():
        assert ATTRIBUTES[attribute] == (index, start, end)
        direction = component_direction(mean, components, deviations, attribute)
        delta = edit(codes.double(), direction, float(strengths[attribute])) - codes.double()
        golden.check(f"ganspace_{attribute}", delta)


@part("w_plus_stylegan2")
def w_plus_stylegan2(golden: Golden) -> None:
    """The generator on one code; the mapping network of the file is not part of it."""
    network = Generator()
    names = {name: list(value.shape) for name, value in network.state_dict().items()}
    assert names == {name: shape for name, shape in golden.keys.items() if not name.startswith("style.")}
    golden.fill(network)
    (picture,) = network(golden.input("w", golden.metadata["inputs"]["w"]))
    golden.check("rgb_blockmean16", _block_means(picture, 16))
    golden.check("rgb_crop", picture[:, 500:532, 500:532])
