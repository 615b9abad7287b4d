"""Low-rank changes (LoRA, Hu et al. 2022) of a base model's attention, trained from outside and saved as usual.

The base model is not touched: hooks add the change while they are attached.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from .seeds import generator_for

ENDINGS = ("to_q", "to_k", "to_v", "to_out.0")


class LowRankChange(nn.Module):
    """``up(down(x))`` of one linear layer; ``up`` starts at zero, ``down`` does not, so that gradients flow.

    Args:
        inputs, outputs: widths of the layer.
        rank: of the change.
        generator: for ``down``.
    """

    def __init__(self, inputs: int, outputs: int, rank: int, generator: torch.Generator) -> None:
        super().__init__()
        limit = 1 / math.sqrt(inputs)
        self.down = nn.Parameter(torch.empty(rank, inputs).uniform_(-limit, limit, generator=generator))
        self.up = nn.Parameter(torch.zeros(outputs, rank))

    def forward(self, x: Tensor) -> Tensor:
        return ((x.float() @ self.down.T) @ self.up.T).to(x)


class LowRank(nn.Module):
    """Changes of every attention projection of a base model (``to_q to_k to_v to_out.0``).

    Args:
        model: the base model's denoiser.
        rank: of every change.
        seed: of the random halves.
    """

    def __init__(self, model: nn.Module, rank: int = 32, seed: int = 0) -> None:
        super().__init__()
        generator = generator_for(seed, "low rank")
        self.names = [name for name, _ in _projections(model)]
        widths = [layer.weight.shape for _, layer in _projections(model)]
        self.changes = nn.ModuleList([LowRankChange(w[1], w[0], rank, generator) for w in widths])

    @contextmanager
    def attached(self, model: nn.Module) -> Iterator[None]:
        """Within the block ``model`` computes with the changes."""
        layers = dict(_projections(model))
        hooks = [
            layers[name].register_forward_hook(lambda layer, args, out, change=change: out + change(args[0]))
            for name, change in zip(self.names, self.changes, strict=True)
        ]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def file_tensors(self) -> dict[str, Tensor]:
        """Tensors of a LoRA file as trainers commonly write them, with names of the original model's layout."""
        tensors: dict[str, Tensor] = {}
        for name, change in zip(self.names, self.changes, strict=True):
            key = f"lora_unet_{name.replace('.', '_')}"
            down, up = change.get_parameter("down"), change.get_parameter("up")
            tensors |= {f"{key}.lora_down.weight": down, f"{key}.lora_up.weight": up}
            tensors[f"{key}.alpha"] = torch.tensor(float(down.shape[0]))
        return tensors


def _projections(model: nn.Module) -> list[tuple[str, nn.Linear]]:
    found = [(name, layer) for name, layer in model.named_modules() if isinstance(layer, nn.Linear)]
    return [(name, layer) for name, layer in found if any(name.endswith(f".{end}") for end in ENDINGS)]
