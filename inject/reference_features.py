"""Features of a reference picture, recorded in a pass of the host's own UNet and read by every later step.

A pass with the adapter's LoRA in the weights records keys and values in some self-attentions (attn1). The denoiser,
which keeps its own weights, then computes ``A(q, k, v) + w * mask * A(q, K_ref, V_ref)`` in the same blocks (adaptive
attention of DreamFit, arXiv:2412.17644). Nothing of the pass is left on the model.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..adapters.adapter import LowRank
from ..adapters.errors import BaseModelMismatch
from ..adapters.families.dreamfit.adapter import WeightPart
from . import beneath, host
from .attention import AttentionTerm
from .call_state import call_state
from .layer_map import UNetLayer
from .patching import clone_model
from .row_values import Pair, RowKeysValues
from .shared import Shared

SLOT = "reference"
PREFIX = "diffusion_model."
# Blocks whose self-attention reads a reference, in the order in which the host runs them.
READ_BLOCKS = (("middle", 0), *(("output", number) for number in range(3, 12)))
Projection = Callable[[Tensor], Pair]


@dataclass(frozen=True, eq=False)
class Text:
    """One conditioning, as the model takes it.

    Attributes:
        context: (1, T, C).
        pooled: (1, C), or None.
        guidance: distilled guidance, or None where the conditioning sets none.
    """

    context: Tensor
    pooled: Tensor | None
    guidance: float | None

    @property
    def digest(self) -> str:
        """Identifies the text."""
        return tensor_digest(self.context)


class _Recorder:
    """An attn1 patch that lives for one pass: sees the input of every self-attention and notes what the layers make
    of it.
    """

    def __init__(self, layers: Mapping[tuple[str, int], Projection]) -> None:
        self._layers = layers
        self.found: dict[tuple[str, int], Pair] = {}

    def __call__(
        self, n: Tensor, context: Tensor, value: Tensor, extra: Mapping[str, Any]
    ) -> tuple[Tensor, Tensor, Tensor]:
        block = tuple(extra["block"])
        if block in self._layers:
            self.found[block] = self._layers[block](n)
        return n, context, value


def with_changes(model: Any, changes: Mapping[WeightPart, LowRank], strength: float) -> Any:
    """A clone of MODEL with an adapter's LoRA in its weights; the MODEL that came in is left as it was.

    Raises:
        BaseModelMismatch: the model lacks a weight, or has it in another shape.
    """
    clone = clone_model(model)
    shapes = {name: tuple(tensor.shape) for name, tensor in clone.model.state_dict().items()}
    keyed: dict[Any, tuple[Tensor, Tensor]] = {}
    for part, change in changes.items():
        name = PREFIX + part.name
        rows = part.rows or change.up.shape[0]
        found = shapes.get(name)
        if found is None or found[0] < rows + (part.start or 0) or found[1] != change.down.shape[1]:
            raise BaseModelMismatch(
                "reference pass",
                expected=f"the weight {part.name} of at least ({rows}, {change.down.shape[1]})",
                found="no such weight" if found is None else f"{found}",
                cure="connect the base model that the adapter was made for",
            )
        keyed[name if part.start is None else (name, (0, part.start, part.rows))] = (change.up, change.down)
    clone.add_patches(host.low_rank_patches(keyed), strength)
    return clone


def compute_dtype(model: Any) -> torch.dtype:
    """The dtype in which the host runs the model."""
    return getattr(model.model, "manual_cast_dtype", None) or model.model_dtype() or torch.float32


def record_unet(
    encoder: Any, layers: Sequence[Projection], latent: Tensor, texts: Sequence[Text], beside: Sequence[Any] = ()
) -> list[Pair]:
    """Run the UNet once over a reference at timestep 0 and return what was recorded in the read blocks.

    Args:
        encoder: MODEL with the adapter's LoRA in its weights.
        layers: projections of the read blocks' hidden states, in the order of `READ_BLOCKS`.
        latent: (1, C, H, W) as a VAE gives it.
        texts: one for each row of the batch, all of one length.
        beside: patchers to load with the encoder.

    Returns:
        For each read block keys and values (rows, N, width).
    """
    recorder = _Recorder(dict(zip(READ_BLOCKS, layers, strict=True)))
    options = {"patches": {"attn1_patch": [recorder]}, "cond_or_uncond": list(range(len(texts)))}
    context = torch.cat([text.context for text in texts])
    run_pass(encoder, latent, context, options, {}, beside)
    return [recorder.found[block] for block in READ_BLOCKS]


def run_pass(
    encoder: Any,
    latent: Tensor,
    context: Tensor,
    options: dict[str, Any],
    named: Mapping[str, Tensor],
    beside: Sequence[Any] = (),
) -> Tensor:
    """One forward pass of the host's own network at timestep 0, without any other patch the MODEL may carry.

    Args:
        encoder: MODEL.
        latent: (1, C, H, W) as a VAE gives it; scaled here, never noised.
        context: (rows, T, C).
        options: the pass's own transformer options.
        named: further tensors of the model's forward.
        beside: patchers to load with it.

    Returns:
        The network's raw output (rows, C, H, W).
    """
    host.stop_if_cancelled()
    rows, dtype = context.shape[0], compute_dtype(encoder)
    memory = encoder.memory_required([rows, *latent.shape[1:]])
    host.model_management().load_models_gpu([encoder, *beside], memory)
    device = torch.device(encoder.load_device)
    x = encoder.model.process_latent_in(latent).to(device, dtype).repeat(rows, 1, 1, 1)
    placed = {name: value.to(device, dtype) for name, value in named.items()}
    with torch.inference_mode():
        times = torch.zeros(rows, device=device)
        output: Tensor = encoder.model.diffusion_model(
            x, times, context=context.to(device, dtype), transformer_options=options, **placed
        )
    return output


def row_values(pairs: Sequence[Pair]) -> RowKeysValues:
    """Recorded pairs of (positive[, negative]) rows for the steps; one row serves both kinds."""
    # Inference tensors must not outlive their mode: the host moves and copies weights and values outside it.
    with torch.inference_mode(False), torch.no_grad():
        own = [(k.clone(), v.clone()) for k, v in pairs]
        return RowKeysValues([(k[:1], v[:1]) for k, v in own], [(k[-1:], v[-1:]) for k, v in own])


@dataclass(frozen=True, eq=False)
class ReferenceAttention(Shared):
    """The patch in one layer's attn1 slot.

    Attributes:
        layer: index of the layer in the host's order.
        terms: the references that act here.
        previous: the patch of another pack that was found in the slot and is still called, or None.
    """

    layer: int
    terms: tuple[AttentionTerm, ...]
    previous: Callable[..., Tensor] | None = None

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, extra: Mapping[str, Any], **kwargs: Any) -> Tensor:
        out = beneath.attention(self.previous, q, k, v, extra, **kwargs)
        state = call_state(extra)
        if state is not None:
            state.mark(SLOT, self.layer)
        for term in self.terms:
            if term.acts(extra):
                out = term.add(out, q, self.layer, extra)
        return out


def set_reference(clone: Any, layers: Sequence[UNetLayer], term: AttentionTerm) -> None:
    """Put a reference into the attn1 slots of a clone's read blocks; one with the same key is replaced."""
    slots = clone.model_options["transformer_options"].get("patches_replace", {}).get("attn1", {})
    for index, layer in enumerate(layers):
        found = slots.get(layer.key, slots.get(layer.key[:2]))
        kept: tuple[AttentionTerm, ...] = ()
        if isinstance(found, ReferenceAttention):
            kept, found = tuple(old for old in found.terms if old.key != term.key), found.previous
        clone.set_model_attn1_replace(ReferenceAttention(index, (*kept, term), found), *layer.key)


def read_layers(layers: Sequence[UNetLayer]) -> list[UNetLayer]:
    """Those of a UNet's transformer blocks that read a reference, in the order of `READ_BLOCKS`."""
    by_block = {layer.block: layer for layer in layers if layer.depth == 0}
    return [by_block[block] for block in READ_BLOCKS if block in by_block]


def tensor_digest(tensor: Tensor) -> str:
    """Sha256 of a tensor's shape and numbers."""
    flat = tensor.detach().to("cpu", torch.float32).contiguous()
    sha = hashlib.sha256(repr(tuple(flat.shape)).encode("ascii"))
    sha.update(flat.view(-1).numpy().data)
    return sha.hexdigest()
