"""The order of layers in adapter files against the order in the running model."""

from __future__ import annotations

import json

import pytest
from harness import golden_folder
from host_inprocess import attention_blocks, tiny_model
from likeness_pack.inject.layer_map import unet_layers
from tiny_adapters import block_paths, widths


@pytest.mark.parametrize("kind", ["SD15", "SDXL"])
def test_every_attention_is_found_once(kind: str) -> None:
    """Sixteen layers on SD1.5 and seventy on SDXL, the middle block being ("middle", 0)."""
    layers = unet_layers(tiny_model(kind))
    assert {layer.key for layer in layers} == set(attention_blocks(kind))
    assert len(layers) == len(attention_blocks(kind))
    assert [layer.width for layer in layers] == widths(kind)


def test_names_are_those_of_diffusers() -> None:
    """The FACT file names its layers by diffusers path, down and up before middle."""
    assert [layer.path for layer in unet_layers(tiny_model("SD15"))] == block_paths()


@pytest.mark.parametrize(("kind", "entry"), [("SD15", "sd15"), ("SDXL", "sdxl")])
def test_order_is_the_published_one(kind: str, entry: str) -> None:
    """Index, host block and weight path of every attention agree with the table made from official code."""
    path = golden_folder() / "common_attn_index_order.json"
    table = json.loads(path.read_text(encoding="utf-8"))[entry]
    layers = unet_layers(tiny_model(kind))
    for row in table:
        layer = layers[row["index"] // 2]
        assert tuple(row["comfy_block"]) == layer.key
        assert row["comfy_weights"] == f"{layer.weights}.{row['attn']}"
        assert row["diffusers"] == f"{layer.path}.{row['attn']}"
