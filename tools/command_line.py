"""What commands share: exit codes, numbers as options, the lines of a training, and ComfyUI's modules."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from likeness_pack.faces.errors import LikenessError
from likeness_pack.training.loop import Losses, OnStep

# Numbers of which none would train nothing, or end in a division.
_COUNTED = frozenset({"steps", "batch", "size", "save-every", "tell-every"})
GOES_ON = "stopped; the same command goes on from here"


def exit_code(work: Callable[[], int], stopped: str = GOES_ON) -> int:
    """Return what ``work`` returns; 1 after the sentence of a refusal, and 130 after ``stopped`` where Ctrl-C came."""
    try:
        return work()
    except (LikenessError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(stopped, file=sys.stderr)
        return 130


def add_numbers(parser: argparse.ArgumentParser, rows: Iterable[tuple[str, float, str]]) -> None:
    """Options of one number each: name, default, which also says whether it must be whole, and meaning."""
    for name, default, meaning in rows:
        kind = _whole_number if name in _COUNTED else type(default)
        parser.add_argument(f"--{name}", type=kind, default=default, help=meaning)


def _whole_number(text: str) -> int:
    if (number := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"expected 1 or more, found {number}")
    return number


def add_training(parser: argparse.ArgumentParser, rows: Iterable[tuple[str, float, str]]) -> None:
    """The options of every training, ``rows`` of numbers first."""
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="where to train")
    add_numbers(parser, rows)
    common = (
        ("seed", 0, "decides every random number"),
        ("save-every", 500, "steps between two states"),
        ("tell-every", 50, "steps between two lines"),
    )
    add_numbers(parser, common)


def add_threads(parser: argparse.ArgumentParser) -> None:
    """``--threads``, for `set_threads`."""
    parser.add_argument("--threads", type=int, default=0, help="processor threads; 0 leaves it to torch")


def set_threads(threads: int) -> None:
    """Let torch use so many processor threads; 0 changes nothing."""
    if threads:
        torch.set_num_threads(threads)


def add_comfyui(parser: argparse.ArgumentParser) -> None:
    """``--comfyui``, for `host_module`."""
    checkout = os.environ.get("COMFYUI_PATH")
    parser.add_argument("--comfyui", type=Path, default=Path(checkout) if checkout else None, help="ComfyUI's folder")


def host_module(name: str, comfyui: Path | None = None) -> Any:
    """A module of ComfyUI: of the checkout ``comfyui``, else of this environment. Raises LikenessError without one."""
    if comfyui is not None and str(comfyui) not in sys.path:
        sys.path.insert(0, str(comfyui))
    # ComfyUI reads the command line when it is imported, and this one is not its own.
    arguments, sys.argv = sys.argv, sys.argv[:1]
    try:
        return importlib.import_module(name)
    except ImportError as error:
        cure = "give --comfyui the folder of your ComfyUI, and run this with the Python that ComfyUI uses"
        raise LikenessError("ComfyUI", expected="an importable ComfyUI", found=f"{error}", cure=cure) from error
    finally:
        sys.argv = arguments


def step_lines(steps: int, every: int) -> OnStep:
    """What prints the losses of every ``every``-th step and of the last one."""

    def told(step: int, losses: Losses) -> None:
        if step % every == 0 or step == steps:
            print(loss_line(step, losses), flush=True)

    return told


def loss_line(step: int, losses: Losses) -> str:
    """The losses of a step as a line."""
    return f"step {step}: " + ", ".join(f"{name} {value:.4f}" for name, value in losses.items())
