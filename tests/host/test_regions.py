"""Several people in one picture: each layer's added term is zero outside the masks and the sum of the single ones
inside.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from host_inprocess import sample, tiny_model
from identities import arcface_identity
from likeness_pack.adapters import registry
from likeness_pack.inject.apply import ApplyOptions, apply_identity
from likeness_pack.inject.layer_map import unet_layers
from likeness_pack.inject.loaded import LoadedAdapter
from module_folders import ModuleFolders
from tiny_adapters import write_faceid


@pytest.fixture(scope="module")
def model() -> Any:
    """A tiny SD1.5."""
    return tiny_model("SD15")


@pytest.fixture(scope="module")
def loaded(module_folders: ModuleFolders) -> LoadedAdapter:
    """FaceID for it."""
    return LoadedAdapter(registry.load(write_faceid(module_folders.mktemp("regions") / "faceid.bin", "SD15")))


def _soft_masks(count: int) -> list[torch.Tensor]:
    """Overlapping soft bands over the left three quarters of the picture; the right quarter belongs to nobody."""
    columns = torch.linspace(0, 1, 32)
    centres = torch.linspace(0.1, 0.5, count)
    return [(1 - (columns - centre).abs() * 5).clamp(0, 1).expand(32, 32).contiguous() for centre in centres]


def _apply(model: Any, loaded: LoadedAdapter, masks: list[torch.Tensor]) -> Any:
    for number, mask in enumerate(masks):
        options = ApplyOptions(strength=0.5 + 0.2 * number, mask=mask, lora_strength=0.0)
        model = apply_identity(model, loaded, arcface_identity(number), options)
    return model


@pytest.mark.parametrize("people", [1, 2, 3, 4])
def test_each_layer_adds_nothing_outside(model: Any, loaded: LoadedAdapter, people: int) -> None:
    """Two or more overlapping soft masks: outside all of them the layer's output is bit-equal to text attention."""
    patched = _apply(model, loaded, _soft_masks(people))
    slots = patched.model_options["transformer_options"]["patches_replace"]["attn2"]
    for layer in unet_layers(model):
        side = {32: 8, 64: 4, 128: 2}[layer.width] if layer.block != ("middle", 0) else 1
        q, text = torch.randn(2, side * side, layer.width), torch.randn(2, 5, layer.width)
        extra = {"n_heads": layer.heads, "cond_or_uncond": [1, 0], "original_shape": [2, 4, 8, 8]}
        plain = slots[layer.key].__class__(slots[layer.key].layer, ())(q, text, text, extra)
        got = slots[layer.key](q, text, text, extra)
        if side >= 8:
            grid = (got - plain).view(2, side, side, -1)
            assert torch.equal(grid[:, :, 7:], torch.zeros_like(grid[:, :, 7:]))
            assert grid[:, :, :4].abs().max() > 0


@pytest.mark.parametrize("people", [2, 3, 4])
def test_people_add_up(model: Any, loaded: LoadedAdapter, people: int) -> None:
    """One layer with several people equals the sum of the layers with each alone, whichever way it is computed."""
    masks = _soft_masks(people)
    layer = unet_layers(model)[0]
    q, text = torch.randn(4, 64, layer.width), torch.randn(4, 5, layer.width)
    extra = {"n_heads": layer.heads, "cond_or_uncond": [1, 0], "original_shape": [4, 4, 8, 8]}

    def added(patched: Any) -> torch.Tensor:
        patch = patched.model_options["transformer_options"]["patches_replace"]["attn2"][layer.key]
        return patch(q, text, text, extra) - patch.__class__(0, ())(q, text, text, extra)

    alone = [
        apply_identity(
            model, loaded, arcface_identity(n), ApplyOptions(strength=0.5 + 0.2 * n, mask=masks[n], lora_strength=0.0)
        )
        for n in range(people)
    ]
    torch.testing.assert_close(added(_apply(model, loaded, masks)), sum(map(added, alone)), atol=2e-5, rtol=1e-4)


def test_masks_per_frame(model: Any, loaded: LoadedAdapter) -> None:
    """A batch of masks gives each picture its own; a mask of zeros leaves its picture bit-equal to the plain
    model's.
    """
    mask = torch.stack([torch.ones(8, 8), torch.zeros(8, 8)])
    patched = apply_identity(model, loaded, arcface_identity(), ApplyOptions(mask=mask, lora_strength=0.0))
    plain, got = sample(model, batch=2), sample(patched, batch=2)
    torch.testing.assert_close(got[1], plain[1], atol=1e-6, rtol=1e-6)
    assert (got[0] - plain[0]).abs().max() > 1e-3
