"""Train a LAFR adapter on a folder of sharp faces.

``python tools/train_lafr.py --pictures DIR --vae FILE --output FILE``. The VAE is read by ComfyUI: the checkout given
by --comfyui or COMFYUI_PATH, else the package of this environment. Ctrl-C stops; the same command goes on where it
stopped. Exit code 0: finished; 1: refused, with one sentence; 2: wrong usage; 130: stopped.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from likeness_path import register

register()

import torch  # noqa: E402  (the package must be registered first)
from likeness_pack.adapters.checkpoint import load_tensors, read_header  # noqa: E402
from likeness_pack.adapters.families.lafr.layout import BASES, PREDICTIONS, LafrFacts  # noqa: E402
from likeness_pack.faces.errors import LikenessError  # noqa: E402
from likeness_pack.training.lafr import LafrOptions, held_out, train_lafr  # noqa: E402
from likeness_pack.training.loop import LoopOptions, Losses  # noqa: E402
from likeness_pack.training.pairs import Encode  # noqa: E402
from likeness_pack.training.pictures import PictureFolder  # noqa: E402

# Where a whole checkpoint of Stable Diffusion keeps its VAE.
PREFIX = "first_stage_model."


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    chosen = _parser().parse_args(arguments)
    try:
        return _train(chosen)
    except LikenessError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped; the same command goes on from here", file=sys.stderr)
        return 130


def host_encode(path: Path, comfyui: Path | None, scale: float, device: torch.device) -> Encode:
    """The encoder of a VAE file, or of the VAE inside a checkpoint, through ComfyUI; latents times ``scale``."""
    if comfyui is not None:
        sys.path.insert(0, str(comfyui))
    header = read_header(path)
    tensors = load_tensors(header, PREFIX if header.with_prefix(PREFIX) else "")
    arguments, sys.argv = sys.argv, sys.argv[:1]
    try:
        vae = _comfy("comfy.sd").VAE(sd=tensors, device=device)
    finally:
        # ComfyUI reads the command line when it is imported, and this one is not its own.
        sys.argv = arguments

    def encode(pictures: torch.Tensor) -> torch.Tensor:
        latents: torch.Tensor = vae.encode(pictures.movedim(1, -1)) * scale
        return latents

    return encode


def _comfy(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        found = f"{error}"
        cure = "give --comfyui the folder of your ComfyUI, and run this with the Python that ComfyUI uses"
        raise LikenessError("ComfyUI", expected="an importable ComfyUI", found=found, cure=cure) from error


def _train(chosen: argparse.Namespace) -> int:
    device = torch.device(chosen.device)
    facts = LafrFacts(base=chosen.base, prediction=chosen.prediction, t_star=chosen.t_star)
    options = LafrOptions(chosen.seed, chosen.batch, chosen.hidden, codes=chosen.codes, warmup=chosen.warmup)
    pictures = PictureFolder(chosen.pictures, chosen.size)
    for path, reason in pictures.left_out.items():
        print(f"left out: {path.name}: {reason}")
    encode = host_encode(chosen.vae, chosen.comfyui, facts.latent_scale, device)
    print(f"{len(pictures)} pictures of {chosen.size} px, {chosen.steps} steps of {chosen.batch}")

    def told(step: int, losses: Losses) -> None:
        if step % chosen.tell_every == 0 or step == chosen.steps:
            print(f"step {step}: " + ", ".join(f"{name} {value:.4f}" for name, value in losses.items()), flush=True)

    loop = LoopOptions(chosen.steps, chosen.learning_rate, save_every=chosen.save_every)
    network = train_lafr(pictures, encode, chosen.output, facts, options, loop, on_step=told, device=device)
    found = held_out(network, pictures, encode, options, limit=16)
    print(f"{chosen.output}: distance to clean latents {found.bad:.4f} before, {found.aligned:.4f} after alignment")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Train a LAFR adapter on a folder of sharp faces.")
    checkout = os.environ.get("COMFYUI_PATH")
    parser.add_argument("--pictures", type=Path, required=True, help="folder of sharp faces; sub-folders count")
    parser.add_argument("--vae", type=Path, required=True, help="VAE, or a whole checkpoint, of the base model")
    parser.add_argument("--output", type=Path, required=True, help="the file to write, .safetensors")
    parser.add_argument("--comfyui", type=Path, default=Path(checkout) if checkout else None, help="ComfyUI's folder")
    parser.add_argument("--base", choices=BASES, default="sd15", help="the base model")
    parser.add_argument("--prediction", choices=PREDICTIONS, default="eps", help="what the base model predicts")
    parser.add_argument("--t-star", type=int, default=399, help="timestep of one-step restoration, noted in the file")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="where to train")
    for name, default, meaning in (
        ("steps", 50_000, "steps of the whole run"),
        ("batch", 16, "pictures in a step"),
        ("size", 512, "side of the pictures"),
        ("seed", 0, "decides every random number"),
        ("hidden", 96, "width of the network"),
        ("codes", 1024, "number of codes"),
        ("warmup", 200, "steps without codes"),
        ("save-every", 500, "steps between two states"),
        ("tell-every", 50, "steps between two lines"),
    ):
        parser.add_argument(f"--{name}", type=int, default=default, help=meaning)
    parser.add_argument("--learning-rate", type=float, default=2e-4, help="rate of the first step")
    return parser


if __name__ == "__main__":
    sys.exit(main())
