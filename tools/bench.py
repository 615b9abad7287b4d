"""Benchmarks as ratios: ``python tools/bench.py [--device cpu|cuda] [--rounds N] [--json FILE] [--publish [JSON ..]]``.

Needs a clone with its tests. With COMFYUI_PATH the models are those of that ComfyUI, and the families that only a newer
one has are measured as well.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import platform
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

os.environ.setdefault("OMP_NUM_THREADS", "1")
ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tools"), str(ROOT / "tools" / "dev"), str(ROOT / "tests" / "support")]

import torch  # noqa: E402 (threads are set above)
from likeness_path import register  # noqa: E402

register()

from likeness_pack.tools.benchmarks.content import add, completed, merged, started  # noqa: E402
from likeness_pack.tools.benchmarks.coverage import reasons  # noqa: E402
from likeness_pack.tools.benchmarks.registry import ON_CPU, STEPS, TOPICS  # noqa: E402
from likeness_pack.tools.benchmarks.report import publish  # noqa: E402
from likeness_pack.tools.benchmarks.rows import NotMeasured, Row, Task  # noqa: E402


def main() -> int:
    """Print every ratio with device, dtype and versions."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--topic", choices=tuple(TOPICS), action="append", help="only this; may be given again")
    parser.add_argument("--json", type=Path, default=ROOT / "bench.json", help="where the figures go")
    parser.add_argument(
        "--publish",
        type=Path,
        nargs="*",
        metavar="JSON",
        help="renew docs/benchmarks.{json,md,png}: of this run, or of the named runs, and then nothing is measured",
    )
    options = parser.parse_args()
    if options.publish:
        renew_docs(options.publish)
        return 0
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("this machine has no CUDA device that torch sees")
    torch.set_num_threads(1)
    # The engine says what it loads, many times a row.
    logging.disable(logging.INFO)
    os.environ["LIKENESS_DEVICE"] = options.device
    found = {**setting(options.device), "machine": machine(), "rounds": options.rounds}
    content = started(found, reasons(newer_host()))
    for row in measured(options.device, options.rounds, options.topic or tuple(TOPICS)):
        print(row.as_text(), flush=True)
        add(content, row)
        # After each row, so that a run that is stopped keeps what it has.
        options.json.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    if options.publish is not None:
        renew_docs([options.json])
    return 0


def renew_docs(files: Sequence[Path]) -> None:
    """Write the page, the plot and the figures of some runs into docs."""
    from likeness_pack.adapters import registry

    everything = merged(json.loads(file.read_text(encoding="utf-8")) for file in files)
    families = [family.id for family in registry.families()]
    publish(completed(everything, families, [name for name in TOPICS if name not in STEPS]), ROOT / "docs")


def newer_host() -> bool:
    """Whether the ComfyUI under measure has Flux, Wan and HunyuanVideo."""
    from host_inprocess import engine

    return bool(engine().has_wrappers)


def setting(device: str) -> dict[str, object]:
    """Device, dtype and versions; imports the engine."""
    host = "upstream" if newer_host() else "the comfyui package"
    found: dict[str, object] = {
        "device": torch.cuda.get_device_name() if device == "cuda" else f"cpu, {platform.machine()}",
        "dtype": "float32",
        "clock": "wall time after synchronising" if device == "cuda" else "CPU time of the process",
        "threads": 1,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "comfyui": f"{host} {comfyui_version()}".strip(),
        "attention": "pytorch",
    }
    print("setting:", ", ".join(f"{name} {value}" for name, value in found.items()))
    return found


def machine() -> str:
    """Cores, and how busy they are (Windows does not say)."""
    load = f", load average {os.getloadavg()[0]:.0f}" if hasattr(os, "getloadavg") else ""
    return f"{os.cpu_count()} cores{load}"


def comfyui_version() -> str:
    """Version of the engine that is measured, or nothing where it does not say."""
    checkout = os.environ.get("COMFYUI_PATH")
    if checkout:
        file = Path(checkout) / "comfyui_version.py"
        lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
        return next((line.split('"')[1] for line in lines if line.startswith("__version__")), "")
    from importlib.metadata import version

    return version("comfyui")


def measured(device: str, rounds: int, topics: Sequence[str]) -> Iterator[Row | NotMeasured]:
    """Every row of the chosen topics as it comes, and what was left out."""
    with TemporaryDirectory() as folder:
        for name in topics:
            yield from TOPICS[name](Task(Path(folder), "cpu" if name in ON_CPU else device, rounds))


if __name__ == "__main__":
    sys.exit(main())
