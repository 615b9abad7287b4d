"""Golden files and the register of parity parts: one function per file that reproduces its outputs."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import parity
import torch
from safetensors import safe_open
from torch import Tensor

DATA = Path(__file__).parent / "data"


class NeedsNewerHost(Exception):
    """The part runs through a network that this ComfyUI does not have."""


def resampler_sizes(hyper: Mapping[str, int]) -> dict[str, int]:
    """The arguments of our resamplers from the names that the authors of IP-Adapter gave them."""
    return {
        "input_dim": hyper["embedding_dim"],
        "width": hyper["dim"],
        "output_dim": hyper["output_dim"],
        "queries": hyper["num_queries"],
        "depth": hyper["depth"],
        "heads": hyper["heads"],
        "head_dim": hyper["dim_head"],
        "feed_forward": hyper["dim"] * hyper["ff_mult"],
    }


def golden_folder() -> Path:
    """The folder named by PARITY_GOLDEN, else the subset in the repository."""
    named = os.environ.get("PARITY_GOLDEN")
    return Path(named) if named else DATA


@dataclass(frozen=True)
class Golden:
    """One golden file: official outputs, and the recipe of inputs and weights."""

    path: Path
    # The largest error of each compared tensor, as a part of its tolerance's unit (1 + |expected|).
    errors: dict[str, float] = field(default_factory=dict, compare=False)

    @cached_property
    def metadata(self) -> dict[str, Any]:
        """Metadata of the file; entries that hold JSON are decoded."""
        with safe_open(str(self.path), framework="pt") as file:
            raw = file.metadata() or {}
        return {key: _decoded(value) for key, value in raw.items()}

    @property
    def salt(self) -> str:
        """The salt of the fill rule."""
        return str(self.metadata["salt"])

    @cached_property
    def tensors(self) -> dict[str, Tensor]:
        """Every stored tensor."""
        with safe_open(str(self.path), framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)

    @cached_property
    def keys(self) -> Any:
        """The key list beside the file (names and shapes); from the repository's copy where the folder has none."""
        name = f"{self.path.stem}.keys.json"
        path = self.path.with_name(name)
        return json.loads((path if path.exists() else DATA / name).read_text(encoding="utf-8"))

    def input(self, name: str, shape: Sequence[int]) -> Tensor:
        """The rule's input tensor of that name."""
        return parity.input_for(name, shape, self.salt)

    def fill(self, module: torch.nn.Module) -> torch.nn.Module:
        """Fill a module by the rule under its own names."""
        return parity.fill_module(module, self.salt)

    def filled(self, shapes: dict[str, Sequence[int]]) -> dict[str, Tensor]:
        """A state dict filled by the rule under the names of ``shapes``; 0-dim entries are (1,) as the rule has
        them.
        """
        return {name: parity.tensor_for(name, tuple(shape) or (1,), self.salt) for name, shape in shapes.items()}

    def check(self, name: str, got: Tensor, tolerance: float = 1e-5) -> None:
        """Assert ``|got - expected| <= tolerance * (1 + |expected|)`` for the stored tensor ``name``."""
        expected = self.tensors[name]
        got = got.detach().to(expected.dtype)
        assert got.shape == expected.shape, (
            f"{self.path.stem}:{name}: shape {tuple(got.shape)} != {tuple(expected.shape)}"
        )
        assert torch.isfinite(got).all(), f"{self.path.stem}:{name}: not finite"
        error = ((got - expected).abs() / (1 + expected.abs())).max().item() if got.numel() else 0.0
        self.errors[name] = max(error, self.errors.get(name, 0.0))
        assert error <= tolerance, f"{self.path.stem}:{name}: error {error:.3g} > {tolerance:g}"


def _decoded(value: str) -> Any:
    try:
        return json.loads(value)
    except ValueError:
        return value


Part = Callable[[Golden], None]
PARTS: dict[str, Part] = {}


def part(name: str) -> Callable[[Part], Part]:
    """Register the function that reproduces the golden file ``name``.safetensors."""

    def register(function: Part) -> Part:
        if name in PARTS:
            raise ValueError(f"two parts are called {name}")
        PARTS[name] = function
        return function

    return register


def load_parts(broken: dict[str, str] | None = None) -> dict[str, Part]:
    """Import every ``parts_*.py`` beside this file and return the register.

    With ``broken`` a file that cannot be imported is noted there, by name with the reason, and the others still load.
    """
    import importlib

    for path in sorted(Path(__file__).parent.glob("parts_*.py")):
        try:
            importlib.import_module(path.stem)
        except ImportError as error:
            if broken is None:
                raise
            broken[path.name] = str(error)
    return PARTS
