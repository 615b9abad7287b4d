"""Applies RestorerID to a MODEL: LoRA, structure and FIR modulations, attention to the reference.

Follows RestorerID (Ying et al. 2024, arXiv:2411.14125). Both kinds of rows see the damaged picture's real structure;
negative rows see the reference tokens of no one; the identity scale acts on both.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ..adapters.adapter import Adapter
from ..adapters.errors import BaseModelMismatch, EncoderMismatch, PatchIncomplete
from ..adapters.families.restorerid.adapter import RestorerIDAdapter
from ..adapters.families.restorerid.structure import StructureEncoder
from ..adapters.identity import Identity
from . import beneath, host
from .apply import guard_forward
from .call_state import call_state
from .forward_guard import ApplyModel, Wrapper
from .layer_map import UNetLayer, unet_layers
from .loaded import LoadedAdapter
from .low_rank import set_low_rank
from .memo import Memo
from .patching import attention_slot, clone_model, forward_wrapper, set_attention_slot
from .residual_blocks import SLOT, CallHolder, ReferenceTokens, RestorationCall, RestoredBlock, residual_blocks
from .rows import POSITIVE, row_pattern
from .schedule import StepRange, step_range
from .shared import Shared

ATTENTION_SLOT = "reference attention"
Pair = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class RestorationOptions:
    """What a user sets.

    Attributes:
        id_scales: scale of the reference attention, one for all pictures or one for each.
        structure_strength, fir_strength: 1 is official.
        lora_strength: strength of the LoRA (official: 1, whatever the scale is).
        start_percent, end_percent: fractions of the schedule between which all but the LoRA acts.
    """

    id_scales: tuple[float, ...] = (1.0,)
    structure_strength: float = 1.0
    fir_strength: float = 1.0
    lora_strength: float = 1.0
    start_percent: float = 0.0
    end_percent: float = 1.0


@dataclass(frozen=True, eq=False)
class ReferenceAttention(Shared):
    """The patch in one layer's attn2 slot: ``A(q, k, v) + s * A(q, K_ref, V_ref)``, the scale folded into V.

    Attributes:
        layer: index of the layer in file order.
        positive: keys and values of the references, each (P, T, width), P being 1 or the number of pictures.
        negative: the same for negative rows.
        acts: whether any scale is above or below 0.
        steps: the steps in which it acts.
        previous: what was found in the slot, or None.
    """

    layer: int
    positive: Pair
    negative: Pair
    acts: bool
    steps: StepRange
    previous: Callable[..., Tensor] | None = None
    _rows: Memo[Pair] = field(default_factory=lambda: Memo(limit=4), repr=False)

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, extra: Mapping[str, Any], **kwargs: Any) -> Tensor:
        out = beneath.attention(self.previous, q, k, v, extra, **kwargs)
        state = call_state(extra)
        if state is not None:
            state.mark(ATTENTION_SLOT, self.layer)
        return self._added(out, q, extra) if self.acts and self.steps.active(extra) else out

    def _added(self, out: Tensor, q: Tensor, extra: Mapping[str, Any]) -> Tensor:
        pattern, _ = row_pattern(extra, q.shape[0])
        k, v = self._rows.get((pattern, q.dtype, q.device), lambda: self._arranged(pattern, q))
        # Pictures that share a reference stand side by side as queries of one row.
        folded = q.reshape(k.shape[0], -1, q.shape[-1])
        return out + host.attention(folded, k, v, extra["n_heads"], extra).view_as(out)

    def _arranged(self, pattern: tuple[int, ...], like: Tensor) -> Pair:
        sides = [self.positive if row == POSITIVE else self.negative for row in pattern]
        k, v = (torch.cat([side[part] for side in sides]).to(like) for part in (0, 1))
        return k, v


@dataclass(frozen=True, eq=False)
class Reference(Shared):
    """What an identity of N rows is to a file, whatever the scale and the number of pictures; in float32.

    Attributes:
        positive, negative: tokens (N, T, C) and (1, T, C).
        pairs: keys and values of both, for each attention layer in file order.
    """

    positive: Tensor
    negative: Tensor
    pairs: tuple[tuple[Pair, Pair], ...]


class StructureMaps(Shared):
    """Structure maps of the damaged pictures, computed once a step.

    Args:
        encoder: the structure encoder, its weights under the host's care.
        latents: (M, 4, H, W) as the UNet sees latents.
        dtype: the UNet's compute dtype.
        base: the host's model, asked for the timestep of a sigma.
    """

    def __init__(self, encoder: StructureEncoder, latents: Tensor, dtype: torch.dtype, base: Any) -> None:
        self.encoder = encoder
        self.latents = latents
        self._dtype = dtype
        self._base = weakref.ref(base)
        # The step is told by the host's own sigma tensor, the same object in all calls of a step; no value is read.
        self._last = threading.local()

    def at(self, sigma: Tensor, step: Any, device: torch.device) -> dict[tuple[int, int], Tensor]:
        """Maps by size for the sigmas (rows,) of a call, which are all the same; ``step`` identifies the step."""
        known = getattr(self._last, "value", None)
        if step is not None and known is not None and known[0] is step:
            return dict(known[1])
        base = self._base()
        if base is None:
            raise PatchIncomplete(
                "RestorerID",
                expected="the model it was applied to",
                found="another copy of it",
                cure="apply RestorerID after the node that copies the model",
            )
        timestep = base.model_sampling.timestep(sigma[:1]).float().to(device)
        maps = self.encoder(self.latents.to(device, self._dtype), timestep.expand(self.latents.shape[0]))
        found = {(int(one.shape[-2]), int(one.shape[-1])): one for one in maps}
        self._last.value = (step, found)
        return dict(found)


@dataclass(frozen=True, eq=False)
class RestorationWrapper(Shared):
    """Lays down what the residual blocks need around each forward pass, and takes it away.

    Attributes:
        holder: where the blocks look.
        structure: maps of the damaged pictures; None where neither modulation acts.
        steps: the steps in which they act.
        previous: the wrapper found on the model, or None.
    """

    holder: CallHolder
    structure: StructureMaps | None
    steps: StepRange
    previous: Wrapper | None = None

    def models(self) -> list[Any]:
        """Patchers of the wrapper beneath, which hosts since 0.3.52 load together with the model."""
        return list(getattr(self.previous, "models", list)())

    def __call__(self, apply_model: ApplyModel, args: dict[str, Any], **kwargs: Any) -> Any:
        with self.holder.holding(self._call(args)):
            return beneath.model_call(self.previous, apply_model, args)

    def _call(self, args: dict[str, Any]) -> RestorationCall:
        extra = args["c"].get("transformer_options", {})
        x: Tensor = args["input"]
        pattern, pictures = row_pattern(extra, x.shape[0])
        maps: Mapping[tuple[int, int], Tensor] = {}
        if self.structure is not None and self.steps.active(extra):
            _check_latent(x, pictures, self.structure.latents)
            maps = self.structure.at(args["timestep"], extra.get("sigmas"), x.device)
        return RestorationCall(maps, pattern, extra, call_state(extra))


def apply_restoration(
    model: Any, loaded: LoadedAdapter, identity: Identity, latents: Tensor, options: RestorationOptions
) -> Any:
    """Return a clone of MODEL that restores the damaged pictures; the MODEL that came in is left as it was.

    Args:
        model: an SD1.5 MODEL.
        loaded: a RestorerID adapter.
        identity: one reference for all pictures, or one row for each.
        latents: (B, 4, H, W) of the damaged pictures, as the host's VAE gives them.
        options: see `RestorationOptions`.

    Raises:
        BaseModelMismatch: not SD1.5, or a model that restores already.
        EncoderMismatch: another adapter, an identity without the right features, or of another number of rows.
    """
    adapter = restorer_of(loaded)
    layers = unet_layers(model)
    _check_base(adapter, layers)
    modulations = dict(adapter.network.named_blocks())
    blocks = residual_blocks(model, modulations)
    _check_free(model, blocks)
    _check_counts(identity, options.id_scales, latents)
    clone = clone_model(model)
    steps = step_range(model, options.start_percent, options.end_percent)
    reference = loaded.made(("reference", identity.digest), lambda: _reference(loaded, adapter, identity), of=identity)
    _patch_attention(clone, layers, reference, len(latents), options, steps)
    tokens = ReferenceTokens(reference.positive.expand(len(latents), -1, -1), reference.negative)
    _patch_blocks(clone, adapter, blocks, tokens, latents, options, steps)
    names = {f"diffusion_model.{name}": (low.up, low.down) for name, low in adapter.low_rank.items()}
    set_low_rank(clone, loaded.weight_patches(names), options.lora_strength)
    guard_forward(clone, SLOT, len(blocks), (loaded.managed,))
    guard_forward(clone, ATTENTION_SLOT, len(layers), (loaded.managed,))
    return clone


def restorer_of(loaded: LoadedAdapter) -> RestorerIDAdapter:
    """The RestorerID adapter of a socket's value.

    Raises:
        EncoderMismatch: an adapter of another family.
    """
    adapter: Adapter = loaded.adapter
    if not isinstance(adapter, RestorerIDAdapter):
        raise EncoderMismatch(
            "Apply RestorerID",
            expected="a RestorerID adapter",
            found=adapter.report.title,
            cure="load RestorerID's checkpoint or its slim adapter file",
        )
    return adapter


def _reference(loaded: LoadedAdapter, adapter: RestorerIDAdapter, identity: Identity) -> Reference:
    loaded.managed.load()
    with torch.inference_mode(False), torch.no_grad():
        positive, negative = adapter.reference_tokens(identity)
        pairs = tuple((maps(positive), maps(negative)) for maps in adapter.network.reference_layers())
    return Reference(positive, negative, pairs)


def _patch_attention(
    clone: Any,
    layers: Sequence[UNetLayer],
    reference: Reference,
    pictures: int,
    options: RestorationOptions,
    steps: StepRange,
) -> None:
    scales = torch.tensor(options.id_scales, device=reference.positive.device)[:, None, None]
    acts = any(options.id_scales)
    dtype = compute_dtype(clone)
    for index, (layer, pairs) in enumerate(zip(layers, reference.pairs, strict=True)):
        with torch.inference_mode(False), torch.no_grad():
            scaled = [(_for_each(k.to(dtype), pictures), _for_each((v * scales).to(dtype), pictures)) for k, v in pairs]
        found = attention_slot(clone, layer.key)
        set_attention_slot(clone, layer.key, ReferenceAttention(index, scaled[0], scaled[1], acts, steps, found))


def _for_each(rows: Tensor, pictures: int) -> Tensor:
    """(N, T, C) or (1, T, C) as (pictures, T, C), without a copy."""
    return rows.expand(pictures, -1, -1)


def _patch_blocks(
    clone: Any,
    adapter: RestorerIDAdapter,
    blocks: Mapping[str, Any],
    tokens: ReferenceTokens,
    latents: Tensor,
    options: RestorationOptions,
    steps: StepRange,
) -> None:
    holder = CallHolder()
    acts = options.structure_strength != 0.0 or options.fir_strength != 0.0
    seen = clone.model.process_latent_in(latents.detach().cpu().float())
    structure = StructureMaps(adapter.network.structure, seen, compute_dtype(clone), clone.model) if acts else None
    for name, modulations in adapter.network.named_blocks():
        patch = RestoredBlock(
            name,
            blocks[name],
            modulations,
            holder,
            tokens,
            options.structure_strength,
            options.fir_strength,
            name in adapter.constant,
        )
        clone.add_object_patch(f"diffusion_model.{name}.forward", patch)
    clone.set_model_unet_function_wrapper(RestorationWrapper(holder, structure, steps, forward_wrapper(clone)))


def compute_dtype(model: Any) -> torch.dtype:
    """The dtype the model's hidden states have."""
    manual = getattr(model.model, "manual_cast_dtype", None)
    dtype = manual or model.model_dtype() or torch.float32
    return dtype if dtype in (torch.float16, torch.bfloat16, torch.float32) else torch.float32


def _check_base(adapter: RestorerIDAdapter, layers: Sequence[UNetLayer]) -> None:
    expected = [layer.width for layer in adapter.network.reference_layers()]
    found, contexts = [layer.width for layer in layers], {layer.context_dim for layer in layers}
    if expected != found or contexts != {adapter.context_dim}:
        raise BaseModelMismatch(
            adapter.report.title,
            expected=f"an SD1.5 model with {len(expected)} cross-attention layers of widths {_told(expected)} and text "
            f"context {adapter.context_dim}",
            found=f"{len(found)} of widths {_told(found)} and text context {'/'.join(map(str, sorted(contexts)))}",
            cure="connect a model loaded from an SD1.5 checkpoint",
        )


def _told(widths: Sequence[int]) -> str:
    return "/".join(map(str, sorted(set(widths)))) or "none"


def _check_free(model: Any, blocks: Mapping[str, Any]) -> None:
    taken = [name for name in blocks if f"diffusion_model.{name}.forward" in model.object_patches]
    if not taken:
        return
    ours = isinstance(model.object_patches[f"diffusion_model.{taken[0]}.forward"], RestoredBlock)
    raise BaseModelMismatch(
        "Apply RestorerID",
        expected="a model whose residual blocks are not patched",
        found="one that restores already" if ours else f"another node's patch on {len(taken)} of them",
        cure="restore several faces as one batch with one Apply RestorerID (Match References gives each its own "
        "reference)"
        if ours
        else "put the other node after Apply RestorerID, or remove it",
    )


def _check_counts(identity: Identity, scales: Sequence[float], latents: Tensor) -> None:
    pictures = len(latents)
    for what, count in (("references", len(identity)), ("identity scales", len(scales))):
        if count not in (1, pictures):
            raise EncoderMismatch(
                "Apply RestorerID",
                expected=f"one of the {what} for each of the {pictures} pictures, or one for all",
                found=str(count),
                cure="give each face its own reference with Match References; average several photos of a person with "
                "Combine Identities",
            )


def _check_latent(x: Tensor, pictures: int, latents: Tensor) -> None:
    if x.shape[-2:] == latents.shape[-2:] and len(latents) in (1, pictures):
        return
    raise BaseModelMismatch(
        "RestorerID",
        expected=f"{len(latents)} latents of {latents.shape[-2]} x {latents.shape[-1]}, as the damaged pictures have",
        found=f"{pictures} of {x.shape[-2]} x {x.shape[-1]}",
        cure="sample the latent that Apply RestorerID gives, without tiles or areas",
    )
