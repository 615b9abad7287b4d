"""RestorerID on a tiny UNet of the host, filled from a golden file or from seeds."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from host_inprocess import tiny_model
from likeness_pack.adapters import registry
from likeness_pack.adapters.errors import PatchIncomplete
from likeness_pack.adapters.identity import Identity
from likeness_pack.inject.loaded import LoadedAdapter
from likeness_pack.inject.residual_blocks import RestorationCall, RestoredBlock
from likeness_pack.inject.restorerid import RestorationOptions, apply_restoration
from safetensors.torch import save_file
from torch import Tensor
from unet_calls import load_model

PREFIX = "model.diffusion_model."


def is_addition(name: str) -> bool:
    return any(part in name for part in (".spade.", ".IDBalance.", "_lora.", "_ip."))


def write_restorer(path: Path, tensors: Mapping[str, Tensor]) -> Path:
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)
    return path


def small_others(labels: int = 256, seed: int = 0) -> dict[str, Tensor]:
    """Structure encoder (thin) and projection, seeded, under the file's names."""
    from likeness_pack.adapters.families.ip_adapter_faceid.arch import PlusProjection
    from likeness_pack.adapters.families.restorerid.structure import StructureEncoder

    generator = torch.Generator().manual_seed(seed)
    found: dict[str, Tensor] = {}
    projection = PlusProjection(512, 64, 4, 768, image_dim=1280, depth=1, feed_forward=96)
    for prefix, module in (
        ("structcond_stage_model.", StructureEncoder(32, labels)),
        ("Adapter.image_proj_model.", projection),
    ):
        for name, value in module.state_dict().items():
            found[prefix + name] = _seeded(value, name, generator)
    return found


def _seeded(value: Tensor, name: str, generator: torch.Generator) -> Tensor:
    noise = torch.randn(value.shape, generator=generator)
    if value.ndim > 1:
        return noise / value[0].numel() ** 0.5
    return 0.1 * noise + (1.0 if name.endswith("weight") else 0.0)


def tiny_restorer(folder: Path, channels: int = 32, seed: int = 0, **changes: Tensor) -> LoadedAdapter:
    """A slim file for a tiny SD1.5 of ``channels``, read as a user's file is."""
    from likeness_pack.tools.standins.restorerid import unet_additions

    generator = torch.Generator().manual_seed(seed)
    levels = [channels, 2 * channels, 4 * channels, 4 * channels]
    shapes = unet_additions(levels, rank=4, labels=64, hidden=16)
    tensors = {PREFIX + name: _seeded(torch.empty(shape), name, generator) for name, shape in shapes.items()}
    for name in tensors:
        if name.endswith("_lora.up.weight"):
            tensors[name] *= 0.1
    tensors |= small_others(labels=64, seed=seed) | changes
    return LoadedAdapter(registry.load(write_restorer(folder / "any name.safetensors", tensors), kind="adapter"))


def reference_identity(rows: int = 1, seed: int = 0) -> Identity:
    """References as Encode Restoration Reference makes them."""
    generator = torch.Generator().manual_seed(seed)
    return Identity(
        "arcface_buffalo_l",
        {
            "embedding": torch.randn(rows, 512, generator=generator) * 20,
            "image_tokens_bgr": torch.randn(rows, 257, 1280, generator=generator),
            "image_tokens_zero": torch.randn(1, 257, 1280, generator=torch.Generator().manual_seed(99)),
        },
        photos=("0" * 64,) * rows,
    )


def lq_latents(count: int = 1, size: tuple[int, int] = (8, 8), seed: int = 0) -> Tensor:
    return torch.randn(count, 4, *size, generator=torch.Generator().manual_seed(50 + seed)) * 4


class GoldenUNet:
    """The golden's small official UNet, built of the host's UNet and our patches."""

    def __init__(self, golden: Any) -> None:
        self.golden = golden
        shapes = {key.split("::")[1]: shape for key, shape in golden.keys.items()}
        filled = golden.filled(shapes)
        base = {name: value for name, value in filled.items() if not is_addition(name)}
        hyper = golden.metadata["hyper_parameters"]
        self.model = tiny_model(
            "SD15",
            model_channels=hyper["model_channels"],
            fill=lambda unet: unet.load_state_dict(base),
            num_heads=hyper["num_heads"],
        )
        additions = {PREFIX + name: value for name, value in filled.items() if is_addition(name)}
        with TemporaryDirectory() as folder:
            path = write_restorer(Path(folder) / "unet.safetensors", additions | small_others(hyper["semb_channels"]))
            self.loaded = LoadedAdapter(registry.load(path, kind="adapter"))

    def run(self, scale: float) -> tuple[Tensor, dict[str, Tensor]]:
        """Output and block activations for the golden's inputs: two pictures, each with its own reference."""
        golden, inputs = self.golden, self.golden.metadata["inputs"]
        context = golden.input("unet.context", inputs["unet.context"]["shape"])
        text, reference = context[:, :77], context[:, 77:]
        self.loaded.adapter.reference_tokens = lambda identity: (reference, reference[:1])
        patched = apply_restoration(
            self.model, self.loaded, reference_identity(2), lq_latents(2, (16, 24)), RestorationOptions((scale,))
        )
        maps = [golden.input(name, entry["shape"]) for name, entry in inputs.items() if name.startswith("unet.struct.")]
        by_size = {(int(one.shape[-2]), int(one.shape[-1])): one for one in maps}
        options = {**patched.model_options["transformer_options"], "cond_or_uncond": [0]}
        x = golden.input("unet.x", inputs["unet.x"]["shape"])
        with holder_of(patched).holding(RestorationCall(by_size, (0,), options, None)):
            return call_with_activations(patched, x, torch.tensor(inputs["unet.timesteps"]), text, options)


def holder_of(patched: Any) -> Any:
    """Where the residual blocks of a patched model look for the forward pass."""
    return next(patch.holder for patch in patched.object_patches.values() if isinstance(patch, RestoredBlock))


def call_with_activations(
    model: Any, x: Tensor, timesteps: Tensor, text: Tensor, options: Mapping[str, Any]
) -> tuple[Tensor, dict[str, Tensor]]:
    load_model(model)
    unet, found, hooks = model.model.diffusion_model, {}, []
    for name, module in unet.named_modules():
        if name.count(".") <= 2 and name.startswith(("input_blocks", "middle_block", "output_blocks")):
            # The host runs a block's layers one by one; what the last one gives is the block's.
            names = (name, name.rpartition(".")[0])
            hooks.append(module.register_forward_hook(lambda m, i, out, n=names: found.update(dict.fromkeys(n, out))))
    try:
        out = unet(x, timesteps=timesteps, context=text, transformer_options=dict(options))
    finally:
        for hook in hooks:
            hook.remove()
    return out, found


def run_toy_sampler(golden: Any) -> None:
    """The official loop with the golden's toy network, through the host's CFG and sampler, with its own noises."""
    from likeness_pack.inject.restorer_sampling import official_sampler, official_sigmas, with_official_timesteps

    inputs = golden.metadata["inputs"]
    hyper = golden.metadata["hyper_parameters"]
    x_t, z = (golden.input(name, inputs[name]["shape"]) for name in ("sampler.x_T", "sampler.lq_latent"))
    steps = len(golden.tensors["s10.alphas"])
    noises = [golden.input(f"sampler.noise.{i}", inputs[f"sampler.noise.{i}"]["shape"]) for i in range(steps)]
    model = with_official_timesteps(tiny_model("SD15"), steps)
    model.model.diffusion_model.forward = lambda x, timesteps=None, context=None, **rest: _toy(x, timesteps, context, z)
    drawn, seen = iter(noises), []
    sampler = official_sampler(hyper["eta"], noise_sampler=lambda now, after: next(drawn))
    latent = _sample_custom(model, x_t, official_sigmas(steps), sampler, hyper["guidance"], seen)
    process_out = model.model.process_latent_out
    golden.check("s10.final", latent / process_out(torch.ones(1)))
    levels = official_sigmas(steps)
    for number, x in enumerate(seen[1:]):
        golden.check(f"s10.x.{number}", x / (1 + levels[number + 1] ** 2).sqrt())
    golden.check(f"s10.x.{steps - 1}", latent / process_out(torch.ones(1)))


def _toy(x: Tensor, timesteps: Tensor, context: Tensor, z: Tensor) -> Tensor:
    """The formula of the golden's metadata; positive rows have a context of ones, negative of zeros."""
    t = timesteps[:, None, None, None] / 1000
    k = context[:, 0, 0][:, None, None, None]
    return 0.5 * torch.tanh(x) * (1 + t) + k * (0.05 * torch.cos(3 * t) + 0.02 * z + 0.05 * 0.3)


def _sample_custom(model: Any, noise: Tensor, sigmas: Tensor, sampler: Any, cfg: float, seen: list[Tensor]) -> Tensor:
    comfy_sample = importlib.import_module("comfy.sample")
    positive, negative = ([[torch.full((1, 77, 768), value), {}]] for value in (1.0, 0.0))

    def callback(step: int, denoised: Tensor, x: Tensor, total: int) -> None:
        seen.append(x.clone())

    return comfy_sample.sample_custom(
        model,
        noise,
        cfg,
        sampler,
        sigmas,
        positive,
        negative,
        torch.zeros_like(noise),
        callback=callback,
        disable_pbar=True,
        seed=1,
    )


__all__ = ["GoldenUNet", "PatchIncomplete", "lq_latents", "reference_identity", "run_toy_sampler", "tiny_restorer"]
