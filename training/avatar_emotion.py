"""Training of the emotion module (AEM) of HunyuanVideo-Avatar, since its authors published none.

The loss is the model's own, flow matching: at noise level s the transformer sees ``s * noise + (1 - s) * latents`` and
is to tell ``noise - latents`` (Chen et al. 2025, arXiv:2505.20156). Everything but the emotion module stays as it is.
Gates start at zero, so that a fresh module changes nothing, and learn faster than the rest.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..adapters.families.avatar_emotion.arch import EmotionNetwork, EmotionSizes
from ..adapters.families.avatar_emotion.layout import BASE, EmotionFacts
from ..adapters.families.hunyuan_avatar.adapter import EXPRESSION, FPS, POSE
from ..adapters.families.hunyuan_avatar.arch import BUCKETS, AvatarNetwork, grouped
from ..adapters.families.hunyuan_avatar.face_mask import token_masks
from ..adapters.families.hunyuan_avatar.guidance import FLOW_SHIFT
from ..faces.errors import LikenessError
from .avatar_clips import Clips, EmotionClip
from .avatar_dit import After, Character, Text, VideoDit
from .checkpointing import write_model
from .loop import TOTAL, LoopOptions, OnStep, train
from .seeds import generator_for


class BadEmotionOptions(LikenessError):
    """Training options that fit nothing."""


@dataclass(frozen=True)
class EmotionOptions:
    """Sizes of the module and how it is trained.

    Attributes:
        seed: of everything random.
        batch: clips in a step.
        inner, heads, emotion_width: see `EmotionSizes`.
        gate_rate: factor of the learning rate for the gates.
    """

    seed: int = 0
    batch: int = 1
    inner: int = 1024
    heads: int = 8
    emotion_width: int = 1024
    gate_rate: float = 10.0

    def __post_init__(self) -> None:
        if min(self.batch, self.inner, self.heads, self.emotion_width) < 1 or self.inner % self.heads:
            raise BadEmotionOptions(
                "emotion training",
                expected="sizes above 0 and an inner width that the heads divide",
                found=f"batch {self.batch}, inner {self.inner}, heads {self.heads}, tokens {self.emotion_width}",
                cure="keep the defaults where you are not sure",
            )


class AvatarBase:
    """The frozen model: HunyuanVideo's transformer, with HunyuanVideo-Avatar's own parts where they are given.

    Args:
        dit: the transformer.
        added: what HunyuanVideo-Avatar adds to it, or None for the transformer alone.
    """

    def __init__(self, dit: VideoDit, added: AvatarNetwork | None = None) -> None:
        self.dit = dit.eval().requires_grad_(False)
        self.added = None if added is None else added.eval().requires_grad_(False)

    @property
    def device(self) -> torch.device:
        """Where it is."""
        return self.dit.final_layer.linear.weight.device

    @property
    def dtype(self) -> torch.dtype:
        """In what it computes."""
        return self.dit.final_layer.linear.weight.dtype

    def velocity(self, clip: EmotionClip, x: Tensor, level: Tensor, emotion: After | None) -> Tensor:
        """What the model tells (1, 16, T, H, W).

        Args:
            clip: text, reference, sound and mask.
            x: noisy latents (1, 16, T, H, W).
            level: noise level (1,), 0..1.
            emotion: what the emotion module adds behind a double block, or None.
        """
        states, pooled = (self._placed(part) for part in (clip.text_states, clip.pooled))
        text = Text(states, clip.text_mask[None].to(self.device), pooled)
        sound = self._sound(clip)

        def after(number: int, video: Tensor) -> Tensor:
            out = video if sound is None else video + sound(number, video)
            return out if emotion is None else out + emotion(number, video)

        return self.dit(x.to(self.dtype), 1000 * level, text, self._character(clip, x.shape[2]), after)

    def _placed(self, tensor: Tensor) -> Tensor:
        return tensor[None].to(self.device, self.dtype)

    def _character(self, clip: EmotionClip, frames: int) -> Character:
        reference = None if clip.reference is None else self._placed(clip.reference)
        if self.added is None:
            return Character(reference)
        expression, pose = (torch.full((1, BUCKETS), float(n), device=self.device) for n in (EXPRESSION, POSE))
        motion = self.added.motion(expression, pose, torch.tensor([FPS], device=self.device))
        if reference is None:
            return Character(None, None, motion)
        still = reference.expand(-1, -1, frames, -1, -1)
        return Character(reference, self.added.reference(still), motion)

    def _sound(self, clip: EmotionClip) -> After | None:
        """What the audio adapters add; a clip without sound has none, and no silence either."""
        if self.added is None or clip.audio is None:
            return None
        tokens = grouped(self.added.audio_proj(self._placed(clip.audio)))
        frames, (high, wide) = tokens.shape[1], clip.latents.shape[-2:]
        masks = torch.ones(1, high, wide) if clip.face_mask is None else clip.face_mask
        mask = token_masks(masks, frames, high // 2, wide // 2).flatten().to(self.device, self.dtype)[:, None]
        adapters = dict(zip(range(1, 2 * len(self.added.adapters), 2), self.added.adapters, strict=True))

        def added(number: int, video: Tensor) -> Tensor:
            if number not in adapters:
                return torch.zeros_like(video)
            heard = adapters[number](tokens, video.unflatten(1, (frames, -1)))
            return torch.as_tensor(heard.flatten(1, 2) * mask)

        return added


def emotion_after(network: EmotionNetwork, emotion: Tensor) -> After:
    """What a module adds behind double blocks for the latents (16, 1, h, w) of an emotion's picture."""
    tokens = network.tokens(emotion[None])
    modules = dict(zip(range(1, 2 * len(network.attentions), 2), network.attentions, strict=True))

    def added(number: int, video: Tensor) -> Tensor:
        if number not in modules:
            return torch.zeros_like(video)
        return modules[number](video, *modules[number].keys_values(tokens))

    return added


def clip_loss(
    base: AvatarBase, network: EmotionNetwork | None, clip: EmotionClip, generator: torch.Generator
) -> Tensor:
    """The loss on one clip, at a noise level and with noise drawn from ``generator``; None leaves the emotion out."""
    latents = clip.latents[None].to(base.device)
    noise = torch.randn(clip.latents.shape, generator=generator)[None].to(latents)
    even = torch.rand((1,), generator=generator).to(latents)
    # Levels are as dense as the sampler's, whose line is bent towards noise.
    level = FLOW_SHIFT * even / (1 + (FLOW_SHIFT - 1) * even)
    emotion = None if network is None else emotion_after(network, clip.emotion.to(base.device, base.dtype))
    told = base.velocity(clip, level * noise + (1 - level) * latents, level, emotion)
    return functional.mse_loss(told.float(), noise - latents)


class EmotionTask:
    """The task; see `loop.Task`.

    Args:
        clips: encoded clips.
        base: the frozen model.
        options: what to train.
    """

    network: EmotionNetwork

    def __init__(self, clips: Clips, base: AvatarBase, options: EmotionOptions) -> None:
        self.clips = clips
        self.base = base
        self.emotion = options
        self.network = fresh_network(options, base).to(base.device)
        self.options: Mapping[str, Any] = {"task": "avatar_emotion", "clips": len(clips), **asdict(options)}

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Weights of layers decay; norms, biases and gates do not, and gates learn faster."""
        gates = [block.gate.weight for block in self.network.attentions]
        decaying = [module.weight for module in self.network.modules() if isinstance(module, nn.Linear)]
        known = {id(one) for one in (*gates, *decaying)}
        others = [one for one in self.network.parameters() if id(one) not in known]
        plain = {"weight_decay": 0.0}
        return [
            {"params": decaying},
            {"params": others, **plain},
            {"params": gates, "lr": self.emotion.gate_rate, **plain},
        ]

    def losses(self, step: int) -> dict[str, Tensor]:
        """The mean loss on the step's clips."""
        generator = generator_for(self.emotion.seed, "step", step)
        numbers = torch.randint(len(self.clips), (self.emotion.batch,), generator=generator).tolist()
        parts = [clip_loss(self.base, self.network, self.clips.clip(number), generator) for number in numbers]
        return {TOTAL: torch.stack(parts).mean()}

    def after_step(self, step: int) -> None:
        """Nothing follows."""

    def extra_state(self) -> dict[str, Tensor]:
        """Nothing but the module has a state."""
        return {}

    def load_extra(self, tensors: Mapping[str, Tensor]) -> None:
        """Nothing to take back."""


def fresh_network(options: EmotionOptions, base: AvatarBase) -> EmotionNetwork:
    """A module that changes nothing yet; ``options.seed`` alone decides its weights."""
    sizes = base.dit.sizes
    wanted = EmotionSizes(sizes.width, options.inner, options.heads, options.emotion_width, sizes.double // 2)
    with torch.device("meta"):
        network = EmotionNetwork(wanted)
    network = network.to_empty(device="cpu")
    generator = generator_for(options.seed, "weights")
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.Linear):
                limit = module.in_features**-0.5
                module.weight.uniform_(-limit, limit, generator=generator)
                if module.bias is not None:
                    module.bias.zero_()
            elif isinstance(module, nn.LayerNorm):
                module.weight.fill_(1)
                module.bias.zero_()
        for block in network.attentions:
            block.gate.weight.zero_()
    return network


def save_emotion(path: Path, network: EmotionNetwork, facts: EmotionFacts) -> None:
    """Write the file that the loader of adapters reads, with complete metadata. Raises OSError."""
    write_model(path, network.state_dict(), facts.metadata(network.sizes), "emotion-adapter", BASE)


def train_emotion(
    clips: Clips,
    base: AvatarBase,
    path: Path,
    options: EmotionOptions | None = None,
    loop: LoopOptions | None = None,
    *,
    picture_size: int = EmotionFacts.picture_size,
    stop_after: int | None = None,
    on_step: OnStep | None = None,
) -> EmotionNetwork:
    """Train a module and write it to ``path``; go on from the state beside it if there is one.

    Args:
        clips: encoded clips.
        base: the frozen model.
        path: the module's file, ``.safetensors``.
        options, loop: what and how long.
        picture_size: side of a square of as many pixels as the emotion pictures had; noted in the file.
        stop_after, on_step: see `loop.train`.

    Raises:
        BadClip: a clip that cannot be used.
        TrainingFailed, BadCheckpoint: see `loop.train`.
        OSError: the file cannot be written.
    """
    task = EmotionTask(clips, base, options or EmotionOptions())
    loop = loop or LoopOptions(steps=20_000, learning_rate=1e-4)
    done = train(task, loop, path.with_suffix(".training_state"), stop_after=stop_after, on_step=on_step)
    save_emotion(path, task.network, EmotionFacts(done, len(clips), picture_size))
    return task.network
