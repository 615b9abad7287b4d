"""What one forward pass of a speaking HunyuanVideo knows, and the wrapper that finds it out.

The host hands the wrapper (``diffusion_model``) all inputs of the network. What the patched blocks need of them travels
in the options of that one call; the patches themselves never change.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor

from ..adapters.errors import BaseModelMismatch
from ..adapters.families.hunyuan_avatar.guidance import MASK_SCALE
from ..faces.errors import BadImage
from .masks import frame_window
from .rows import row_pattern
from .shared import Shared

if TYPE_CHECKING:
    from .hunyuan_avatar_character import Character

CALL = "likeness_avatar_call"
# The mask of positions that a conditioning carries, and how many tokens it leaves for the blocks.
TEXT_MASK, TEXT_TOKENS = "likeness_avatar_text_mask", "likeness_avatar_text_tokens"


@dataclass(frozen=True, eq=False)
class TextCall:
    """The text of one call.

    Attributes:
        states: (B, L, C) all text states, padding included.
        mask: (B, L) the official mask of positions.
        count: how many of the first tokens the blocks see.
    """

    states: Tensor
    mask: Tensor
    count: int


@dataclass(frozen=True, eq=False)
class AvatarCall(Shared):
    """One forward pass.

    Attributes:
        frames: latent frames of the call.
        grid: height and width of a frame's tokens.
        reference_tokens: how many tokens of the character's picture stand before those of the video.
        pattern: POSITIVE or NEGATIVE for each chunk of the batch.
        batch: rows of the batch.
        window: the clip's frames that this call denoises, or None for all of it.
        total: latent frames of the clip, or None where the host does not say.
        mask_scale: factor of every mask.
        text: the text where it comes with a mask of positions, or None.
    """

    frames: int
    grid: tuple[int, int]
    reference_tokens: int
    pattern: tuple[int, ...]
    batch: int
    window: tuple[int, ...] | None
    total: int | None
    mask_scale: float
    text: TextCall | None

    @property
    def frame_tokens(self) -> int:
        """Tokens of one frame."""
        return self.grid[0] * self.grid[1]


def avatar_call(extra: Mapping[str, Any]) -> AvatarCall | None:
    """What is known of this forward pass, or None where another pack's wrapper dropped it."""
    call = extra.get(CALL)
    return call if isinstance(call, AvatarCall) else None


@functools.cache
def _parameters(function: Any) -> tuple[str, ...]:
    return tuple(inspect.signature(function).parameters)


class _Arguments:
    """Arguments of a call by name, whether they were given by name or by position."""

    def __init__(self, names: tuple[str, ...], given: tuple[Any, ...], named: Mapping[str, Any]) -> None:
        self._names = names
        self.given = list(given)
        self.named = dict(named)

    def get(self, name: str) -> Any:
        if name in self.named:
            return self.named[name]
        place = self._names.index(name) if name in self._names else len(self.given)
        return self.given[place] if place < len(self.given) else None

    def set(self, name: str, value: Any) -> None:
        place = self._names.index(name) if name in self._names else len(self.given)
        if name in self.named or place >= len(self.given):
            self.named[name] = value
        else:
            self.given[place] = value


@dataclass(frozen=True, eq=False)
class AvatarForward(Shared):
    """The host's wrapper around the network of a MODEL.

    Attributes:
        character: the picture that is put into the video, or None.
    """

    character: Character | None

    def __call__(self, executor: Callable[..., Any], *given: Any, **named: Any) -> Any:
        original = getattr(executor.original, "__func__", executor.original)  # type: ignore[attr-defined]
        names = _parameters(original)
        if original is not executor.original:  # type: ignore[attr-defined]
            names = names[1:]
        arguments = _Arguments(names, given, named)
        mask, count = (arguments.named.pop(name, None) for name in (TEXT_MASK, TEXT_TOKENS))
        options = dict(arguments.get("transformer_options") or {})
        x = arguments.get("x")
        text = None if mask is None or count is None else _taken_text(arguments, mask, count)
        options[CALL] = self._call(x, options, text)
        if self.character is not None:
            if arguments.get("ref_latent") is not None:
                raise _two_references()
            arguments.set("ref_latent", self.character.first_frame(x))
        arguments.set("transformer_options", options)
        return executor(*arguments.given, **arguments.named)

    def _call(self, x: Tensor, options: Mapping[str, Any], text: TextCall | None) -> AvatarCall:
        frames, height, width = x.shape[-3:]
        if self.character is not None and self.character.size != (height, width):
            raise _other_size(self.character.size, (height, width))
        grid = (height // 2, width // 2)
        window = frame_window(options)
        pattern, _ = row_pattern(options, x.shape[0])
        return AvatarCall(
            frames=frames,
            grid=grid,
            reference_tokens=0 if self.character is None else grid[0] * grid[1],
            pattern=pattern,
            batch=x.shape[0],
            window=window,
            total=frames if window is None else getattr(options.get("context_window"), "total_frames", None),
            mask_scale=float(options.get(MASK_SCALE, 1.0)),
            text=text,
        )


def _taken_text(arguments: _Arguments, mask: Tensor, count: int) -> TextCall:
    """Leave the first tokens of the text for the blocks, all of them for the refiner."""
    states = arguments.get("context")
    arguments.set("context", states[:, :count])
    return TextCall(states, mask, count)


def _other_size(picture: tuple[int, int], video: tuple[int, int]) -> BadImage:
    return BadImage(
        "character picture",
        expected=f"a latent of the video's size, {video[1]} x {video[0]} cells",
        found=f"{picture[1]} x {picture[0]}",
        cure="resize the picture to the size of the video before 'VAE Encode'",
    )


def _two_references() -> BaseModelMismatch:
    return BaseModelMismatch(
        "apply HunyuanVideo-Avatar",
        expected="conditioning without a reference latent",
        found="one that another node put there",
        cure="remove that node: the character's picture goes into 'Apply HunyuanVideo-Avatar'",
    )
