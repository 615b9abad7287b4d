"""The LoRA inside a PhotoMaker file: diffusers' names, in the three spellings that diffusers has had.

Facts: ``unet.<module>.processor.to_q_lora.down.weight`` (attention processors), ``unet.<module>.to_q.lora.down.weight``
(layers), ``unet.<module>.to_q.lora_A.weight`` (PEFT); ``up`` or ``B`` is the other half. Which of them a published file
has decides nothing here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from torch import Tensor

from ...adapter import LowRank
from ...errors import KeyMismatch
from ...strict_load import group_by_prefix

_NAME = re.compile(r"^(?:unet\.)?(.+?)(?:_lora\.|\.lora\.|\.lora_)(down|up|A|B)\.weight$")
_ALPHA = re.compile(r"^(?:unet\.)?(.+?)\.alpha$")
_HALF = {"down": "down", "A": "down", "up": "up", "B": "up"}


def module_and_half(name: str) -> tuple[str, str] | None:
    """The diffusers module a LoRA tensor changes and which half it is, or None where the name is no such one."""
    found = _NAME.match(name)
    if found is None or name.startswith(("text_encoder", "te1", "te2")):
        return None
    return _module(found[1]), _HALF[found[2]]


def low_rank_modules(tensors: Mapping[str, Tensor], what: str) -> dict[str, LowRank]:
    """Pair the halves by module; an alpha is folded into the up half.

    Raises:
        KeyMismatch: a name that is no LoRA of the UNet, or a half without its other.
    """
    halves: dict[str, dict[str, Tensor]] = {}
    alphas: dict[str, float] = {}
    strange: list[str] = []
    for name, tensor in tensors.items():
        place, alpha = module_and_half(name), _ALPHA.match(name)
        if place is not None:
            halves.setdefault(place[0], {})[place[1]] = tensor
        elif alpha is not None:
            alphas[_module(alpha[1])] = float(tensor)
        else:
            strange.append(name)
    lonely = [module for module, pair in halves.items() if len(pair) != 2]
    if strange or lonely:
        raise _mismatch(what, strange, lonely)
    return {module: _scaled(pair["up"], pair["down"], alphas.get(module)) for module, pair in halves.items()}


def _module(name: str) -> str:
    module = name.replace(".processor.", ".")
    return f"{module}.0" if module.endswith(".to_out") else module


def _scaled(up: Tensor, down: Tensor, alpha: float | None) -> LowRank:
    rank = down.shape[0]
    return LowRank(up if alpha in (None, float(rank)) else up * (float(alpha or 0) / rank), down)


def _mismatch(what: str, strange: Iterable[str], lonely: Iterable[str]) -> KeyMismatch:
    found = [f"of another kind: {group_by_prefix(names)}" for names in (list(strange),) if names]
    found += [f"with one half only: {group_by_prefix(names)}" for names in (list(lonely),) if names]
    return KeyMismatch(
        what,
        expected="pairs of LoRA tensors of the UNet",
        found="; ".join(found),
        cure="use the publisher's unchanged file",
    )
