"""HunyuanVideo-Avatar in small: files in the published layout, sound for them, and calls of the host's own network."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from likeness_pack.adapters.audio_features import AudioFeatures
from likeness_pack.inject.hunyuan_avatar_call import TEXT_MASK
from safetensors.torch import save_file
from torch import Tensor

CHANNELS = 384
SAMPLES = 640


def features(windows: Tensor) -> AudioFeatures:
    """LIKENESS_AUDIO of windows (K, F, 10, 5, 384)."""
    tracks, frames = windows.shape[:2]
    return AudioFeatures("hunyuan_avatar", windows, 25.0, frames * SAMPLES, (0.0,) * tracks, ("0" * 64,) * tracks)


def sound(tracks: int, frames: int, seed: int = 0) -> AudioFeatures:
    """Noise for each of several characters."""
    generator = torch.Generator().manual_seed(900 + seed)
    return features(torch.randn(tracks, frames, 10, 5, CHANNELS, generator=generator))


def text(tokens: int, valid: int, width: int, seed: int = 0, pooled: int = 768) -> list[list[Any]]:
    """Conditioning with an official mask of positions: ``valid`` ones at both ends, zeros between."""
    generator = torch.Generator().manual_seed(500 + seed)
    mask = torch.ones(1, tokens)
    mask[:, valid // 2 : tokens - (valid - valid // 2)] = 0
    states = torch.randn(1, tokens, width, generator=generator)
    return [[states, {"pooled_output": torch.randn(1, pooled, generator=generator), TEXT_MASK: mask}]]


def sample(
    model: Any,
    positive: list[list[Any]],
    negative: list[list[Any]] | None,
    noise: Tensor,
    sigmas: Sequence[float] = (1.0, 0.6, 0.0),
    cfg: float = 1.0,
) -> Tensor:
    """Sample with Euler as the host's custom sampling does; the latent in the model's own scale."""
    run = importlib.import_module("comfy.sample").sample_custom
    euler = importlib.import_module("comfy.samplers").sampler_object("euler")
    with torch.inference_mode():
        out = run(
            model,
            noise,
            cfg,
            euler,
            torch.tensor(list(sigmas)),
            positive,
            positive if negative is None else negative,
            torch.zeros_like(noise),
            disable_pbar=True,
            seed=3,
        )
        return torch.as_tensor(model.model.process_latent_in(out))


class ReducedRun:
    """The golden's reduced model: loaded from a file by the host, sampled one row of the golden's batch at a time.

    Args:
        golden: the golden file.
        folder: where the checkpoint is written.
    """

    def __init__(self, golden: Any, folder: Path) -> None:
        from likeness_pack.inject.hunyuan_avatar_files import load_avatar

        self.golden, self.hyper = golden, golden.metadata["hyper_parameters"]
        # The reduced model has ten adapters for two double blocks, of which the official forward runs the first alone.
        depth = self.hyper["depth_double"]
        spare = tuple(f"audio_adapter_blocks.{n}." for n in range(depth // 2, self.hyper["n_audio_adapter_blocks"]))
        tensors = golden.filled({name: shape for name, shape in golden.keys.items() if not name.startswith(spare)})
        path = folder / "any name.safetensors"
        save_file(tensors, path)
        self.model, self.loaded, self.report = load_avatar(path, None)
        self.network = self.model.model.diffusion_model
        shapes = golden.metadata["inputs"]
        self.x = golden.input("x", shapes["x"])
        self.rows = self.x.shape[0]
        self.reference = golden.input("ref_latents", _told(shapes["ref_latents"]))
        self.audio = golden.input("audio_prompts", _told(shapes["audio_prompts"]))
        self.audio[0] = 0
        self._seen: dict[str, list[Tensor]] = {}
        self._watch()

    def sample(self, row: int, **options: Any) -> Tensor:
        """One step from the golden's time to 0 with a row of its batch; the velocity (1, 16, T, H, W)."""
        from likeness_pack.inject.hunyuan_avatar import AvatarOptions, apply_avatar

        hyper, shapes = self.hyper, self.golden.metadata["inputs"]
        mask = self.golden.tensors["face_mask"][row, 0]
        given = {"expression": hyper["motion_exp"][0], "pose": hyper["motion_pose"][0], "fps": hyper["fps"]}
        chosen = AvatarOptions(masks=(mask,), **given, **options)
        picture = self.model.model.process_latent_out(self.reference)
        model = apply_avatar(self.model, self.loaded, picture, features(self.audio[row : row + 1]), chosen)
        states, pooled = (self.golden.input(n, shapes[n])[row : row + 1] for n in ("text_states", "text_states_2"))
        words = {"pooled_output": pooled, TEXT_MASK: self.golden.tensors["text_mask"][row : row + 1]}
        sigma, x = hyper["t"] / 1000, self.x[row : row + 1]
        velocity = (x - sample(model, [[states, words]], None, x / sigma, (sigma, 0.0))) / sigma
        self._seen.setdefault("out", []).append(velocity)
        return velocity

    def seen(self, name: str) -> Tensor:
        """What passed through the network under a name of the golden, all rows."""
        return torch.cat(self._seen[name])

    def refined(self) -> Tensor:
        """All tokens of the text, refined at the time of the golden's second call, whose are the ones that it holds."""
        from likeness_pack.inject.hunyuan_avatar_call import TextCall
        from likeness_pack.inject.hunyuan_avatar_parts import refined

        states = self.golden.input("text_states", self.golden.metadata["inputs"]["text_states"])
        text = TextCall(states, self.golden.tensors["text_mask"], states.shape[1])
        return refined(self.network.txt_in, text, torch.full((self.rows,), self.hyper["t_cached"]), states.dtype, {})

    @torch.inference_mode()
    def cached(self) -> Tensor:
        """The official shortcut: only the last single block and the final layer, at another time, of what is stored."""
        from likeness_pack.adapters.families.hunyuan_avatar.arch import sinusoid

        times = torch.tensor([self.hyper["t"], self.hyper["t_cached"]])
        early, late = self.network.time_in(sinusoid(times)).split(1)
        vector = self.seen("vec") - early + late
        outputs = []
        for row, (args, kwargs) in enumerate(tuple(self._last)):
            one = vector[row : row + 1]
            tokens = self.network.single_blocks[-1](*(one.clone() for one in args), **{**kwargs, "vec": one})
            count = self.network_tokens
            video = tokens[:, count - self.video_tokens : count]
            patches = self.network.final_layer(video, one)
            frames, height, width = self.x.shape[-3:]
            grid = patches.view(1, frames, height // 2, width // 2, -1, 1, 2, 2)
            outputs.append(grid.permute(0, 4, 1, 5, 2, 6, 3, 7).reshape(1, -1, frames, height, width))
        return torch.cat(outputs)

    @property
    def video_tokens(self) -> int:
        """Tokens of the video."""
        return self.x[0, 0].numel() // 4

    @property
    def network_tokens(self) -> int:
        """Tokens of picture and video."""
        return self.video_tokens + self.x[0, 0, 0].numel() // 4

    def _watch(self) -> None:
        self._last: list[tuple[Any, Any]] = []
        network = self.network

        def note(name: str, tensor: Tensor) -> None:
            self._seen.setdefault(name, []).append(tensor.clone())

        def before(module: Any, args: Any, kwargs: Any) -> None:
            image = (kwargs["img"] if "img" in kwargs else args[0])[:, : self.network_tokens]
            if module is network.double_blocks[0]:
                note("vec", kwargs["vec"])
                note("img_embedded", image)
            elif module is network.double_blocks[1]:
                note("img_after_double0", image)
            if module is network.single_blocks[0]:
                note("img_after_double1_and_audio", image)
            if module is network.single_blocks[-1]:
                note("img_before_last_single", image)
                self._last.append((tuple(one.clone() for one in args), kwargs))

        blocks = [*network.double_blocks[:2], network.single_blocks[0], network.single_blocks[-1]]
        for block in blocks:
            block.register_forward_pre_hook(before, with_kwargs=True)


def _told(shape: Any) -> list[int]:
    """A shape that may be told in words: ``"[1,16,3,8,6] repeated to batch 2"``."""
    if not isinstance(shape, str):
        return list(shape)
    return [int(size) for size in shape.split("[")[1].split("]")[0].split(",")]
