"""ControlNeXt in a UNet: its feature map is computed once in a forward pass and added after the first level.

The place (AM-Adapter, ``unet_2d_condition.py``): after the first down block, its downsampler included, on the main path
only. The host's hook ``input_block_patch_after_skip`` behind input block 3 is exactly there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from ..adapters.adapter import module_device_dtype
from ..adapters.errors import BaseModelMismatch
from ..adapters.families.am_adapter.controlnext.arch import ControlNeXt, inject_control
from . import beneath
from .apply import guard_forward
from .call_state import call_state
from .layer_map import unet_layers
from .managed import ManagedNetwork
from .memo import Memo
from .patching import clone_model, forward_wrapper
from .shared import Shared

SLOT = "controlnext"
CONTROL_KEY = "likeness_control"
PLACE = ("input", 3)
_HOOK = "input_block_patch_after_skip"


@dataclass(frozen=True, eq=False)
class ControlSource(Shared):
    """A network and the picture it is given.

    Attributes:
        network: a managed `ControlNeXt`.
        picture: (1, 3, H, W) of 0..1, on the CPU; H and W are eight times the latent's.
    """

    network: ManagedNetwork
    picture: Tensor
    _features: Memo[Tensor] = field(default_factory=lambda: Memo(limit=2), repr=False)

    def control(self, time: Tensor) -> Tensor:
        """The feature map (1, 320, H / 8, W / 8) for a time (1,); what does not depend on the time is kept."""
        network = self.network.network
        if not isinstance(network, ControlNeXt):
            raise TypeError(type(network).__name__)
        device, dtype = module_device_dtype(network)
        features = self._features.get((device, dtype), lambda: network.stem(self.picture.to(device, dtype)))
        return network.control(features, time.to(device))


@dataclass(frozen=True, eq=False)
class ControlPass(Shared):
    """The host's ``model_function_wrapper`` that computes the feature map; keeps and calls the one that was there.

    Attributes:
        source: what computes it.
        sampling: the host's ``model_sampling``, which knows the time of a noise level.
        previous: the wrapper found on the model, or None.
    """

    source: ControlSource
    sampling: Any
    previous: Callable[..., Any] | None

    def models(self) -> list[Any]:
        """Patchers that the wrapper beneath wants loaded."""
        return list(getattr(self.previous, "models", list)())

    def __call__(self, apply_model: Callable[..., Any], args: dict[str, Any], **kwargs: Any) -> Any:
        control = self.source.control(self.sampling.timestep(args["timestep"][:1]).float())
        options = {**args["c"].get("transformer_options", {}), CONTROL_KEY: control}
        return beneath.model_call(
            self.previous, apply_model, {**args, "c": {**args["c"], "transformer_options": options}}
        )


@dataclass(frozen=True, eq=False)
class ControlInjection(Shared):
    """The patch behind the UNet's input blocks.

    Attributes:
        strength: officially 1.
    """

    strength: float

    def __call__(self, hidden: Tensor, options: Mapping[str, Any]) -> Tensor:
        control = options.get(CONTROL_KEY)
        if control is None or tuple(options["block"]) != PLACE:
            return hidden
        state = call_state(options)
        if state is not None:
            state.mark(SLOT, PLACE)
        return inject_control(hidden, control.to(hidden), self.strength)


def apply_controlnext(model: Any, network: ManagedNetwork, picture: Tensor, strength: float) -> Any:
    """Return a clone of an SD1.5 MODEL that follows the picture (1, 3, H, W) through ControlNeXt.

    Raises:
        BaseModelMismatch: the model's first level has another width than the feature map.
    """
    _check_width(network, unet_layers(model)[0].width)
    clone = clone_model(model)
    put_injection(clone, strength)
    sampling = clone.get_model_object("model_sampling")
    source = ControlSource(network, picture.detach().cpu().float())
    clone.set_model_unet_function_wrapper(ControlPass(source, sampling, forward_wrapper(clone)))
    guard_forward(clone, SLOT, 1, (network,))
    return clone


def _check_width(network: ManagedNetwork, width: int) -> None:
    made = network.network.state_dict()["mid_convs.1.weight"].shape[0]
    if made != width:
        raise BaseModelMismatch(
            "ControlNeXt",
            expected=f"a model of {made} channels in its first level (SD1.5)",
            found=f"{width} channels",
            cure="connect a model loaded from an SD1.5 checkpoint",
        )


def put_injection(clone: Any, strength: float) -> None:
    """Add the injection to a clone's patches, in place of an earlier one."""
    patches = clone.model_options["transformer_options"].setdefault("patches", {})
    others = [patch for patch in patches.get(_HOOK, []) if not isinstance(patch, ControlInjection)]
    patches[_HOOK] = [*others, ControlInjection(strength)]
