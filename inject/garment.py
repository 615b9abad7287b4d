"""DreamFit on a MODEL: one pass over the reference picture, and a patched clone whose blocks read what it recorded."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ..adapters.errors import BaseModelMismatch
from ..adapters.families.dreamfit.adapter import DreamFitDiT, DreamFitUNet
from ..faces.errors import LikenessError
from . import dreamfit_dit as dit
from . import host
from . import reference_features as features
from .apply import guard_forward
from .attention import AttentionTerm
from .dit_blocks import SLOTS
from .layer_map import UNetLayer, unet_layers
from .loaded import LoadedAdapter
from .managed import ManagedNetwork
from .masks import acting_mask
from .patching import clone_model
from .reference_features import Text
from .row_values import Pair, RowKeysValues
from .schedule import step_range
from .shared import Shared

# Used where the conditioning sets none; the authors' value.
GUIDANCE = 4.0
AUTHORS_TOKENS = 512


@dataclass(frozen=True, eq=False)
class Reference(Shared):
    """What a reference pass recorded: the value of the socket LIKENESS_REFERENCE.

    Attributes:
        key: identifies file, picture, texts and LoRA strength.
        title: name of the system.
        report: what the pass did and what each step will cost.
    """

    key: str
    title: str
    report: str


@dataclass(frozen=True, eq=False)
class UNetReference(Reference):
    """Keys and values for ten self-attentions of a UNet whose widths are ``widths``."""

    keys_values: RowKeysValues
    widths: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class DiTReference(Reference):
    """Keys and values for every block of a DiT of channels ``width``."""

    network: ManagedNetwork
    blocks: tuple[dit.BlockKey, ...]
    width: int


@dataclass(frozen=True)
class ReferenceOptions:
    """What a user sets on the apply node.

    Attributes:
        strength: factor of the reference term (SD1.5: any; Flux has no such factor: 1, or 0 for none).
        start_percent, end_percent: fractions of the schedule between which the reference is read.
        mask: where it acts (SD1.5 only), or None.
    """

    strength: float = 1.0
    start_percent: float = 0.0
    end_percent: float = 1.0
    mask: Tensor | None = None


def encode_reference(
    loaded: LoadedAdapter,
    model: Any,
    latent: Tensor,
    positive: Any,
    negative: Any = None,
    lora_strength: float = 1.0,
) -> Reference:
    """Run the reference pass.

    Args:
        loaded: a DreamFit adapter.
        model: MODEL that becomes the encoder; may be None for an SD1.5 file that holds the encoder's base weights.
        latent: (1, C, H, W) of the reference picture.
        positive: conditioning of the reference prompt.
        negative: conditioning of the reference's empty prompt, for the negative rows (SD1.5); None gives them the
            positive's features.
        lora_strength: linear factor of the LoRA in the weights (official: 1).

    Raises:
        BaseModelMismatch: the model, the latent or the texts do not fit the adapter.
        HostTooOld: a Flux file on a ComfyUI without what it needs.
    """
    adapter = loaded.adapter
    if isinstance(adapter, DreamFitDiT):
        dit.require_dit_host()
        reference = _encode_dit(adapter, model, latent, positive, lora_strength)
        unused = "" if negative is None else "\nnegative: not used, Flux files have no place for it"
        return replace(reference, report=reference.report + unused)
    if isinstance(adapter, DreamFitUNet):
        return _encode_unet(loaded, adapter, model, latent, [positive, negative], lora_strength)
    raise LikenessError(
        "encode garment",
        expected="a DreamFit adapter",
        found=adapter.report.title,
        cure="load a DreamFit file, or use 'Apply Identity' for a face adapter",
    )


def apply_reference(model: Any, reference: Reference, options: ReferenceOptions) -> Any:
    """Return a clone of MODEL that reads the reference; the MODEL that came in is left as it was.

    Raises:
        BaseModelMismatch: the reference was recorded in another kind of model.
        LikenessError: a strength or a mask that Flux files have no place for.
    """
    steps = step_range(model, options.start_percent, options.end_percent)
    mask = acting_mask(options.mask, options.strength)
    parts = (reference.key, mask.digest if mask else "", steps.start_percent, steps.end_percent)
    key = hashlib.sha256(repr(parts).encode("ascii")).hexdigest()
    if isinstance(reference, UNetReference):
        layers = _checked_layers(model, reference.title, reference.widths)
        term = AttentionTerm(
            key=key, keys_values=reference.keys_values, strength=options.strength, steps=steps, mask=mask
        )
        clone = clone_model(model)
        features.set_reference(clone, layers, term)
        guard_forward(clone, features.SLOT, len(layers), ())
        return clone
    if not isinstance(reference, DiTReference):
        raise TypeError(type(reference).__name__)
    dit.require_dit_host()
    _check_dit(model, reference.title, reference.blocks, reference.width)
    _check_dit_options(options)
    clone = clone_model(model)
    if options.strength != 0.0:
        dit.set_reference_blocks(clone, reference.blocks, dit.BankTerm(key, reference.network, steps))
        guard_forward(clone, dit.SLOT, len(reference.blocks), (reference.network,))
    return clone


def _encode_unet(
    loaded: LoadedAdapter, adapter: DreamFitUNet, model: Any, latent: Tensor, conditions: list[Any], strength: float
) -> UNetReference:
    own = adapter.has_base
    base = loaded.models.get("encoder", lambda: _own_encoder(adapter)) if own else model
    if base is None:
        raise _no_model(adapter.report.title, "plain SD1.5, since the file holds the adapter alone")
    widths = tuple(layer.width for layer in adapter.layers)
    layers = _checked_layers(base, adapter.report.title, widths)
    _check_latent(base, latent)
    texts = [_text(one, layers[0].context_dim) for one in conditions if one is not None]
    encoder = features.with_changes(base, adapter.changes, strength)
    pairs = _recorded(encoder, adapter, latent, texts, loaded)
    values = features.row_values(pairs)
    title = "the file's own UNet" if own else "the connected model"
    report = (
        f"reference pass: {len(texts)} rows, once, through {title} at {latent.shape[3]} x {latent.shape[2]} (latent)\n"
        f"each step: one attention and one addition more in {len(layers)} layers; no weights\n"
        f"kept: {values.bytes / 1e6:.1f} MB"
    )
    return UNetReference(_key(adapter, latent, texts, strength), adapter.report.title, report, values, widths)


def _recorded(
    encoder: Any, adapter: DreamFitUNet, latent: Tensor, texts: Sequence[Text], loaded: LoadedAdapter
) -> list[Pair]:
    beside = [loaded.managed.patcher]
    if len({text.context.shape[1] for text in texts}) == 1:
        return features.record_unet(encoder, adapter.layers, latent, texts, beside)
    # Texts of different length cannot stand in one batch.
    passes = [features.record_unet(encoder, adapter.layers, latent, [text], beside) for text in texts]
    return [(torch.cat([k for k, _ in rows]), torch.cat([v for _, v in rows])) for rows in zip(*passes, strict=True)]


def _own_encoder(adapter: DreamFitUNet) -> Any:
    tensors = adapter.base_tensors()
    count = len(tensors)
    encoder, differing = host.whole_unet(tensors)
    if differing:
        raise BaseModelMismatch(
            adapter.report.title,
            expected="the weights of a whole SD1.5 UNet in the file",
            found=f"{count} tensors, of which or beside which {len(differing)} do not belong",
            cure="use the publisher's unchanged file",
        )
    return encoder


def _encode_dit(adapter: DreamFitDiT, model: Any, latent: Tensor, positive: Any, strength: float) -> DiTReference:
    if model is None:
        raise _no_model(adapter.report.title, "the FLUX.1-dev model that will sample")
    blocks = dit.block_keys(adapter.double, adapter.single)
    _check_dit(model, adapter.report.title, blocks, adapter.width)
    _check_latent(model, latent)
    text = _text(positive, int(model.model.diffusion_model.txt_in.in_features))
    pairs = record_dit(features.with_changes(model, adapter.changes, strength), blocks, latent, text)
    network = ManagedNetwork(dit.ReferenceBank(pairs))
    tokens = pairs[blocks[0]][0].shape[2]
    report = (
        f"reference pass: 1 row, once, at {latent.shape[3]} x {latent.shape[2]} (latent)\n"
        f"each step: {tokens} reference tokens (single blocks: {text.context.shape[1]} of text too) to attend to in "
        f"{len(blocks)} layers; all rows read the same\n"
        f"kept: {network.bytes / 1e6:.1f} MB, managed by ComfyUI"
    )
    if text.context.shape[1] != AUTHORS_TOKENS:
        report += f"\ntext: {text.context.shape[1]} tokens; the authors use {AUTHORS_TOKENS} ('T5TokenizerOptions')"
    key = _key(adapter, latent, [text], strength)
    return DiTReference(key, adapter.report.title, report, network, blocks, adapter.width)


def record_dit(encoder: Any, blocks: Sequence[dit.BlockKey], latent: Tensor, text: Text) -> dict[dit.BlockKey, Pair]:
    """Run a DiT once over a reference (1, C, H, W) and return keys and values (1, heads, T, D) of every block."""
    recorder = dit.RecordBlocks(blocks)
    options = {"patches_replace": {"dit": recorder.patches}, "cond_or_uncond": [0]}
    guidance = torch.tensor([GUIDANCE if text.guidance is None else text.guidance])
    named = {"guidance": guidance} if text.pooled is None else {"guidance": guidance, "y": text.pooled}
    features.run_pass(encoder, latent, text.context, options, named)
    return recorder.pairs


def _key(adapter: Any, latent: Tensor, texts: Sequence[Text], strength: float) -> str:
    parts = (adapter.digest, features.tensor_digest(latent), *(text.digest for text in texts), strength)
    return hashlib.sha256(repr(parts).encode("ascii")).hexdigest()


def _text(conditioning: Any, width: int) -> Text:
    found = f"{len(conditioning)} parts"
    if len(conditioning) == 1:
        context, values = conditioning[0]
        if context.shape[-1] == width:
            guidance = values.get("guidance")
            return Text(context[:1], values.get("pooled_output"), None if guidance is None else float(guidance))
        found = f"one of width {context.shape[-1]}"
    raise BaseModelMismatch(
        "reference prompt",
        expected=f"one plain prompt of width {width}",
        found=found,
        cure="encode the reference prompt with the text encoder of the model that passes over the reference",
    )


def _checked_layers(model: Any, title: str, widths: Sequence[int]) -> list[UNetLayer]:
    layers = features.read_layers(unet_layers(model))
    found = tuple(layer.width for layer in layers)
    if found != tuple(widths):
        raise BaseModelMismatch(
            title,
            expected=f"an SD1.5 model whose middle and upper blocks have the widths {tuple(widths)}",
            found=f"{found}",
            cure="connect an SD1.5 model",
        )
    return layers


def _check_dit(model: Any, title: str, blocks: Sequence[dit.BlockKey], width: int) -> None:
    network = model.model.diffusion_model
    depths = tuple(len(getattr(network, f"{kind}s", ())) for kind in SLOTS)
    known = dit.block_keys(*depths)
    if known != tuple(blocks) or getattr(network, "hidden_size", None) != width:
        raise BaseModelMismatch(
            title,
            expected=f"FLUX.1-dev ({len(blocks)} blocks of width {width})",
            found=f"{type(model.model).__name__} ({len(known)} such blocks)",
            cure="connect the FLUX.1-dev model",
        )


def _check_dit_options(options: ReferenceOptions) -> None:
    if options.strength not in (0.0, 1.0) or options.mask is not None:
        raise LikenessError(
            "DreamFit for Flux",
            expected="strength 1 (or 0) and no mask, since the picture and the reference share one attention",
            found=f"strength {options.strength:g}{'' if options.mask is None else ' and a mask'}",
            cure="set strength to 1 and remove the mask; 'lora_strength' of 'Encode Garment' weakens the reference",
        )


def _check_latent(model: Any, latent: Tensor) -> None:
    channels = int(model.model.latent_format.latent_channels)
    if latent.ndim != 4 or latent.shape[:2] != (1, channels):
        raise BaseModelMismatch(
            "reference latent",
            expected=f"one picture (1, {channels}, H, W)",
            found=f"the shape {tuple(latent.shape)}",
            cure="encode one reference picture with the VAE of the model",
        )


def _no_model(title: str, needed: str) -> LikenessError:
    return LikenessError(title, expected=f"a model: {needed}", found="none", cure="connect it to 'Encode Garment'")
