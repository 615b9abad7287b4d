"""One system sampled on one device: ``python cuda_step.py cpu|cuda DTYPE SYSTEM`` prints JSON.

Keys: ``plain`` and ``patched`` (flat latents after two steps), ``added_waits`` (synchronisations of a step with an
identity less those of the plain step, as ``torch.cuda.set_sync_debug_mode`` reports them; 0 on the CPU).
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tools"), str(ROOT / "tests" / "support")]

import torch  # noqa: E402
from likeness_path import register  # noqa: E402


def main(device: str, name: str, system_name: str) -> None:
    """Print what one system gives on one device in one dtype."""
    register()
    from host_inprocess import conditioning, engine, tiny_model
    from likeness_pack.inject.apply import ApplyOptions, apply_identity
    from likeness_pack.tools.benchmarks.sampling import Sampled, device_waits
    from tiny_systems import BY_NAME

    engine()
    system = BY_NAME[system_name]
    model = tiny_model(system.kind, dtype=getattr(torch, name))
    noise = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(5))
    sampled = Sampled(noise, conditioning(system.kind, seed=1), conditioning(system.kind, seed=2))
    with TemporaryDirectory() as folder:
        loaded = system.load(Path(folder))
    patched = apply_identity(model, loaded, system.identity(0), ApplyOptions(lora_strength=0.0))
    found: dict[str, object] = {
        label: sampled.run(one, 2).float().cpu().flatten().tolist()
        for label, one in {"plain": model, "patched": patched}.items()
    }
    on_card = device == "cuda"
    found["added_waits"] = device_waits(sampled, patched) - device_waits(sampled, model) if on_card else 0
    sys.stdout.write(f"{json.dumps(found)}\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
