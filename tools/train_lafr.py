"""Train a LAFR adapter on a folder of sharp faces.

``python tools/train_lafr.py --pictures DIR --vae FILE --output FILE``. The VAE is read by ComfyUI: the checkout given
by --comfyui or COMFYUI_PATH, else the package of this environment. Ctrl-C stops; the same command goes on where it
stopped. Exit code 0: finished; 1: refused, with one sentence; 2: wrong usage; 130: stopped.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from likeness_path import register

register()

import torch  # noqa: E402  (the package must be registered first)
from likeness_pack.adapters.checkpoint import load_tensors, read_header  # noqa: E402
from likeness_pack.adapters.families.lafr.layout import BASES, PREDICTIONS, LafrFacts  # noqa: E402
from likeness_pack.tools.command_line import add_comfyui, add_training, exit_code, host_module, step_lines  # noqa: E402
from likeness_pack.training.lafr import LafrOptions, held_out, train_lafr  # noqa: E402
from likeness_pack.training.loop import LoopOptions  # noqa: E402
from likeness_pack.training.pairs import Encode  # noqa: E402
from likeness_pack.training.pictures import PictureFolder  # noqa: E402

# Where a whole checkpoint of Stable Diffusion keeps its VAE.
PREFIX = "first_stage_model."


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    chosen = _parser().parse_args(arguments)
    return exit_code(lambda: _train(chosen))


def host_encode(path: Path, comfyui: Path | None, scale: float, device: torch.device) -> Encode:
    """The encoder of a VAE file, or of the VAE inside a checkpoint, through ComfyUI; latents times ``scale``."""
    header = read_header(path)
    tensors = load_tensors(header, PREFIX if header.with_prefix(PREFIX) else "")
    vae = host_module("comfy.sd", comfyui).VAE(sd=tensors, device=device)

    def encode(pictures: torch.Tensor) -> torch.Tensor:
        latents: torch.Tensor = vae.encode(pictures.movedim(1, -1)) * scale
        return latents

    return encode


def _train(chosen: argparse.Namespace) -> int:
    device = torch.device(chosen.device)
    facts = LafrFacts(base=chosen.base, prediction=chosen.prediction, t_star=chosen.t_star)
    options = LafrOptions(chosen.seed, chosen.batch, chosen.hidden, codes=chosen.codes, warmup=chosen.warmup)
    pictures = PictureFolder(chosen.pictures, chosen.size)
    for path, reason in pictures.left_out.items():
        print(f"left out: {path.name}: {reason}")
    encode = host_encode(chosen.vae, chosen.comfyui, facts.latent_scale, device)
    print(f"{len(pictures)} pictures of {chosen.size} px, {chosen.steps} steps of {chosen.batch}")

    loop = LoopOptions(chosen.steps, chosen.learning_rate, save_every=chosen.save_every)
    lines = step_lines(chosen.steps, chosen.tell_every)
    network = train_lafr(pictures, encode, chosen.output, facts, options, loop, on_step=lines, device=device)
    found = held_out(network, pictures, encode, options, limit=16)
    print(f"{chosen.output}: distance to clean latents {found.bad:.4f} before, {found.aligned:.4f} after alignment")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Train a LAFR adapter on a folder of sharp faces.")
    parser.add_argument("--pictures", type=Path, required=True, help="folder of sharp faces; sub-folders count")
    parser.add_argument("--vae", type=Path, required=True, help="VAE, or a whole checkpoint, of the base model")
    parser.add_argument("--output", type=Path, required=True, help="the file to write, .safetensors")
    add_comfyui(parser)
    parser.add_argument("--base", choices=BASES, default="sd15", help="the base model")
    parser.add_argument("--prediction", choices=PREDICTIONS, default="eps", help="what the base model predicts")
    parser.add_argument("--t-star", type=int, default=399, help="timestep of one-step restoration, noted in the file")
    numbers = (
        ("steps", 50_000, "steps of the whole run"),
        ("batch", 16, "pictures in a step"),
        ("size", 512, "side of the pictures"),
        ("hidden", 96, "width of the network"),
        ("codes", 1024, "number of codes"),
        ("warmup", 200, "steps without codes"),
        ("learning-rate", 2e-4, "rate of the first step"),
    )
    add_training(parser, numbers)
    return parser


if __name__ == "__main__":
    sys.exit(main())
