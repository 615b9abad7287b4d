"""The adapters that can be trained, from fresh weights to the published layouts."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ...adapters.families.fact.arch import HEAD_DIM, FaceResampler, FactNetwork, gated_layer
from ...adapters.families.ip_adapter_faceid.arch import EmbeddingProjection, FaceKeysValues
from ..checkpointing import write_model
from ..seeds import generator_for
from .attached import AttachedGatedLayers, AttachedKeysValues, block_widths, file_order
from .options import AdapterOptions
from .people import People
from .task import AdapterModel

ENCODER_KEY = "encoder"


@dataclass(frozen=True)
class ResamplerShape:
    """Sizes of FACT's projector; the defaults are the published one's.

    Attributes:
        width: channels of a face token inside.
        depth: layers.
        heads: attention heads of 64 channels.
        queries: face tokens that come out.
        feed_forward: channels between the two linear layers of a block.
    """

    width: int = 1024
    depth: int = 4
    heads: int = 12
    queries: int = 16
    feed_forward: int = 4096


class FactModel:
    """FACT's projector and gated layers, attached to a UNet.

    Args:
        unet: a diffusers UNet of SD1.5's layout.
        input_dim: channels of the encoder's tokens (512 of TransFace-S).
        shape: sizes of the projector.
        seed: of the fresh weights.
    """

    def __init__(self, unet: Any, input_dim: int, shape: ResamplerShape, seed: int = 0) -> None:
        context = int(unet.config.cross_attention_dim)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(generator_for(seed, "fact").initial_seed())
            projector = FaceResampler(
                input_dim=input_dim,
                width=shape.width,
                output_dim=context,
                queries=shape.queries,
                depth=shape.depth,
                heads=shape.heads,
                head_dim=HEAD_DIM,
                feed_forward=shape.feed_forward,
            )
            nn.init.normal_(projector.latents, std=shape.width**-0.5)
            layers = {path: gated_layer(width, context) for path, width in block_widths(unet).items()}
        self.network = FactNetwork(projector, layers)
        self.attached = AttachedGatedLayers(unet, layers)

    def tokens(self, conditions: Tensor) -> Tensor:
        """Encoder tokens (B, S, D) give face tokens (B, T, C)."""
        projected: Tensor = self.network.local_fac_prj(conditions)
        return projected

    def file_tensors(self, dtype: torch.dtype) -> dict[str, Tensor]:
        """The published layout: projector and gated layers."""
        return {name: one.detach().to("cpu", dtype) for name, one in self.network.state_dict().items()}


class FaceIDNetwork(nn.Module):
    """Projection and keys and values under the names of an IP-Adapter file.

    Args:
        image_proj: the projection.
        layers: keys and values in the file's order.
    """

    def __init__(self, image_proj: EmbeddingProjection, layers: list[FaceKeysValues]) -> None:
        super().__init__()
        self.image_proj = image_proj
        # Files number all attention layers; the second of each block is the one that reads the face.
        self.ip_adapter = nn.ModuleDict({str(2 * number + 1): layer for number, layer in enumerate(layers)})


class FaceIDModel:
    """IP-Adapter-FaceID without LoRA, as the Portrait files are, attached to a UNet.

    Args:
        unet: a diffusers UNet of SD1.5's layout.
        embedding_dim: width of the encoder's embedding (512).
        tokens: face tokens per photo (Portrait: 16).
        seed: of the fresh weights.
        hidden: channels inside the projection.
    """

    def __init__(self, unet: Any, embedding_dim: int, tokens: int = 16, seed: int = 0, hidden: int = 1024) -> None:
        context = int(unet.config.cross_attention_dim)
        widths = block_widths(unet)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(generator_for(seed, "faceid").initial_seed())
            projection = EmbeddingProjection(embedding_dim, hidden, tokens, context)
            layers = {path: FaceKeysValues(context, widths[path]) for path in file_order(list(widths))}
        with torch.no_grad():
            for path, layer in layers.items():
                # Official training starts from the text's own maps.
                attn2: Any = unet.get_submodule(path).attn2
                layer.to_k_ip.weight.copy_(attn2.to_k.weight)
                layer.to_v_ip.weight.copy_(attn2.to_v.weight)
        self.network = FaceIDNetwork(projection, list(layers.values()))
        self.attached = AttachedKeysValues(unet, layers)

    def tokens(self, conditions: Tensor) -> Tensor:
        """Embeddings (B, D), scaled to unit length here, give face tokens (B, T, C)."""
        return self.network.image_proj(nn.functional.normalize(conditions, dim=1))

    def file_tensors(self, dtype: torch.dtype) -> dict[str, Tensor]:
        """The published layout: ``image_proj.*`` and ``ip_adapter.*``."""
        return {name: one.detach().to("cpu", dtype) for name, one in self.network.state_dict().items()}


def save_adapter(
    path: Path,
    model: AdapterModel,
    people: People,
    options: AdapterOptions,
    finished: int,
    dtype: torch.dtype = torch.float16,
    notes: Mapping[str, str] | None = None,
) -> None:
    """Write a trained adapter in its published layout; metadata say from what and how.

    Args:
        path: a .safetensors file.
        model: the adapter.
        people: the material; its encoder is named in the file.
        options: of the run.
        finished: steps that were done.
        dtype: of the tensors.
        notes: further metadata.
    """
    metadata = {
        ENCODER_KEY: people.encoder,
        "base": "sd15",
        "pictures": str(len(people.latents)),
        "persons": str(len(people.persons.unique())),
        "finished_steps": str(finished),
        "training": json.dumps(options.plain(), sort_keys=True),
        **(notes or {}),
    }
    write_model(path, model.file_tensors(dtype), metadata, "face-adapter", "sd15")
