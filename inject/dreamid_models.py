"""DreamID's two UNets as MODELs of the host's own, built of the tensors of a file."""

from __future__ import annotations

import importlib
from typing import Any

from torch import Tensor

from ..adapters.errors import BaseModelMismatch
from ..adapters.families.dreamid.adapter import DreamIdAdapter
from . import host


def swapnet_model(adapter: DreamIdAdapter) -> Any:
    """The MODEL that samples: eight input channels, of which the host's concat path gives the last four."""
    return _model(adapter, adapter.swapnet_tensors())


def facenet_model(adapter: DreamIdAdapter) -> Any:
    """The MODEL that sees the source picture once."""
    return _model(adapter, adapter.facenet_tensors())


def _model(adapter: DreamIdAdapter, tensors: dict[str, Tensor]) -> Any:
    """A MODEL of Stable Diffusion 2's class, whatever its width, which the host's own detection takes for fixed."""
    manager = host.model_management()
    supported = importlib.import_module("comfy.supported_models")
    bases = importlib.import_module("comfy.model_base")
    config = supported.SD20(importlib.import_module("comfy.model_detection").detect_unet_config(tensors, ""))
    config.unet_config["num_head_channels"] = adapter.facts.head_channels
    parameters = sum(tensor.numel() for tensor in tensors.values())
    dtype = manager.unet_dtype(model_params=parameters, supported_dtypes=config.supported_inference_dtypes)
    device = manager.get_torch_device()
    config.set_inference_dtype(dtype, manager.unet_manual_cast(dtype, device, config.supported_inference_dtypes))
    predicts = bases.ModelType.EPS if adapter.facts.prediction == "eps" else bases.ModelType.V_PREDICTION
    offload = manager.unet_offload_device()
    model = bases.BaseModel(config, model_type=predicts, device=offload).to(offload)
    names = set(tensors)
    model.load_model_weights(tensors, "")
    differing = names ^ set(model.diffusion_model.state_dict())
    if differing:
        raise BaseModelMismatch(
            adapter.report.title,
            expected="a UNet of Stable Diffusion 2.1's layout in this ComfyUI",
            found=f"{len(differing)} tensors that it has not, or has more, such as {min(differing)}",
            cure="report this version of ComfyUI",
        )
    return host.model_patcher().ModelPatcher(model, load_device=device, offload_device=offload)
