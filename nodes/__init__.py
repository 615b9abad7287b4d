"""What a user wires: thin node classes, one file for each task. The schema facts of a node stand once, in its class."""

from __future__ import annotations

from . import (
    adapter,
    am_adapter,
    attributes,
    avatar_masks,
    colour,
    compare,
    crops,
    degrade,
    detect,
    dreamfit,
    encoder,
    encoder_image,
    id_animator,
    identity,
    instantid,
    lafr,
    parse,
    photomaker,
    pulid,
    quality,
    restore,
    select,
    similarity,
    swap,
    tracks,
    w_plus,
)

_MODULES = (
    detect,
    select,
    encoder,
    identity,
    similarity,
    adapter,
    encoder_image,
    instantid,
    photomaker,
    id_animator,
    w_plus,
    attributes,
    dreamfit,
    am_adapter,
    pulid,
    crops,
    quality,
    colour,
    restore,
    degrade,
    compare,
    lafr,
    parse,
    tracks,
    swap,
    avatar_masks,
)

NODE_CLASS_MAPPINGS: dict[str, type] = {node.__name__: node for module in _MODULES for node in module.NODES}
NODE_DISPLAY_NAME_MAPPINGS: dict[str, str] = {name: node.DISPLAY_NAME for name, node in NODE_CLASS_MAPPINGS.items()}  # type: ignore[attr-defined]
