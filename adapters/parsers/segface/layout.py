"""SegFace's sizes from the names and shapes in a file."""

from __future__ import annotations

import math
from collections.abc import Mapping

from ...tensor_info import TensorInfo
from . import efficientnet, mobilenet
from .arch import Backbone, Shape
from .decoder import HEADS
from .labels import LABEL_SETS, labels_of
from .swin import HEAD

# The trainer writes the whole model under this name, beside the optimizer's moments (two thirds of the file).
WRAPPER = "state_dict_backbone."
NEEDED = (
    "pe_layer.positional_encoding_gaussian_matrix",
    "face_decoder.background_token.weight",
    "face_decoder.transformer.layers.0.mlp.lin1.weight",
    "linear_c.0.proj.weight",
    "linear_fuse.weight",
)
# A name that only this kind of backbone has; the second version of Swin comes before the first.
_MARKS: tuple[tuple[str, Backbone], ...] = (
    ("backbone.0.1.0.attn.logit_scale", "swin_v2"),
    ("backbone.0.1.0.attn.relative_position_bias_table", "swin"),
    ("backbone.0.1.0.layer_scale", "convnext"),
    ("backbone.4.0.downsample.0.weight", "resnet"),
    ("backbone.4.block.2.fc1.weight", "mobilenet"),
    ("backbone.8.0.weight", "efficientnet"),
)
_FIXED: Mapping[Backbone, tuple[int, ...]] = {
    "mobilenet": mobilenet.WIDTHS,
    "efficientnet": efficientnet.WIDTHS,
}
_STAGES: Mapping[Backbone, tuple[str, ...]] = {
    "swin": ("0.1", "0.3", "0.5", "0.7"),
    "swin_v2": ("0.1", "0.3", "0.5", "0.7"),
    "convnext": ("0.1", "0.3", "0.5", "0.7"),
    "resnet": ("4", "5", "6", "7"),
}
# Attention between tokens and picture has half the width, and each head a whole number of channels.
UNIT = 2 * HEADS
Tensors = Mapping[str, TensorInfo]


def model_of(tensors: Tensors) -> tuple[str, dict[str, TensorInfo]]:
    """The wrapper's name, or "", and the model's own tensors without it."""
    wrapped = {name.removeprefix(WRAPPER): info for name, info in tensors.items() if name.startswith(WRAPPER)}
    return (WRAPPER, wrapped) if wrapped else ("", dict(tensors))


def shape_of(model: Tensors) -> Shape | str:
    """The network's sizes, or the reason why this is no file that can be read."""
    missing = [name for name in NEEDED if name not in model]
    if missing:
        return f"no {missing[0]}"
    kind = next((kind for mark, kind in _MARKS if mark in model), None)
    if kind is None:
        return "a backbone of an unknown kind"
    widths = tuple(_side(model, f"linear_c.{number}.proj.weight", 1) for number in range(4))
    reason = _unfit(kind, widths)
    if reason:
        return reason
    shape = Shape(
        backbone=kind,
        widths=widths,
        depths=tuple(_count(model, f"backbone.{stage}.") for stage in _STAGES.get(kind, ())),
        window=_window(model) if kind in ("swin", "swin_v2") else 0,
        dim=_side(model, "face_decoder.background_token.weight", 1),
        inside=_side(model, "face_decoder.transformer.layers.0.mlp.lin1.weight", 0),
        depth=_count(model, "face_decoder.transformer.layers."),
    )
    return _unbuildable(shape) or shape


def label_sets_of(model: Tensors) -> tuple[str, ...]:
    """The label sets that the tokens of the file fit: one, two (LaPa and Helen have the same tokens) or none."""
    tokens = {
        name.removeprefix("face_decoder.").removesuffix("_token.weight")
        for name in model
        if name.startswith("face_decoder.") and name.endswith("_token.weight")
    }
    return tuple(each for each in LABEL_SETS if {label.token for label in labels_of(each)} == tokens)


def _unfit(kind: Backbone, widths: tuple[int, ...]) -> str:
    if kind in _FIXED:
        return "" if widths == _FIXED[kind] else f"a {kind} of widths {widths} instead of {_FIXED[kind]}"
    doubled = tuple(widths[0] << number for number in range(4))
    return "" if widths[0] and widths == doubled else f"a {kind} of widths {widths} instead of {doubled}"


def _unbuildable(shape: Shape) -> str:
    """Why a network of these sizes cannot be, or ""."""
    if shape.dim < UNIT or shape.dim % UNIT:
        return f"a decoder of {shape.dim} channels, which {HEADS} heads of half the width do not divide"
    if 0 in shape.depths:
        return f"a backbone with stages of {shape.depths} blocks"
    if shape.backbone not in ("swin", "swin_v2"):
        return ""
    width = shape.widths[0]
    if shape.window < 1 or width % max(1, width // HEAD):
        return f"windows of {shape.window} and {width} channels, which are no Swin's"
    return ""


def _window(model: Tensors) -> int:
    places = model.get("backbone.0.1.0.attn.relative_position_index")
    return 0 if places is None else math.isqrt(math.isqrt(places.count))


def _side(model: Tensors, name: str, axis: int) -> int:
    info = model.get(name)
    return 0 if info is None or len(info.shape) <= axis else info.shape[axis]


def _count(model: Tensors, prefix: str) -> int:
    return len({name.removeprefix(prefix).split(".")[0] for name in model if name.startswith(prefix)})
