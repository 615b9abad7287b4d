"""Measure the small models: ``python tools/evaluate_demo_weights.py --work DIR`` writes docs/figures/demo_weights.*.

Three seeds of held-out persons and attributes. Needs the states that tools/train_demo_weights.py left in DIR, since it
compares the adapter with ones trained without FAIR and without shuffle. Exit code 0: finished; 1: refused.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from likeness_path import register

register()

import torch  # noqa: E402  (the package must be registered first)
from likeness_pack.faces.errors import LikenessError  # noqa: E402
from likeness_pack.training.demo.evaluate import Cases, Measure, at_distance  # noqa: E402
from likeness_pack.training.demo.figures import bars, curves, sheet  # noqa: E402
from likeness_pack.training.demo.recipe import BUDGETS, SIZE, Workshop  # noqa: E402
from likeness_pack.training.drawn_faces import draw  # noqa: E402

ROOT = Path(__file__).resolve().parents[1]
SEEDS = (1001, 1002, 1003)
# The shipped adapter is measured as it is used; the others along strengths, to compare them at equal identity.
STRENGTHS = {"fact": (1.0,)}
OTHER_STRENGTHS = (0.6, 1.0)
# Without FAIR, the latents outside the face put back to the plain model's: the most that FAIR could do.
ONLY_FACE = "without_fair, face latents only"
ADAPTERS = tuple(name for name in BUDGETS if name.startswith("fact") and name != "fact_start")

Figures = dict[str, float]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=ROOT / ".demo_training", help="states of the training")
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "figures", help="where figures and plots go")
    parser.add_argument("--persons", type=int, default=24, help="held-out persons for each seed")
    parser.add_argument("--seed", type=int, choices=SEEDS, help="measure this seed only and keep its figures in DIR")
    chosen = parser.parse_args(arguments)
    try:
        workshop = Workshop(chosen.work)
        if chosen.seed:
            kept_figures(workshop, chosen.persons, chosen.seed, chosen.output)
        else:
            evaluate(workshop, chosen.output, chosen.persons)
    except LikenessError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def evaluate(workshop: Workshop, output: Path, persons: int) -> None:
    """Measure, write JSON and pictures."""
    rows: dict[str, list[Any]] = {}
    for seed in SEEDS:
        for name, figures in kept_figures(workshop, persons, seed, output).items():
            rows.setdefault(name, []).append(figures)
    models = {name: averaged(found) for name, found in rows.items()}
    result: dict[str, Any] = {"persons": persons, "seeds": SEEDS, "models": models}
    result |= {"summary": summary(rows), "each_seed": rows}
    output.mkdir(parents=True, exist_ok=True)
    (output / "demo_weights.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    bars(output / "demo_weights_identity.png", result["models"], "identity_distance")
    curves(output / "demo_weights_fair.png", result["models"])
    print(json.dumps(result["summary"], indent=1))


def kept_figures(workshop: Workshop, persons: int, seed: int, output: Path) -> dict[str, Figures]:
    """Figures of one seed, measured once."""
    path = workshop.folder / f"figures_{persons}_{seed}.json"
    if not path.is_file():
        found = one_seed(workshop, persons, seed, output if seed == SEEDS[0] else None)
        path.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        print(f"seed {seed} is measured", flush=True)
    return dict(json.loads(path.read_text(encoding="utf-8")))


def one_seed(workshop: Workshop, persons: int, seed: int, pictures: Path | None) -> dict[str, Figures]:
    """Figures of every model, by ``model`` or ``model@strength``."""
    autoencoder, base = workshop.autoencoder(), workshop.base()
    cases = Cases.of(workshop.encoder(), persons, SIZE, seed)
    measure = Measure(workshop.judge(), autoencoder, base, cases)
    found = {"plain": measure.figures(measure.plain), "decoded truth": measure.of_decoded_truth()}
    shown = [draw(cases.identities, cases.reference, SIZE).images, measure.plain]
    for name in measured_adapters(workshop):
        fact = workshop.fact(name, base)
        for strength in STRENGTHS.get(name, OTHER_STRENGTHS):
            images = measure.images(fact, strength)
            found[f"{name}@{strength:g}"] = measure.figures(images)
            if name == "fact" and strength == 1.0:
                shown.append(images)
        if name == "fact_without_fair":
            found[ONLY_FACE] = measure.figures(measure.images(fact, only_face=True))
        fact.attached.close()
    shown.append(draw(cases.identities, cases.asked, SIZE).images)
    if pictures is not None:
        sheet(pictures / "demo_weights_portraits.png", shown, ("reference", "plain model", "with FACT", "asked for"))
    return found


def measured_adapters(workshop: Workshop) -> list[str]:
    """The shipped adapter, and the pairs of which both were trained."""
    pairs = (("fact_with_fair", "fact_without_fair"), ("fact_open", "fact_open_unshuffled"))
    whole = [pair for pair in pairs if all(workshop.state(name).is_file() for name in pair)]
    return ["fact", *(name for pair in whole for name in pair)]


def averaged(found: Sequence[Figures]) -> dict[str, dict[str, float]]:
    """Mean and spread over seeds of each figure."""
    names = found[0]
    return {
        name: {
            "mean": mean(one[name] for one in found),
            "spread": stdev(one[name] for one in found) if len(found) > 1 else 0.0,
        }
        for name in names
    }


def summary(rows: Mapping[str, Sequence[Figures]]) -> dict[str, float]:
    """The figures that the bars ask for."""
    models = {name: {key: mean(one[key] for one in found) for key in found[0]} for name, found in rows.items()}
    plain, fact = models["plain"], models.get("fact@1", models["plain"])
    told = {
        "identity_distance_plain": plain["identity_distance"],
        "identity_distance_fact": fact["identity_distance"],
        "identity_distance_lower_by": 1 - fact["identity_distance"] / plain["identity_distance"],
        "attribute_points_lost": 100 * (plain["attribute_accuracy"] - fact["attribute_accuracy"]),
    }
    curve = {name: _curve(models, name) for name in ADAPTERS}
    if curve.get("fact_with_fair") and curve.get("fact_without_fair"):
        shared = max(
            min(one["identity_distance"] for one in curve[name].values())
            for name in ("fact_with_fair", "fact_without_fair")
        )
        changes = {
            name: at_distance(curve[name], shared, "outside_change") for name in ("fact_with_fair", "fact_without_fair")
        }
        told |= {
            "outside_change_with_fair": changes["fact_with_fair"],
            "outside_change_without_fair": changes["fact_without_fair"],
            "outside_change_lower_by": 1 - changes["fact_with_fair"] / changes["fact_without_fair"],
            "at_identity_distance": shared,
        }
    if ONLY_FACE in models and curve.get("fact_without_fair"):
        found = models[ONLY_FACE]
        same = at_distance(curve["fact_without_fair"], found["identity_distance"], "outside_change")
        told |= {
            "outside_change_face_latents_only": found["outside_change"],
            "outside_change_face_latents_only_lower_by": 1 - found["outside_change"] / same,
        }
    if "fact_open@1" in models and "fact_open_unshuffled@1" in models:
        told |= {
            "leak_with_shuffle": models["fact_open@1"]["leak"],
            "leak_without_shuffle": models["fact_open_unshuffled@1"]["leak"],
        }
    return told


def _curve(models: Mapping[str, Figures], name: str) -> dict[float, Figures]:
    found = {strength: models.get(f"{name}@{strength:g}") for strength in (1.0, *OTHER_STRENGTHS)}
    measured = {strength: figures for strength, figures in found.items() if figures is not None}
    # Without strength every adapter is the plain model.
    return {0.0: models["plain"], **measured} if measured else {}


if __name__ == "__main__":
    torch.set_num_threads(1)
    sys.exit(main())
