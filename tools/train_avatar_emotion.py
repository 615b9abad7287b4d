"""Train the emotion module (AEM) of HunyuanVideo-Avatar on a folder of encoded clips.

``python tools/train_avatar_emotion.py --clips DIR --base FILE --output FILE``. The base is the official checkpoint, or
one of the same names; its audio adapters take part where it has them. Each clip is a safetensors file, see
`training/avatar_clips.py`; the node Save Emotion Clip writes them. Ctrl-C stops; the same command goes on where it
stopped.
Exit code 0: finished; 1: refused, with one sentence; 2: wrong usage; 130: stopped.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from likeness_path import register

register()

import torch  # noqa: E402  (the package must be registered first)
from likeness_pack.adapters.checkpoint import load_strictly, load_tensors, read_header  # noqa: E402
from likeness_pack.adapters.families.hunyuan_avatar import layout  # noqa: E402
from likeness_pack.adapters.families.hunyuan_avatar.arch import AvatarNetwork  # noqa: E402
from likeness_pack.tools.command_line import add_training, exit_code, step_lines  # noqa: E402
from likeness_pack.training.avatar_clips import ClipFolder  # noqa: E402
from likeness_pack.training.avatar_dit import VideoDit  # noqa: E402
from likeness_pack.training.avatar_dit_sizes import sizes_of  # noqa: E402
from likeness_pack.training.avatar_emotion import AvatarBase, EmotionOptions, train_emotion  # noqa: E402
from likeness_pack.training.loop import LoopOptions  # noqa: E402


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    chosen = _parser().parse_args(arguments)
    return exit_code(lambda: _train(chosen))


def read_base(path: Path, device: torch.device, dtype: torch.dtype, save_memory: bool) -> AvatarBase:
    """The frozen model of a checkpoint.

    Raises:
        LikenessError: a file that cannot be read, or one without HunyuanVideo's transformer.
    """
    header = read_header(path)
    tensors = load_tensors(header)
    own = {name: tensor for name, tensor in tensors.items() if not layout.is_added(name)}
    with torch.device("meta"):
        dit = VideoDit(sizes_of({name: tuple(tensor.shape) for name, tensor in own.items()}, path.name), save_memory)
    load_strictly(dit, own, what=path.name)
    sizes = layout.sizes_in(header)
    added = None
    if not isinstance(sizes, str):
        with torch.device("meta"):
            added = AvatarNetwork(sizes)
        load_strictly(added, {name: one for name, one in tensors.items() if layout.is_added(name)}, what=path.name)
        added = added.to(device, dtype)
    return AvatarBase(dit.to(device, dtype), added)


def _train(chosen: argparse.Namespace) -> int:
    clips = ClipFolder(chosen.clips)
    dtype = torch.bfloat16 if chosen.bfloat16 else torch.float32
    base = read_base(chosen.base, torch.device(chosen.device), dtype, chosen.save_memory)
    options = EmotionOptions(chosen.seed, chosen.batch, chosen.inner, chosen.heads, chosen.emotion_width)
    print(f"{len(clips)} clips, {chosen.steps} steps of {chosen.batch}")

    loop = LoopOptions(chosen.steps, chosen.learning_rate, save_every=chosen.save_every)
    lines = step_lines(chosen.steps, chosen.tell_every)
    train_emotion(clips, base, chosen.output, options, loop, picture_size=chosen.picture_size, on_step=lines)
    print(f"{chosen.output}: put it into models/face_adapters")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Train the emotion module of HunyuanVideo-Avatar on encoded clips.")
    parser.add_argument("--clips", type=Path, required=True, help="folder of encoded clips (.safetensors)")
    parser.add_argument("--base", type=Path, required=True, help="checkpoint of HunyuanVideo-Avatar")
    parser.add_argument("--output", type=Path, required=True, help="the file to write, .safetensors")
    parser.add_argument("--bfloat16", action="store_true", help="keep the frozen model in bfloat16")
    parser.add_argument("--save-memory", action="store_true", help="compute blocks again in the backward pass")
    numbers = (
        ("steps", 20_000, "steps of the whole run"),
        ("batch", 1, "clips in a step"),
        ("inner", 1024, "width of all heads together"),
        ("heads", 8, "number of heads"),
        ("emotion-width", 1024, "channels of an emotion token"),
        ("picture-size", 512, "side of a square of as many pixels as the emotion pictures had"),
        ("learning-rate", 1e-4, "rate of the first step"),
    )
    add_training(parser, numbers)
    return parser


if __name__ == "__main__":
    sys.exit(main())
