"""The tiny base models that the host tests stand on: the real topology, the same numbers on every host."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from host_inprocess import ATTENTION_LAYERS, Kind, attention_blocks, conditioning, engine, sample, tiny_model


def test_the_engine_is_the_one_that_was_asked_for() -> None:
    import os

    assert engine() is engine()
    assert engine().upstream == bool(os.environ.get("COMFYUI_PATH"))
    assert engine().models.parent == engine().base


@pytest.mark.parametrize("kind", ["SD15", "SDXL"])
def test_cross_attention_layers_are_called_in_the_published_order(kind: Kind) -> None:
    model = tiny_model(kind).clone()
    seen: list[tuple[str, int, int]] = []

    def record(out: torch.Tensor, extra: dict[str, Any]) -> torch.Tensor:
        seen.append((*extra["block"], extra["block_index"]))
        return out

    model.set_model_attn2_output_patch(record)
    sample(model, steps=1, cfg=1.0)
    assert seen == list(attention_blocks(kind))
    assert len(seen) == ATTENTION_LAYERS[kind]


def test_sampling_is_repeatable_and_follows_the_prompt() -> None:
    model = tiny_model("SD15")
    first = sample(model)
    assert torch.isfinite(first).all()
    assert first.std() > 0.1
    assert torch.equal(first, sample(model))
    assert not torch.allclose(first, sample(model, positive=conditioning("SD15", seed=5)))
