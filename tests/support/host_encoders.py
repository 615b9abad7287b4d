"""Small models of the host's own classes: CLIP vision, ControlNet, and SDXL's tokenizer with a toy encoder."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import torch
from host_inprocess import fill_seeded, unet_config


def clip_vision(
    folder: Path, width: int = 1280, projection: int = 24, depth: int = 2, image_size: int = 224, patch: int = 112
) -> Any:
    """The host's CLIP_VISION value with seeded weights: hidden states (N, 5, width), embeddings (N, projection)."""
    config = {
        "hidden_act": "gelu",
        "hidden_size": width,
        "image_size": image_size,
        "intermediate_size": 32,
        "layer_norm_eps": 1e-05,
        "model_type": "clip_vision_model",
        "num_attention_heads": 4,
        "num_channels": 3,
        "num_hidden_layers": depth,
        "patch_size": patch,
        "projection_dim": projection,
    }
    path = folder / "clip_vision.json"
    path.write_text(json.dumps(config), encoding="utf-8")
    value = importlib.import_module("comfy.clip_vision").ClipVisionModel(str(path))
    value.model.float()
    fill_seeded(value.model, seed=4)
    return value


def control_net(kind: str = "SDXL", seed: int = 6) -> Any:
    """The host's CONTROL_NET value with a tiny network; its zero convolutions are seeded like the rest, so it acts."""
    cldm = importlib.import_module("comfy.cldm.cldm")
    management = importlib.import_module("comfy.model_management")
    operations = importlib.import_module("comfy.ops").manual_cast
    config: dict[str, Any] = dict(unet_config(kind))  # type: ignore[arg-type]
    config.pop("out_channels")
    config.pop("transformer_depth_output")
    config |= {"hint_channels": 3, "operations": operations, "device": torch.device("cpu")}
    if kind == "SDXL":
        config["num_head_channels"] = 16
    else:
        config["num_heads"] = 8
    network = cldm.ControlNet(**config).eval()
    fill_seeded(network, seed)
    return importlib.import_module("comfy.controlnet").ControlNet(
        network, load_device=management.get_torch_device(), manual_cast_dtype=None
    )


class ToyClip:
    """SDXL's own tokenizer, and conditionings that depend on each token alone; keeps what it was asked to encode."""

    def __init__(self) -> None:
        self.tokenizer = importlib.import_module("comfy.sdxl_clip").SDXLTokenizer()
        self.asked: list[dict[str, Any]] = []

    def tokenize(self, text: str, **options: Any) -> Any:
        """As the host's CLIP does."""
        return self.tokenizer.tokenize_with_weights(text, **options)

    def encode_from_tokens(self, tokens: Any, return_pooled: bool = False, **options: Any) -> Any:
        """(1, 77 * chunks, 2048) and (1, 1280)."""
        self.asked.append(tokens)
        rows = [_row(entry[0]) * entry[1] for chunk in tokens["g"] for entry in chunk]
        text = torch.stack(rows)[None]
        return (text, text.mean(dim=1)[:, :1280]) if return_pooled else text


def _row(token: int) -> torch.Tensor:
    return torch.randn(2048, generator=torch.Generator().manual_seed(int(token)))


class ThinClip(ToyClip):
    """SDXL's tokenizer and the host's own two text encoders, three thin layers each."""

    def __init__(self) -> None:
        super().__init__()
        base = importlib.import_module("comfy.sd1_clip").SDClipModel
        signs = {"start": 49406, "end": 49407}
        with torch.no_grad():  # one host writes into its own parameters while it is built
            self.encoders = {
                name: base(
                    layer="hidden",
                    layer_idx=-2,
                    textmodel_json_config=_text_config(width),
                    dtype=torch.float32,
                    special_tokens={**signs, "pad": pad},
                    layer_norm_hidden_state=False,
                ).eval()
                for name, width, pad in (("l", 768, 49407), ("g", 1280, 0))
            }
        for encoder in self.encoders.values():
            fill_seeded(encoder, seed=2)

    def encode_from_tokens(self, tokens: Any, return_pooled: bool = False, **options: Any) -> Any:
        """(1, 77 * chunks, 2048) and the pooled vector (1, 1280) of the second encoder."""
        self.asked.append(tokens)
        with torch.no_grad():
            parts = {name: encoder.encode_token_weights(tokens[name]) for name, encoder in self.encoders.items()}
        text = torch.cat((parts["l"][0], parts["g"][0]), dim=-1)
        return (text, parts["g"][1]) if return_pooled else text


def _text_config(width: int) -> dict[str, Any]:
    return {
        "hidden_act": "gelu",
        "hidden_size": width,
        "intermediate_size": 16,
        "max_position_embeddings": 77,
        "num_attention_heads": 4,
        "num_hidden_layers": 3,
        "vocab_size": 49408,
        "eos_token_id": 49407,
    }
