"""MuseTalk's UNet as a MODEL of the host's own UNet classes, and its single call.

Its files are diffusers' UNets that no host's detection knows (8 channels in, context 384 wide), so the host's SD1.5
configuration is told the sizes here. The network gives the latent of the result itself: there is no noise, no schedule,
and its timestep is always 0 (TMElyralab/MuseTalk, ``musetalk/models/unet.py``, ``scripts/inference.py``).
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..adapters import registry
from ..adapters.checkpoint import load_strictly
from ..adapters.errors import BaseModelMismatch, EncoderMismatch, KeyMismatch
from ..adapters.families.musetalk.adapter import MuseTalkFile
from ..adapters.families.musetalk.layout import (
    CONTEXT,
    HEADS,
    IN_CHANNELS,
    LEVELS,
    OUT_CHANNELS,
    PUBLISHED_WIDTHS,
)
from . import host
from .patching import forward_wrapper
from .rows import POSITIVE

LATENT = 4
# One noise level for every call, so that patches with a range of steps know where they are.
SIGMA = 1.0


@dataclass(frozen=True)
class MuseTalkFacts:
    """What is known of a MuseTalk MODEL.

    Attributes:
        version: ``"v1"`` or ``"v15"``.
        digest: identifies the file.
    """

    version: str
    digest: str


class OneStep(nn.Module):
    """The host's ``model_sampling`` of a network without noise: it sees latents as they are and gives the result.

    A sampler of one step therefore ends where the lip-sync node does.
    """

    def __init__(self) -> None:
        super().__init__()
        self.sigma_data = 1.0
        self.register_buffer("sigmas", torch.linspace(0.001, SIGMA, 1000))

    @property
    def sigma_min(self) -> Tensor:
        """The smallest noise level."""
        return self.get_buffer("sigmas")[0]

    @property
    def sigma_max(self) -> Tensor:
        """The only noise level that is used."""
        return self.get_buffer("sigmas")[-1]

    def timestep(self, sigma: Tensor) -> Tensor:
        """Always 0: (B,)."""
        return torch.zeros_like(sigma)

    def sigma(self, timestep: Tensor) -> Tensor:
        """Always the one noise level."""
        return torch.full_like(torch.as_tensor(timestep, dtype=torch.float32), SIGMA)

    def percent_to_sigma(self, percent: float) -> float:
        """The noise level at a fraction of the schedule."""
        return SIGMA * (1.0 - percent)

    def calculate_input(self, sigma: Tensor, noise: Tensor) -> Tensor:
        """Latents as they are."""
        return noise

    def calculate_denoised(self, sigma: Tensor, model_output: Tensor, model_input: Tensor) -> Tensor:
        """The output as it is."""
        return model_output

    def noise_scaling(self, sigma: Tensor, noise: Tensor, latent_image: Tensor, max_denoise: bool = False) -> Tensor:
        """Latents without noise."""
        return latent_image

    def inverse_noise_scaling(self, sigma: Tensor, latent: Tensor) -> Tensor:
        """Latents as they are."""
        return latent


def unet_config(widths: tuple[int, ...] = PUBLISHED_WIDTHS) -> dict[str, Any]:
    """Options of the host's UNet for a file whose levels are so wide."""
    attended = LEVELS - 1
    return {
        "image_size": 32,
        "use_checkpoint": False,
        "use_spatial_transformer": True,
        "legacy": False,
        "use_temporal_attention": False,
        "adm_in_channels": None,
        "in_channels": IN_CHANNELS,
        "out_channels": OUT_CHANNELS,
        "model_channels": widths[0],
        "channel_mult": [width // widths[0] for width in widths],
        "num_res_blocks": [2] * LEVELS,
        "transformer_depth": [1] * (2 * attended) + [0] * 2,
        "transformer_depth_output": [1] * (3 * attended) + [0] * 3,
        "transformer_depth_middle": 1,
        "context_dim": CONTEXT,
        "num_heads": HEADS,
        "num_head_channels": -1,
        "use_linear_in_transformer": False,
    }


def read_musetalk(path: Path, version: str) -> tuple[Any, str]:
    """The MODEL of a file, and what was recognised.

    Args:
        path: the file.
        version: ``"auto"``, ``"v1"`` or ``"v15"``.

    Raises:
        AmbiguousCheckpoint: the version cannot be told, under auto.
        EncoderMismatch: a file of another system.
    """
    file = registry.load(path, "adapter", version)
    if not isinstance(file, MuseTalkFile):
        raise EncoderMismatch(
            path.name,
            expected="MuseTalk's UNet",
            found=f"a file of {file.report.title}",
            cure=f"put it into models/face_adapters and connect it to {file.apply_node}",
        )
    return load_musetalk(file), file.report.as_text()


def load_musetalk(file: MuseTalkFile) -> Any:
    """A MODEL with the weights of a file.

    Raises:
        KeyMismatch: a tensor is missing or has another shape.
        BadCheckpoint: the file changed or is damaged.
    """
    # The host runs nodes in inference mode, whose tensors cannot become parameters outside it: read outside it too.
    with torch.inference_mode(False), torch.no_grad():
        tensors = file.tensors()
        count = sum(tensor.numel() for tensor in tensors.values())
        model = _empty_model(file.widths, count)
        load_strictly(model.diffusion_model, _renamed(tensors, file), what=file.name)
        model.likeness_musetalk = MuseTalkFacts(file.version, file.digest)
    manager = host.model_management()
    return host.model_patcher().ModelPatcher(
        model.eval(), load_device=manager.get_torch_device(), offload_device=manager.unet_offload_device()
    )


def musetalk_facts(model: Any, what: str) -> MuseTalkFacts:
    """The facts of a MuseTalk MODEL.

    Raises:
        BaseModelMismatch: another model.
    """
    facts = getattr(model.model, "likeness_musetalk", None)
    if isinstance(facts, MuseTalkFacts):
        return facts
    raise BaseModelMismatch(
        what,
        expected="a MuseTalk model",
        found=f"the model {type(model.model).__name__} ({type(model.model.diffusion_model).__name__})",
        cure="connect the model of 'Load MuseTalk'",
    )


def predict(model: Any, latents: Tensor, audio: Tensor) -> Tensor:
    """Latents (B, 4, H, W) of the frames with the mouth of the sound; one call of the network, weights loaded before.

    Args:
        model: a MuseTalk MODEL, patched or not.
        latents: (B, 8, H, W), scaled: of the frames whose lower half is black, then of the references.
        audio: (B, 50, 384), positions added.

    Raises:
        BaseModelMismatch: another model.
        EncoderMismatch: tokens of another width.
    """
    musetalk_facts(model, "lip-sync")
    _check(latents, audio)
    device = model.load_device
    masked, reference = (part.to(device) for part in latents.split(LATENT, dim=1))
    sigma = torch.full((len(latents),), SIGMA, device=device)
    options = {
        **model.model_options.get("transformer_options", {}),
        "cond_or_uncond": [POSITIVE],
        "sigmas": sigma,
        "sample_sigmas": sigma[:1],
    }
    conditions = {"c_concat": reference, "c_crossattn": audio.to(device), "transformer_options": options}
    wrapper = forward_wrapper(model)
    if wrapper is None:
        found: Tensor = model.model.apply_model(masked, sigma, **conditions)
    else:
        args = {"input": masked, "timestep": sigma, "c": conditions, "cond_or_uncond": [POSITIVE]}
        found = wrapper(model.model.apply_model, args)
    return found


def load_for(model: Any, frames: int, side: int) -> None:
    """Have the host load the model for batches of so many frames of latents ``side`` wide and high."""
    needed = model.memory_required([frames, IN_CHANNELS, side, side])
    below = list(getattr(forward_wrapper(model), "models", list)())
    host.model_management().load_models_gpu([model, *below], needed)


def _empty_model(widths: tuple[int, ...], count: int) -> Any:
    """The host's model for these sizes, weights to come."""
    manager = host.model_management()
    config = importlib.import_module("comfy.supported_models").SD15(unet_config(widths))
    dtype = manager.unet_dtype(model_params=count)
    config.set_inference_dtype(dtype, manager.unet_manual_cast(dtype, manager.get_torch_device()))
    model = importlib.import_module("comfy.model_base").BaseModel(config, device=torch.device("meta"))
    model.model_sampling = OneStep()
    return model


def _renamed(tensors: Mapping[str, Tensor], file: MuseTalkFile) -> dict[str, Tensor]:
    """The tensors under the host's own names, by the host's own table."""
    table = importlib.import_module("comfy.utils").unet_to_diffusers(unet_config(file.widths))
    unknown = [name for name in tensors if name not in table]
    if unknown:
        raise KeyMismatch(
            file.name,
            expected="the tensors of MuseTalk's UNet",
            found=f"{len(unknown)} others ({', '.join(unknown[:3])})",
            cure="use the publisher's unchanged file",
        )
    return {table[name]: tensor for name, tensor in tensors.items()}


def _check(latents: Tensor, audio: Tensor) -> None:
    if latents.ndim != 4 or latents.shape[1] != IN_CHANNELS or audio.ndim != 3 or audio.shape[-1] != CONTEXT:
        raise EncoderMismatch(
            "lip-sync",
            expected=f"latents (B, {IN_CHANNELS}, H, W) and sound (B, T, {CONTEXT})",
            found=f"{tuple(latents.shape)} and {tuple(audio.shape)}",
            cure="encode the sound with whisper-tiny, and the frames with a VAE of SD1.x",
        )
