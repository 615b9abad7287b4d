"""LAFR: align latents of bad pictures, restore in one step, and train the adapter."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..inject.host import model_management, progress_bar, stop_if_cancelled
from .common import ADAPTER, Schema, number, with_text

if TYPE_CHECKING:
    from ..inject.loaded import LoadedAdapter
    from ..training.pictures import PictureBatch, PictureFolder

DEFAULT_TIMESTEP = 399
# Pictures that the report's distances are measured on.
MEASURED = 16


class LikenessLafrAlign:
    """Move latents of bad pictures to where latents of good ones lie."""

    DISPLAY_NAME = "Align Latent (LAFR)"
    CATEGORY = "Likeness/restore"
    DESCRIPTION = (
        "Replaces the latent of a bad picture by the nearest codes of good ones, before any sampler. It needs a file "
        "that you train with 'Train LAFR': the authors published none."
    )
    RETURN_TYPES = ("LATENT",)
    RETURN_NAMES = ("latent",)
    OUTPUT_TOOLTIPS = ("The aligned latent.",)
    FUNCTION = "align"

    @classmethod
    def INPUT_TYPES(cls) -> Schema:  # noqa: N802 (the host's name)
        """Inputs as the host asks for them."""
        strength = "1 as in the paper; less keeps a part of the bad latent, and its detail; 0 changes nothing."
        return {
            "required": {
                "latent": ("LATENT", {"tooltip": "The bad picture, through 'VAE Encode' of an SD1.x or SD2.x model."}),
                "strength": number(1.0, 0.0, 1.0, 0.01, strength),
            },
            "optional": {"adapter": (ADAPTER, {"tooltip": "A trained LAFR file, from 'Load Face Adapter'."})},
        }

    def align(self, latent: dict[str, Any], strength: float, adapter: LoadedAdapter | None = None) -> tuple[Any]:
        """Run the adapter."""
        from ..inject.lafr import lafr_of

        with torch.inference_mode():
            samples = lafr_of(adapter).align(latent["samples"], strength)
        return ({**latent, "samples": samples},)


class LikenessLafrOneStep:
    """Settings for restoring an aligned latent in one step."""

    DISPLAY_NAME = "One-Step Restoration (LAFR)"
    CATEGORY = "Likeness/restore"
    DESCRIPTION = (
        "Prepares latent and sigmas so that 'SamplerCustom' (euler, cfg 1, add_noise off) calls the model exactly once "
        "on the aligned latent, at the timestep its LoRA was trained for."
    )
    RETURN_TYPES = ("LATENT", "SIGMAS", "INT")
    RETURN_NAMES = ("latent", "sigmas", "timestep")
    OUTPUT_TOOLTIPS = ("Where the sampler starts.", "Its two noise levels.", "The timestep that is used.")
    FUNCTION = "prepare"

    @classmethod
    def INPUT_TYPES(cls) -> Schema:  # noqa: N802 (the host's name)
        """Inputs as the host asks for them."""
        timestep = "Timestep of the one step; -1 for the one in the adapter's file, or 399 without a file."
        return {
            "required": {
                "model": ("MODEL", {"tooltip": "SD1.x or SD2.x, with the LoRA of the second training stage."}),
                "latent": ("LATENT", {"tooltip": "From 'Align Latent (LAFR)'."}),
                "timestep": ("INT", {"default": -1, "min": -1, "max": 999, "tooltip": timestep}),
            },
            "optional": {"adapter": (ADAPTER, {"tooltip": "The LAFR file, for its timestep."})},
        }

    def prepare(
        self, model: Any, latent: dict[str, Any], timestep: int, adapter: LoadedAdapter | None = None
    ) -> tuple[dict[str, Any], Tensor, int]:
        """Scale the latent and read the noise level."""
        from ..inject.lafr import lafr_of, one_step

        if timestep < 0:
            timestep = DEFAULT_TIMESTEP if adapter is None else lafr_of(adapter).facts.t_star
        start, sigmas = one_step(model, latent["samples"], timestep)
        return {**latent, "samples": start}, sigmas, timestep


class LikenessLafrTrain:
    """Train the adapter on your own pictures."""

    DISPLAY_NAME = "Train LAFR"
    CATEGORY = "Likeness/restore"
    DESCRIPTION = (
        "Trains the LAFR adapter on a folder of sharp faces, which it damages itself. Cancel at any time: the same "
        "inputs go on where it stopped, and end with the same file."
    )
    RETURN_TYPES = (ADAPTER, "STRING")
    RETURN_NAMES = ("adapter", "report")
    OUTPUT_TOOLTIPS = ("The trained adapter.", "The file, and how far the latents moved to the good ones.")
    FUNCTION = "train"
    OUTPUT_NODE = True

    @classmethod
    def INPUT_TYPES(cls) -> Schema:  # noqa: N802 (the host's name)
        """Inputs as the host asks for them."""
        from ..adapters.families.lafr.layout import BASES

        folder = "Name of a folder of sharp faces inside ComfyUI's input folder; the paper used 600 faces of FFHQ."
        resume = "Go on where a run of the same inputs stopped. Off: start anew, under a new name."
        whole = {
            "steps": (5000, 1, 1_000_000, 1, "Steps of the whole run; the rate falls to 0 at its end."),
            "batch": (4, 1, 64, 1, "Pictures in a step; 16 where the memory allows."),
            "size": (512, 64, 1024, 64, "Side of the training pictures."),
            "seed": (0, 0, 2**63 - 1, 1, "Decides every random number."),
            "codes": (1024, 16, 8192, 16, "Number of codes."),
            "hidden": (96, 32, 512, 32, "Width of the network."),
        }
        numbers = {
            name: ("INT", {"default": default, "min": low, "max": high, "step": step, "tooltip": tooltip})
            for name, (default, low, high, step, tooltip) in whole.items()
        }
        return {
            "required": {
                "vae": ("VAE", {"tooltip": "The VAE of the base model."}),
                "base": (list(BASES), {"default": BASES[0], "tooltip": "Which base model the VAE belongs to."}),
                "folder": ("STRING", {"default": "", "tooltip": folder}),
                "name": ("STRING", {"default": "lafr", "tooltip": "Name of the file in models/face_adapters."}),
                **numbers,
                "learning_rate": number(2e-4, 1e-6, 1e-2, 1e-6, "Rate at the first step."),
                "resume": ("BOOLEAN", {"default": True, "tooltip": resume}),
            },
            "optional": {"images": ("IMAGE", {"tooltip": "Sharp faces instead of the folder."})},
        }

    @classmethod
    def IS_CHANGED(cls, folder: str = "", images: Any = None, **_: Any) -> str:  # noqa: N802 (the host's name)
        """Train on pictures that came, went or changed."""
        from ..inject.training_places import folder_stamp

        return folder_stamp(folder or "") if images is None else ""

    def train(
        self,
        vae: Any,
        base: str,
        folder: str,
        name: str,
        steps: int,
        batch: int,
        size: int,
        seed: int,
        codes: int,
        hidden: int,
        learning_rate: float,
        resume: bool,
        images: Tensor | None = None,
    ) -> dict[str, Any]:
        """Train, write the file, measure it and load it as any other."""
        from ..adapters import registry
        from ..adapters.families.lafr.layout import LafrFacts
        from ..inject.lafr import vae_encode
        from ..inject.loaded import LoadedAdapter
        from ..inject.training_places import adapter_file, training_folder
        from ..training.lafr import LafrOptions, held_out, train_lafr
        from ..training.loop import LoopOptions
        from ..training.pictures import PictureFolder

        path, facts = adapter_file(name, resume), LafrFacts(base=base, prediction="eps")
        options = LafrOptions(seed=seed, batch=batch, hidden=hidden, codes=codes, warmup=min(200, steps // 4))
        pictures: PictureFolder | PictureBatch = (
            PictureFolder(training_folder(folder), size) if images is None else _batch(images, size)
        )
        encode = partial(vae_encode, vae, scale=facts.latent_scale)
        bar = progress_bar(steps)

        def on_step(done: int, losses: Any) -> None:
            bar.update_absolute(done, steps)
            stop_if_cancelled()

        # The host runs nodes in inference mode, where no gradient is kept.
        with torch.inference_mode(False), torch.enable_grad():
            loop = LoopOptions(steps, learning_rate)
            device = model_management().get_torch_device()
            network = train_lafr(pictures, encode, path, facts, options, loop, on_step=on_step, device=device)
            found = held_out(network, pictures, encode, options, limit=MEASURED)
        loaded = LoadedAdapter(registry.load(path, kind="adapter"))
        report = (
            f"{loaded.adapter.report.as_text()}\nfile: {path.name}\nlearned from: {pictures.told()}\n"
            f"distance to the clean latent on degradations not "
            f"trained on: {found.bad:.4f} before, {found.aligned:.4f} after"
        )
        return with_text(report, loaded, report)


def _batch(images: Tensor, size: int) -> PictureBatch:
    # Tensors of the inference mode cannot take part in training; outside of it a clone can.
    from ..training.pictures import PictureBatch

    with torch.inference_mode(False):
        return PictureBatch(images.clone(), size)


NODES = (LikenessLafrAlign, LikenessLafrOneStep, LikenessLafrTrain)
