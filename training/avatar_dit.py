"""HunyuanVideo's transformer as a module that can be differentiated, under the names of the official checkpoint.

ComfyUI's own one adds in place to tensors that gradients need, so that nothing inside it can be trained through it.
Facts: ``hymm_sp/modules/models_audio.py``, ``token_refiner.py``, ``modulate_layers.py`` and ``posemb_layers.py`` of
Tencent-Hunyuan/HunyuanVideo-Avatar. Computes in the dtype of its inputs, rotations in float32.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from ..adapters.families.hunyuan_avatar.arch import NumberEmbedder, PatchEmbed
from ..adapters.layers.casting import LayerNorm, Linear
from .avatar_dit_sizes import DitSizes

EPS = 1e-6
THETA = 256.0
REFINERS = 2

# What is put behind a double block: its number and the picture's tokens (B, N, width), to the tokens that go on.
After = Callable[[int, Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class Text:
    """What the transformer is told in words.

    Attributes:
        states: (B, L, text).
        mask: (B, L), 1 where a state counts in the refiner; the blocks take as many of the first as it sums to.
        pooled: (B, pooled).
    """

    states: Tensor
    mask: Tensor
    pooled: Tensor


@dataclass(frozen=True, eq=False)
class Character:
    """What HunyuanVideo-Avatar is given besides, all optional.

    Attributes:
        latents: of the reference picture (B, C, 1, H, W): tokens at the time before the first.
        added: to the video's tokens (B, T n, width).
        motion: added to the modulation vector (B, width).
    """

    latents: Tensor | None = None
    added: Tensor | None = None
    motion: Tensor | None = None


def rotations(frames: range, height: int, width: int, axes: tuple[int, int, int], device: torch.device) -> Tensor:
    """Rotations (N, D / 2) as complex numbers of the tokens of ``frames``, rows and columns, frames slowest."""
    parts = []
    places = torch.meshgrid(
        *(
            torch.tensor(list(side), dtype=torch.float32, device=device)
            for side in (frames, range(height), range(width))
        ),
        indexing="ij",
    )
    for place, size in zip(places, axes, strict=True):
        frequencies = THETA ** -(torch.arange(0, size, 2, dtype=torch.float32, device=device) / size)
        parts.append(place.flatten()[:, None] * frequencies)
    angles = torch.cat(parts, dim=-1)
    return torch.polar(torch.ones_like(angles), angles)


def rotated(x: Tensor, rotation: Tensor) -> Tensor:
    """Turn the first tokens of ``x`` (B, heads, N, D), as many as there are rotations; the others stay."""
    count = len(rotation)
    turned = torch.view_as_complex(x[:, :, :count].float().unflatten(-1, (-1, 2))) * rotation
    return torch.cat((torch.view_as_real(turned).flatten(-2).to(x), x[:, :, count:]), dim=2)


def _plain_norm(x: Tensor) -> Tensor:
    return functional.layer_norm(x, x.shape[-1:], eps=EPS)


def _heads(x: Tensor, heads: int) -> tuple[Tensor, ...]:
    """(B, N, 3 C) to three of (B, heads, N, C / heads)."""
    return x.unflatten(-1, (3, heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)


def _attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    return functional.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2).flatten(2)


class Mlp(nn.Module):
    """Two linear layers."""

    def __init__(self, width: int, inner: int, act: nn.Module) -> None:
        super().__init__()
        self.fc1 = Linear(width, inner)
        self.act = act
        self.fc2 = Linear(inner, width)

    def forward(self, x: Tensor) -> Tensor:
        return torch.as_tensor(self.fc2(self.act(self.fc1(x))))


class Modulation(nn.Module):
    """The vector (B, width) to ``parts`` of (B, 1, width)."""

    def __init__(self, width: int, parts: int) -> None:
        super().__init__()
        self.linear = Linear(width, parts * width)
        self.parts = parts

    def forward(self, vector: Tensor) -> tuple[Tensor, ...]:
        told: Tensor = self.linear(functional.silu(vector))
        return told[:, None].chunk(self.parts, dim=-1)


class RefinerBlock(nn.Module):
    """Self-attention among the text's states."""

    def __init__(self, sizes: DitSizes) -> None:
        super().__init__()
        self.heads = sizes.heads
        self.norm1 = LayerNorm(sizes.width, eps=EPS)
        self.self_attn_qkv = Linear(sizes.width, 3 * sizes.width)
        self.self_attn_proj = Linear(sizes.width, sizes.width)
        self.norm2 = LayerNorm(sizes.width, eps=EPS)
        self.mlp = Mlp(sizes.width, sizes.ratio * sizes.width, nn.SiLU())
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), Linear(sizes.width, 2 * sizes.width))

    def forward(self, x: Tensor, vector: Tensor, mask: Tensor) -> Tensor:
        first, second = self.adaLN_modulation(vector)[:, None].chunk(2, dim=-1)
        q, k, v = _heads(self.self_attn_qkv(self.norm1(x)), self.heads)
        x = x + self.self_attn_proj(_attend(q, k, v, mask)) * first
        return torch.as_tensor(x + self.mlp(self.norm2(x)) * second)


class TextEmbedder(nn.Module):
    """Two linear layers with SiLU between, for the mean of the text."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.linear_1 = Linear(inputs, width)
        self.linear_2 = Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return torch.as_tensor(self.linear_2(functional.silu(self.linear_1(x))))


class Refiner(nn.Module):
    """Text states (B, L, text) to tokens (B, L, width)."""

    def __init__(self, sizes: DitSizes) -> None:
        super().__init__()
        self.input_embedder = Linear(sizes.text, sizes.width)
        self.t_embedder = NumberEmbedder(sizes.width)
        self.c_embedder = TextEmbedder(sizes.text, sizes.width)
        self.individual_token_refiner = nn.Module()
        self.individual_token_refiner.blocks = nn.ModuleList(RefinerBlock(sizes) for _ in range(REFINERS))

    def forward(self, states: Tensor, mask: Tensor, t: Tensor) -> Tensor:
        weight = mask.to(states)[..., None]
        vector = self.t_embedder(t).to(states) + self.c_embedder((states * weight).sum(1) / weight.sum(1))
        known = mask.bool()
        seen = known[:, None, None, :] & known[:, None, :, None]
        # The first state is open to all, so that no row of the softmax is empty.
        seen = seen | (torch.arange(mask.shape[1], device=mask.device) == 0)
        x = self.input_embedder(states)
        for block in self.individual_token_refiner.get_submodule("blocks").children():
            x = block(x, vector, seen)
        return torch.as_tensor(x)


class DoubleBlock(nn.Module):
    """Picture and text with weights of their own and one attention."""

    def __init__(self, sizes: DitSizes) -> None:
        super().__init__()
        self.heads = sizes.heads
        for side in ("img", "txt"):
            self.add_module(f"{side}_mod", Modulation(sizes.width, 6))
            self.add_module(f"{side}_attn_qkv", Linear(sizes.width, 3 * sizes.width))
            self.add_module(f"{side}_attn_q_norm", nn.RMSNorm(sum(sizes.axes), eps=EPS))
            self.add_module(f"{side}_attn_k_norm", nn.RMSNorm(sum(sizes.axes), eps=EPS))
            self.add_module(f"{side}_attn_proj", Linear(sizes.width, sizes.width))
            self.add_module(f"{side}_mlp", Mlp(sizes.width, sizes.ratio * sizes.width, nn.GELU("tanh")))

    def _part(self, name: str, *inputs: Tensor) -> Tensor:
        return torch.as_tensor(self.get_submodule(name)(*inputs))

    def _queries(self, side: str, x: Tensor, shift: Tensor, scale: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v = _heads(self._part(f"{side}_attn_qkv", _plain_norm(x) * (1 + scale) + shift), self.heads)
        return self._part(f"{side}_attn_q_norm", q), self._part(f"{side}_attn_k_norm", k), v

    def forward(
        self, image: Tensor, text: Tensor, vector: Tensor, rotation: Tensor, mask: Tensor
    ) -> tuple[Tensor, Tensor]:
        told = {side: self.get_submodule(f"{side}_mod")(vector) for side in ("img", "txt")}
        parts = [self._queries(side, x, *told[side][:2]) for side, x in (("img", image), ("txt", text))]
        q, k, v = (torch.cat(pair, dim=2) for pair in zip(*parts, strict=True))
        found = _attend(rotated(q, rotation), rotated(k, rotation), v, mask)
        shares = found.split((image.shape[1], text.shape[1]), dim=1)
        image, text = (
            self._rest(side, x, share, told[side])
            for side, x, share in zip(("img", "txt"), (image, text), shares, strict=True)
        )
        return image, text

    def _rest(self, side: str, x: Tensor, found: Tensor, told: tuple[Tensor, ...]) -> Tensor:
        _, _, first, shift, scale, second = told
        x = x + self._part(f"{side}_attn_proj", found) * first
        return x + self._part(f"{side}_mlp", _plain_norm(x) * (1 + scale) + shift) * second


class SingleBlock(nn.Module):
    """Picture and text in one sequence."""

    def __init__(self, sizes: DitSizes) -> None:
        super().__init__()
        self.heads, self.width = sizes.heads, sizes.width
        self.linear1 = Linear(sizes.width, (3 + sizes.ratio) * sizes.width)
        self.linear2 = Linear((1 + sizes.ratio) * sizes.width, sizes.width)
        self.q_norm = nn.RMSNorm(sum(sizes.axes), eps=EPS)
        self.k_norm = nn.RMSNorm(sum(sizes.axes), eps=EPS)
        self.modulation = Modulation(sizes.width, 3)

    def forward(self, x: Tensor, vector: Tensor, rotation: Tensor, mask: Tensor) -> Tensor:
        shift, scale, gate = self.modulation(vector)
        both: Tensor = self.linear1(_plain_norm(x) * (1 + scale) + shift)
        joined, inner = both.split((3 * self.width, both.shape[-1] - 3 * self.width), dim=-1)
        q, k, v = _heads(joined, self.heads)
        found = _attend(rotated(self.q_norm(q), rotation), rotated(self.k_norm(k), rotation), v, mask)
        out = self.linear2(torch.cat((found, functional.gelu(inner, approximate="tanh")), dim=-1))
        return torch.as_tensor(x + out * gate)


class FinalLayer(nn.Module):
    """Tokens (B, N, width) to patches (B, N, 4 channels)."""

    def __init__(self, sizes: DitSizes) -> None:
        super().__init__()
        self.linear = Linear(sizes.width, 4 * sizes.channels)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), Linear(sizes.width, 2 * sizes.width))

    def forward(self, x: Tensor, vector: Tensor) -> Tensor:
        shift, scale = self.adaLN_modulation(vector)[:, None].chunk(2, dim=-1)
        return torch.as_tensor(self.linear(_plain_norm(x) * (1 + scale) + shift))


class PooledEmbedder(nn.Module):
    """The pooled text (B, pooled) to (B, width)."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.in_layer = Linear(inputs, width)
        self.out_layer = Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return torch.as_tensor(self.out_layer(functional.silu(self.in_layer(x))))


class VideoDit(nn.Module):
    """HunyuanVideo without guidance embedder, as HunyuanVideo-Avatar has it.

    Args:
        sizes: widths and depths.
        save_memory: compute each block again in the backward pass instead of keeping what is inside it.
    """

    def __init__(self, sizes: DitSizes, save_memory: bool = False) -> None:
        super().__init__()
        self.sizes = sizes
        self.save_memory = save_memory
        self.img_in = PatchEmbed(sizes.channels, sizes.width)
        self.txt_in = Refiner(sizes)
        self.time_in = NumberEmbedder(sizes.width)
        self.vector_in = PooledEmbedder(sizes.pooled, sizes.width)
        self.double_blocks = nn.ModuleList(DoubleBlock(sizes) for _ in range(sizes.double))
        self.single_blocks = nn.ModuleList(SingleBlock(sizes) for _ in range(sizes.single))
        self.final_layer = FinalLayer(sizes)

    def forward(
        self, x: Tensor, t: Tensor, text: Text, character: Character | None = None, after: After | None = None
    ) -> Tensor:
        """The velocity (B, C, T, H, W), noise minus data.

        Args:
            x: noisy scaled latents (B, C, T, H, W), H and W even.
            t: noise level times 1000, (B,).
            text: what is told in words.
            character: what HunyuanVideo-Avatar is given besides.
            after: what is put behind each double block; it sees the video's tokens alone.
        """
        character = character or Character()
        vector = self.time_in(t) + self.vector_in(text.pooled)
        vector = (vector if character.motion is None else vector + character.motion).to(x)
        image = self.img_in(x)
        image = image if character.added is None else image + character.added
        count, (frames, high, wide) = image.shape[1], (x.shape[2], x.shape[3] // 2, x.shape[4] // 2)
        first = 0
        if character.latents is not None:
            image, first = torch.cat((self.img_in(character.latents), image), dim=1), -1
        rotation = rotations(range(first, frames), high, wide, self.sizes.axes, x.device)
        words = self.txt_in(text.states, text.mask, t)
        valid = torch.arange(words.shape[1], device=x.device) < text.mask.sum(1, keepdim=True)
        mask = functional.pad(valid, (image.shape[1], 0), value=True)[:, None, None]
        image = self._through(image, words, vector, rotation, mask, count, after)
        out = self.final_layer(image[:, image.shape[1] - count :], vector)
        blocks = out.unflatten(1, (frames, high, wide)).unflatten(-1, (self.sizes.channels, 2, 2))
        return torch.as_tensor(blocks.permute(0, 4, 1, 2, 5, 3, 6).flatten(5).flatten(3, 4))

    def _through(
        self,
        image: Tensor,
        words: Tensor,
        vector: Tensor,
        rotation: Tensor,
        mask: Tensor,
        count: int,
        after: After | None,
    ) -> Tensor:
        ahead, total = image.shape[1] - count, image.shape[1]
        for number, block in enumerate(self.double_blocks):
            image, words = self._run(block, image, words, vector, rotation, mask)
            if after is not None:
                image = torch.cat((image[:, :ahead], after(number, image[:, ahead:])), dim=1)
        joined = torch.cat((image, words), dim=1)
        for block in self.single_blocks:
            joined = self._run(block, joined, vector, rotation, mask)
        return torch.as_tensor(joined[:, :total])

    def _run(self, block: nn.Module, *inputs: Tensor) -> Any:
        if self.save_memory and torch.is_grad_enabled():
            return checkpoint(block, *inputs, use_reentrant=False)
        return block(*inputs)
