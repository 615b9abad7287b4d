"""Train the demo weights: autoencoder, face encoder, base model and FACT adapter, all on drawn faces.

``python tools/train_demo_weights.py`` runs every stage that is not finished and writes ``demo_weights/``; stopping and
calling again goes on where it stopped. One and a half to three hours on two processor cores. ``--stage NAME`` runs one
stage only.
``--share 0.01`` rehearses: every stage runs a hundredth of its steps on a hundredth of the persons, and files of the
same layouts come out that show nothing, in about a minute; they go to a folder of their own.
Exit code 0: finished; 1: refused, with one sentence; 2: wrong usage; 130: stopped.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from likeness_path import register

register()

# The package must be registered first.
from likeness_pack.tools.command_line import add_threads, exit_code, set_threads  # noqa: E402
from likeness_pack.training.demo.recipe import BUDGETS, PARTS, Workshop  # noqa: E402
from likeness_pack.training.loop import Losses, OnStep  # noqa: E402

ROOT = Path(__file__).resolve().parents[1]
ENCODED = [f"portraits_{part}" for part in range(PARTS)]
REFERENCES = [f"references_{part}" for part in range(PARTS)]
STAGES = (
    "autoencoder",
    "decoder",
    "encoder",
    "judge",
    *ENCODED,
    "base",
    *REFERENCES,
    *(s for s in BUDGETS if "fact" in s),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, help="states and encoded portraits (.demo_training)")
    parser.add_argument("--output", type=Path, help="where the finished files go (demo_weights)")
    parser.add_argument("--share", type=float, default=1.0, help="of steps and persons; below 1 is a rehearsal")
    parser.add_argument("--stage", action="append", choices=(*STAGES, "export"), help="run only this; may be repeated")
    add_threads(parser)
    chosen = parser.parse_args(arguments)
    set_threads(chosen.threads)
    work, output = folders(chosen.work, chosen.output, rehearsal=chosen.share < 1)
    return exit_code(lambda: run(work, output, chosen.stage or [*STAGES, "export"], chosen.share))


def folders(work: Path | None, output: Path | None, *, rehearsal: bool) -> tuple[Path, Path]:
    """Where states and finished files go: a rehearsal's never among the real ones unless it is told to."""
    if rehearsal:
        work = work or ROOT / ".demo_training" / "rehearsal"
        return work, output or work / "demo_weights"
    return work or ROOT / ".demo_training", output or ROOT / "demo_weights"


def run(work: Path, output: Path, stages: Sequence[str], share: float = 1.0) -> int:
    """Run stages in order; return the exit code."""
    workshop = Workshop(work, progress, share)
    for stage in stages:
        print(f"== {stage}", flush=True)
        kind, _, part = stage.rpartition("_")
        if kind == "portraits":
            workshop.encode_part(int(part))
        elif kind == "references":
            workshop.encode_reference_part(int(part))
        elif stage == "export":
            from likeness_pack.training.demo.export import export

            for path in export(workshop, output):
                print(f"{path} {path.stat().st_size / 1e6:.1f} MB")
        else:
            workshop.run(stage)
    return 0


def progress(stage: str) -> OnStep:
    """A line every 25 steps: mean losses and seconds."""
    started = time.monotonic()
    sums: dict[str, float] = {}

    def told(step: int, losses: Losses) -> None:
        for name, value in losses.items():
            sums[name] = sums.get(name, 0.0) + value / 25
        if step % 25 == 0:
            shown = ", ".join(f"{name} {value:.4f}" for name, value in sums.items())
            print(f"{stage} {step}: {shown} ({time.monotonic() - started:.0f} s)", flush=True)
            sums.clear()

    return told


if __name__ == "__main__":
    sys.exit(main())
