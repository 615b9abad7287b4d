"""PhotoMaker on the host: its LoRA on a clone of MODEL, its identity in the text conditioning."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ..adapters.adapter import LowRank
from ..adapters.errors import BaseModelMismatch, EncoderMismatch
from ..adapters.identity import Identity
from ..adapters.text_adapter import TextAdapter
from ..faces.errors import LikenessError
from .face_context import Conditioning, identity_tokens
from .host import stop_if_cancelled
from .kept import itself
from .loaded import LoadedAdapter
from .low_rank import set_low_rank
from .patching import clone_model
from .shared import Shared
from .text_tokens import encode_tokens, triggered_prompt


def text_adapter(loaded: LoadedAdapter) -> TextAdapter:
    """The adapter, if it writes into the text. Raises EncoderMismatch for any other."""
    if isinstance(loaded.adapter, TextAdapter):
        return loaded.adapter
    raise EncoderMismatch(
        loaded.adapter.report.title,
        expected="an adapter that writes into the text conditioning (PhotoMaker)",
        found=f"a file of the family {loaded.adapter.report.family}",
        cure="connect a PhotoMaker file here, and this one to 'Apply Identity'",
    )


def encode_photos_for_text(loaded: LoadedAdapter, images: Tensor, identity: Identity | None) -> Identity:
    """Photos (N, H, W, 3), 0..1, to the adapter's own identity tokens; its network is loaded by the host."""
    adapter = text_adapter(loaded)
    stop_if_cancelled()
    loaded.managed.load()
    return adapter.encode(images, identity)


def apply_text_lora(model: Any, loaded: LoadedAdapter, strength: float) -> Any:
    """A clone of MODEL with the adapter's LoRA; the same file applied again takes the place of its first strength.

    Raises:
        BaseModelMismatch: the model lacks a layer of the LoRA, or has it in another size.
    """
    adapter = text_adapter(loaded)
    clone = clone_model(model)
    base = model.model
    key = ("weights", itself(base))
    found = loaded.made(key, lambda: _weight_patches(loaded, adapter, model), of=base)
    if found.by_name:
        set_low_rank(clone, found.by_name, strength)
    return clone


@dataclass(frozen=True, eq=False)
class WeightPatches(Shared):
    """An adapter's LoRA as weight patches of one base model, by weight name."""

    by_name: dict[str, Any]


def _weight_patches(loaded: LoadedAdapter, adapter: TextAdapter, model: Any) -> WeightPatches:
    return WeightPatches(loaded.weight_patches(_by_weight(model, adapter.low_rank_modules(), adapter.report.title)))


def identity_conditioning(
    clip: Any, loaded: LoadedAdapter, identity: Identity, text: str, trigger: str, merge_percent: float
) -> Conditioning:
    """The prompt without identity up to ``merge_percent`` of the schedule, and with it from there.

    Raises:
        BadPrompt: see `text_tokens.triggered_prompt`.
        EncoderMismatch: the identity is not this adapter's, or CLIP is not SDXL's.
    """
    adapter = text_adapter(loaded)
    if not 0.0 <= merge_percent <= 1.0:
        raise LikenessError(
            "merge_percent", expected="0 to 1", found=f"{merge_percent:g}", cure="set a part of the schedule"
        )
    tokens = identity_tokens(loaded, identity).cond
    prompt = triggered_prompt(clip, text, trigger, tokens.shape[1])
    conditioning: Conditioning = []
    if merge_percent > 0.0:
        plain, pooled = encode_tokens(clip, prompt.plain)
        window = {} if merge_percent >= 1.0 else {"start_percent": 0.0, "end_percent": merge_percent}
        conditioning.append([plain, {"pooled_output": pooled, **window}])
    if merge_percent < 1.0:
        text_rows, pooled = encode_tokens(clip, prompt.repeated)
        _check_width(adapter, text_rows)
        loaded.managed.load()
        fused = adapter.fuse(text_rows, tokens, prompt.rows).to(text_rows.dtype)
        window = {} if merge_percent <= 0.0 else {"start_percent": merge_percent, "end_percent": 1.0}
        conditioning.append([fused, {"pooled_output": pooled, **window}])
    return conditioning


def _check_width(adapter: TextAdapter, conditioning: Tensor) -> None:
    if conditioning.shape[-1] != adapter.context_dim:
        raise EncoderMismatch(
            adapter.report.title,
            expected=f"a text conditioning {adapter.context_dim} wide, as SDXL's two text encoders give",
            found=f"one {conditioning.shape[-1]} wide",
            cure="connect the CLIP of an SDXL checkpoint",
        )


def _by_weight(model: Any, modules: Mapping[str, LowRank], title: str) -> dict[str, tuple[Tensor, Tensor]]:
    """(up, down) by the host's weight names, from diffusers' module names by the host's own table."""
    if not modules:
        return {}
    config = model.model.model_config.unet_config
    names = importlib.import_module("comfy.utils").unet_to_diffusers(config)
    weights = model.model.state_dict()
    changes: dict[str, tuple[Tensor, Tensor]] = {}
    for module, change in modules.items():
        key = f"diffusion_model.{names.get(f'{module}.weight')}"
        shape = tuple(weights[key].shape[:2]) if key in weights else None
        if shape != (change.up.shape[0], change.down.shape[1]):
            raise BaseModelMismatch(
                title,
                expected=f"an SDXL model with {module} of {change.up.shape[0]} x {change.down.shape[1]}",
                found="no such layer" if shape is None else f"one of {shape[0]} x {shape[1]}",
                cure="connect an SDXL model",
            )
        changes[key] = (change.up, change.down)
    return changes
