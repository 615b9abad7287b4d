"""Around the double blocks of HunyuanVideo: the character's picture goes in, and what the characters hear is added.

Follows ``hymm_sp/modules/models_audio.py`` of Tencent-Hunyuan/HunyuanVideo-Avatar: audio adapter j adds to the video
tokens behind the whole double block ``2 j + 1``; the tokens of the picture, which stand before them, and the text get
nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from ..adapters.errors import PatchIncomplete
from ..adapters.families.hunyuan_avatar.adapter import HunyuanAvatarAdapter
from .block_chain import BlockFunction, called
from .call_state import call_state
from .hunyuan_avatar_call import AvatarCall, avatar_call
from .hunyuan_avatar_character import Character
from .hunyuan_avatar_sound import Speaker
from .shared import Shared

SLOT = "avatar"


class VideoTerm(Protocol):
    """What adds to the video tokens behind a double block."""

    def acts(self, extra: Mapping[str, Any]) -> bool:
        """Whether anything is added at this step."""
        ...

    def added(self, number: int, video: Tensor, call: AvatarCall, extra: Mapping[str, Any]) -> Tensor | None:
        """What is added (B, T n, width), from the block's own video tokens of that shape; None for nothing."""
        ...


@dataclass(frozen=True, eq=False)
class SpeechTerm(Shared):
    """All characters that hear something, through one file's adapters.

    The sounds are put together before the adapter's last layer, which is linear and keeps zeros: each one's part stays
    exactly zero outside its mask.

    Attributes:
        adapter: the file.
        speakers: the characters.
        numbers: adapter by double block.
    """

    adapter: HunyuanAvatarAdapter
    speakers: tuple[Speaker, ...]
    numbers: Mapping[int, int]

    def acts(self, extra: Mapping[str, Any]) -> bool:
        """Whether any character acts at this step."""
        return any(speaker.acts(extra) for speaker in self.speakers)

    def added(self, number: int, video: Tensor, call: AvatarCall, extra: Mapping[str, Any]) -> Tensor | None:
        """What is added behind double block ``number``."""
        index = self.numbers.get(number)
        acting = [speaker for speaker in self.speakers if speaker.acts(extra)]
        if index is None or not acting:
            return None
        q = self.adapter.queries(index, video.unflatten(1, (call.frames, call.frame_tokens)))
        heard = acting[0].heard(index, q, call)
        for speaker in acting[1:]:
            heard = heard + speaker.heard(index, q, call)
        return self.adapter.added(index, heard.flatten(1, 2))


@dataclass(frozen=True, eq=False)
class AvatarBlock(Shared):
    """The replacement of one double block.

    Attributes:
        number: of the block.
        character: whose picture is added before the first block, or None.
        terms: what adds behind the block.
        previous: the replacement of another node that was found there and is still called, or None.
    """

    number: int
    character: Character | None
    terms: tuple[VideoTerm, ...]
    previous: BlockFunction | None = None

    def __call__(self, args: dict[str, Any], block: Mapping[str, Any], **kwargs: Any) -> dict[str, Any]:
        extra: Mapping[str, Any] = args.get("transformer_options") or {}
        call = avatar_call(extra)
        if call is None:
            raise _lost()
        state = call_state(extra)
        if state is not None:
            state.mark(SLOT, self.number)
        if self.character is not None and self.number == 0:
            args = {**args, "img": _with_picture(args["img"], self.character, call)}
        out, own = called(self.previous, args, block, **kwargs)
        image = out["img"]
        video, read = (each[:, call.reference_tokens :] for each in (image, image if own is None else own))
        # Every term reads the block's own tokens and none what another added: their order is of no account.
        parts = [term.added(self.number, read, call, extra) for term in self.terms if term.acts(extra)]
        added = [part for part in parts if part is not None]
        if not added:
            return out
        for part in added:
            video = video + part
        return {**out, "img": _behind(image, video, call.reference_tokens)}


def _with_picture(image: Tensor, character: Character, call: AvatarCall) -> Tensor:
    video = image[:, call.reference_tokens :]
    return _behind(image, video + character.added(video, call.frames), call.reference_tokens)


def _behind(image: Tensor, video: Tensor, count: int) -> Tensor:
    """The first ``count`` tokens of ``image``, then ``video``."""
    return video if not count else torch.cat((image[:, :count], video), dim=1)


def _lost() -> PatchIncomplete:
    return PatchIncomplete(
        "apply HunyuanVideo-Avatar",
        expected="a model call through the wrapper that this node put around the model",
        found="one that went past it",
        cure="remove the node that replaces the model's forward pass, or put it before this one",
    )
