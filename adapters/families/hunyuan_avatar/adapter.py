"""A loaded HunyuanVideo-Avatar file: what it adds to a HunyuanVideo model, and HunyuanVideo's own weights on demand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from ...adapter import Adapter, IdentityTokens, TokenOptions, module_device_dtype
from ...audio_features import AudioFeatures, require_system
from ...checkpoint import CheckpointHeader, load_tensors
from ...errors import EncoderMismatch, KeyMismatch
from ...identity import Identity
from ...report import DetectionReport
from ...strict_load import group_by_prefix
from . import fp8
from .arch import BUCKETS, AvatarNetwork, AvatarSizes
from .layout import base_differences, base_in

EXPRESSION, POSE, FPS = 30, 25, 25.0


class HunyuanAvatarAdapter(Adapter):
    """What the file adds: audio adapters, the character's picture, motion and frame rate.

    Args:
        report: what was recognised.
        digest: identifies the file.
        network: the added tensors.
        header: of the file, for HunyuanVideo's own weights.

    Its `network` runs once for each sound (and for motion), its `step_network` beside the model in every step.
    """

    base = "hunyuan_video"
    apply_node = "'Apply HunyuanVideo-Avatar'"
    context_dim = 0

    def __init__(self, report: DetectionReport, digest: str, network: AvatarNetwork, header: CheckpointHeader) -> None:
        self.report = report
        self.digest = digest
        self._parts = network.eval().requires_grad_(False)
        self._header = header
        pairs = [nn.ModuleList((block.norm1, block.to_kv)) for block in network.adapters]
        told = (network.audio_proj, network.motion_exp, network.motion_pose, network.fps_proj)
        self.network: nn.Module = nn.ModuleList((*told, *pairs))
        asked = [nn.ModuleList((block.norm2, block.to_q, block.to_out)) for block in network.adapters]
        self.step_network: nn.Module = nn.ModuleList((network.ref_in, network.before_proj, *asked))

    @property
    def sizes(self) -> AvatarSizes:
        """Widths."""
        return self._parts.sizes

    @property
    def has_base(self) -> bool:
        """Whether the file holds HunyuanVideo's weights too."""
        return bool(base_in(self._header.tensors))

    @property
    def scales_file(self) -> Path:
        """Where the scales would be if this is a published fp8 file."""
        return fp8.scales_file(self._header.path)

    def places(self) -> tuple[int, ...]:
        """The double blocks behind which the audio adapters stand, in file order."""
        return tuple(2 * number + 1 for number in range(self.sizes.adapters))

    def tokens(self, identity: Identity, options: TokenOptions) -> IdentityTokens:
        """Refuse: it takes sound and a picture. Raises EncoderMismatch."""
        raise EncoderMismatch(
            self.report.title,
            expected="audio features and a character picture",
            found=f"an identity of the encoder {identity.encoder}",
            cure=f"use {self.apply_node}",
        )

    def check_audio(self, audio: AudioFeatures) -> None:
        """Raises EncoderMismatch for features of another system, window or width."""
        require_system(audio, "hunyuan_avatar", what=self.report.title)
        window, states, channels = audio.features.shape[2:]
        if window * states * channels != self.sizes.audio_inputs:
            raise EncoderMismatch(
                self.report.title,
                expected=f"windows of {self.sizes.audio_inputs} numbers (10 feature frames x 5 states x 384 channels)",
                found=f"{window} x {states} x {channels}",
                cure="encode the sound with openai/whisper-tiny",
            )

    def audio_keys_values(self, windows: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Audio windows of one track (F, 10, 5, C) to keys and values (F, 4, inner) in float32, one pair an adapter."""
        device, _ = module_device_dtype(self.network)
        tokens = self._parts.audio_proj(windows[None].to(device, torch.float32))[0]
        return [block.keys_values(tokens) for block in self._parts.adapters]

    def silence(self) -> Tensor:
        """One window (1, 10, 5, C) of no sound; it has tokens of its own, so it is not the same as no adapter."""
        return torch.zeros(1, 1, 1, self.sizes.audio_inputs)

    def motion(self, expression: Sequence[int], pose: Sequence[int], fps: float) -> Tensor:
        """What motion and frame rate add to the modulation vector: (1, width) float32.

        Args:
            expression, pose: four numbers each (official: 30 and 25 throughout).
            fps: frames a second (official: 25).
        """
        device, _ = module_device_dtype(self.network)
        told = [torch.tensor([list(numbers)], dtype=torch.float32, device=device) for numbers in (expression, pose)]
        if any(one.shape[1] != BUCKETS for one in told):
            raise ValueError(f"{BUCKETS} numbers each")
        return self._parts.motion(told[0], told[1], torch.tensor([fps], dtype=torch.float32, device=device))

    def reference(self, latents: Tensor) -> Tensor:
        """What the character's picture adds to the video tokens: scaled latents (B, C, T, H, W) to (B, T n, width)."""
        return self._parts.reference(latents)

    def queries(self, index: int, video: Tensor) -> Tensor:
        """Queries (..., inner) of video tokens (..., width) in audio adapter ``index``."""
        return self._parts.adapters[index].queries(video)

    def added(self, index: int, heard: Tensor) -> Tensor:
        """What adapter ``index`` adds (..., width) for attended values (..., inner); linear, and zero for zeros."""
        return torch.as_tensor(self._parts.adapters[index].to_out(heard))

    def base_tensors(self, scales: Path | None = None) -> dict[str, Tensor]:
        """Read HunyuanVideo's own weights under the host's names; nothing of them is kept here.

        Args:
            scales: file of the scales of an fp8 file; None takes the one beside the file if there is one.

        Raises:
            KeyMismatch: the file holds none, or not all, of them; or fp8 weights without scales.
            BadCheckpoint: a damaged file, or one that changed since it was recognised.
        """
        what, names = self._header.path.name, base_in(self._header.tensors)
        missing, leftover = base_differences(names)
        if not names or missing or leftover:
            raise _not_whole(what, names, missing, leftover)
        reduced = {name: self._header.raw_names[name] for name in names}
        tensors = load_tensors(replace(self._header, raw_names=reduced))
        beside = self.scales_file if scales is None else scales
        if scales is not None or beside.is_file():
            tensors = fp8.with_scales(tensors, fp8.read_scales(beside), what)
        elif fp8.is_quantised(tensors):
            raise fp8.needs_scales(what, beside)
        return {host: tensors.pop(name) for name, host in base_in(list(tensors)).items()}


def _not_whole(what: str, names: Mapping[str, str], missing: list[str], leftover: list[str]) -> KeyMismatch:
    parts = [f"{len(missing)} missing: {group_by_prefix(missing)}"] if names and missing else []
    parts += [f"{len(leftover)} left over: {group_by_prefix(leftover)}"] if leftover else []
    return KeyMismatch(
        what,
        expected="the weights of HunyuanVideo that Avatar was trained with",
        found="; ".join(parts) if names else "the added tensors alone",
        cure="load mp_rank_00_model_states.pt of tencent/HunyuanVideo-Avatar, or connect a MODEL loaded from it",
    )
