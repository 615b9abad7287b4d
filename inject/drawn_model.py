"""The small base model for drawn faces inside the host: its own SD1.5 class, its own VAE, and the prompt tokens.

The host recognises SD1.5 checkpoints at width 320 only, so the class is built from its options directly.
"""

from __future__ import annotations

import importlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..adapters.checkpoint import CheckpointHeader, load_strictly, load_tensors
from ..adapters.demo_weights import CURE, DRAWN_BASE, DRAWN_VAE, PROMPT_PREFIX, UNET_PREFIX, demo_header, in_float32
from ..adapters.errors import BadCheckpoint
from .host import model_management, model_patcher
from .model_folders import DEMO_WEIGHTS

FOLDER = DEMO_WEIGHTS
# SD1.5's blocks, for the host's class; only the widths are ours.
_TOPOLOGY: dict[str, Any] = {
    "image_size": 32,
    "use_checkpoint": False,
    "use_spatial_transformer": True,
    "legacy": False,
    "in_channels": 4,
    "out_channels": 4,
    "use_temporal_attention": False,
    "num_res_blocks": [2] * 4,
    "transformer_depth": [1] * 6 + [0] * 2,
    "transformer_depth_output": [1] * 9 + [0] * 3,
    "transformer_depth_middle": 1,
    "use_linear_in_transformer": False,
    "adm_in_channels": None,
}


@dataclass(frozen=True, eq=False)
class DrawnModel:
    """What the loader gives.

    Attributes:
        model: the host's MODEL.
        vae: the host's VAE.
        prompt: weights of the network that turns attributes into tokens.
        context, tokens: its channels and number of tokens.
    """

    model: Any
    vae: Any
    prompt: dict[str, Tensor]
    context: int
    tokens: int


def load_drawn_model(folder: Path = FOLDER) -> DrawnModel:
    """Build base model and VAE of the demo weights.

    Raises:
        MissingModelFile: the pack came without them.
        BadCheckpoint: another file under that name.
    """
    header = demo_header(folder / DRAWN_BASE)
    model = _model(header)
    prompt = in_float32(load_tensors(header, PROMPT_PREFIX))
    sizes = int(header.metadata["context"]), int(header.metadata["tokens"])
    return DrawnModel(model, _vae(demo_header(folder / DRAWN_VAE)), prompt, *sizes)


def _model(header: CheckpointHeader) -> Any:
    if "widths" not in header.metadata or not header.with_prefix(UNET_PREFIX):
        raise BadCheckpoint(
            header.path.name,
            expected="a base model for drawn faces",
            found="a file without its widths",
            cure=CURE,
        )
    widths = json.loads(header.metadata["widths"])
    options = {
        **_TOPOLOGY,
        "model_channels": widths[0],
        "channel_mult": [width // widths[0] for width in widths],
        "context_dim": int(header.metadata["context"]),
        "dtype": torch.float32,
    }
    supported = importlib.import_module("comfy.supported_models")
    config = supported.SD15(options)
    manager = model_management()
    model = config.get_model({}, "", device=torch.device("cpu")).eval()
    load_strictly(model.diffusion_model, in_float32(load_tensors(header, UNET_PREFIX)), what=header.path.name)
    return model_patcher().ModelPatcher(
        model, load_device=manager.get_torch_device(), offload_device=torch.device("cpu")
    )


def _vae(header: CheckpointHeader) -> Any:
    return importlib.import_module("comfy.sd").VAE(sd=in_float32(load_tensors(header)))
