"""Systems sampled on one device: ``python cuda_step.py cpu|cuda FLOAT_TYPES SYSTEMS`` (comma-separated) prints JSON.

Keys: the float type, then the system; of each ``plain`` and ``patched`` (flat latents after two steps) and
``added_waits``: waits of a step with an identity for the device, less those of the plain step, as
``torch.cuda.set_sync_debug_mode`` reports them. On the CPU, which never waits, they are reads of values.

One process does all systems, since importing an engine takes longer than sampling them.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from pack import register

register()


def main(device: str, float_types: Sequence[str], systems: Sequence[str]) -> None:
    """Print what the systems give on one device in some float types."""
    torch.set_num_threads(1)
    with TemporaryDirectory() as folder:
        found = {name: all_measured(systems, getattr(torch, name), device, Path(folder)) for name in float_types}
    sys.stdout.write(f"{json.dumps(found)}\n")


def all_measured(names: Sequence[str], dtype: torch.dtype, device: str, folder: Path) -> dict[str, dict[str, Any]]:
    """The systems in one float type; those of one base model share it and its plain result."""
    from host_inprocess import conditioning, engine, tiny_model
    from likeness_pack.inject.apply import ApplyOptions, apply_identity
    from likeness_pack.tools.benchmarks.sampling import Sampled, device_waits
    from tiny_systems import BY_NAME

    engine()
    found: dict[str, dict[str, Any]] = {}
    for kind in dict.fromkeys(BY_NAME[name].kind for name in names):
        model = tiny_model(kind, dtype=dtype)
        if model.load_device.type != device:
            raise SystemExit(f"the engine uses {model.load_device}; set LIKENESS_DEVICE={device}")
        noise = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(5))
        sampled = Sampled(noise, conditioning(kind, seed=1), conditioning(kind, seed=2))
        plain, waits = flat(sampled.run(model, 2)), device_waits(sampled, model, device)
        for system in (BY_NAME[name] for name in names if BY_NAME[name].kind == kind):
            options = ApplyOptions(lora_strength=0.0)
            patched = apply_identity(model, system.load(folder), system.identity(0), options)
            found[system.name] = {
                "plain": plain,
                "patched": flat(sampled.run(patched, 2)),
                "added_waits": device_waits(sampled, patched, device) - waits,
                "dtype": str(model.model.get_dtype()),
            }
    return found


def flat(latent: torch.Tensor) -> list[float]:
    """Numbers of a latent."""
    numbers: list[float] = latent.float().cpu().flatten().tolist()
    return numbers


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2].split(","), sys.argv[3].split(","))
