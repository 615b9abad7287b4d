"""FACT through the host's own UNet: map of layers, order, and place of the patch."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import parity
import torch
from harness import Golden, part

# The golden notes this tolerance: the plain UNets of both sides differ by 1.5e-4 themselves.
TOLERANCE = 3e-4


@part("fact_unet_tiny")
def fact_unet_tiny(golden: Golden) -> None:
    """Every case of the file: filled gates, strong gates, two photos, scale 0."""
    from host_inprocess import tiny_model

    config = {k: v for k, v in golden.metadata["hyper_parameters"]["comfyui_unet"].items() if k != "image_size"}
    model = tiny_model("SD15", fill=lambda unet: parity.fill_module(unet, golden.salt), **config)
    loaded = {"a": _loaded(golden, (0.8, -0.5)), "fill": _loaded(golden, None)}
    cases = [name for name in golden.tensors if name != "s0"]
    for case in cases:
        kind, scale = case.split("_")[0], {"s1": 1.0, "s05": 0.5}[case.split("_")[1]]
        got = _run(golden, model, loaded[kind], scale, two=case.endswith("_two"))
        golden.check(case, got, TOLERANCE)
    golden.check("s0", _run(golden, model, loaded["a"], 0.0, two=False), TOLERANCE)


def _run(golden: Golden, model: Any, loaded: Any, scale: float, two: bool) -> torch.Tensor:
    from likeness_pack.inject.apply import ApplyOptions, apply_identity

    face = golden.input("face", golden.metadata["inputs"]["face"]["shape"])[:, : 32 if two else 16]
    rows = face.shape[0]
    # One face for each row of the batch: the rows are told apart as positive and negative, one chunk each.
    loaded.keys_values = lambda identity, options, device, dtype: _row_values(loaded, face)  # type: ignore[method-assign]
    from identities import transface_identity

    patched = apply_identity(model, loaded, transface_identity(), ApplyOptions(strength=scale))
    options = {**patched.model_options["transformer_options"], "cond_or_uncond": list(range(rows))}
    inputs = golden.metadata["inputs"]
    return patched.model.diffusion_model(
        golden.input("latent", inputs["latent"]["shape"]),
        timesteps=torch.tensor(inputs["timesteps"]),
        context=golden.input("text", inputs["text"]["shape"]),
        transformer_options=options,
    )


def _row_values(loaded: Any, face: torch.Tensor) -> Any:
    from likeness_pack.inject.row_values import RowKeysValues

    layers = list(loaded.adapter.layers.values())
    positive, negative = ([layer.face_keys_values(face[row : row + 1]) for layer in layers] for row in (0, 1))
    return RowKeysValues(positive, negative)


def _loaded(golden: Golden, gates: tuple[float, float] | None) -> Any:
    from likeness_pack.adapters import registry
    from likeness_pack.inject.loaded import LoadedAdapter
    from tiny_adapters import write_fact

    with TemporaryDirectory() as folder:
        path = write_fact(Path(folder) / "fact.ckpt")
        tensors = torch.load(path, weights_only=True)
        filled = golden.filled({name: shape for name, shape in golden.keys.items() if "processor" in name})
        for name, tensor in filled.items():
            if gates is not None and name.endswith(("alpha_attn", "alpha_dense")):
                tensor = torch.full_like(tensor, gates[name.endswith("alpha_dense")])
            tensors[name] = tensor
        torch.save(tensors, path)
        return LoadedAdapter(registry.load(path))
