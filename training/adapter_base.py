"""The frozen base model of an adapter's training: a diffusers UNet, its autoencoder and its prompt.

Three places give one: the small model for drawn faces that comes with the project, a folder in diffusers' layout, and
the weights of a UNet under the original names.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..adapters.checkpoint import load_strictly, load_tensors
from ..adapters.demo_weights import DRAWN_BASE, DRAWN_VAE, PROMPT_PREFIX, UNET_PREFIX, demo_header, in_float32
from ..adapters.errors import BaseModelMismatch
from .demo.autoencoder import Autoencoder
from .demo.base import HEADS
from .demo.conditioning import AttributeTokens
from .dreamid_names import to_diffusers
from .packages import diffusers, transformers

PROMPT = "a photo of a person"
_LEVELS = ("conv_in", *(f"down_blocks.{level}.resnets.0.conv1" for level in (1, 2, 3)))
_CONTEXT = "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k.weight"

Pixels = Callable[[Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class Base:
    """What stays as it is.

    Attributes:
        unet: a diffusers UNet of SD1.5's layout.
        encode: pictures (B, H, W, 3), 0..1, to latents (B, 4, H/8, W/8) as the UNet takes them.
        decode: the way back.
        text: (1, T, C) the prompt of every picture; None where each picture has its own.
        prompt: of the drawn faces model: attributes to tokens.
    """

    unet: Any
    encode: Pixels
    decode: Pixels
    text: Tensor | None = None
    prompt: AttributeTokens | None = None


def unet_of(tensors: Mapping[str, Tensor]) -> Any:
    """A diffusers UNet with the weights of an SD1.5 UNet under its original names, float32.

    Raises:
        BaseModelMismatch: another layout.
        KeyMismatch: tensors are missing or have other shapes.
    """
    named = {name: tensor.detach().to("cpu", torch.float32).clone() for name, tensor in to_diffusers(tensors).items()}
    needed = [f"{level}.weight" for level in _LEVELS] + [_CONTEXT]
    if any(name not in named for name in needed) or named["conv_in.weight"].shape[1] != 4:
        raise BaseModelMismatch(
            "base model",
            expected="the UNet of SD1.5",
            found="another network",
            cure="train on an SD1.5 model without inpainting",
        )
    # Not started at random first, which takes seconds for a full UNet.
    with torch.device("meta"):
        unet = diffusers().UNet2DConditionModel(
            block_out_channels=tuple(int(named[f"{level}.weight"].shape[0]) for level in _LEVELS),
            cross_attention_dim=int(named[_CONTEXT].shape[1]),
            attention_head_dim=HEADS,
        )
    unet = unet.to_empty(device="cpu")
    load_strictly(unet, named, what="base model")
    return unet.eval()


def drawn_base(folder: Path) -> Base:
    """The small base model for drawn faces.

    Raises:
        MissingModelFile: its files are not there.
    """
    header = demo_header(folder / DRAWN_BASE)
    prompt = AttributeTokens(int(header.metadata["context"]), int(header.metadata["tokens"]))
    load_strictly(prompt, in_float32(load_tensors(header, PROMPT_PREFIX)), what=DRAWN_BASE)
    autoencoder = Autoencoder()
    weights = in_float32(load_tensors(demo_header(folder / DRAWN_VAE)))
    weights.pop("vae_scale", None)
    load_strictly(autoencoder, weights, what=DRAWN_VAE)
    autoencoder.eval().requires_grad_(False)
    unet = unet_of(load_tensors(header, UNET_PREFIX))
    return Base(unet, autoencoder.encode, autoencoder.decode, prompt=prompt.eval().requires_grad_(False))


def folder_base(folder: Path, prompt: str = PROMPT) -> Base:
    """A folder in diffusers' layout: ``unet``, ``vae``, ``text_encoder`` and ``tokenizer``; nothing is downloaded.

    Raises:
        BaseModelMismatch: a part that is missing or cannot be read.
        MissingPackage: diffusers or transformers is not installed.
    """
    library = diffusers()
    unet = _part(library.UNet2DConditionModel, folder, "unet").float().eval()
    vae = _part(library.AutoencoderKL, folder, "vae").float().eval().requires_grad_(False)
    scale = float(vae.config.scaling_factor)

    def encode(pictures: Tensor) -> Tensor:
        with torch.no_grad():
            latents: Tensor = vae.encode(pictures.movedim(-1, 1) * 2 - 1).latent_dist.mean * scale
        return latents

    def decode(latents: Tensor) -> Tensor:
        with torch.no_grad():
            pictures: Tensor = vae.decode(latents / scale).sample
        return (pictures.movedim(1, -1) / 2 + 0.5).clamp(0, 1)

    return Base(unet, encode, decode, _encoded(folder, prompt))


def _encoded(folder: Path, prompt: str) -> Tensor:
    library = transformers()
    tokenizer = _part(library.CLIPTokenizer, folder, "tokenizer")
    network = _part(library.CLIPTextModel, folder, "text_encoder").float().eval()
    longest = int(network.config.max_position_embeddings)
    ids = tokenizer(prompt, padding="max_length", truncation=True, max_length=longest, return_tensors="pt").input_ids
    with torch.no_grad():
        text: Tensor = network(ids)[0]
    return text


def _part(kind: Any, folder: Path, name: str) -> Any:
    try:
        return kind.from_pretrained(folder, subfolder=name, local_files_only=True)
    except (OSError, ValueError, RuntimeError, json.JSONDecodeError) as error:
        raise BaseModelMismatch(
            f"base model {folder.name}",
            expected=f"a folder of diffusers with {name}",
            found=str(error).splitlines()[0][:120] if str(error) else type(error).__name__,
            cure="give a folder that diffusers wrote for an SD1.5 model",
        ) from error
