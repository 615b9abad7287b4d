"""AnimateDiff motion layers on the host's own UNet, without changing it: they hook in during a forward pass only.

Places (AnimateDiff, ``unet_blocks.py``): after each resnet and transformer of the down and up blocks, in up blocks
before the upsampler, and in the middle block between the transformer and the second resnet.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from ..adapters.errors import BaseModelMismatch
from ..adapters.families.id_animator.motion import MotionNetwork
from ..adapters.families.id_animator.motion_arch import MotionLayer
from ..faces.errors import LikenessError
from . import beneath, host
from .apply import guard_forward
from .call_state import call_state
from .managed import ManagedNetwork
from .patching import clone_model, forward_wrapper
from .rows import row_pattern
from .shared import Shared

SLOT = "motion"
# A batch of attention times eight heads must stay below 65536 on CUDA.
_PLACES_AT_ONCE = 4096
_LINEAR = {"beta_schedule": "sqrt_linear", "linear_start": 0.00085, "linear_end": 0.012}


@dataclass(frozen=True, eq=False)
class MotionWrapper(Shared):
    """The host's ``model_function_wrapper`` that runs the motion layers; keeps and calls the one that was there.

    Attributes:
        places: the host's module after which each layer runs, by the layer's name.
        network: the layers.
        previous: the wrapper found on the model, or None.
    """

    places: Mapping[str, torch.nn.Module]
    network: ManagedNetwork
    previous: Callable[..., Any] | None

    def models(self) -> list[Any]:
        """Patchers that the wrapper beneath wants loaded."""
        return list(getattr(self.previous, "models", list)())

    def __call__(self, apply_model: Callable[..., Any], args: dict[str, Any], **kwargs: Any) -> Any:
        options = args["c"].get("transformer_options", {})
        layers = motion_layers(self.network)
        handles = [
            place.register_forward_hook(self._hook(name, layers[name], options)) for name, place in self.places.items()
        ]
        try:
            return beneath.model_call(self.previous, apply_model, args)
        finally:
            for handle in handles:
                handle.remove()

    @staticmethod
    def _hook(name: str, layer: MotionLayer, options: Mapping[str, Any]) -> Callable[..., Tensor]:
        def run(module: torch.nn.Module, inputs: Any, out: Tensor) -> Tensor:
            _, frames = row_pattern(options, out.shape[0])
            state = call_state(options)
            if state is not None:
                state.mark(SLOT, name)
            _check_frames(frames, layer.length)

            def attend(q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
                parts = zip(q.split(_PLACES_AT_ONCE), k.split(_PLACES_AT_ONCE), v.split(_PLACES_AT_ONCE), strict=True)
                return torch.cat([host.attention(*part, heads=heads, extra={}) for part in parts])

            return layer(out, frames, attend)

        return run


def apply_motion(model: Any, network: ManagedNetwork, linear_betas: bool = True) -> Any:
    """Return a clone of MODEL in which the pictures of a batch are the frames of one clip.

    Args:
        model: an SD1.5 MODEL.
        network: a managed `MotionNetwork`.
        linear_betas: use the noise schedule AnimateDiff was trained with (linear, 0.00085 to 0.012) instead of the
            model's own.

    Raises:
        BaseModelMismatch: the layers' places or widths are not the model's.
    """
    places = motion_places(model, motion_layers(network))
    clone = clone_model(model)
    clone.set_model_unet_function_wrapper(MotionWrapper(places, network, forward_wrapper(clone)))
    guard_forward(clone, SLOT, len(places), (network,))
    if linear_betas:
        sampling = type(model.get_model_object("model_sampling"))
        clone.add_object_patch("model_sampling", sampling(SimpleNamespace(sampling_settings=_LINEAR)))
    return clone


def motion_layers(network: ManagedNetwork) -> dict[str, MotionLayer]:
    """The layers of a managed motion network by name."""
    if not isinstance(network.network, MotionNetwork):
        raise TypeError(type(network.network).__name__)
    return network.network.layers()


def motion_places(model: Any, layers: Mapping[str, MotionLayer]) -> dict[str, torch.nn.Module]:
    """The module of the host's UNet after which each layer runs.

    Raises:
        BaseModelMismatch: a UNet with other blocks, or of another width.
    """
    unet = model.model.diffusion_model
    blocks = [len(getattr(unet, name, ())) for name in ("input_blocks", "output_blocks")]
    if blocks != [12, 12]:
        raise _mismatch("12 input and 12 output blocks", f"{blocks[0]} and {blocks[1]}")
    places = {}
    for name, layer in layers.items():
        block = _block(unet, name)
        first, last = block[0], [part for part in block if type(part).__name__ not in ("Upsample", "Downsample")][-1]
        width = int(first.out_channels)
        if width != layer.width:
            raise _mismatch(f"{layer.width} channels at {name}", f"{width}")
        places[name] = block[1] if name.startswith("mid_block") else last
    return places


def _block(unet: Any, name: str) -> Any:
    if name.startswith("mid_block"):
        return unet.middle_block
    side, level, _, number = name.split(".")
    index = 3 * int(level) + int(number)
    return unet.input_blocks[1 + index] if side == "down_blocks" else unet.output_blocks[index]


def _mismatch(expected: str, found: str) -> BaseModelMismatch:
    return BaseModelMismatch(
        "AnimateDiff motion module",
        expected=f"an SD1.5 model with {expected}",
        found=found,
        cure="connect an SD1.5 model",
    )


def _check_frames(frames: int, length: int) -> None:
    if frames > length:
        raise LikenessError(
            "AnimateDiff motion module",
            expected=f"at most {length} frames",
            found=f"a batch of {frames}",
            cure=f"sample {length} frames or fewer at once, or use a node pack with context windows",
        )
