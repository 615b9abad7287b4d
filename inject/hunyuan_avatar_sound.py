"""What the characters of a video hear: keys and values of each one's sound, and where and when it acts."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ..adapters.families.hunyuan_avatar.arch import attend
from ..adapters.families.hunyuan_avatar.face_mask import latent_masks, token_masks
from ..adapters.families.hunyuan_avatar.windows import audio_frames
from ..faces.errors import BadMask
from .hunyuan_avatar_call import AvatarCall
from .masks import checked_mask
from .memo import Memo
from .row_values import Pair
from .rows import POSITIVE
from .schedule import StepRange
from .shared import Shared


class SoundBank(Shared):
    """Keys and values of one track in every adapter, by video frame; the frame behind the last one is silence.

    Args:
        heard: (F, 4, inner) pairs of the track, one for each adapter.
        silence: (1, 4, inner) pairs of no sound.
    """

    def __init__(self, heard: Sequence[Pair], silence: Sequence[Pair]) -> None:
        self._pairs = tuple(
            (torch.cat((k, quiet_k)), torch.cat((v, quiet_v)))
            for (k, v), (quiet_k, quiet_v) in zip(heard, silence, strict=True)
        )
        self._places: Memo[Tensor] = Memo(limit=64)

    @property
    def frames(self) -> int:
        """Video frames with sound."""
        return int(self._pairs[0][0].shape[0]) - 1

    @property
    def bytes(self) -> int:
        """Size of what is kept."""
        return sum(tensor.numel() * tensor.element_size() for pair in self._pairs for tensor in pair)

    def rows(self, index: int, call: AvatarCall, like: Tensor) -> Pair:
        """Keys and values (B, T, 16, inner) of an adapter; negative rows of the batch hear silence."""
        key = (call.pattern, call.batch, call.frames, call.window, call.total, like.device)
        places = self._places.get(key, lambda: self._table(call).to(like.device))
        k, v = (part[places].flatten(2, 3).to(like) for part in self._pairs[index])
        return k, v

    def _table(self, call: AvatarCall) -> Tensor:
        """Numbers (B, T, 4) of video frames."""
        window = range(call.frames) if call.window is None else call.window
        total = call.total or max(window) + 1
        heard = torch.tensor(audio_frames(window, total)).clamp(max=self.frames)
        quiet = torch.full_like(heard, self.frames)
        chunks = torch.stack([heard if row == POSITIVE else quiet for row in call.pattern])
        return chunks.repeat_interleave(call.batch // len(call.pattern), dim=0)


@dataclass(frozen=True, eq=False)
class SoundBanks(Shared):
    """The sounds of one clip, one for each of its tracks."""

    tracks: tuple[SoundBank, ...]


class CharacterMask(Shared):
    """Where a character is.

    Args:
        mask: (H, W) or (F, H, W), 0..1: one for the whole clip, or several, stretched over it in time (nearest).
        size: height and width of the video's latent; a mask of another size is resized to it (bilinear).

    Raises:
        BadMask: empty, not finite, or of other dimensions.
    """

    def __init__(self, mask: Tensor, size: tuple[int, int]) -> None:
        mask = checked_mask(mask)
        same = tuple(mask.shape[-2:]) == size
        # One by one: masks of whole pictures may be large.
        self._mask = mask if same else torch.cat([latent_masks(one[None], *size) for one in mask])
        self._memo: Memo[Tensor] = Memo(limit=64)
        self.digest = hashlib.sha256(self._mask.numpy().tobytes() + repr(tuple(self._mask.shape)).encode()).hexdigest()

    def tokens(self, call: AvatarCall, like: Tensor) -> Tensor:
        """The mask on the tokens of a call: (T, n, 1), typed and placed as ``like``."""
        key = (call.frames, call.grid, call.window, call.total, like.dtype, like.device)
        return self._memo.get(key, lambda: self._tokens(call).to(like))

    def _tokens(self, call: AvatarCall) -> Tensor:
        count = self._mask.shape[0]
        total = call.frames if call.window is None else call.total
        if count == 1 or call.window is None:
            return token_masks(self._mask, call.frames, *call.grid).flatten(1)[..., None]
        if total is None:
            # An older host names the window's frames and not how many the clip has.
            if max(call.window) >= count:
                raise _too_few_masks(count, max(call.window) + 1)
            total = count
        return token_masks(self._mask, total, *call.grid)[list(call.window)].flatten(1)[..., None]


@dataclass(frozen=True, eq=False)
class Speaker(Shared):
    """One character that hears a sound.

    Attributes:
        bank: the sound.
        strength: factor of what it adds.
        steps: the steps in which it acts.
        mask: where the character is, or None for everywhere.
    """

    bank: SoundBank
    strength: float
    steps: StepRange
    mask: CharacterMask | None = None
    scaled: Memo[Tensor] = field(default_factory=lambda: Memo(limit=64))

    def acts(self, extra: Mapping[str, Any]) -> bool:
        """Whether anything is added at this step."""
        return self.strength != 0.0 and self.steps.active(extra)

    def heard(self, index: int, q: Tensor, call: AvatarCall) -> Tensor:
        """What queries ``q`` (B, T, n, inner) take from this sound, exactly zero outside the mask."""
        k, v = self.bank.rows(index, call, q)
        out, factor = attend(q, k, v), self.strength * call.mask_scale
        if self.mask is None:
            return out if factor == 1.0 else out * factor
        return out * self._weights(self.mask, factor, call, q)

    def _weights(self, mask: CharacterMask, factor: float, call: AvatarCall, like: Tensor) -> Tensor:
        if factor == 1.0:
            return mask.tokens(call, like)
        key = (factor, call.frames, call.grid, call.window, call.total, like.dtype, like.device)
        return self.scaled.get(key, lambda: mask.tokens(call, like) * factor)


def _too_few_masks(found: int, needed: int) -> BadMask:
    return BadMask(
        "masks of a character",
        expected=f"one mask, or one for each latent frame of the clip ({needed} or more)",
        found=f"{found}",
        cure="give a single mask, or as many as the clip has latent frames",
    )
