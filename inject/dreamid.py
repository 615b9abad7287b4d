"""DreamID (Ye et al. 2025, arXiv:2504.14509) in the host: FaceNet's pass over the source, SwapNet's patches, its steps.

SwapNet is the host's own UNet. The target's latent comes through ``c_concat``, as inpaint models are told theirs; the
tokens that FaceNet saw stand beside SwapNet's own in every self-attention; identity tokens add a second attention to
every cross-attention; the landmarks' map is added behind the first convolution. No prompt guidance is part of it: every
row gets the same, so cfg is 1.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ..adapters.adapter import TokenOptions
from ..adapters.errors import BaseModelMismatch
from ..adapters.families.dreamid.adapter import DreamIdAdapter
from ..adapters.families.dreamid.layout import timesteps_of
from ..adapters.identity import Identity
from ..faces.errors import BadImage, LikenessError
from ..faces.images import as_rgb
from . import attention, beneath
from .apply import guard_forward
from .call_state import call_state
from .dreamid_models import facenet_model, swapnet_model
from .dreamid_pictures import check_pictures, plain_copy, swap_latents
from .layer_map import UNetLayer, unet_layers
from .loaded import LoadedAdapter, trained_adapter
from .memo import Memo
from .patching import attention_slot, clone_model, forward_wrapper, set_attention_slot
from .reference_features import compute_dtype, run_pass, tensor_digest
from .row_values import RowKeysValues
from .rows import row_pattern
from .schedule import StepRange
from .shared import Shared

SELF, POSE = "attn1", "dreamid pose"
FIRST_BLOCK = ("input", 0)
Block = tuple[str, int]


@dataclass(frozen=True)
class SwapOptions:
    """What a user sets.

    Attributes:
        steps: 0 takes the file's own timesteps; else that many of trailing spacing.
        id_strength: factor of the identity tokens' attention (officially 1).
        pose_strength: factor of the landmarks' map (officially 1).
    """

    steps: int = 0
    id_strength: float = 1.0
    pose_strength: float = 1.0


@dataclass(frozen=True, eq=False)
class Swap:
    """What a sampler needs.

    Attributes:
        model: SwapNet with its conditions; belongs to these pictures.
        samples: (B, 4, h, w) zeros, where sampling starts.
        sigmas: (steps + 1,) noise levels.
        report: what was done.
    """

    model: Any
    samples: Tensor
    sigmas: Tensor
    report: str


@dataclass(frozen=True, eq=False)
class SourceTokens(Shared):
    """The ``attn1_patch``: keys and values are made of SwapNet's own tokens and of those that FaceNet saw.

    Attributes:
        tokens: (1, T, C) by block.
    """

    tokens: Mapping[Block, Tensor]
    _placed: Memo[Tensor] = field(default_factory=lambda: Memo(limit=32), repr=False)

    def __call__(
        self, n: Tensor, context: Tensor, value: Tensor, extra: Mapping[str, Any]
    ) -> tuple[Tensor, Tensor, Tensor]:
        name, number = extra["block"]
        block = (str(name), int(number))
        state = call_state(extra)
        if state is not None:
            state.mark(SELF, block)
        seen = self._placed.get((block, n.dtype, n.device), lambda: self.tokens[block].to(n))
        seen = seen.expand(n.shape[0], -1, -1)
        both = torch.cat([context, seen], dim=1)
        return n, both, both if value is context else torch.cat([value, seen], dim=1)


@dataclass(frozen=True, eq=False)
class PoseMap(Shared):
    """The ``input_block_patch`` that adds the landmarks' map behind the first convolution.

    Attributes:
        maps: (M, C, h, w), the strength in them; M is 1 or the number of pictures.
    """

    maps: Tensor
    _rows: Memo[Tensor] = field(default_factory=lambda: Memo(limit=4), repr=False)

    def __call__(self, hidden: Tensor, extra: Mapping[str, Any]) -> Tensor:
        if tuple(extra["block"]) != FIRST_BLOCK:
            return hidden
        state = call_state(extra)
        if state is not None:
            state.mark(POSE, FIRST_BLOCK)
        pattern, pictures = row_pattern(extra, hidden.shape[0])
        key = (len(pattern), pictures, hidden.dtype, hidden.device)
        return hidden + self._rows.get(key, lambda: rows_of(self.maps, len(pattern), pictures).to(hidden))


@dataclass(frozen=True, eq=False)
class TargetLatents(Shared):
    """The host's ``model_function_wrapper`` that gives SwapNet the target's latents; keeps the wrapper that was there.

    Attributes:
        latents: (M, 4, h, w) as the UNet sees them; M is 1 or the number of pictures.
        previous: the wrapper found on the model, or None.
    """

    latents: Tensor
    previous: Callable[..., Any] | None

    def models(self) -> list[Any]:
        """Patchers that the wrapper beneath wants loaded."""
        return list(getattr(self.previous, "models", list)())

    def __call__(self, apply_model: Callable[..., Any], args: dict[str, Any], **kwargs: Any) -> Any:
        x: Tensor = args["input"]
        if x.shape[-2:] != self.latents.shape[-2:]:
            raise BadImage(
                "DreamID",
                expected=f"the latent of 'Apply DreamID' ({8 * self.latents.shape[-1]} x {8 * self.latents.shape[-2]})",
                found=f"{8 * x.shape[-1]} x {8 * x.shape[-2]}",
                cure="sample the latent that 'Apply DreamID' gives, without tiles or areas",
            )
        pattern, pictures = row_pattern(args["c"].get("transformer_options", {}), x.shape[0])
        told = rows_of(self.latents, len(pattern), pictures).to(x)
        return beneath.model_call(self.previous, apply_model, {**args, "c": {**args["c"], "c_concat": told}})


class _Recorder:
    """An attn1 patch that lives for one pass and notes what each self-attention is given."""

    def __init__(self) -> None:
        self.found: dict[Block, Tensor] = {}

    def __call__(
        self, n: Tensor, context: Tensor, value: Tensor, extra: Mapping[str, Any]
    ) -> tuple[Tensor, Tensor, Tensor]:
        name, number = extra["block"]
        self.found[(str(name), int(number))] = n.clone()
        return n, context, value


def dreamid_of(loaded: LoadedAdapter | None) -> DreamIdAdapter:
    """The DreamID adapter of a socket, loaded to its device.

    Raises:
        MissingModelFile: nothing is connected, or another adapter.
    """
    cure = "train one with tools/train_dreamid.py, since no weights of DreamID were ever published"
    adapter = trained_adapter(loaded, DreamIdAdapter, "Apply DreamID", "DreamID", cure)
    if loaded is not None:
        loaded.managed.load()
    return adapter


def apply_dreamid(
    loaded: LoadedAdapter | None,
    vae: Any,
    targets: Tensor,
    source: Tensor,
    positive: Any,
    identity: Identity,
    landmarks: Tensor | None = None,
    options: SwapOptions | None = None,
) -> Swap:
    """SwapNet with everything it is told of a swap.

    Args:
        loaded: a DreamID adapter.
        vae: VAE of the base model.
        targets: (B, H, W, 3) crops whose face is replaced, 0..1, sides of a multiple of 64.
        source: (1, H', W', 3) crop of the face that they get.
        positive: the file's prompt, through the base model's text encoder.
        identity: the source's, of the encoder that the file names.
        landmarks: (B or 1, ., ., 3) landmark pictures of the targets; None leaves the pose guider out.
        options: see `SwapOptions`.

    Raises:
        MissingModelFile: no DreamID file.
        BadImage: pictures of unfit sizes or numbers.
        BaseModelMismatch: a VAE or prompt of another base model.
        EncoderMismatch: an identity of another encoder.
    """
    options = options or SwapOptions()
    adapter = dreamid_of(loaded)
    assert loaded is not None
    check_pictures(targets, source)
    facenet, swapnet = loaded.models.get("unets", lambda: (facenet_model(adapter), swapnet_model(adapter)))
    latents = swap_latents(loaded, vae, targets)
    text = prompt_of(positive, adapter.context_dim)
    seen, layers = swap_latents(loaded, vae, source), unet_layers(swapnet)
    made_of = ("source", tensor_digest(seen), tensor_digest(text))
    tokens = loaded.made(made_of, lambda: SourceTokens(record_source(facenet, seen, text, layers)), of=source)
    clone = clone_model(swapnet)
    scaled = plain_copy(clone.model.process_latent_in(latents))
    clone.set_model_unet_function_wrapper(TargetLatents(scaled, forward_wrapper(clone)))
    clone.set_model_attn1_patch(tokens)
    guard_forward(clone, SELF, len(tokens.tokens), ())
    if options.id_strength != 0.0:
        _add_identity(clone, loaded, adapter, identity, options)
    if landmarks is not None and options.pose_strength != 0.0:
        _add_pose(clone, loaded, adapter, landmarks, latents, options)
    timesteps = timesteps_of(options.steps) if options.steps else adapter.facts.timesteps
    report = "\n".join(
        [
            adapter.report.as_text(),
            f"targets: {len(targets)}; one pass of FaceNet over the source, then {len(timesteps)} of SwapNet at the "
            f"timesteps {', '.join(map(str, timesteps))}",
            f"cfg 1; prompt it was trained with: {adapter.facts.prompt}",
            "landmarks: not connected, pose guider left out" if landmarks is None else "landmarks: read once",
        ]
    )
    return Swap(clone, torch.zeros_like(latents), sigmas_of(clone, timesteps), report)


def sigmas_of(model: Any, timesteps: tuple[int, ...]) -> Tensor:
    """Noise levels of timesteps, and 0."""
    levels = model.get_model_object("model_sampling").sigmas
    return torch.cat([levels[list(timesteps)].float().cpu(), torch.zeros(1)])


def record_source(facenet: Any, latent: Tensor, text: Tensor, layers: tuple[UNetLayer, ...]) -> dict[Block, Tensor]:
    """Run FaceNet once over the source's latent (1, 4, h, w), at timestep 0.

    Returns:
        What each of the 16 self-attentions was given, (1, h * w, C) by block.
    """
    recorder = _Recorder()
    options = {"patches": {"attn1_patch": [recorder]}, "cond_or_uncond": [0]}
    run_pass(facenet, latent, text, options, {})
    return {layer.block: plain_copy(recorder.found[layer.block]) for layer in layers}


def rows_of(values: Tensor, chunks: int, pictures: int) -> Tensor:
    """(M, ...) as rows (chunks * pictures, ...): M is 1, for all pictures, or one for each.

    Raises:
        BadImage: another number.
    """
    if len(values) not in (1, pictures):
        raise BadImage(
            "DreamID",
            expected=f"one for all, or one for each of the {pictures} pictures sampled together",
            found=str(len(values)),
            cure="sample the latent that 'Apply DreamID' gives",
        )
    expanded = values.expand(pictures, *values.shape[1:])
    return expanded if chunks == 1 else expanded.repeat(chunks, *[1] * (values.ndim - 1))


def prompt_of(positive: Any, width: int) -> Tensor:
    """The context (1, T, C) of a plain prompt.

    Raises:
        BaseModelMismatch: several parts, or a text encoder of another base model.
    """
    found = f"{len(positive)} parts"
    if len(positive) == 1:
        context: Tensor = positive[0][0]
        if context.shape[-1] == width:
            return context[:1]
        found = f"one of width {context.shape[-1]}"
    raise BaseModelMismatch(
        "DreamID prompt",
        expected=f"one plain prompt of width {width}",
        found=found,
        cure="encode the file's prompt with the text encoder of its base model (Stable Diffusion 2.x)",
    )


def _add_identity(
    clone: Any, loaded: LoadedAdapter, adapter: DreamIdAdapter, identity: Identity, options: SwapOptions
) -> None:
    layers = unet_layers(clone)
    dtype = compute_dtype(clone)

    def made() -> RowKeysValues:
        loaded.managed.load()
        with torch.inference_mode(False), torch.no_grad():
            tokens = adapter.tokens(identity, TokenOptions()).cond
            pairs = [(k.to(dtype), v.to(dtype)) for k, v in adapter.keys_values(tokens)]
        return RowKeysValues(pairs, pairs)

    key = hashlib.sha256(f"{adapter.digest}{identity.digest}".encode("ascii")).hexdigest()
    term = attention.AttentionTerm(
        key=key,
        keys_values=loaded.made(("identity", identity.digest, dtype), made, of=identity),
        strength=options.id_strength,
        steps=StepRange(0.0, 1.0, float("inf"), 0.0),
    )
    for index, layer in enumerate(layers):
        patch = attention.attention_patch(attention_slot(clone, layer.key), index, term)
        set_attention_slot(clone, layer.key, patch)
    guard_forward(clone, attention.SLOT, len(layers), ())


def _add_pose(
    clone: Any,
    loaded: LoadedAdapter,
    adapter: DreamIdAdapter,
    landmarks: Tensor,
    latents: Tensor,
    options: SwapOptions,
) -> None:
    pictures = as_rgb(landmarks, "landmark pictures").movedim(-1, 1)
    if len(pictures) not in (1, len(latents)):
        raise LikenessError(
            "DreamID landmarks",
            expected=f"one landmark picture for each of the {len(latents)} targets, or one for all",
            found=str(len(pictures)),
            cure="draw them with 'DreamID Landmark Picture' from the same crops",
        )
    height, width = (8 * int(side) for side in latents.shape[-2:])
    if tuple(pictures.shape[-2:]) != (height, width):
        raise BadImage(
            "DreamID landmarks",
            expected=f"pictures of the targets' size, {width} x {height}",
            found=f"{pictures.shape[-1]} x {pictures.shape[-2]}",
            cure="draw them with 'DreamID Landmark Picture' from the same crops",
        )

    def made() -> Tensor:
        loaded.managed.load()
        with torch.inference_mode(False), torch.no_grad():
            # Kept in main memory: a MODEL puts its own on the device, with the strength in it.
            return adapter.pose_maps(pictures.clone()).cpu()

    maps = loaded.made(("pose", tensor_digest(landmarks)), made, of=landmarks)
    with torch.inference_mode(False), torch.no_grad():
        clone.set_model_input_block_patch(PoseMap(maps * options.pose_strength))
    guard_forward(clone, POSE, 1, ())
