"""Applies HunyuanVideo-Avatar to a MODEL of HunyuanVideo: a character's picture, and sound for each character."""

from __future__ import annotations

import functools
import importlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ..adapters.audio_features import AudioFeatures
from ..adapters.errors import BaseModelMismatch, EncoderMismatch, HostTooOld
from ..adapters.families.hunyuan_avatar.adapter import EXPRESSION, FPS, POSE, HunyuanAvatarAdapter
from ..adapters.families.hunyuan_avatar.arch import BUCKETS
from ..faces.errors import BadMask
from .apply import compute_dtype, guard_forward
from .block_chain import with_changed
from .dit_blocks import DOUBLE
from .forward_guard import ForwardGuard
from .host import has_wrappers, model_management
from .hunyuan_avatar_blocks import SLOT, AvatarBlock, SpeechTerm, VideoTerm
from .hunyuan_avatar_call import AvatarForward
from .hunyuan_avatar_character import Character, picture_latents
from .hunyuan_avatar_parts import (
    CONDITIONS,
    POOLED,
    POSITIONS,
    ROTATION,
    TEXT,
    BeforeTheVideo,
    ObjectPatch,
    OwnPositions,
    RefinedText,
    TextConditions,
    WithMotion,
)
from .hunyuan_avatar_sound import CharacterMask, SoundBank, SoundBanks, Speaker
from .loaded import LoadedAdapter
from .patching import block_slot, clone_model, forward_wrapper, remove_block_slot, set_block_slot
from .row_values import Pair
from .schedule import step_range

TITLE = "HunyuanVideo-Avatar"
FIRST_VERSION = "0.3.64"
KEY = "likeness_hunyuan_avatar"
WRAPPER = "diffusion_model"
OBJECTS = (CONDITIONS, POSITIONS, ROTATION, POOLED, TEXT)


@dataclass(frozen=True)
class AvatarOptions:
    """What a user sets on the apply node; the defaults are the official ones.

    Attributes:
        strength: factor of all that the characters hear; 0 adds nothing.
        image_strength: factor of what the character's picture adds to the video's tokens; 0 leaves the picture out
            altogether, its own tokens included.
        strengths: factor for each character beside ``strength``; missing ones are 1.
        masks: where each character is; missing ones and None are everywhere.
        start_percent, end_percent: fractions of the schedule between which the characters hear.
        expression, pose: how much the face and the head move, 0 and more.
        fps: frames a second.
    """

    strength: float = 1.0
    image_strength: float = 1.0
    strengths: Sequence[float] = ()
    masks: Sequence[Tensor | None] = ()
    start_percent: float = 0.0
    end_percent: float = 1.0
    expression: int = EXPRESSION
    pose: int = POSE
    fps: float = FPS


@dataclass(frozen=True, eq=False)
class AvatarPatch:
    """All that one apply puts into a MODEL.

    Attributes:
        character: the picture, or None.
        terms: what adds behind the double blocks.
        blocks: the double blocks that are patched.
        vector: (1, width) what is added to the modulation vector.
        digest: identifies it.
    """

    character: Character | None
    terms: tuple[VideoTerm, ...]
    blocks: tuple[int, ...]
    vector: Tensor
    beside: tuple[Any, ...] = field(default=())


def apply_avatar(
    model: Any, loaded: LoadedAdapter, picture: Any, audio: AudioFeatures, options: AvatarOptions | None = None
) -> Any:
    """Return a clone of MODEL that speaks; a former application on it is replaced.

    Args:
        model: HunyuanVideo, loaded from Avatar's own checkpoint.
        loaded: the added tensors of that checkpoint.
        picture: latent of the character's picture (1, C, T, H, W), as the host's VAE gives it.
        audio: one track for each character.
        options: see `AvatarOptions`.

    Raises:
        HostTooOld: this ComfyUI has no HunyuanVideo whose blocks can be patched.
        BaseModelMismatch: the model is no HunyuanVideo of the adapter's width and depth.
        EncoderMismatch: another adapter, or audio features of another system.
        BadImage, BadMask, LikenessError: a picture, mask or step range that cannot be used.
    """
    options = options or AvatarOptions()
    require_hunyuan_video(f"apply {TITLE}")
    adapter = avatar_adapter(loaded)
    check_model(model, adapter)
    adapter.check_audio(audio)
    clone = clone_model(model)
    _remove(clone)
    patch = _patch(clone, loaded, adapter, picture, audio, options)
    if patch is not None:
        _install(clone, patch)
    return clone


def require_hunyuan_video(what: str) -> Any:
    """The host's module of HunyuanVideo.

    Raises:
        HostTooOld: naming the version that has all that is needed.
    """
    try:
        found = importlib.import_module("comfy.ldm.hunyuan_video.model")
    except ImportError as error:
        raise _too_old(what, "one without HunyuanVideo") from error
    if not has_wrappers() or not _hands_options_on(found.TokenRefinerBlock):
        raise _too_old(what, "one whose HunyuanVideo does not hand its options to its blocks")
    return found


@functools.cache
def _hands_options_on(block: Any) -> bool:
    return "transformer_options" in inspect.signature(block.forward).parameters


def avatar_adapter(loaded: LoadedAdapter) -> HunyuanAvatarAdapter:
    """The adapter of a LIKENESS_ADAPTER. Raises EncoderMismatch for a file of another family."""
    adapter = loaded.adapter
    if not isinstance(adapter, HunyuanAvatarAdapter):
        raise EncoderMismatch(
            f"apply {TITLE}",
            expected=f"a file of {TITLE}",
            found=f"one of {adapter.report.title}",
            cure=f"load the checkpoint of {TITLE} with 'Load HunyuanVideo-Avatar'",
        )
    return adapter


def check_model(model: Any, adapter: HunyuanAvatarAdapter) -> None:
    """Raises BaseModelMismatch where the MODEL is no HunyuanVideo of the adapter's width and depth."""
    network = model.model.diffusion_model
    expected = f"a HunyuanVideo model of width {adapter.sizes.width} with {2 * adapter.sizes.adapters} double blocks"
    cure = "connect the MODEL that 'Load HunyuanVideo-Avatar' gives"
    kind = require_hunyuan_video(f"apply {TITLE}").HunyuanVideo
    if not isinstance(network, kind) or network.vector_in is None:
        found = f"the model {type(model.model).__name__} ({type(network).__name__})"
        raise BaseModelMismatch(adapter.report.title, expected=expected, found=found, cure=cure)
    width, depth = int(network.hidden_size), len(network.double_blocks)
    if (width, depth) != (adapter.sizes.width, 2 * adapter.sizes.adapters):
        found = f"width {width} with {depth} double blocks"
        raise BaseModelMismatch(adapter.report.title, expected=expected, found=found, cure=cure)


def _patch(
    clone: Any,
    loaded: LoadedAdapter,
    adapter: HunyuanAvatarAdapter,
    picture: Any,
    audio: AudioFeatures,
    options: AvatarOptions,
) -> AvatarPatch | None:
    """What is to be installed, or None where nothing would act."""
    latents = picture_latents(picture, clone.model.process_latent_in)
    size = int(latents.shape[-2]), int(latents.shape[-1])
    speakers = _speakers(clone, loaded, adapter, audio, size, options)
    acting = tuple(speaker for speaker in speakers if speaker.strength != 0.0)
    if not acting and options.image_strength == 0.0:
        return None
    character = Character(adapter, latents, options.image_strength) if options.image_strength != 0.0 else None
    numbers = {place: index for index, place in enumerate(adapter.places())}
    terms = (SpeechTerm(adapter, acting, numbers),) if acting else ()
    blocks = {*(numbers if acting else ()), *(() if character is None else (0,))}
    moves = options.expression, options.pose, options.fps
    vector = loaded.made(("motion", *moves), lambda: _motion(loaded, adapter, *moves), of=adapter)
    beside = () if loaded.managed_steps is None else (loaded.managed_steps,)
    return AvatarPatch(character, terms, tuple(sorted(blocks)), vector, beside)


def _motion(loaded: LoadedAdapter, adapter: HunyuanAvatarAdapter, expression: int, pose: int, fps: float) -> Tensor:
    loaded.managed.load()
    with torch.inference_mode(False), torch.no_grad():
        return adapter.motion([expression] * BUCKETS, [pose] * BUCKETS, fps).cpu()


def _speakers(
    clone: Any,
    loaded: LoadedAdapter,
    adapter: HunyuanAvatarAdapter,
    audio: AudioFeatures,
    size: tuple[int, int],
    options: AvatarOptions,
) -> list[Speaker]:
    _check_masks(options.masks, audio.tracks)
    steps = step_range(clone, options.start_percent, options.end_percent)
    device, dtype = model_management().get_torch_device(), compute_dtype(clone)
    made_of = ("sound", audio.digest, device, dtype)
    banks = loaded.made(made_of, lambda: _banks(loaded, adapter, audio.features, device, dtype), of=audio)
    speakers = []
    for number in range(audio.tracks):
        factor = options.strengths[number] if number < len(options.strengths) else 1.0
        mask = options.masks[number] if number < len(options.masks) else None
        where = None if mask is None else CharacterMask(mask, size)
        speakers.append(Speaker(banks.tracks[number], options.strength * factor, steps, where))
    return speakers


def _check_masks(masks: Sequence[Tensor | None], tracks: int) -> None:
    """Refuse masks in which nobody hears, and drawn ones without a track; 'Avatar Face Masks' leaves those black."""
    for number, mask in enumerate(masks, start=1):
        drawn = mask is not None and bool((mask > 0).any())
        if mask is not None and mask.numel() and number <= tracks and not drawn:
            raise BadMask(
                f"mask of character {number}",
                expected="a mask that is white where the character is",
                found="one that is black everywhere",
                cure="set the number of characters in 'Avatar Face Masks', or draw it",
            )
        if number > tracks and drawn:
            raise BadMask(
                f"mask of character {number}",
                expected=f"a sound of its own, track {number}",
                found=f"{tracks} track{'' if tracks == 1 else 's'}",
                cure="join a voice for each character with 'Join Audio Tracks', or disconnect the mask",
            )


def _banks(
    loaded: LoadedAdapter, adapter: HunyuanAvatarAdapter, tracks: Tensor, device: torch.device, dtype: torch.dtype
) -> SoundBanks:
    loaded.managed.load()

    def projected(windows: Tensor) -> list[Pair]:
        return [(k.to(device, dtype), v.to(device, dtype)) for k, v in adapter.audio_keys_values(windows)]

    with torch.inference_mode(False), torch.no_grad():
        silence = projected(adapter.silence())
        return SoundBanks(tuple(SoundBank(projected(windows), silence) for windows in tracks))


def _install(clone: Any, patch: AvatarPatch) -> None:
    refiner = clone.model.diffusion_model.txt_in
    makers: Mapping[str, Callable[[Any], ObjectPatch]] = {
        CONDITIONS: TextConditions,
        POSITIONS: OwnPositions,
        ROTATION: BeforeTheVideo,
        POOLED: lambda original: WithMotion(original, patch.vector),
        TEXT: lambda original: RefinedText(original, refiner),
    }
    for name, make in makers.items():
        clone.add_object_patch(name, make(clone.get_model_object(name)))
    for number in patch.blocks:
        place = (DOUBLE, number)
        set_block_slot(clone, place, AvatarBlock(number, patch.character, patch.terms, block_slot(clone, place)))
    clone.add_wrapper_with_key(WRAPPER, KEY, AvatarForward(patch.character))
    guard_forward(clone, SLOT, len(patch.blocks), patch.beside)


def _remove(clone: Any) -> None:
    """Take a former application out of a clone, also beneath what other nodes of this pack put there since."""
    clone.remove_wrappers_with_key(WRAPPER, KEY)
    for name in OBJECTS:
        found = clone.object_patches.get(name)
        if isinstance(found, ObjectPatch):
            clone.add_object_patch(name, found.original)
    for number in range(len(clone.model.diffusion_model.double_blocks)):
        place = (DOUBLE, number)
        found = block_slot(clone, place)
        left = with_changed(found, AvatarBlock, lambda own: own.previous)
        if left is not found:
            remove_block_slot(clone, place) if left is None else set_block_slot(clone, place, left)
    guard = forward_wrapper(clone)
    if isinstance(guard, ForwardGuard) and SLOT in guard.expected:
        clone.set_model_unet_function_wrapper(guard.without(SLOT))


def _too_old(what: str, found: str) -> HostTooOld:
    return HostTooOld(
        what,
        expected=f"ComfyUI {FIRST_VERSION} or newer",
        found=found,
        cure="update ComfyUI: HunyuanVideo-Avatar runs on its HunyuanVideo model",
    )
