"""Train voice factors after FaceChain-ImagineID on labelled clips of speech.

``python tools/train_imagineid.py --clips LIST.csv --output FILE``. The list has the columns file, voice, emotion and
content; files are looked for beside the list. It is this project's own construction after the paper: the authors
published neither code nor weights. Reading sound needs PyAV. Ctrl-C stops; the same command goes on where it stopped.
Exit code 0: finished; 1: refused, with one sentence; 2: wrong usage; 130: stopped.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Sequence
from pathlib import Path

from likeness_path import register

register()

import torch  # noqa: E402  (the package must be registered first)
from likeness_pack.adapters.audio_sound import as_sound  # noqa: E402
from likeness_pack.adapters.families.imagineid.arch import FACTORS  # noqa: E402
from likeness_pack.media.audio import read_audio  # noqa: E402
from likeness_pack.tools.command_line import add_training, exit_code, loss_line  # noqa: E402
from likeness_pack.training.imagineid import FactorOptions, facts_of, save_factors, train_factors  # noqa: E402
from likeness_pack.training.imagineid_clips import BadClips, VoiceClip, VoiceClips, prepared, split  # noqa: E402
from likeness_pack.training.imagineid_probe import probe  # noqa: E402
from likeness_pack.training.loop import LoopOptions, Losses  # noqa: E402

COLUMNS = ("file", "voice", "emotion", "content")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    chosen = _parser().parse_args(arguments)
    return exit_code(lambda: _train(chosen))


def read_list(path: Path) -> list[VoiceClip]:
    """The clips of a list.

    Raises:
        BadClips: no such list, or one without the columns.
        BadAudio, BadClip, BadSound: a file that cannot be read; see `media.audio`.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise _bad_list(path, "a readable list in UTF-8", str(error)) from error
    reader = csv.DictReader(text.splitlines())
    missing = [name for name in COLUMNS if name not in (reader.fieldnames or ())]
    if missing:
        raise _bad_list(path, f"the columns {', '.join(COLUMNS)}", f"none called {', '.join(missing)}")
    clips = []
    for row in reader:
        name = str(row["file"] or "")
        if not (path.parent / name).is_file():
            raise _bad_list(path, "files beside the list", f"no file {name!r}")
        sound = as_sound(read_audio(path.parent / name).as_audio())
        voice, emotion, content = (str(row[column] or "").strip() for column in COLUMNS[1:])
        clips.append(VoiceClip(sound, voice, emotion, content, name))
    return clips


def _train(chosen: argparse.Namespace) -> int:
    clips = prepared(read_list(chosen.clips))
    options = FactorOptions(chosen.seed, chosen.batch, purity=chosen.purity, width=chosen.width, layers=chosen.layers)
    loop = LoopOptions(chosen.steps, chosen.learning_rate, save_every=chosen.save_every)
    train_rows, held_rows = split(clips, chosen.held_out, chosen.seed)
    learnt, held = clips.taken(train_rows), clips.taken(held_rows)
    print(f"{_counted(clips)}; {len(learnt)} to learn from, {len(held)} held out; {loop.steps} steps for each stage")

    def told(factor: str, step: int, losses: Losses) -> None:
        if step % chosen.tell_every == 0 or step == loop.steps:
            print(f"{factor}, {loss_line(step, losses)}", flush=True)

    network = train_factors(learnt, chosen.output, options, loop, on_step=told, device=torch.device(chosen.device))
    if network is None:
        return 130
    line = probe(network, learnt, held).line() if len(held) else ""
    save_factors(chosen.output, network, facts_of(learnt, loop, line))
    print(f"{chosen.output}: {f'held out: {line}' if line else 'nothing was held out'}")
    return 0


def _counted(clips: VoiceClips) -> str:
    names = dict(zip(FACTORS, ("voices", "contents", "emotions"), strict=True))
    return f"{len(clips)} clips, " + ", ".join(f"{len(clips.classes[factor])} {names[factor]}" for factor in FACTORS)


def _bad_list(path: Path, expected: str, found: str) -> BadClips:
    return BadClips(path.name, expected=expected, found=found, cure="write a list as the tool's help says")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="Train voice factors (identity, content, emotion) after the paper FaceChain-ImagineID on clips of "
        "known speaker, emotion and words. This is the project's own construction; the authors published none."
    )
    parser.add_argument("--clips", type=Path, required=True, help=f"list in CSV with {', '.join(COLUMNS)}")
    parser.add_argument("--output", type=Path, required=True, help="the file to write, .safetensors")
    numbers = (
        ("steps", 2000, "steps of each of the three stages"),
        ("batch", 64, "clips in a step"),
        ("width", 128, "width of the modules, a multiple of 64"),
        ("layers", 2, "layers of each module"),
        ("held-out", 0.2, "part of the clips to measure with; 0 for none"),
        ("purity", 0.25, "weight of keeping other labels out of a factor"),
        ("learning-rate", 1e-3, "rate of the first step"),
    )
    add_training(parser, numbers)
    return parser


if __name__ == "__main__":
    sys.exit(main())
