"""DreamID's two UNets as networks that can be trained, which the host's, computing in place, cannot.

They are diffusers' ``UNet2DConditionModel``, with this project's own attention: SwapNet reads the tokens that FaceNet
saw beside its own, and the identity's keys and values beside the text's. The saved file has the original names.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..adapters.families.dreamid.arch import GUIDER_CHANNELS, DreamIdNetwork
from ..adapters.families.dreamid.layout import FACENET, SWAPNET, Sizes, is_dead
from ..adapters.layers.attention import attention
from ..adapters.strict_load import load_strictly
from .dreamid_names import to_diffusers, to_original
from .packages import diffusers
from .seeds import generator_for

GROUPS = 32


@dataclass(frozen=True, eq=False)
class Conditions:
    """What SwapNet is told of B swaps.

    Attributes:
        target: (B, 4, h, w) latents of the pictures whose face is replaced, scaled as the UNet sees them.
        source: (B, 4, h', w') the same of the source pictures.
        embedding: (B, D) unit embeddings of the source faces.
        landmarks: (B, 3, 8h, 8w) landmark pictures, 0..1.
        text: (1, T, C) the constant prompt.
    """

    target: Tensor
    source: Tensor
    embedding: Tensor
    landmarks: Tensor
    text: Tensor


class _SelfAttention:
    """Processor of one attn1 of FaceNet (``reads`` None: notes what it is given) or SwapNet (reads the other's note).

    The note lasts until the next forward pass of FaceNet, so that checkpointed blocks find it when they run again.
    """

    def __init__(self, reads: _SelfAttention | None = None) -> None:
        self.reads = reads
        self.note: Tensor | None = None

    def __call__(self, layer: Any, hidden_states: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        seen = hidden_states
        if self.reads is None:
            self.note = hidden_states
        elif self.reads.note is not None:
            seen = torch.cat([hidden_states, self.reads.note], dim=1)
        out = attention(layer.to_q(hidden_states), layer.to_k(seen), layer.to_v(seen), layer.heads)
        result: Tensor = layer.to_out[0](out)
        return result


class _CrossAttention:
    """Processor of one attn2: text, and beside it the identity's keys and values where there are any."""

    def __init__(self) -> None:
        self.identity: tuple[Tensor, Tensor] | None = None

    def __call__(
        self, layer: Any, hidden_states: Tensor, encoder_hidden_states: Tensor, *args: Any, **kwargs: Any
    ) -> Tensor:
        q, text = layer.to_q(hidden_states), encoder_hidden_states
        out = attention(q, layer.to_k(text), layer.to_v(text), layer.heads)
        if self.identity is not None:
            out = out + attention(q, *self.identity, layer.heads)
        result: Tensor = layer.to_out[0](out)
        return result


class SwapModel(nn.Module):
    """SwapNet, FaceNet, identity tokens and pose guider.

    Args:
        sizes: of everything.
        head_channels: channels of an attention head.
    """

    def __init__(self, sizes: Sizes, head_channels: int) -> None:
        super().__init__()
        self.sizes = sizes
        self.head_channels = head_channels
        self.swapnet = _unet(sizes, head_channels, 8)
        self.facenet = _unet(sizes, head_channels, 4)
        self.added = DreamIdNetwork(
            sizes.embedding, sizes.tokens, sizes.context, sizes.widths, sizes.guider, sizes.levels[0], (nn, nn)
        )
        self._notes = _set_attention(self.facenet, None)
        _set_attention(self.swapnet, self._notes)
        self._pose: Tensor | None = None
        self.swapnet.conv_in.register_forward_hook(self._with_pose)

    def forward(self, noisy: Tensor, timesteps: Tensor, conditions: Conditions) -> Tensor:
        """What SwapNet predicts for noisy latents (B, 4, h, w) at timesteps (B,): (B, 4, h, w)."""
        self.read_source(conditions)
        return self.predict(noisy, timesteps, conditions)

    def read_source(self, conditions: Conditions) -> None:
        """Run FaceNet once, and project identity and landmarks; what follows reads the results."""
        rows = len(conditions.source)
        text = conditions.text.expand(rows, -1, -1)
        times = torch.zeros(rows, dtype=torch.long, device=text.device)
        self.facenet(conditions.source, times, encoder_hidden_states=text)
        tokens = self.added.image_proj(conditions.embedding)
        for processor, layer in zip(_cross_attention(self.swapnet), self.added.layers(), strict=True):
            processor.identity = layer(tokens)
        self._pose = self.added.pose_guider(conditions.landmarks)

    def predict(self, noisy: Tensor, timesteps: Tensor, conditions: Conditions) -> Tensor:
        """As ``forward``, after `read_source`."""
        text = conditions.text.expand(len(noisy), -1, -1)
        seen = torch.cat([noisy, conditions.target], dim=1)
        predicted: Tensor = self.swapnet(seen, timesteps, encoder_hidden_states=text).sample
        return predicted

    def checkpoint_gradients(self) -> None:
        """Compute blocks again in the backward pass instead of keeping what they made."""
        for unet in (self.swapnet, self.facenet):
            unet.enable_gradient_checkpointing()

    def trained(self) -> list[nn.Parameter]:
        """Every parameter on which the loss depends."""
        dead = {id(one) for name, one in self.facenet.named_parameters() if _is_dead(name)}
        return [one for one in self.parameters() if id(one) not in dead]

    def file_tensors(self, dtype: torch.dtype) -> dict[str, Tensor]:
        """All tensors of a file, under its names; what nothing reads is left out."""
        tensors = {SWAPNET + name: one for name, one in to_original(self.swapnet.state_dict()).items()}
        facenet = to_original(self.facenet.state_dict())
        tensors |= {FACENET + name: one for name, one in facenet.items() if not is_dead(name)}
        tensors |= self.added.state_dict()
        return {name: one.detach().to("cpu", dtype) for name, one in tensors.items()}

    def load_file_tensors(
        self, swapnet: Mapping[str, Tensor], facenet: Mapping[str, Tensor], added: Mapping[str, Tensor]
    ) -> None:
        """Take the tensors of a file, UNets under their original names. Raises KeyMismatch."""
        load_strictly(self.swapnet, to_diffusers(swapnet), what="swapnet")
        load_strictly(self.facenet, to_diffusers(facenet), what="facenet")
        load_strictly(self.added, added, what="identity tokens and pose guider")

    def _with_pose(self, layer: nn.Module, inputs: Any, output: Tensor) -> Tensor:
        return output if self._pose is None else output + self._pose

    @contextmanager
    def plain(self) -> Iterator[None]:
        """Within the block SwapNet is the base UNet: no source, no identity, no landmarks."""
        notes = [one.note for one in self._notes]
        pose, self._pose = self._pose, None
        crosses = _cross_attention(self.swapnet)
        identities = [one.identity for one in crosses]
        try:
            for one in self._notes:
                one.note = None
            for cross in crosses:
                cross.identity = None
            yield
        finally:
            self._pose = pose
            for one, note in zip(self._notes, notes, strict=True):
                one.note = note
            for cross, identity in zip(crosses, identities, strict=True):
                cross.identity = identity


def started(base: Mapping[str, Tensor], head_channels: int, embedding: int, tokens: int, seed: int) -> SwapModel:
    """A model that starts from a base UNet of Stable Diffusion 2.1's layout (original names).

    FaceNet is its copy. SwapNet is its copy with four more input channels of zeros. The identity's keys and values
    start as those of the text, and the pose guider's last convolution at zero.
    """
    sizes = _sizes(base, embedding, tokens)
    model = SwapModel(sizes, head_channels)
    first = base["input_blocks.0.0.weight"]
    wider = {**base, "input_blocks.0.0.weight": torch.cat([first, torch.zeros_like(first)], dim=1)}
    load_strictly(model.swapnet, to_diffusers(wider), what="base UNet")
    load_strictly(model.facenet, to_diffusers(base), what="base UNet")
    fill_seeded(model.added, seed)
    with torch.no_grad():
        for layer, text in zip(model.added.layers(), _attentions(model.swapnet, "attn2"), strict=True):
            layer.to_k_ip.weight.copy_(text.to_k.weight)
            layer.to_v_ip.weight.copy_(text.to_v.weight)
        for parameter in model.added.pose_guider.conv_out.parameters():
            parameter.zero_()
    return model


def random_base(levels: Sequence[int], context: int, head_channels: int, seed: int) -> dict[str, Tensor]:
    """The weights of a base UNet that was never trained, under its original names; for tests and trials."""
    sizes = Sizes(tuple(levels), context, 512, 4, GUIDER_CHANNELS)
    unet = _unet(sizes, head_channels, 4)
    fill_seeded(unet, seed)
    return to_original({name: one.detach().clone() for name, one in unet.state_dict().items()})


def fill_seeded(module: nn.Module, seed: int) -> None:
    """Start a module as torch would, but from ``seed`` alone."""
    generator = generator_for(seed, "weights")
    with torch.no_grad():
        for layer in module.modules():
            if isinstance(layer, (nn.Linear, nn.Conv2d)):
                limit = 1 / math.sqrt(layer.weight[0].numel())
                for parameter in (layer.weight, layer.bias):
                    if parameter is not None:
                        parameter.uniform_(-limit, limit, generator=generator)
            elif isinstance(layer, (nn.GroupNorm, nn.LayerNorm)):
                layer.weight.fill_(1)
                layer.bias.zero_()


def _sizes(base: Mapping[str, Tensor], embedding: int, tokens: int) -> Sizes:
    levels = tuple(base[f"input_blocks.{number}.0.out_layers.3.weight"].shape[0] for number in (1, 4, 7, 10))
    context = base["input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight"].shape[1]
    return Sizes(levels, context, embedding, tokens, GUIDER_CHANNELS)


def _unet(sizes: Sizes, head_channels: int, inputs: int) -> Any:
    """A UNet whose weights are still to be filled: torch's own random start would take seconds and be lost."""
    attends = ("CrossAttnDownBlock2D",) * 3, ("CrossAttnUpBlock2D",) * 3
    with torch.device("meta"):
        unet = diffusers().UNet2DConditionModel(
            in_channels=inputs,
            out_channels=4,
            down_block_types=(*attends[0], "DownBlock2D"),
            up_block_types=("UpBlock2D", *attends[1]),
            block_out_channels=tuple(sizes.levels),
            layers_per_block=2,
            cross_attention_dim=sizes.context,
            # Despite its name diffusers takes the number of heads here.
            attention_head_dim=[width // head_channels for width in sizes.levels],
            use_linear_projection=True,
            norm_num_groups=GROUPS,
        )
    return unet.to_empty(device="cpu")


def _attentions(unet: Any, kind: str) -> list[Any]:
    """The 16 layers attn1 or attn2 in file order: down, up, middle."""
    blocks = [*unet.down_blocks, *unet.up_blocks, unet.mid_block]
    found = [one for block in blocks for one in getattr(block, "attentions", ())]
    return [getattr(one.transformer_blocks[0], kind) for one in found]


def _set_attention(unet: Any, reads: Sequence[_SelfAttention] | None) -> list[_SelfAttention]:
    layers = _attentions(unet, "attn1")
    made = [_SelfAttention(one) for one in reads] if reads is not None else [_SelfAttention() for _ in layers]
    for layer, processor in zip(layers, made, strict=True):
        layer.set_processor(processor)
    for layer in _attentions(unet, "attn2"):
        layer.set_processor(_CrossAttention())
    return made


def _cross_attention(unet: Any) -> list[_CrossAttention]:
    return [layer.processor for layer in _attentions(unet, "attn2")]


def _is_dead(name: str) -> bool:
    return is_dead(next(iter(to_original({name: torch.empty(0)}))))
