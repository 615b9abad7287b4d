"""Benchmarks as ratios: ``python tools/bench.py [--device cpu|cuda] [--rounds N] [--json FILE]``. Needs a clone with
its tests.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tools"), str(ROOT / "tools" / "dev"), str(ROOT / "tests" / "support")]

import torch  # noqa: E402 (threads are set above)
from likeness_path import register  # noqa: E402

register()

from likeness_pack.evaluation.benchmark import Ratio, count_ratio, time_ratios  # noqa: E402
from likeness_pack.evaluation.operations import count_calls  # noqa: E402

TOKENS = 16


def sampling_steps(folder: Path, rounds: int) -> Iterator[Ratio]:
    """One UNet step with FaceID of 1, 2 and 4 identities, SDXL's layout at small width, batch 2."""
    from host_inprocess import tiny_model
    from identities import arcface_identity
    from likeness_pack.adapters import registry
    from likeness_pack.inject.apply import ApplyOptions, apply_identity
    from likeness_pack.inject.call_state import CallState
    from likeness_pack.inject.loaded import LoadedAdapter
    from tiny_adapters import write_faceid
    from unet_calls import call_unet

    base = tiny_model("SDXL")
    loaded = LoadedAdapter(registry.load(write_faceid(folder / "faceid.bin", "SDXL", tokens=TOKENS)))
    models: dict[int, Any] = {0: base}
    for number in range(1, 5):
        options = ApplyOptions(lora_strength=0.0)
        models[number] = apply_identity(models[number - 1], loaded, arcface_identity(number), options)
    state = CallState()

    def step(number: int) -> None:
        call_unet(models[number], "SDXL", (1, 0), state, loaded=number > 0)

    for number in models:
        step(number)
    plain = count_calls(lambda: step(0))
    limits = {1: 1.10, 2: 1.15, 4: 1.25}
    for number, limit in limits.items():
        counted = count_calls(lambda n=number: step(n))  # type: ignore[misc]
        yield count_ratio(f"operations per step, {number} identities / none", counted.compute, plain.compute, limit)
        added = float(counted.synchronisations - plain.synchronisations)
        yield Ratio(f"host synchronisations added, {number} identities", added, added, added, 0.0)
    names = {f"step time, {number} identities / none": number for number in limits}
    variants = {name: (lambda n=number: step(n)) for name, number in names.items()}
    yield from time_ratios(lambda: step(0), variants, torch.device("cpu"), rounds)


def applying(folder: Path, rounds: int) -> Iterator[Ratio]:
    """Applying again with another strength, against the first time."""
    from host_inprocess import tiny_model
    from identities import arcface_identity
    from likeness_pack.adapters import registry
    from likeness_pack.inject.apply import ApplyOptions, apply_identity
    from likeness_pack.inject.loaded import LoadedAdapter
    from tiny_adapters import write_faceid

    base = tiny_model("SDXL")
    loaded = LoadedAdapter(registry.load(write_faceid(folder / "faceid.bin", "SDXL", tokens=TOKENS)))
    kept = apply_identity(base, loaded, arcface_identity(0), ApplyOptions())
    fresh = iter(range(1, 10_000))

    def first() -> object:
        return apply_identity(base, loaded, arcface_identity(next(fresh)), ApplyOptions())

    def second() -> object:
        return apply_identity(base, loaded, arcface_identity(0), ApplyOptions(strength=0.5))

    yield from time_ratios(first, {"apply time, changed strength / new identity": second}, torch.device("cpu"), rounds)
    del kept


def detecting(rounds: int) -> Iterator[Ratio]:
    """MTCNN over eight pictures at once, against one by one."""
    from likeness_pack.adapters.detectors import packages
    from skimage import data

    detector = packages.load("mtcnn", [])
    picture = torch.from_numpy(data.astronaut()).float()[None] / 255
    pictures = torch.cat([picture.roll(shift, 2) for shift in range(0, 64, 8)])

    def one_by_one() -> object:
        return [detector(pictures[i : i + 1], 0.9) for i in range(len(pictures))]

    name = "detection time, batch of 8 / one by one"
    yield from time_ratios(
        one_by_one, {name: lambda: detector(pictures, 0.9)}, torch.device("cpu"), max(3, rounds // 5)
    )


def leaking(folder: Path, pictures: int = 5) -> Iterator[Ratio]:
    """Change of the final latent outside two people's masks against inside: reported, not bounded, since every later
    layer carries the people's change across the picture.
    """
    from host_inprocess import sample, tiny_model
    from identities import arcface_identity
    from likeness_pack.adapters import registry
    from likeness_pack.evaluation.leakage import latent_leakage
    from likeness_pack.inject.apply import ApplyOptions, apply_identity
    from likeness_pack.inject.loaded import LoadedAdapter
    from tiny_adapters import write_faceid

    base = tiny_model("SD15")
    loaded = LoadedAdapter(registry.load(write_faceid(folder / "leakage.bin", "SD15", tokens=TOKENS)))
    columns = torch.linspace(0, 1, 128).expand(128, 128)
    masks = [(1 - (columns - centre).abs() * 6).clamp(0, 1) for centre in (0.12, 0.3)]
    patched = base
    for number, mask in enumerate(masks):
        options = ApplyOptions(mask=mask, lora_strength=0.0)
        patched = apply_identity(patched, loaded, arcface_identity(number), options)
    shares = []
    for seed in range(pictures):
        plain, people = (sample(model, steps=8, size=16, seed=seed) for model in (base, patched))
        shares.append(latent_leakage(plain, people, masks).ratio)
    yield Ratio("latent change outside the masks / inside", statistics.median(shares), min(shares), max(shares))


def swapping(folder: Path, rounds: int) -> Iterator[Ratio]:
    """Eight faces swapped at once against one by one: ReSwapper's network at small and at published width, and the
    whole way of a frame (cut, swap, paste) with the small one.

    At small width a batch saves the cost of calls. At published width (weights drawn) it saves the transforms of the
    wide kernels, see `adapters.swappers.reswapper.winograd`; large maps go through in lanes that the cache holds.
    """
    from identities import arcface_identity
    from likeness_pack.adapters import registry
    from likeness_pack.adapters.swappers.pipeline import swap_faces
    from likeness_pack.adapters.swappers.reswapper.arch import SwapNetwork
    from likeness_pack.adapters.swappers.reswapper.swapper import ReSwapper
    from likeness_pack.faces.swap_paste import paste_swaps
    from swap_standins import batch_of, faces_at, write_reswapper

    chance = torch.Generator().manual_seed(0)
    source = torch.randn(8, 512, generator=chance)
    torch.manual_seed(0)
    small = registry.load(write_reswapper(folder / "swapper.pth"), kind="swapper", variant="128")
    wide = ReSwapper(SwapNetwork(), torch.eye(512), 128)

    def swapped(swapper: Any, crops: torch.Tensor, step: int) -> object:
        return [swapper.swap(crops[i : i + step], source[i : i + step]) for i in range(0, len(crops), step)]

    cases = {"stand-in of small width": (small, 64, rounds), "published width": (wide, 128, max(3, rounds // 5))}
    for title, (swapper, side, times) in cases.items():
        crops = torch.rand(8, 3, side, side, generator=chance)
        name = f"swap time, batch of 8 / one by one ({title})"
        one, eight = partial(swapped, swapper, crops, 1), partial(swapped, swapper, crops, 8)
        yield from time_ratios(one, {name: eight}, torch.device("cpu"), times, {name: 1 / 1.1})

    images, identity = torch.rand(8, 120, 160, 3, generator=chance), arcface_identity()
    faces = batch_of(*(faces_at((80, 60, 60)) for _ in range(8)), size=(120, 160))

    def whole(step: int) -> object:
        done = []
        for start in range(0, 8, step):
            part = faces.with_images(faces.images[start : start + step])
            found = swap_faces(images[start : start + step], part, small, identity)
            done.append(paste_swaps(images[start : start + step], found.faces, found.crops))
        return done

    name = "time of cut, swap and paste, 8 frames at once / one by one (stand-in of small width)"
    yield from time_ratios(lambda: whole(1), {name: lambda: whole(8)}, torch.device("cpu"), rounds)


def importing() -> Iterator[str]:
    """Seconds that the pack adds to a start in which torch and the host are there."""
    command = [sys.executable, str(ROOT / "tools" / "dev" / "import_cost.py")]
    yield subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


def main() -> int:
    """Print every ratio with device, dtype and versions."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--json", type=Path, help="write the figures to this file as well")
    options = parser.parse_args()
    torch.set_num_threads(1)
    from host_inprocess import engine

    engine()
    setting = {"device": "cpu", "dtype": "float32", "torch": torch.__version__, "threads": 1, "attention": "pytorch"}
    print("setting:", ", ".join(f"{name} {value}" for name, value in setting.items()))
    ratios: list[Ratio] = []
    with TemporaryDirectory() as name:
        folder = Path(name)
        for part in (
            sampling_steps(folder, options.rounds),
            applying(folder, options.rounds),
            detecting(options.rounds),
            swapping(folder, options.rounds),
            leaking(folder),
        ):
            for ratio in part:
                ratios.append(ratio)
                print(ratio.as_text(), flush=True)
    for line in importing():
        print(line)
    if options.json is not None:
        content = {"setting": setting, "ratios": [asdict(ratio) for ratio in ratios]}
        options.json.write_text(json.dumps(content, indent=1), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
