"""A whole clip through DreamID-V: chunk by chunk, as many frames out as in, at the clip's own size."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..adapters.families.dreamid_v import pictures
from ..adapters.families.dreamid_v.pictures import Fit
from ..faces.errors import BadImage, LikenessError
from ..faces.images import as_rgb
from ..faces.masks import as_mask
from . import host
from .dreamid_v import apply_pose, check_frames, check_model, dreamid_v_adapter
from .dreamid_v_conditioning import Conditioning, condition, decoded
from .dreamid_v_sampling import GUIDANCE, STEPS, official_sigmas, run
from .loaded import LoadedAdapter


@dataclass(frozen=True)
class SwapOptions:
    """What a user sets on the swap node.

    Attributes:
        steps: of the sampler; 0 takes the authors' number for the file.
        guidance: the authors' scale (4), one less than the host's cfg.
        shift: of the noise levels.
        seed: of the noise; every chunk begins with the same noise.
        area: pixels at which frames are worked on; smaller clips are never enlarged.
        chunk: frames sampled at once, 4n + 1 (official: 81).
        overlap: frames over which one chunk fades into the next.
        pose_strength: factor of the pose (official: 1).
        inside_mask: take the swap only where the mask is, instead of the whole frame.
    """

    steps: int = 0
    guidance: float = GUIDANCE
    shift: float = 5.0
    seed: int = 0
    area: int = pictures.WIDTH * pictures.HEIGHT
    chunk: int = pictures.FRAMES
    overlap: int = 8
    pose_strength: float = 1.0
    inside_mask: bool = False


@dataclass(frozen=True, eq=False)
class Clip:
    """What a swap reads, all at the clip's own size.

    Attributes:
        frames: (F, H, W, 3), 0..1.
        photo: (h, w, 3), 0..1.
        mask: (F, H, W), 0..1, or None for everywhere.
        pose: (F, H, W, 3), 0..1, or None.
    """

    frames: Tensor
    photo: Tensor
    mask: Tensor | None = None
    pose: Tensor | None = None


def checked_clip(frames: Tensor, photo: Tensor, mask: Tensor | None, pose: Tensor | None) -> Clip:
    """A `Clip` of what a user connected. Raises BadImage, BadMask or LikenessError where it does not fit."""
    rgb, source = as_rgb(frames, "frames"), as_rgb(photo, "photo")
    count, height, width = rgb.shape[:3]
    poses = None if pose is None else as_rgb(pose, "pose pictures")
    if poses is not None and poses.shape != rgb.shape:
        raise LikenessError(
            "pose pictures for DreamID-V",
            expected=f"{count} of {width} x {height} pixels, one for each frame",
            found=f"{poses.shape[0]} of {poses.shape[2]} x {poses.shape[1]}",
            cure="make the pose pictures of the same frames",
        )
    return Clip(rgb, source[0], None if mask is None else as_mask(mask, count, height, width), poses)


def prepared(clip: Clip, to: Fit) -> Clip:
    """The clip at the model's size, its last frame repeated until the count is 4n + 1; the photo as (1, h, w, 3)."""
    count = clip.frames.shape[0]
    index = torch.arange(pictures.padded_count(count)).clamp(max=count - 1)
    mask = None if clip.mask is None else pictures.model_frames(clip.mask[index][..., None], to)[..., 0]
    pose = None if clip.pose is None else pictures.model_frames(clip.pose[index], to)
    frames = pictures.model_frames(clip.frames[index], to)
    return Clip(frames, pictures.model_reference(clip.photo, to), mask, pose)


def fit_of(clip: Clip, area: int) -> Fit:
    """How the clip becomes the model's size, for an area in pixels."""
    return pictures.fit(clip.frames.shape[1], clip.frames.shape[2], area)


def restored_frames(frames: Tensor, images: Tensor, area: int) -> Tensor:
    """Decoded frames at the size and count of the clip ``images`` they were made of.

    Raises:
        BadImage: fewer frames than the clip has, or another size than ``area`` gives.
    """
    original, made = as_rgb(images), as_rgb(frames)
    to = pictures.fit(original.shape[1], original.shape[2], area)
    if len(made) != pictures.padded_count(len(original)) or made.shape[1:3] != to.size:
        raise BadImage(
            "Restore DreamID-V Frames",
            expected=f"{pictures.padded_count(len(original))} frames of {to.size[1]} x {to.size[0]}",
            found=f"{len(made)} of {made.shape[2]} x {made.shape[1]}",
            cure="connect the clip and the size that 'Prepare Clip for DreamID-V' had",
        )
    return pictures.restored(made[: len(original)], original, to)


def posed(model: Any, loaded: LoadedAdapter, pose: Tensor | None, strength: float, like: Tensor) -> Any:
    """MODEL with pose pictures of the size of ``like``, or MODEL itself where there are none."""
    if pose is None:
        return model
    check_frames(pose, "pose pictures", like=like)
    return apply_pose(model, loaded, pose, strength)


def filled(clip: Clip) -> tuple[Tensor, Tensor]:
    """Mask and pose pictures of a prepared clip: white and black where there are none."""
    mask = torch.ones(clip.frames.shape[:3]) if clip.mask is None else clip.mask
    return mask, torch.zeros_like(clip.frames) if clip.pose is None else clip.pose


def condition_clip(
    model: Any,
    loaded: LoadedAdapter,
    texts: tuple[Conditioning, Conditioning],
    vae: Any,
    clip: Clip,
    strength: float,
) -> tuple[Any, Conditioning, Conditioning, Tensor]:
    """Patched MODEL, both conditionings and the empty latent of a prepared clip; black pose pictures count as none.

    Raises:
        As `condition`, `check_pose` and `apply_pose` do.
    """
    given = clip.pose is not None and bool(clip.pose.any())
    check_pose(model, loaded, given, strength)
    patched = posed(model, loaded, clip.pose if given else None, strength, like=clip.frames)
    return (patched, *condition(vae, *texts, clip.frames, clip.photo, clip.mask, loaded))


def check_pose(model: Any, loaded: LoadedAdapter, given: bool, strength: float) -> None:
    """Raise BaseModelMismatch for another MODEL, and LikenessError where the pose branch lacks its pictures."""
    adapter = dreamid_v_adapter(loaded)
    check_model(model, adapter)
    if adapter.pose is not None and not given and strength != 0.0:
        raise LikenessError(
            "DreamID-V",
            expected="pose pictures, which the file with the pose branch was trained with",
            found="none",
            cure="connect those of 'DreamID-V Pose Pictures' or of a DWPose node, load dreamidv_faster.pth, or set "
            "pose_strength to 0",
        )


def chunks(count: int, size: int, overlap: int) -> Iterator[tuple[int, int]]:
    """(first, last + 1) of the chunks of ``count`` frames; the last one is moved back so that it is whole."""
    start = 0
    while True:
        end = min(start + size, count)
        yield max(0, end - size), end
        if end == count:
            return
        start = end - overlap


def swap_clip(
    model: Any,
    loaded: LoadedAdapter,
    vae: Any,
    positive: Conditioning,
    negative: Conditioning,
    clip: Clip,
    options: SwapOptions,
) -> tuple[Tensor, str]:
    """Swap the face of a clip.

    Returns:
        Frames (F, H, W, 3), as many and as large as those that came in, and a report.

    Raises:
        HostTooOld, BaseModelMismatch: the host, the model, the VAE or the texts do not fit.
        LikenessError: options that cannot be met, or a file whose pose branch lacks its pictures.
    """
    check_pose(model, loaded, clip.pose is not None, options.pose_strength)
    _check_options(options)
    count, to = len(clip.frames), fit_of(clip, options.area)
    sigmas = official_sigmas(options.steps or STEPS[dreamid_v_adapter(loaded).pose is not None], options.shift)
    parts = list(chunks(count, options.chunk, options.overlap))
    bar = host.progress_bar(len(parts) * (len(sigmas) - 1))
    result = torch.empty_like(clip.frames)
    done = 0
    for start, end in parts:
        part = _part(clip, start, end)
        ready = prepared(part, to)
        patched = posed(model, loaded, ready.pose, options.pose_strength, like=ready.frames)
        seen = condition(vae, positive, negative, ready.frames, ready.photo, ready.mask)
        latent = run(patched, *seen, options.seed, sigmas, options.guidance, lambda: bar.update(1))
        made = _finished(decoded(vae, latent)[: end - start].to(clip.frames), part, to, options)
        _join(result, made, start, done, options.overlap)
        done = end
    return result, _report(to, count, parts, len(sigmas) - 1, options, clip)


def _part(clip: Clip, start: int, end: int) -> Clip:
    mask, pose = (None if each is None else each[start:end] for each in (clip.mask, clip.pose))
    return Clip(clip.frames[start:end], clip.photo, mask, pose)


def _finished(made: Tensor, part: Clip, to: Fit, options: SwapOptions) -> Tensor:
    whole = pictures.restored(made, part.frames, to)
    if not options.inside_mask or part.mask is None:
        return whole
    weight = part.mask[..., None].to(whole)
    return torch.where(weight > 0, torch.lerp(part.frames, whole, weight), part.frames)


def _join(result: Tensor, made: Tensor, start: int, done: int, overlap: int) -> None:
    """Write a chunk; its frames before ``done`` are there already, and the last ``overlap`` of those fade."""
    fade = min(overlap, done - start)
    first = done - start - fade
    if fade:
        weight = (torch.arange(1, fade + 1) / (fade + 1)).to(made)[:, None, None, None]
        result[done - fade : done] = torch.lerp(result[done - fade : done], made[first : first + fade], weight)
    result[done : start + len(made)] = made[done - start :]


def _check_options(options: SwapOptions) -> None:
    if options.chunk % pictures.FRAME_STEP != 1 or not 0 <= options.overlap < options.chunk:
        raise LikenessError(
            "chunks for DreamID-V",
            expected="4n + 1 frames at once, and fewer of them that overlap",
            found=f"{options.chunk} with an overlap of {options.overlap}",
            cure="set chunk_frames to 81 and overlap to 8",
        )


def _report(to: Fit, count: int, parts: list[tuple[int, int]], steps: int, options: SwapOptions, clip: Clip) -> str:
    (height, width), (inner_height, inner_width) = to.source, to.size
    lines = [
        f"frames: {count} in, {count} out, at {width} x {height}; worked on at {inner_width} x {inner_height}",
        f"chunks: {len(parts)} of up to {options.chunk} frames, {steps} steps each, guidance {options.guidance:g} "
        f"(cfg {options.guidance + 1:g})",
        f"mask: {'everywhere' if clip.mask is None else 'as connected'}; "
        f"pose pictures: {'none' if clip.pose is None else 'as connected'}",
    ]
    if to.size != to.resized:
        lines.append("borders beyond whole 16 pixels are those of the clip")
    if len(parts) > 1:
        lines.append("the authors' code stops after its first chunk; further ones are this pack's own")
    return "\n".join(lines)
