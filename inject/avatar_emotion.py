"""Avatar Emotion (AEM) on a MODEL of HunyuanVideo: attention to an emotion's picture behind its double blocks.

The term reads the block's own video tokens, as it does in training, also where HunyuanVideo-Avatar's audio adapters
act behind the same block; the tokens of the character's picture, which stand before the video's, and the text get
nothing. With the patch of another node in the slot, that one is called and keeps what it adds.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from ..adapters.adapter import BlockAttentionAdapter
from ..adapters.errors import BaseModelMismatch
from ..adapters.families.avatar_emotion.adapter import AvatarEmotionAdapter
from ..adapters.families.avatar_emotion.layout import picture_sides
from ..faces.errors import LikenessError
from ..faces.images import as_rgb
from . import host
from .apply import compute_dtype, guard_forward
from .block_chain import BlockFunction, called, holds, with_changed
from .call_state import CallState, call_state
from .dit_blocks import Place
from .hunyuan_avatar import require_hunyuan_video
from .hunyuan_avatar_call import AvatarCall
from .hunyuan_avatar_character import picture_latents
from .hunyuan_avatar_sound import CharacterMask
from .kept import itself
from .loaded import LoadedAdapter, trained_adapter
from .masks import checked_mask, frame_window
from .memo import Memo
from .patching import block_slot, clone_model, set_block_slot
from .reference_features import tensor_digest
from .row_values import RowKeysValues
from .rows import POSITIVE, row_pattern
from .schedule import step_range
from .shared import Shared
from .term import Term

SLOT = "emotion"


@dataclass(frozen=True)
class EmotionOptions:
    """What a user sets.

    Attributes:
        strength: factor beside the learnt gates; 0 adds nothing.
        start_percent, end_percent: fractions of the schedule between which it acts.
        guided: leave the negative rows as they are, so that guidance strengthens the emotion.
        mask: whose emotion it is, (H, W) or (F, H, W), or None for everywhere.
    """

    strength: float = 1.0
    start_percent: float = 0.0
    end_percent: float = 1.0
    guided: bool = False
    mask: Tensor | None = None


class EmotionMask(Shared):
    """A mask for videos of any size: see `CharacterMask`, which needs to know it."""

    def __init__(self, mask: Tensor) -> None:
        self._mask = checked_mask(mask)
        self._sizes: Memo[CharacterMask] = Memo(limit=4)
        self.digest = hashlib.sha256(self._mask.numpy().tobytes() + repr(tuple(self._mask.shape)).encode()).hexdigest()

    def tokens(self, shape: Sequence[int], extra: Mapping[str, Any], like: Tensor) -> Tensor:
        """The mask on the video tokens of a call for latents of ``shape`` (B, C, T, H, W): (T n, 1)."""
        _, _, frames, height, width = (int(size) for size in shape)
        mask = self._sizes.get((height, width), lambda: CharacterMask(self._mask, (height, width)))
        window = frame_window(extra)
        total = frames if window is None else getattr(extra.get("context_window"), "total_frames", None)
        grid, pattern = (height // 2, width // 2), (POSITIVE,)
        call = AvatarCall(frames, grid, 0, pattern, int(shape[0]), window, total, mask_scale=1.0, text=None)
        return mask.tokens(call, like).flatten(0, 1)


@dataclass(frozen=True, eq=False, kw_only=True)
class EmotionTerm(Term):
    """One emotion behind the double blocks.

    Attributes:
        adapter: what is added.
        places: the blocks behind which it is added, in the order of ``keys_values``.
        where: whose emotion it is, or None for everywhere.
    """

    adapter: BlockAttentionAdapter
    places: Sequence[Place]
    where: EmotionMask | None = None

    def added(self, place: Place, video: Tensor, shape: Sequence[int], extra: Mapping[str, Any]) -> Tensor:
        """What is added (B, N, width) to the block's own video tokens of that shape."""
        pattern, _ = row_pattern(extra, video.shape[0])
        index = self.places.index(place)
        k, v = self.keys_values.rows(index, pattern, video)
        # Rows of a chunk share their emotion, so they stand side by side as queries of one row.
        folded = video.reshape(len(pattern), -1, video.shape[-1])
        term = self.adapter.added(
            index, folded, k, v, lambda q, k, v, heads: host.attention(q, k, v, heads, extra)
        ).view_as(video)
        weight = self._weight(pattern, shape, extra, term)
        return term * (self.strength if weight is None else self.strength * weight)

    def _weight(
        self, pattern: tuple[int, ...], shape: Sequence[int], extra: Mapping[str, Any], like: Tensor
    ) -> Tensor | None:
        where = None if self.where is None else self.where.tokens(shape, extra, like)[None]
        if not self.positive_only:
            return where
        rows = like.new_tensor([float(row == POSITIVE) for row in pattern])
        rows = rows.repeat_interleave(like.shape[0] // len(pattern))[:, None, None]
        return rows if where is None else rows * where


@dataclass(frozen=True, eq=False)
class EmotionBlock(Shared):
    """The replacement of one double block.

    Attributes:
        place: kind and number of the block.
        terms: the emotions that act here.
        previous: the replacement of another node that was found there and is still called, or None.
    """

    place: Place
    terms: tuple[EmotionTerm, ...]
    previous: BlockFunction | None = None

    def __call__(self, args: dict[str, Any], block: Mapping[str, Any], **kwargs: Any) -> dict[str, Any]:
        out, own = called(self.previous, args, block, **kwargs)
        extra: Mapping[str, Any] = args.get("transformer_options") or {}
        state = call_state(extra) or CallState()
        state.mark(SLOT, self.place)
        acting = [term for term in self.terms if term.acts(extra)]
        if not acting or state.latent_shape is None:
            return out
        image, shape = out["img"], state.latent_shape
        count = shape[-3] * (shape[-2] // 2) * (shape[-1] // 2)
        ahead = image.shape[1] - count
        # A node that leaves the block out has no tokens of its own to read.
        read = image[:, ahead:] if own is None else own[:, -count:]
        video = image[:, ahead:]
        for term in acting:
            video = video + term.added(self.place, read, shape, extra)
        return {**out, "img": video if not ahead else torch.cat((image[:, :ahead], video), dim=1)}

    def with_term(self, term: EmotionTerm) -> EmotionBlock:
        """A replacement with the term added, in place of one with the same key."""
        others = tuple(old for old in self.terms if old.key != term.key)
        return EmotionBlock(self.place, (*others, term), self.previous)


def emotion_adapter(loaded: LoadedAdapter | None) -> AvatarEmotionAdapter:
    """The emotion module of a socket.

    Raises:
        MissingModelFile: nothing is connected, or another adapter.
    """
    cure = "train one with tools/train_avatar_emotion.py, since no trained file was ever published"
    return trained_adapter(loaded, AvatarEmotionAdapter, "Avatar Emotion (AEM)", "emotion", cure)


def kept_emotion_latents(loaded: LoadedAdapter, vae: Any, picture: Tensor) -> Tensor:
    """`emotion_latents` of the size that a module was trained on, encoded once for as long as the picture is in use."""
    size = emotion_adapter(loaded).facts.picture_size
    key = ("latents", itself(vae), tensor_digest(as_rgb(picture, "emotion picture")), size)
    return loaded.made(key, lambda: emotion_latents(vae, picture, size), of=picture)


def emotion_latents(vae: Any, picture: Tensor, size: int) -> Tensor:
    """The latent of one picture (1, H, W, C) by the host's VAE, resized to about ``size * size`` pixels.

    Raises:
        LikenessError: several pictures.
    """
    rgb = as_rgb(picture, "emotion picture")
    if len(rgb) != 1:
        raise LikenessError(
            "emotion picture", expected="one picture", found=f"{len(rgb)}", cure="choose one picture of the batch"
        )
    sides = picture_sides(int(rgb.shape[1]), int(rgb.shape[2]), size)
    planes = functional.interpolate(rgb.movedim(-1, 1), sides, mode="bicubic", antialias=True, align_corners=False)
    with torch.inference_mode():
        latents: Tensor = vae.encode(planes.clamp(0, 1).movedim(1, -1))
    return latents


def apply_emotion(model: Any, loaded: LoadedAdapter, picture: Tensor, options: EmotionOptions | None = None) -> Any:
    """Return a clone of MODEL with the emotion of a picture; the MODEL that came in stays as it was.

    Args:
        model: HunyuanVideo, with or without HunyuanVideo-Avatar applied.
        loaded: a trained emotion module.
        picture: latent of the emotion's picture, as the host's VAE gives it.
        options: see `EmotionOptions`.

    Raises:
        HostTooOld: this ComfyUI has no HunyuanVideo whose blocks can be patched.
        BaseModelMismatch: the model is no HunyuanVideo of the module's width and depth.
        MissingModelFile, BadImage, BadMask, LikenessError: inputs that cannot be used.
    """
    options = options or EmotionOptions()
    adapter = emotion_adapter(loaded)
    places = _places(model, adapter)
    steps = step_range(model, options.start_percent, options.end_percent)
    clone = clone_model(model)
    latents = picture_latents(picture, clone.model.process_latent_in)[:, :, :1]
    digest = tensor_digest(latents)
    device, dtype = host.model_management().get_torch_device(), compute_dtype(clone)
    where = None if options.mask is None else EmotionMask(options.mask)
    term = EmotionTerm(
        key="/".join((adapter.digest, digest, "" if where is None else where.digest, repr(steps))),
        keys_values=loaded.made(
            (SLOT, digest, device, dtype), lambda: _projected(loaded, adapter, latents, device, dtype), of=picture
        ),
        strength=options.strength,
        steps=steps,
        positive_only=options.guided,
        adapter=adapter,
        places=places,
        where=where,
    )
    for place in places:
        found = block_slot(clone, place)
        if holds(found, EmotionBlock):
            block = with_changed(found, EmotionBlock, lambda own: own.with_term(term))
        else:
            block = EmotionBlock(place, (term,), found)
        set_block_slot(clone, place, block)
    beside = () if loaded.managed_steps is None else (loaded.managed_steps,)
    guard_forward(clone, SLOT, len(places), beside)
    return clone


def _places(model: Any, adapter: AvatarEmotionAdapter) -> Sequence[Place]:
    kind = require_hunyuan_video(adapter.report.title).HunyuanVideo
    network = model.model.diffusion_model
    modules = int(adapter.report.layers or 0)
    expected = f"a HunyuanVideo model of width {adapter.width} with {2 * modules} double blocks"
    if isinstance(network, kind):
        width, depth = int(network.hidden_size), len(network.double_blocks)
        if (width, depth) == (adapter.width, 2 * modules):
            return adapter.insertions(depth, len(network.single_blocks))
        found = f"width {width} with {depth} double blocks"
    else:
        found = f"the model {type(model.model).__name__} ({type(network).__name__})"
    cure = "connect the model that the file was trained for"
    raise BaseModelMismatch(adapter.report.title, expected=expected, found=found, cure=cure)


def _projected(
    loaded: LoadedAdapter, adapter: AvatarEmotionAdapter, latents: Tensor, device: torch.device, dtype: torch.dtype
) -> RowKeysValues:
    loaded.managed.load()
    with torch.inference_mode(False), torch.no_grad():
        pairs = adapter.keys_values(adapter.emotion_tokens(latents.clone()))
        placed = [(k.to(device, dtype), v.to(device, dtype)) for k, v in pairs]
    return RowKeysValues(placed, placed)
