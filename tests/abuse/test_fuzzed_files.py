"""Checkpoints of every family, damaged and lying: one typed sentence each, nothing written, memory bounded."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from pathlib import Path
from traceback import extract_tb

import pytest
import torch
from fuzz_counts import SENTENCE, Tallies, Tally, Watch, dice_of, forget_peak, how_many, memory_mb, snapshot
from fuzz_files import attacks, damaged, duplicate_names, huge_header, lying_shapes, lying_tensors
from key_lists import PUBLISHED, shapes_of
from likeness_pack.adapters import registry
from likeness_pack.adapters.checkpoint import read_header
from likeness_pack.faces.errors import LikenessError
from likeness_pack.tools.standins.command import KINDS, write_standin
from module_folders import ModuleFolders
from safetensors.torch import save_file
from sparse_files import write_sparse_safetensors, write_zero_storage_torch
from swap_standins import write_reswapper
from tiny_parser import write_trained
from tiny_systems import SYSTEMS
from torch import Tensor

GOLDEN = Path(os.environ.get("PARITY_GOLDEN", "none"))
TOPIC = "checkpoints: "
THIN = (32, 32, 32, 32)
SMALL_KINDS = ("fact-v0", "dreamid", "musetalk-v15", "whisper")
LARGEST_FILE = 16_000_000
MEMORY_MB = 1500.0
VARIANTS = ("auto", "plus_v2", "plus_face", "v15", "instantid", "celeba", "nonsense", "")


@pytest.fixture(scope="module")
def good(module_folders: ModuleFolders) -> dict[str, Path]:
    """A small file of every family that has a small one, by name."""
    folder = module_folders.mktemp("good")
    found = {}
    for system in (one for one in SYSTEMS if one.kind == "SD15"):
        path = folder / f"{system.name}.bin"
        system.write(path)
        if path.stat().st_size < LARGEST_FILE:
            found[system.name] = path
        else:
            path.unlink()
    for name, kind in KINDS.items():
        widths = {"dreamid-v": (48, 48), "whisper-tiny": (64,)}.get(name.removesuffix("-faster"), THIN)
        if name.startswith(SMALL_KINDS):
            found[name] = write_standin(name, folder, widths[: len(kind.levels)] if kind.levels else ())
    found["parser"] = write_trained(folder / "parser.pt")
    write_reswapper(folder / "swapper.pth")
    found["swapper"] = folder / "swapper.pth"
    for row in PUBLISHED:
        shapes = shapes_of(row.stem, GOLDEN)
        if sum(math.prod(shape) for shape in shapes.values()) * row.dtype.itemsize < LARGEST_FILE:
            found[row.stem] = folder / f"{row.stem}.safetensors"
            save_file({name: torch.zeros(tuple(shape)) for name, shape in shapes.items()}, found[row.stem])
    return {name: path for name, path in found.items() if path.stat().st_size < LARGEST_FILE}


def tensors_of(path: Path) -> dict[str, Tensor]:
    """All tensors of a good file by dotted name."""
    from likeness_pack.adapters.checkpoint import load_tensors

    return load_tensors(read_header(path))


def attempt(path: Path, tally: Tally, told: str, *, build: bool, variant: str = "auto") -> None:
    """Read, recognise and, if asked, build a file; anything but a typed sentence is written down."""
    tally.tried += 1
    try:
        if build:
            registry.load(path, variant=variant)
        else:
            registry.describe(path, variant=variant)
    except LikenessError as error:
        tally.typed[type(error).__name__] += 1
        if not SENTENCE.fullmatch(str(error)) or len(str(error)) > 20_000:
            tally.untyped.append(f"{told}: no single sentence: {str(error)[:300]!r}")
    except Exception as error:  # noqa: BLE001 (the very thing that is looked for)
        frames = extract_tb(error.__traceback__)[:-6:-1]
        where = " <- ".join(f"{one.name} {Path(one.filename).name}:{one.lineno}" for one in frames)
        tally.untyped.append(f"{told}: {type(error).__name__}: {str(error)[:300]} ({where})")
    else:
        tally.accepted += 1


def checked(tally: Tally, watch: Watch, before: Mapping[str, int], folder: Path, measured: bool) -> None:
    """What holds after every round."""
    assert not tally.untyped, "\n".join(tally.untyped[:20])
    assert not watch.deeds, watch.deeds[:10]
    assert snapshot(folder) == before
    peak = memory_mb(field_name="VmHWM")
    if measured and peak is not None:
        tally.facts["highest_memory_mb"] = round(max(peak, tally.facts.get("highest_memory_mb", 0.0)))


def test_damaged_bytes(good: dict[str, Path], tmp_path: Path, tallies: Tallies, watch: Watch) -> None:
    """Flipped bits, cuts, growth, holes, swapped pieces and lengths that lie, in the file of every family."""
    dice, tally = dice_of(1), tallies[TOPIC + "damaged bytes"]
    start, measured = memory_mb() or 0.0, forget_peak()
    for name, source in good.items():
        data = source.read_bytes()
        for number in range(how_many(3, 60)):
            told, content = damaged(data, dice)
            path = tmp_path / f"file{number % 2}{source.suffix}"
            path.write_bytes(content)
            with watch.on():
                attempt(path, tally, f"{name} {told} {number}", build=True, variant=dice.choice(VARIANTS[:3]))
            path.unlink()
    checked(tally, watch, {}, tmp_path, measured)
    assert (memory_mb(field_name="VmHWM") or 0.0) - start < MEMORY_MB


def test_lying_tensors(good: dict[str, Path], tmp_path: Path, tallies: Tallies, watch: Watch) -> None:
    """Real tensors of other shapes, names, types and values than the family has."""
    dice, tally = dice_of(2), tallies[TOPIC + "lying tensors"]
    path = tmp_path / "lie.safetensors"
    for name, source in good.items():
        tensors = tensors_of(source)
        for number in range(how_many(3, 60)):
            told, lying = lying_tensors(tensors, dice)
            if not lying:
                continue
            try:
                save_file({key: tensor.contiguous().clone() for key, tensor in lying.items()}, path)
            except (UnicodeEncodeError, TypeError):
                torch.save(lying, path)
            with watch.on():
                attempt(path, tally, f"{name} {told} {number}", build=True, variant=dice.choice(VARIANTS))
            path.unlink()
    checked(tally, watch, {}, tmp_path, False)


def test_lying_headers_of_published_size(tmp_path: Path, tallies: Tallies, watch: Watch) -> None:
    """Files as long as the published ones whose names and shapes lie, in both containers: nothing is allocated."""
    dice, tally = dice_of(3), tallies[TOPIC + "lying headers"]
    start, measured = memory_mb() or 0.0, forget_peak()
    for place, row in enumerate(PUBLISHED):
        shapes = shapes_of(row.stem, GOLDEN)
        for number in range(how_many(1, 30)):
            told, lying = lying_shapes(shapes, dice)
            path = tmp_path / f"lie{number}.ckpt"
            write = write_zero_storage_torch if (number + place) % 2 else write_sparse_safetensors
            write(path, lying, row.dtype)
            with watch.on():
                attempt(path, tally, f"{row.stem} {told} {number}", build=False, variant=dice.choice(VARIANTS))
            path.unlink()
    checked(tally, watch, {}, tmp_path, measured)
    assert (memory_mb(field_name="VmHWM") or 0.0) - start < MEMORY_MB


def test_attacks(tmp_path: Path, tallies: Tallies, watch: Watch) -> None:
    """Pickles with code, archives without end, duplicate names, huge headers."""
    tally, mark = tallies[TOPIC + "attacks"], tmp_path / "was here"
    cases = [*attacks(mark), ("duplicate names", duplicate_names({"a": (2,)}))]
    cases.append(("huge header", huge_header(how_many(20_000, 500_000))))
    start = memory_mb() or 0.0
    measured = forget_peak()
    for suffix in (".pt", ".ckpt", ".safetensors")[: how_many(1, 3)]:
        path = tmp_path / f"attack{suffix}"
        for told, content in cases:
            path.write_bytes(content)
            with watch.on():
                attempt(path, tally, told, build=True)
            path.unlink()
    checked(tally, watch, {}, tmp_path, measured)
    assert not mark.exists()
    assert (memory_mb(field_name="VmHWM") or 0.0) - start < how_many(800, 3000)


def test_names_that_are_no_files(tmp_path: Path, tallies: Tallies) -> None:
    """Paths that no system opens."""
    tally = tallies[TOPIC + "paths"]
    for name in ("", ".", "..", "a" * 300, "missing.pt", "nul\x00byte.pt", "x/" * 600 + "y.pt"):
        attempt(tmp_path / name, tally, f"path {name[:20]!r}", build=True)
    assert not tally.untyped, tally.untyped
