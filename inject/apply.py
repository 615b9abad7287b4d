"""Applies an identity to a MODEL: checks the fit, projects the tokens, patches a clone."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from ..adapters.adapter import (
    Adapter,
    BlockAttentionAdapter,
    CrossAttentionAdapter,
    GatedAttentionAdapter,
    ResidualAttentionAdapter,
    TokenOptions,
)
from ..adapters.errors import BaseModelMismatch, EncoderMismatch
from ..adapters.families.pulid_sdxl.projection import Projection
from ..adapters.identity import Identity
from ..adapters.identity_ops import faces_alone
from ..adapters.reference import ReferenceAdapter
from ..adapters.text_adapter import TextAdapter
from ..faces.errors import LikenessError
from . import attention, dit_blocks, gated
from .forward_guard import ForwardGuard
from .host import model_management
from .layer_map import UNetLayer, unet_layers
from .loaded import LoadedAdapter
from .low_rank import set_low_rank
from .masks import LatentMask, acting_mask
from .orthogonal import OrthogonalTerm
from .patching import (
    attention_slot,
    clone_model,
    forward_wrapper,
    middle_patches,
    set_attention_slot,
    set_middle_patches,
)
from .residual_attention import ResidualTerm
from .schedule import StepRange, step_range

if TYPE_CHECKING:
    from ..adapters.layers.gated_attention import GatedSelfAttention

    GatedLayers = Mapping[str, GatedSelfAttention]

BASE_TITLES = {"sd15": "an SD1.5", "sdxl": "an SDXL", "musetalk": "a MuseTalk"}


@dataclass(frozen=True)
class ApplyOptions:
    """What a user sets on the apply node.

    Attributes:
        strength: factor of the identity term; 0 adds nothing.
        start_percent, end_percent: fractions of the schedule between which the term acts.
        mask: where it acts, or None.
        lora_strength: strength of the adapter's own LoRA (official: 1, whatever ``strength`` is).
        tokens: choices about the tokens.
        projection: what PuLID for SDXL takes out of the identity's part; the other families know neutral only.
    """

    strength: float = 1.0
    start_percent: float = 0.0
    end_percent: float = 1.0
    mask: torch.Tensor | None = None
    lora_strength: float = 1.0
    tokens: TokenOptions = TokenOptions()
    projection: Projection = Projection.NEUTRAL


def apply_identity(model: Any, loaded: LoadedAdapter, identity: Identity, options: ApplyOptions) -> Any:
    """Return a clone of MODEL that shows the identity; the MODEL that came in is left as it was.

    Raises:
        BaseModelMismatch: the adapter is for another base model.
        EncoderMismatch: the identity was made by an encoder this adapter does not take.
    """
    if isinstance(loaded.adapter, TextAdapter):
        raise _for_the_text(loaded.adapter)
    if isinstance(loaded.adapter, ReferenceAdapter):
        raise loaded.adapter.refusal(identity)
    if isinstance(loaded.adapter, BlockAttentionAdapter):
        return _apply_to_blocks(model, loaded, loaded.adapter, identity, options)
    if not isinstance(loaded.adapter, (CrossAttentionAdapter, GatedAttentionAdapter)):
        raise _for_another_node(loaded.adapter)
    layers = unet_layers(model)
    check_base(loaded, layers)
    steps = step_range(model, options.start_percent, options.end_percent)
    clone = clone_model(model)
    fields = _term_fields(clone, loaded, identity, options, steps)
    if isinstance(loaded.adapter, CrossAttentionAdapter):
        _patch_cross_attention(clone, loaded, fields, layers, options)
    elif isinstance(loaded.adapter, GatedAttentionAdapter):
        _patch_gated(clone, loaded, fields, layers, loaded.adapter.layers)
    return clone


def _for_the_text(adapter: TextAdapter) -> EncoderMismatch:
    return EncoderMismatch(
        adapter.report.title,
        expected="an adapter that patches the model's attention",
        found="one that writes into the text conditioning",
        cure="connect it to 'PhotoMaker Encode' and 'PhotoMaker Prompt' instead",
    )


def _for_another_node(adapter: Adapter) -> EncoderMismatch:
    return EncoderMismatch(
        adapter.report.title,
        expected="an adapter that adds an identity to the model's attention",
        found="one that is applied in another way",
        cure=f"connect it to {adapter.apply_node} instead",
    )


def check_base(loaded: LoadedAdapter, layers: Sequence[UNetLayer]) -> None:
    """Compare an adapter's layers with the model's.

    Raises:
        BaseModelMismatch: naming the number of layers, the text context and the widths of both.
    """
    adapter = loaded.adapter
    expected = _adapter_widths(loaded, layers)
    found = [layer.width for layer in layers]
    contexts = {layer.context_dim for layer in layers}
    if expected == found and contexts == {adapter.context_dim}:
        return
    base = BASE_TITLES.get(adapter.base, f"a {adapter.base}")
    raise BaseModelMismatch(
        adapter.report.title,
        expected=f"{base} model with {_described(expected, {adapter.context_dim})}",
        found=_described(found, contexts),
        cure=f"connect {base} model, or load the adapter made for this one",
    )


def _adapter_widths(loaded: LoadedAdapter, layers: Sequence[UNetLayer]) -> list[int]:
    adapter = loaded.adapter
    if isinstance(adapter, CrossAttentionAdapter):
        return list(adapter.layer_widths)
    if isinstance(adapter, GatedAttentionAdapter):
        known = [adapter.layers[layer.path].width for layer in layers if layer.path in adapter.layers]
        return known if len(known) == len(adapter.layers) else [layer.width for layer in adapter.layers.values()]
    return []


def _described(widths: Sequence[int], contexts: set[int]) -> str:
    runs: list[tuple[int, int]] = []
    for width in widths:
        if runs and runs[-1][0] == width:
            runs[-1] = (width, runs[-1][1] + 1)
        else:
            runs.append((width, 1))
    shown = ", ".join(f"{count} of width {width}" for width, count in runs) or "none"
    context = "/".join(map(str, sorted(contexts))) or "unknown"
    return f"{len(widths)} cross-attention layers ({shown}) and text context {context}"


def compute_dtype(model: Any) -> torch.dtype:
    """The dtype the model's hidden states have, so that keys and values are cast once, here."""
    manual = getattr(model.model, "manual_cast_dtype", None)
    dtype = manual or model.model_dtype() or torch.float32
    return dtype if dtype in (torch.float16, torch.bfloat16, torch.float32) else torch.float32


def _term_key(loaded: LoadedAdapter, identity: Identity, mask: LatentMask | None, steps: StepRange) -> str:
    """Same file, same identity, same place, same steps: the same term, which a second application replaces."""
    parts = (
        loaded.adapter.digest,
        identity.digest,
        mask.digest if mask else "",
        steps.start_percent,
        steps.end_percent,
    )
    return hashlib.sha256(repr(parts).encode("utf-8")).hexdigest()


def _term_fields(
    clone: Any, loaded: LoadedAdapter, identity: Identity, options: ApplyOptions, steps: StepRange
) -> dict[str, Any]:
    """The fields of a `Term`."""
    _check_strengths(options)
    mask = acting_mask(options.mask, options.strength)
    device, dtype = model_management().get_torch_device(), compute_dtype(clone)
    return {
        "key": _term_key(loaded, faces_alone(identity), mask, steps),
        "keys_values": loaded.keys_values(identity, options.tokens, device, dtype),
        "strength": options.strength,
        "steps": steps,
        "mask": mask,
        "positive_only": not options.tokens.negative,
    }


def _check_strengths(options: ApplyOptions) -> None:
    """Refuse numbers of other nodes that would make every pixel black."""
    for name, value in (("strength", options.strength), ("lora_strength", options.lora_strength)):
        if not math.isfinite(value):
            raise LikenessError(
                name, expected="a finite number", found=str(value), cure="look at the node that gives this number"
            )


def _patch_cross_attention(
    clone: Any, loaded: LoadedAdapter, fields: dict[str, Any], layers: Sequence[UNetLayer], options: ApplyOptions
) -> None:
    term = _attention_term(loaded, fields, options.projection)
    for index, layer in enumerate(layers):
        patch = attention.attention_patch(attention_slot(clone, layer.key), index, term)
        set_attention_slot(clone, layer.key, patch)
    set_low_rank(clone, loaded.low_rank_patches(layers), options.lora_strength)
    guard_forward(clone, attention.SLOT, len(layers), ())


def _attention_term(loaded: LoadedAdapter, fields: dict[str, Any], projection: Projection) -> attention.AnyTerm:
    if isinstance(loaded.adapter, ResidualAttentionAdapter):
        return ResidualTerm(**fields)
    if projection is Projection.NEUTRAL:
        return attention.AttentionTerm(**fields)
    return OrthogonalTerm(projection=projection, **fields)


def _apply_to_blocks(
    model: Any, loaded: LoadedAdapter, adapter: BlockAttentionAdapter, identity: Identity, options: ApplyOptions
) -> Any:
    """The same for a DiT."""
    places = dit_blocks.insertions(model, adapter)
    steps = step_range(model, options.start_percent, options.end_percent)
    clone = clone_model(model)
    fields = _term_fields(clone, loaded, identity, options, steps)
    dit_blocks.patch_blocks(clone, dit_blocks.BlockTerm(adapter=adapter, places=places, **fields))
    beside = () if loaded.managed_steps is None else (loaded.managed_steps,)
    for slot in dit_blocks.SLOTS:
        guard_forward(clone, slot, sum(place[0] == slot for place in places), beside)
    return clone


def _patch_gated(
    clone: Any, loaded: LoadedAdapter, fields: dict[str, Any], layers: Sequence[UNetLayer], modules: GatedLayers
) -> None:
    keys = {layer.path: layer.key for layer in layers}
    by_key = {keys[path]: (index, module) for index, (path, module) in enumerate(modules.items())}
    assert loaded.managed_steps is not None
    term = gated.GatedTerm(layers=by_key, network=loaded.managed_steps, **fields)
    set_middle_patches(clone, gated.gated_patches(middle_patches(clone), term))
    guard_forward(clone, gated.SLOT, len(layers), (loaded.managed_steps,))


def guard_forward(clone: Any, slot: str, count: int, beside: tuple[Any, ...]) -> None:
    """Have every forward pass counted, keeping the wrapper that was there and what an earlier guard expects."""
    found = forward_wrapper(clone)
    if isinstance(found, ForwardGuard):
        networks = (*found.beside, *(network for network in beside if network not in found.beside))
        guard = ForwardGuard({**found.expected, slot: count}, networks, found.previous)
    else:
        guard = ForwardGuard({slot: count}, beside, found)
    clone.set_model_unet_function_wrapper(guard)
