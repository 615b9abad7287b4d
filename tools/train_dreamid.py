"""Train DreamID on a folder of triplets, which tools/build_triplets.py writes.

``python tools/train_dreamid.py --triplets DIR --base FILE --clip FILE --encoder FILE --output FILE``. VAE and text
encoder are read by ComfyUI: the checkout given by --comfyui or COMFYUI_PATH, else the package of this environment.
Ctrl-C stops; the same command goes on where it stopped. ``--start FILE`` in place of ``--base`` fine-tunes a finished
file on other triplets (glasses, face shape). ``--trial SEEDS`` proves the training on drawn faces and needs nothing.
Exit code 0: finished; 1: refused, with one sentence; 2: wrong usage; 130: stopped.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from likeness_path import register

register()

import torch  # noqa: E402  (the package must be registered first)
from likeness_pack.adapters import registry  # noqa: E402
from likeness_pack.adapters.checkpoint import load_tensors, read_header  # noqa: E402
from likeness_pack.adapters.encoders.topofr.encoder import IResNetEncoder  # noqa: E402
from likeness_pack.adapters.errors import BadCheckpoint, EncoderMismatch  # noqa: E402
from likeness_pack.adapters.families.dreamid.adapter import DreamIdAdapter  # noqa: E402
from likeness_pack.adapters.families.dreamid.layout import (  # noqa: E402
    PREDICTIONS,
    PROMPT,
    DreamIdFacts,
    timesteps_of,
)
from likeness_pack.adapters.unet_shapes import unet_shapes  # noqa: E402
from likeness_pack.faces.errors import LikenessError  # noqa: E402
from likeness_pack.tools.command_line import add_comfyui, add_training, exit_code, host_module, step_lines  # noqa: E402
from likeness_pack.training.dreamid import (  # noqa: E402
    DreamIdOptions,
    Tools,
    held_out,
    model_of,
    train_dreamid,
)
from likeness_pack.training.dreamid_data import TripletFolder  # noqa: E402
from likeness_pack.training.dreamid_losses import ENCODER_SIZE  # noqa: E402
from likeness_pack.training.dreamid_proof import DrawnTools, prove  # noqa: E402
from likeness_pack.training.dreamid_unet import SwapModel, started  # noqa: E402
from likeness_pack.training.loop import LoopOptions  # noqa: E402
from torch import Tensor  # noqa: E402

UNET, VAE = "model.diffusion_model.", "first_stage_model."
SCALE = 0.18215
DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32}
MEASURED = 16


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    parser = _parser()
    chosen = parser.parse_args(arguments)
    needed = {"triplets": chosen.triplets, "output": chosen.output, "encoder": chosen.encoder}
    missing = [f"--{name}" for name, value in needed.items() if value is None]
    if chosen.trial is None and (missing or (chosen.base is None) == (chosen.start is None)):
        parser.error(f"{', '.join(missing) or 'one of --base and --start'} must be given, or --trial alone")
    work = _train if chosen.trial is None else _trial
    return exit_code(lambda: work(chosen))


class HostCodec:
    """The VAE of a file, or of the VAE inside a checkpoint, through ComfyUI; see `training.dreamid_losses.Codec`."""

    def __init__(self, path: Path, device: torch.device, comfyui: Path | None = None) -> None:
        header = read_header(path)
        tensors = load_tensors(header, VAE if header.with_prefix(VAE) else "")
        self._device = device
        self._network = host_module("comfy.sd", comfyui).VAE(sd=tensors, device=device).first_stage_model
        self._network.to(device, torch.float32).requires_grad_(False)

    def encode(self, pictures: Tensor) -> Tensor:
        """(B, 3, S, S), 0..1, to the mean latents (B, 4, S / 8, S / 8), scaled."""
        with torch.no_grad():
            latents: Tensor = self._network.encode(pictures.to(self._device) * 2 - 1)
        return latents * SCALE

    def decode(self, latents: Tensor) -> Tensor:
        """The way back, not clamped, with gradients."""
        pictures: Tensor = self._network.decode(latents / SCALE)
        return (pictures + 1) / 2


def base_unet(path: Path) -> dict[str, Tensor]:
    """The tensors of a base UNet of Stable Diffusion 2.1's layout, original names, float32.

    Raises:
        BadCheckpoint: a file of another layout.
    """
    header = read_header(path)
    tensors = {name: one.float() for name, one in load_tensors(header, _prefix(header)).items()}
    widths = [tensors.get(f"input_blocks.{number}.0.out_layers.3.weight") for number in (1, 4, 7, 10)]
    text = tensors.get("input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight")
    if text is not None and all(one is not None for one in widths):
        levels = tuple(int(one.shape[0]) for one in widths if one is not None)
        expected = unet_shapes(levels, 4, int(text.shape[1]))
        if expected == {name: tuple(one.shape) for name, one in tensors.items()}:
            return tensors
    raise BadCheckpoint(
        path.name,
        expected="a UNet of Stable Diffusion 2.1's layout (SD-Turbo, SD 2.1), original names, alone or in a checkpoint",
        found=f"{len(tensors)} tensors of another layout",
        cure="give SD-Turbo's or Stable Diffusion 2.1's checkpoint",
    )


def _prefix(header: Any) -> str:
    return next((prefix for prefix in (UNET, "diffusion_model.") if header.with_prefix(prefix)), "")


def text_of(chosen: argparse.Namespace, device: torch.device, prompt: str) -> Tensor:
    """(1, T, C) the prompt, through the text encoder, or as it lies in --context."""
    if chosen.context is not None:
        tensors = load_tensors(read_header(chosen.context))
        found = next(iter(tensors.values()))
        if len(tensors) != 1 or found.ndim != 3 or len(found) != 1:
            told = f"{len(tensors)} tensors, the first {tuple(found.shape)}"
            cure = "save the encoded prompt alone"
            raise BadCheckpoint(chosen.context.name, expected="one tensor (1, T, C)", found=told, cure=cure)
        return found.to(device, torch.float32)
    if chosen.clip is None:
        raise LikenessError(
            "text encoder", expected="--clip or --context", found="neither", cure="give --clip the base's text encoder"
        )
    loader = host_module("comfy.sd", chosen.comfyui)
    clip = loader.load_clip([str(chosen.clip)], clip_type=loader.CLIPType.STABLE_DIFFUSION)
    with torch.no_grad():
        context: Tensor = clip.encode_from_tokens(clip.tokenize(prompt))
    return context.to(device, torch.float32)


def face_encoder(path: Path, device: torch.device) -> IResNetEncoder:
    """A face encoder that gradients flow through.

    Raises:
        EncoderMismatch: one of another kind.
    """
    encoder = registry.load(path, kind="encoder")
    if not isinstance(encoder, IResNetEncoder):
        raise EncoderMismatch(
            "DreamID training",
            expected="a residual network of ArcFace in torch, through which gradients flow",
            found=f"{encoder.title}",
            cure="convert glint360k_r100.onnx (antelopev2) with tools/convert_onnx.py",
        )
    encoder.network.to(device, torch.float32)
    return encoder


def _model(chosen: argparse.Namespace, facts: DreamIdFacts, width: int) -> tuple[SwapModel, DreamIdFacts]:
    """What is trained, and what is known of it."""
    if chosen.start is None:
        return started(base_unet(chosen.base), chosen.head_channels, width, chosen.tokens, chosen.seed), facts
    adapter = registry.load(chosen.start, kind="adapter")
    if not isinstance(adapter, DreamIdAdapter) or adapter.sizes.embedding != width:
        found = adapter.report.title if not isinstance(adapter, DreamIdAdapter) else "one for another face encoder"
        cure = "start from a file that this command wrote"
        raise BadCheckpoint(chosen.start.name, expected="a DreamID file for this encoder", found=found, cure=cure)
    return model_of(adapter), replace(adapter.facts, face_encoder=facts.face_encoder)


def _train(chosen: argparse.Namespace) -> int:
    device = torch.device(chosen.device)
    triplets = TripletFolder(chosen.triplets, chosen.size)
    encoder = face_encoder(chosen.encoder, device)
    width = int(encoder.network(torch.zeros(1, 3, ENCODER_SIZE, ENCODER_SIZE, device=device)).shape[1])
    facts = DreamIdFacts(
        face_encoder=encoder.id,
        prompt=chosen.prompt,
        base=chosen.base.stem if chosen.base else "",
        prediction=chosen.prediction,
        timesteps=timesteps_of(chosen.sampling_steps),
    )
    model, facts = _model(chosen, facts, width)
    codec = HostCodec(chosen.vae or chosen.base or chosen.start, device, chosen.comfyui)
    tools = Tools(codec, encoder.network, text_of(chosen, device, facts.prompt))
    print(f"{len(triplets)} triplets of {chosen.size} px, {chosen.steps} steps of {chosen.batch}")

    options = DreamIdOptions(
        chosen.seed,
        chosen.batch,
        chosen.identity,
        chosen.diffusion,
        chosen.reconstruction,
        chosen.checkpoint_gradients,
    )
    loop = LoopOptions(chosen.steps, chosen.learning_rate, save_every=chosen.save_every)
    dtype = DTYPES[chosen.dtype]
    model.to(device)
    lines = step_lines(chosen.steps, chosen.tell_every)
    train_dreamid(model, triplets, tools, chosen.output, facts, options, loop, on_step=lines, dtype=dtype)
    found = held_out(model, triplets, tools, facts, MEASURED)
    print(
        f"{chosen.output}: cosine to the source {found.before:.3f} of the targets, {found.after:.3f} of the swaps; "
        f"difference from A2 {found.difference:.4f} (on {min(MEASURED, len(triplets))} of the training triplets)"
    )
    return 0


def _trial(chosen: argparse.Namespace) -> int:
    world = DrawnTools()
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(chosen.seed, chosen.seed + chosen.trial):
            print(prove(seed, chosen.steps, Path(folder) / f"{seed}.safetensors", world).as_text(), flush=True)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Train DreamID on a folder of triplets.")
    files = {
        "triplets": "folder that tools/build_triplets.py wrote",
        "output": "the file to write, .safetensors",
        "base": "checkpoint or UNet of SD-Turbo or Stable Diffusion 2.1, original names",
        "start": "a finished DreamID file to fine-tune, in place of --base",
        "vae": "VAE of the base model; by default the one in --base",
        "clip": "text encoder of the base model",
        "context": "the encoded prompt, one tensor (1, T, C), in place of --clip",
        "encoder": "face encoder (ArcFace residual network in torch)",
    }
    for name, meaning in files.items():
        parser.add_argument(f"--{name}", type=Path, help=meaning)
    add_comfyui(parser)
    parser.add_argument("--dtype", choices=DTYPES, default="float16", help="of the file")
    parser.add_argument("--prediction", choices=PREDICTIONS, default="eps", help="eps: SD-Turbo; v: SD 2.1 at 768")
    parser.add_argument("--prompt", default=PROMPT, help="the constant prompt")
    parser.add_argument("--checkpoint-gradients", action="store_true", help="less memory, more work")
    parser.add_argument(
        "--trial", type=int, metavar="SEEDS", help="prove the training on drawn faces, with SEEDS seeds from --seed"
    )
    numbers = (
        ("steps", 70_000, "steps of the whole run"),
        ("batch", 8, "triplets in a step"),
        ("size", 512, "side of the pictures"),
        ("sampling-steps", 1, "steps of a swap: 1, or 4"),
        ("tokens", 4, "identity tokens"),
        ("head-channels", 64, "channels of an attention head of the base"),
        ("learning-rate", 1e-5, "rate of the first step"),
        ("identity", 1.0, "weight of the identity loss"),
        ("diffusion", 1.0, "weight of the diffusion loss"),
        ("reconstruction", 10.0, "weight of the reconstruction loss"),
    )
    add_training(parser, numbers)
    return parser


if __name__ == "__main__":
    sys.exit(main())
