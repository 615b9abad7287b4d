"""Benchmarks as ratios: ``python tools/bench.py [--device cpu|cuda] [--rounds N] [--json FILE] [--publish]``.

Needs a clone with its tests. With COMFYUI_PATH the models are those of that ComfyUI, and the families that only a newer
one has are measured as well.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tools"), str(ROOT / "tools" / "dev"), str(ROOT / "tests" / "support")]

import torch  # noqa: E402 (threads are set above)
from likeness_path import register  # noqa: E402

register()

from likeness_pack.tools.benchmarks.registry import ON_CPU, TOPICS  # noqa: E402
from likeness_pack.tools.benchmarks.report import publish  # noqa: E402
from likeness_pack.tools.benchmarks.rows import NotMeasured, Task  # noqa: E402


def main() -> int:
    """Print every ratio with device, dtype and versions."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--topic", choices=tuple(TOPICS), action="append", help="only this; may be given again")
    parser.add_argument("--json", type=Path, default=ROOT / "bench.json", help="where the figures go")
    parser.add_argument(
        "--add", type=Path, action="append", default=[], help="figures of an earlier run of other topics"
    )
    parser.add_argument("--publish", action="store_true", help="renew docs/benchmarks.{json,md,png} as well")
    options = parser.parse_args()
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("this machine has no CUDA device that torch sees")
    torch.set_num_threads(1)
    os.environ["LIKENESS_DEVICE"] = options.device
    content: dict[str, Any] = {
        "setting": setting(options.device),
        **measured(options.device, options.rounds, options.topic),
    }
    for file in options.add:
        add(content, json.loads(file.read_text(encoding="utf-8")))
    options.json.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    if options.publish:
        publish(content, ROOT / "docs")
    return 0


def add(content: dict[str, Any], earlier: dict[str, Any]) -> None:
    """Put the figures of an earlier run before those of this one; both must have one setting."""
    if earlier["setting"] != content["setting"]:
        raise SystemExit(f"the earlier run had another setting: {earlier['setting']}")
    content["ratios"] = earlier["ratios"] + content["ratios"]
    content["not_measured"] = {**earlier["not_measured"], **content["not_measured"]}


def setting(device: str) -> dict[str, object]:
    """Device, dtype and versions; imports the engine."""
    from host_inprocess import engine

    host = "upstream" if engine().has_wrappers else "the comfyui package"
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


def comfyui_version() -> str:
    """Version of the engine that is measured, or nothing where it does not say."""
    checkout = os.environ.get("COMFYUI_PATH")
    if checkout:
        file = Path(checkout) / "comfyui_version.py"
        lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
        return next((line.split('"')[1] for line in lines if line.startswith("__version__")), "")
    from importlib.metadata import version

    return version("comfyui")


def measured(device: str, rounds: int, only: list[str] | None) -> dict[str, Any]:
    """Every row of the chosen topics, printed as it comes, and what was left out."""
    rows: list[dict[str, object]] = []
    left_out: dict[str, str] = {}
    with TemporaryDirectory() as folder:
        for name in only or TOPICS:
            task = Task(Path(folder), "cpu" if name in ON_CPU else device, rounds)
            for found in TOPICS[name](task):
                print(found.as_text(), flush=True)
                if isinstance(found, NotMeasured):
                    left_out[found.subject] = found.reason
                else:
                    rows.append(found.as_json())
    return {"ratios": rows, "not_measured": left_out}


if __name__ == "__main__":
    sys.exit(main())
