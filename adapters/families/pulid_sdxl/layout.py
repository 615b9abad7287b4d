"""The layouts of PuLID files for SDXL: keys and shapes only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ...checkpoint import CheckpointHeader, TensorInfo
from ...incomplete import shape_of
from .arch import SCALES
from .id_former import HEAD_DIM

Part = Mapping[str, TensorInfo]


@dataclass(frozen=True)
class Layout:
    """Names of one form of file: prefix of the identity encoder, of the attention part, and its two map names."""

    encoder: str
    attention: str
    key: str
    value: str


# Published files, and the community's conversion to the prefixes of IP-Adapter files.
LAYOUTS = (
    Layout("id_adapter.", "id_adapter_attn_layers.", "id_to_k", "id_to_v"),
    Layout("image_proj.", "ip_adapter.", "to_k_ip", "to_v_ip"),
)
ATTENTION_LAYERS = 70
V1, V1_1 = "v1", "v1.1"


@dataclass(frozen=True)
class Parts:
    """The two parts of a file, names without their prefixes."""

    encoder: Part
    attention: Part
    layout: Layout

    @property
    def variant(self) -> str | None:
        """``"v1"``, ``"v1.1"``, or None if the encoder is none of PuLID's."""
        return encoder_variant(self.encoder)

    def width(self, index: int) -> int:
        """Width of the attn2 layer of that index in the file, 0 where it is missing."""
        shape = shape_of(self.attention, f"{index}.{self.layout.key}.weight")
        return shape[0] if len(shape) == 2 else 0

    @property
    def context(self) -> int:
        """Width of the base model's text context, 0 where the first layer is missing."""
        shape = shape_of(self.attention, f"1.{self.layout.key}.weight")
        return shape[1] if len(shape) == 2 else 0


def parts_of(header: CheckpointHeader) -> Parts | None:
    """The parts of a file of either layout, or None."""
    for layout in LAYOUTS:
        encoder, attention = header.with_prefix(layout.encoder), header.with_prefix(layout.attention)
        if encoder and attention:
            return Parts(encoder, attention, layout)
    return None


def refusal(parts: Parts) -> str | None:
    """Why these parts are not PuLID's for SDXL, or None if they are."""
    if parts.variant is None:
        return "no identity encoder of PuLID (neither body and mapping_patch_0 nor latents and id_embedding_mapping)"
    if parts.context != 2048:
        return f"no {parts.layout.key} over a text context of 2048 (SDXL)"
    if wrong := wrong_former(parts.encoder):
        return wrong
    return None


# Tensors that the sizes are read from, with their number of dimensions.
_SIZES = {
    V1: {"body.0.weight": 2, "body.6.weight": 2, "mapping_0.0.weight": 2, "mapping_0.6.weight": 2},
    V1_1: {
        "latents": 3,
        "proj_out": 2,
        "id_embedding_mapping.0.weight": 2,
        "id_embedding_mapping.6.weight": 2,
        "mapping_0.0.weight": 2,
        "layers.0.0.to_q.weight": 2,
        "layers.0.1.1.weight": 2,
    },
}


def encoder_variant(encoder: Part) -> str | None:
    """Which identity encoder these tensors are."""
    patches = [f"mapping_patch_{scale}.0.weight" in encoder for scale in range(SCALES)]
    for variant, sizes in _SIZES.items():
        shapes = [(shape_of(encoder, name), ndim) for name, ndim in sizes.items()]
        if all(len(shape) == ndim and all(shape) for shape, ndim in shapes) and all(patches) == (variant == V1):
            return variant
    return None


def wrong_former(encoder: Part) -> str | None:
    """Why an IDFormer of these shapes cannot be built, or None."""
    if encoder_variant(encoder) != V1_1:
        return None
    queries = shape_of(encoder, "layers.0.0.to_q.weight")[0]
    if queries % HEAD_DIM:
        return f"attention of the identity encoder {queries} wide, not a multiple of {HEAD_DIM}"
    if shape_of(encoder, "id_embedding_mapping.6.weight")[0] % shape_of(encoder, "latents")[-1]:
        return "id_embedding_mapping does not give whole tokens"
    if former_depth(encoder) % SCALES:
        return f"{former_depth(encoder)} layers, not a multiple of {SCALES}"
    return None


def former_depth(encoder: Part) -> int:
    """Number of layers of an IDFormer."""
    return len({name.split(".")[1] for name in encoder if name.startswith("layers.")})
