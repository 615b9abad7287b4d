"""Train the demo weights: autoencoder, face encoder, base model and FACT adapter, all on drawn faces.

``python tools/train_demo_weights.py`` runs every stage that is not finished and writes ``demo_weights/``; stopping and
calling again goes on where it stopped. Two to three hours on two processor cores. ``--stage NAME`` runs one stage only.
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

import torch  # noqa: E402  (the package must be registered first)
from likeness_pack.faces.errors import LikenessError  # noqa: E402
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
    parser.add_argument("--work", type=Path, default=ROOT / ".demo_training", help="states and encoded portraits")
    parser.add_argument("--output", type=Path, default=ROOT / "demo_weights", help="where the finished files go")
    parser.add_argument("--stage", action="append", choices=(*STAGES, "export"), help="run only this; may be repeated")
    parser.add_argument("--threads", type=int, default=0, help="processor threads; 0 leaves it to torch")
    chosen = parser.parse_args(arguments)
    if chosen.threads:
        torch.set_num_threads(chosen.threads)
    try:
        run(Workshop(chosen.work, progress), chosen.stage or [*STAGES, "export"], chosen.output)
    except LikenessError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped; the same command goes on from here", file=sys.stderr)
        return 130
    return 0


def run(workshop: Workshop, stages: Sequence[str], output: Path) -> None:
    """Run stages in order."""
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
