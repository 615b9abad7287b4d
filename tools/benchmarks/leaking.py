"""Topic ``leakage``: change of the final latent outside two people's masks against inside."""

from __future__ import annotations

import statistics

import torch
from likeness_pack.evaluation.benchmark import Ratio

from .rows import Found, Row, Task

PICTURES = 3


def leaking(task: Task) -> Found:
    """Reported, not bounded, since every later layer carries the people's change across the picture."""
    from host_inprocess import sample, tiny_model
    from identities import arcface_identity
    from likeness_pack.adapters import registry
    from likeness_pack.evaluation.leakage import latent_leakage
    from likeness_pack.inject.apply import ApplyOptions, apply_identity
    from likeness_pack.inject.loaded import LoadedAdapter
    from tiny_adapters import write_faceid

    base = tiny_model("SD15")
    loaded = LoadedAdapter(registry.load(write_faceid(task.folder / "leakage.bin", "SD15", tokens=16)))
    columns = torch.linspace(0, 1, 128).expand(128, 128)
    masks = [(1 - (columns - centre).abs() * 6).clamp(0, 1) for centre in (0.12, 0.3)]
    patched = base
    for number, mask in enumerate(masks):
        options = ApplyOptions(mask=mask, lora_strength=0.0)
        patched = apply_identity(patched, loaded, arcface_identity(number), options)
    shares = []
    for seed in range(PICTURES):
        plain, people = (sample(model, steps=8, size=16, seed=seed) for model in (base, patched))
        shares.append(latent_leakage(plain, people, masks).ratio)
    ratio = Ratio("latent change outside the masks / inside", statistics.median(shares), min(shares), max(shares))
    yield Row("leakage", "", "FaceID of two people, SD1.5", 2, ratio.name, ratio)
