"""Adapter layers inside a diffusers UNet, by hooks: the UNet itself is neither copied nor changed.

The host's UNet works in place and cannot be differentiated, so training needs the UNet of diffusers. A gated layer acts
on the residual stream between self-attention and text attention; the hook adds what the layer changes to the output of
``attn1``, which the block then adds to the stream. FaceID's keys and values act inside ``attn2``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.nn import functional

from ...adapters.errors import BaseModelMismatch
from ...adapters.families.fact.layout import BLOCK_PATHS
from ...adapters.families.ip_adapter_faceid.arch import FaceKeysValues
from ...adapters.layers.attention import attention
from ...adapters.layers.gated_attention import GatedSelfAttention
from .errors import BadOptions


@dataclass(frozen=True, eq=False)
class Increment:
    """What one gated layer did to the residual stream.

    Attributes:
        path: diffusers path of the block.
        stream: (B, N, C) before the layer.
        added: (B, N, C) what the layer added.
    """

    path: str
    stream: Tensor
    added: Tensor


def block_widths(unet: nn.Module) -> dict[str, int]:
    """Width of each of SD1.5's 16 transformer blocks of a diffusers UNet, by path.

    Raises:
        BaseModelMismatch: other transformer blocks than SD1.5's.
    """
    found = {
        path: block for path, block in unet.named_modules() if path.rpartition(".")[0].endswith("transformer_blocks")
    }
    if set(found) != set(BLOCK_PATHS):
        raise BaseModelMismatch(
            "base model",
            expected=f"the {len(BLOCK_PATHS)} transformer blocks of SD1.5",
            found=f"{len(found)} blocks",
            cure="train on a UNet of SD1.5's layout",
        )
    return {path: int(_block(unet, path).attn1.to_q.in_features) for path in BLOCK_PATHS}


def grid_tokens(path: str, height: int, width: int) -> int:
    """Tokens of a transformer block of SD1.5 for latents of a size; every level halves both sides."""
    kind, number = path.split(".")[:2]
    level = 3 if kind == "mid_block" else int(number) if kind == "down_blocks" else 3 - int(number)
    return math.prod(-(-side // 2**level) for side in (height, width))


class _Attached:
    """Hooks in a UNet that can be taken out again."""

    def __init__(self) -> None:
        self._handles: list[Any] = []
        self._tokens: Tensor | None = None
        self._scale: float = 1.0

    @contextmanager
    def reading(self, tokens: Tensor | None, scale: float = 1.0) -> Iterator[None]:
        """Within the block the UNet reads face tokens (B, T, C); None is the plain UNet."""
        before = (self._tokens, self._scale)
        self._tokens, self._scale = tokens, scale
        try:
            yield
        finally:
            self._tokens, self._scale = before

    def close(self) -> None:
        """Take the layers out; the UNet is as before."""
        while self._handles:
            self._handles.pop().remove()


class AttachedGatedLayers(_Attached):
    """FACT's gated layers in a UNet.

    Args:
        unet: a diffusers UNet of SD1.5's layout.
        layers: the gated layer of each block by diffusers path.

    Attributes:
        increments: what the layers did, in the order of the UNet's run.
        closed: paths of layers that do nothing, see `close_coarse`.
    """

    def __init__(self, unet: nn.Module, layers: Mapping[str, GatedSelfAttention]) -> None:
        super().__init__()
        self.increments: list[Increment] = []
        self.closed: frozenset[str] = frozenset()
        self._layers = dict(layers)
        for path, layer in layers.items():
            self._attach(path, _block(unet, path), layer)

    def _attach(self, path: str, block: Any, layer: GatedSelfAttention) -> None:
        entered: list[Tensor] = []

        def before(module: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> None:
            entered[:] = [inputs[0] if inputs else named["hidden_states"]]

        def after(module: nn.Module, inputs: Any, attended: Tensor) -> Tensor | None:
            if self._tokens is None:
                return None
            stream = attended + entered.pop()
            if path in self.closed:
                return None
            keys_values = layer.face_keys_values(self._tokens)
            added = layer(stream, keys_values, self._scale) - stream
            self.increments.append(Increment(path, stream, added))
            return attended + added

        self._handles.append(block.register_forward_pre_hook(before, with_kwargs=True))
        self._handles.append(block.attn1.register_forward_hook(after))

    def close_coarse(self, least_tokens: int, height: int, width: int) -> None:
        """Close the layers whose grid has fewer tokens for latents of this size: gate 0, never trained.

        Their weights stay in the file, so that it keeps the published layout.

        Raises:
            BadOptions: no layer is left.
        """
        self.closed = frozenset(path for path in self._layers if grid_tokens(path, height, width) < least_tokens)
        if len(self.closed) == len(self._layers):
            raise BadOptions(
                "training options",
                expected=f"layers on grids of {least_tokens} or more tokens",
                found=f"latents of {height} x {width}",
                cure="lower least_tokens or take larger pictures",
            )
        for path in self.closed:
            layer = self._layers[path].requires_grad_(False)
            layer.alpha_attn.zero_()
            layer.alpha_dense.zero_()

    def taken_increments(self) -> list[Increment]:
        """What the layers did since the last call, in the order of the UNet's run."""
        taken, self.increments = self.increments, []
        return taken


class AttachedKeysValues(_Attached):
    """FaceID's keys and values beside the text's in every ``attn2`` of a UNet.

    Args:
        unet: a diffusers UNet of SD1.5's layout.
        layers: keys and values of each block by diffusers path.
    """

    def __init__(self, unet: nn.Module, layers: Mapping[str, FaceKeysValues]) -> None:
        super().__init__()
        for path, layer in layers.items():
            self._attach(_block(unet, path).attn2, layer)

    def _attach(self, attn2: Any, layer: FaceKeysValues) -> None:
        def after(module: Any, inputs: tuple[Any, ...], named: dict[str, Any], output: Tensor) -> Tensor | None:
            if self._tokens is None:
                return None
            visual = inputs[0] if inputs else named["hidden_states"]
            k, v = layer(self._tokens)
            seen = attention(module.to_q(visual), k, v, module.heads)
            return output + self._scale * functional.linear(seen, module.to_out[0].weight)

        self._handles.append(attn2.register_forward_hook(after, with_kwargs=True))


def freeze(unet: nn.Module) -> None:
    """The base model is never trained here."""
    unet.requires_grad_(False)
    unet.eval()


def _block(unet: nn.Module, path: str) -> Any:
    return unet.get_submodule(path)


def file_order(paths: Sequence[str]) -> list[str]:
    """Block paths in the order in which diffusers counts them and IP-Adapter files number them: down, up, middle."""
    return sorted(paths, key=lambda path: ("down", "up_b", "mid_").index(path[:4]))
