"""LAFR in the host: which adapter a socket holds, the host's VAE for training, and sampling in one step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..adapters.errors import BaseModelMismatch
from ..adapters.families.lafr.adapter import LafrAdapter
from ..adapters.families.lafr.one_step import sampler_start
from ..faces.errors import LikenessError
from .host import folder_paths
from .loaded import LoadedAdapter, trained_adapter
from .mean_latent import encode_mean
from .model_folders import folder_roots, input_folder

FOLDER = "face_adapters"
TIMESTEPS = 1000
# Letters of a name, endings not counted; three bytes each still fit into a file system's 255.
LONGEST = 80


class BadPlace(LikenessError):
    """A name that leads out of the folder it belongs into, or onto a file that must not be replaced."""


def lafr_of(loaded: LoadedAdapter | None) -> LafrAdapter:
    """The LAFR adapter of a socket, loaded to its device.

    Raises:
        MissingModelFile: nothing is connected, or another adapter.
    """
    cure = "train one with 'Train LAFR' or tools/train_lafr.py, since its authors published no weights"
    adapter = trained_adapter(loaded, LafrAdapter, "Align Latent (LAFR)", "LAFR", cure)
    if loaded is not None:
        loaded.managed.load()
    return adapter


def vae_encode(vae: Any, pictures: Tensor, scale: float) -> Tensor:
    """Latents of pictures (B, 3, H, W) in 0..1 by the host's VAE (the mean, no random part), times ``scale``.

    Inside the host's inference mode, where its weights belong; clone the result before gradients need it.

    Raises:
        BaseModelMismatch: a VAE whose latents have not four channels.
    """
    return encode_mean(vae, pictures, "LAFR") * scale


def one_step(model: Any, samples: Tensor, timestep: int) -> tuple[Tensor, Tensor]:
    """Where a sampler starts, and its two noise levels (2,), so that the model sees ``samples`` at ``timestep`` once.

    Raises:
        BaseModelMismatch: a model without the thousand timesteps of Stable Diffusion.
    """
    levels = getattr(model.get_model_object("model_sampling"), "sigmas", None)
    if not isinstance(levels, Tensor) or levels.shape != (TIMESTEPS,):
        raise BaseModelMismatch(
            "model for one-step restoration",
            expected=f"{TIMESTEPS} discrete noise levels (SD1.x, SD2.x)",
            found="none" if not isinstance(levels, Tensor) else f"{len(levels)}",
            cure="connect an SD1.x or SD2.x model",
        )
    sigma = float(levels[timestep])
    return sampler_start(samples, sigma), torch.tensor([sigma, 0.0])


def training_folder(name: str) -> Path:
    """A folder inside the host's input folder.

    Raises:
        BadPlace: a name that leads out of it.
    """
    root = input_folder().resolve()
    folder = (root / name).resolve() if _can_be_a_path(name) else None
    if folder is None or not name.strip() or root not in (folder, *folder.parents):
        raise BadPlace(
            "folder of pictures",
            expected="the name of a folder inside ComfyUI's input folder",
            found=repr(name[:LONGEST]),
            cure="put the pictures there and give the folder's name, or connect 'images'",
        )
    return folder


def adapter_file(name: str, resume: bool, folder: str = FOLDER) -> Path:
    """The file that a training writes, in the first existing model folder of that kind (made if there is none).

    Raises:
        BadPlace: not a plain name, or a file that exists while the run does not go on from it.
    """
    stem = name.strip().removesuffix(".safetensors")
    plain = _can_be_a_path(stem) and not any(sign in stem for sign in '/\\:*?"<>|')
    if not stem or not plain or stem != Path(stem).name or stem.startswith("."):
        found = repr(name[:LONGEST])
        raise BadPlace("name of the file", expected="a plain name", found=found, cure="use letters and numbers")
    roots = folder_roots(folder) or [Path(folder_paths().models_dir) / folder]
    path = roots[0] / f"{stem}.safetensors"
    if path.exists() and not resume:
        raise BadPlace(
            path.name, expected="a new name", found="a file of that name", cure="choose another name, or set resume"
        )
    return path


def _can_be_a_path(name: str) -> bool:
    """Systems refuse such names with errors of their own."""
    return "\x00" not in name and len(name) <= LONGEST
