"""Train small recognisers with and without TransFace's and TopoFR's additions on drawn faces, and compare them.

``python tools/compare_recipes.py --output FILE.json`` writes it and a plot of the same name. Every run is of equal
length and on the same pictures; each is judged on persons it never saw. The same command goes on where it was stopped.
Exit code 0: finished; 1: refused, with one sentence; 130: stopped.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from likeness_path import register

register()

import torch  # noqa: E402  (the package must be registered first)
from likeness_pack.evaluation.verification import Verification, verify  # noqa: E402
from likeness_pack.tools.command_line import add_numbers, exit_code  # noqa: E402
from likeness_pack.training.loop import LoopOptions, Losses, train  # noqa: E402
from likeness_pack.training.plot import bar_plot  # noqa: E402
from likeness_pack.training.recogniser.networks import Recogniser, small_recogniser  # noqa: E402
from likeness_pack.training.recogniser.people import DrawnPeople  # noqa: E402
from likeness_pack.training.recogniser.task import RecipeOptions, RecogniserTask  # noqa: E402
from likeness_pack.training.recogniser.topology import Scale  # noqa: E402
from likeness_pack.training.seeds import generator_for  # noqa: E402

RUNS = (("transformer", "plain"), ("transformer", "transface"), ("resnet", "plain"), ("resnet", "topofr"))
RATES = {"transformer": 1e-3, "resnet": 3e-3}
PEOPLE, HELD_OUT, PAIRS, CLIP, DECAY = 200, 500, 4000, 5.0, 0.05
# So few steps cannot shrink the embeddings to the pictures' scale, as a long run by the published code does first.
SCALE: Scale = "alike"
# Two-sided 95 % points of Student's distribution by degrees of freedom.
_STUDENT = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306, 9: 2.262}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    chosen = _parser().parse_args(arguments)
    return exit_code(lambda: _compare(chosen))


class Judge:
    """Pairs of pictures of persons that no run learns, the same for all runs."""

    def __init__(self) -> None:
        people, generator = DrawnPeople(HELD_OUT, seed=99), generator_for("pairs of the comparison")
        first = torch.randint(HELD_OUT, (PAIRS,), generator=generator)
        other = (first + 1 + torch.randint(HELD_OUT - 1, (PAIRS,), generator=generator)) % HELD_OUT
        self.same = torch.arange(PAIRS) % 2 == 0
        second = torch.where(self.same, first, other)
        self.pictures = [
            torch.cat([people.pictures(part, generator) for part in labels.split(200)]) for labels in (first, second)
        ]

    @torch.no_grad()
    def __call__(self, recogniser: Recogniser) -> Verification:
        """How well a recogniser tells the pairs."""
        recogniser.eval()
        found = [torch.cat([recogniser.embeddings(part) for part in side.split(200)]) for side in self.pictures]
        recogniser.train()
        return verify(found[0], found[1], self.same)


def summary(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Mean and 95 % interval over the seeds for each network and recipe, and the paired gain over the plain recipe."""
    lines = []
    for kind, recipe in RUNS:
        mine = {row["seed"]: row["accuracy"] for row in rows if (row["network"], row["recipe"]) == (kind, recipe)}
        plain = {row["seed"]: row["accuracy"] for row in rows if (row["network"], row["recipe"]) == (kind, "plain")}
        if not mine:
            continue
        gains = [mine[seed] - plain[seed] for seed in sorted(mine.keys() & plain.keys())]
        lines.append(
            {"network": kind, "recipe": recipe, "seeds": len(mine)}
            | _interval("accuracy", list(mine.values()))
            | ({} if recipe == "plain" else _interval("gain", gains))
        )
    return lines


def _interval(name: str, values: Sequence[float]) -> dict[str, Any]:
    if not values:
        return {}
    half = 0.0
    if len(values) > 1:
        half = _STUDENT.get(len(values) - 1, 1.96) * statistics.stdev(values) / len(values) ** 0.5
    return {name: round(statistics.mean(values), 4), f"{name}_half_width": round(half, 4)}


def _compare(chosen: argparse.Namespace) -> int:
    rows = json.loads(chosen.output.read_text(encoding="utf-8"))["runs"] if chosen.output.is_file() else []
    judge = Judge()
    for seed in range(chosen.seeds):
        for kind, recipe in RUNS:
            done = {(row["network"], row["recipe"], row["seed"]) for row in rows}
            if (kind, recipe, seed) in done:
                continue
            rows.append(_run(kind, recipe, seed, chosen, judge))
            print(json.dumps(rows[-1]), flush=True)
            _write(chosen, rows)
    _write(chosen, rows)
    for line in summary(rows):
        print(json.dumps(line))
    return 0


def _run(kind: Any, recipe: Any, seed: int, chosen: argparse.Namespace, judge: Judge) -> dict[str, Any]:
    recogniser = small_recogniser(kind, PEOPLE, seed)
    options = RecipeOptions(recipe, chosen.batch, seed, topology_scale=SCALE)
    task = RecogniserTask(recogniser, DrawnPeople(PEOPLE, seed=1), options)
    state = chosen.output.with_suffix(f".{kind}.{recipe}.{seed}.safetensors")

    def told(step: int, losses: Losses) -> None:
        if step % 50 == 0:
            print(f"{kind} {recipe} seed {seed} step {step}: loss {losses['total']:.3f}", file=sys.stderr, flush=True)

    train(task, LoopOptions(chosen.steps, RATES[kind], DECAY, CLIP, save_every=100), state, on_step=told)
    found = judge(recogniser)
    state.unlink(missing_ok=True)
    return {"network": kind, "recipe": recipe, "seed": seed, **asdict(found)}


def _write(chosen: argparse.Namespace, rows: list[dict[str, Any]]) -> None:
    budget = {"steps": chosen.steps, "batch": chosen.batch, "topology_scale": SCALE}
    facts: dict[str, Any] = {**budget, "people": PEOPLE, "held_out": HELD_OUT, "pairs": PAIRS}
    told = {**facts, "summary": summary(rows), "runs": rows}
    chosen.output.parent.mkdir(parents=True, exist_ok=True)
    chosen.output.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    lines = {f"{line['network']}, {line['recipe']}": line for line in told["summary"]}
    values = {name: 100 * line["accuracy"] for name, line in lines.items()}
    errors = {name: 100 * line["accuracy_half_width"] for name, line in lines.items()}
    plot = bar_plot(values, errors, "Verification of strangers: accuracy in %, 95 % intervals over seeds")
    plot.save(chosen.output.with_suffix(".png"))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="JSON file of the results")
    numbers = (
        ("steps", 300, "steps of each run"),
        ("batch", 32, "pictures of a step"),
        ("seeds", 3, "training seeds"),
    )
    add_numbers(parser, numbers)
    return parser


if __name__ == "__main__":
    sys.exit(main())
