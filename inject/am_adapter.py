"""AM-Adapter applied to a MODEL: checks the fit, patches a clone and the appearance model's clone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

from torch import Tensor

from ..adapters.errors import BaseModelMismatch
from ..adapters.families.am_adapter.adapter import HEADS, AMMatcher
from ..adapters.families.am_adapter.attention import Mode
from ..adapters.families.am_adapter.maps import Resize, agreement
from ..faces.errors import LikenessError
from .apply import guard_forward
from .augmented_attention import SLOT, AugmentedAttention, Matching
from .controlnext import apply_controlnext
from .exemplar import Control
from .exemplar_pass import AppearanceModel, ExemplarPass, Trajectory, capturing
from .layer_map import UNetLayer, unet_layers
from .masks import acting_mask
from .patching import clone_model, forward_wrapper
from .schedule import step_range


@dataclass(frozen=True)
class MatchOptions:
    """What a user sets.

    Attributes:
        mode: ``soft`` (official) or ``hard``.
        strength: share of the augmented attention; 0 adds nothing and runs no appearance pass.
        start_percent, end_percent: fractions of the schedule between which it acts.
        mask: where it acts, or None.
        resize: how maps are compared, see `maps.agreement`.
    """

    mode: Mode = "soft"
    strength: float = 1.0
    start_percent: float = 0.0
    end_percent: float = 1.0
    mask: Tensor | None = None
    resize: Resize = "official"


def apply_am_adapter(
    model: Any,
    appearance: Any,
    matcher: AMMatcher | None,
    trajectory: Trajectory,
    maps: tuple[Tensor, Tensor],
    options: MatchOptions,
    controls: tuple[Control, Control] | None = None,
) -> Any:
    """Return a clone of MODEL that takes the exemplar's look where the maps agree.

    Args:
        model: the semantic MODEL, SD1.5.
        appearance: the MODEL that sees the exemplar; officially of the same weights.
        matcher: the adapter; the mode ``hard`` needs none.
        trajectory: the exemplar's latents.
        maps: (3, H, W) of the exemplar and of the target.
        options: see `MatchOptions`.
        controls: ControlNeXt with the exemplar's and with the target's map, or None.

    Raises:
        BaseModelMismatch: a model that is not SD1.5, or two that differ.
        LikenessError: two MODELs that share their weights but not their LoRAs.
    """
    layers = unet_layers(model)
    check_models(layers, unet_layers(appearance))
    if controls is not None:
        appearance = apply_controlnext(appearance, controls[0].network, controls[0].picture, controls[0].strength)
        model = apply_controlnext(model, controls[1].network, controls[1].picture, controls[1].strength)
    clone = clone_model(model)
    if options.strength == 0:
        return clone
    mask = acting_mask(options.mask, options.strength)
    same = agreement(*maps, resize=options.resize)[None]
    network = None if matcher is None else matcher.network
    put_matching(clone, layers, Matching(network, same, options.mode, options.strength, mask))
    steps = step_range(model, options.start_percent, options.end_percent)
    seen = AppearanceModel(capturing(appearance), shares_weights(model, appearance))
    passing = ExemplarPass(seen, trajectory, len(layers), steps, forward_wrapper(clone))
    clone.set_model_unet_function_wrapper(passing)
    guard_forward(clone, SLOT, len(layers), ())
    return clone


def put_matching(clone: Any, layers: Sequence[UNetLayer], matching: Matching) -> None:
    """Put the augmented attention into the attn1 slot of every layer of a clone, in place of an earlier one."""
    slots = clone.model_options["transformer_options"].get("patches_replace", {}).get("attn1", {})
    for layer in layers:
        found = slots.get(layer.key, slots.get(layer.block))
        previous = found.previous if isinstance(found, AugmentedAttention) else found
        attention = attrgetter(f"{layer.weights}.attn1")(clone.model)
        clone.set_model_attn1_replace(AugmentedAttention(layer.key, attention, matching, previous), *layer.key)


def check_models(layers: Sequence[UNetLayer], appearance: Sequence[UNetLayer]) -> None:
    """Both models must have the same layers, with the heads the matcher was made for.

    Raises:
        BaseModelMismatch: they have not.
    """
    heads = sorted({layer.heads for layer in layers})
    if heads != [HEADS]:
        raise BaseModelMismatch(
            "AM-Adapter",
            expected=f"an SD1.5 model with {HEADS} attention heads in every layer",
            found=f"{' and '.join(map(str, heads)) or 'no'} heads",
            cure="connect a model loaded from an SD1.5 checkpoint",
        )
    if [layer.width for layer in layers] != [layer.width for layer in appearance]:
        raise BaseModelMismatch(
            "AM-Adapter appearance model",
            expected=f"{len(layers)} layers of the same widths as the model",
            found=f"{len(appearance)} layers of other widths",
            cure="connect the same SD1.5 model to both inputs",
        )


def shares_weights(model: Any, appearance: Any) -> bool:
    """Whether both MODELs are one set of weights in memory.

    Raises:
        LikenessError: they are, but with other LoRAs, so that they cannot run side by side.
    """
    if model.model is not appearance.model:
        return False
    if (model.patches or appearance.patches) and model.patches_uuid != appearance.patches_uuid:
        raise LikenessError(
            "AM-Adapter appearance model",
            expected="the same LoRAs as on the model, or a model of its own",
            found="two versions of one loaded model",
            cure="connect the model after its LoRAs to both inputs, or load the checkpoint a second time",
        )
    return True
