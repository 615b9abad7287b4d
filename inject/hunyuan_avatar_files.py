"""Official files of HunyuanVideo-Avatar: the MODEL inside them, by the host's own loader, and what they add to it."""

from __future__ import annotations

import importlib
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..adapters import registry
from ..adapters.errors import BadCheckpoint
from ..adapters.families.hunyuan_avatar.adapter import HunyuanAvatarAdapter
from ..adapters.families.hunyuan_avatar.fp8 import FP8, SCALE
from .hunyuan_avatar import avatar_adapter, check_model, require_hunyuan_video
from .loaded import LoadedAdapter


def load_avatar(path: Path, scales: Path | None, model: Any = None) -> tuple[Any, LoadedAdapter, str]:
    """MODEL, what the file adds to it, and a report.

    Args:
        path: the whole checkpoint (bf16 or fp8), or its added tensors alone.
        scales: the file of an fp8 checkpoint's scales; None takes the published one beside it.
        model: a MODEL that was loaded from the whole checkpoint before; then the file's added tensors alone are read,
            and all copies of that MODEL share its weights.

    Raises:
        HostTooOld: this ComfyUI has no HunyuanVideo that can be patched.
        UnknownCheckpoint, BadCheckpoint, KeyMismatch: a file that cannot be used.
        BaseModelMismatch: a MODEL of another kind or size.
    """
    require_hunyuan_video("load HunyuanVideo-Avatar")
    loaded = LoadedAdapter(registry.load(path, kind="adapter"))
    adapter = avatar_adapter(loaded)
    if model is None:
        model = _base(adapter, scales, path.name)
        source = "HunyuanVideo's weights and the added ones are read from this file"
    else:
        source = (
            "only the added tensors are read from this file (ref_in, before_proj, audio_proj, motion_exp, motion_pose, "
            "fps_proj, audio_adapter_blocks); all others are those of the connected MODEL, which must have been "
            "loaded from Avatar's own checkpoint"
        )
    check_model(model, adapter)
    beside = 0 if loaded.managed_steps is None else loaded.managed_steps.bytes
    memory = (
        f"memory: {model.model_size() / 1e9:.2f} GB for HunyuanVideo, {beside / 1e9:.2f} GB beside it in every step, "
        f"{loaded.managed.bytes / 1e9:.2f} GB for a moment while sound is projected; 'Apply HunyuanVideo-Avatar' tells "
        "what a clip needs"
    )
    return model, loaded, "\n".join((adapter.report.as_text(), source, memory))


def _base(adapter: HunyuanAvatarAdapter, scales: Path | None, name: str) -> Any:
    tensors = adapter.base_tensors(scales)
    quantised = any(tensor.dtype == FP8 for tensor in tensors.values())
    options = {"dtype": _dtype(tensors), "custom_operations": scaled_operations()} if quantised else {}
    model = importlib.import_module("comfy.sd").load_diffusion_model_state_dict(tensors, model_options=options)
    if model is None:
        raise BadCheckpoint(
            name,
            expected="the weights of a HunyuanVideo model",
            found="none that ComfyUI recognises",
            cure="download the file again and compare its size with the publisher's",
        )
    return model


def _dtype(tensors: Mapping[str, Tensor]) -> torch.dtype:
    """The dtype of what is not quantised."""
    found = Counter(tensor.dtype for tensor in tensors.values() if tensor.dtype != FP8 and tensor.ndim > 1)
    return found.most_common(1)[0][0]


def scaled_operations() -> Any:
    """The host's layers for scaled fp8 weights, with the layers that are not quantised left as they are.

    The host's own would store every linear layer in fp8. A weight is multiplied by its scale before use, as the
    official code does.
    """
    ops = importlib.import_module("comfy.ops")
    base = ops.scaled_fp8_ops(fp8_matrix_mult=False, scale_input=False, override_dtype=None)

    class Operations(base):  # type: ignore[misc, valid-type]
        class Linear(base.Linear):  # type: ignore[name-defined]
            weight: Tensor

            def _load_from_state_dict(self, state: dict[str, Tensor], prefix: str, *rest: Any) -> None:
                stored = state.get(f"{prefix}weight")
                if stored is not None and stored.dtype == FP8:
                    self.weight = nn.Parameter(self.weight.to(FP8), requires_grad=False)
                super()._load_from_state_dict(state, prefix, *rest)

            def forward_comfy_cast_weights(self, input: Tensor) -> Tensor:  # noqa: A002 (the name the host gives it)
                weight, bias = ops.cast_bias_weight(self, input)
                if self.weight.dtype == FP8:
                    weight = weight * getattr(self, SCALE).to(weight)
                return nn.functional.linear(input, weight, bias)

    return Operations
