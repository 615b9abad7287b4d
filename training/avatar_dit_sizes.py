"""Widths and depths of HunyuanVideo's transformer, by the tensors of a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..faces.errors import LikenessError


@dataclass(frozen=True)
class DitSizes:
    """Widths and depths; the defaults are the published ones.

    Attributes:
        width: channels of a token.
        heads: number of heads; each is as wide as ``axes`` together.
        double: double blocks.
        single: single blocks.
        text: channels of the text states.
        pooled: channels of the pooled text.
        channels: of the latent.
        axes: channels of a head that rotate by time, row and column.
        ratio: width of the inner layers.
    """

    width: int = 3072
    heads: int = 24
    double: int = 20
    single: int = 40
    text: int = 4096
    pooled: int = 768
    channels: int = 16
    axes: tuple[int, int, int] = (16, 56, 56)
    ratio: int = 4


class NoTransformer(LikenessError):
    """A file without HunyuanVideo's transformer."""


def sizes_of(shapes: Mapping[str, tuple[int, ...]], what: str) -> DitSizes:
    """Widths and depths by the shapes of a checkpoint's tensors.

    Raises:
        NoTransformer: tensors that every such file has are missing.
    """
    needed = {
        "tokens": "img_in.proj.weight",
        "text": "txt_in.input_embedder.weight",
        "pooled": "vector_in.in_layer.weight",
        "head": "single_blocks.0.q_norm.weight",
        "inner": "double_blocks.0.img_mlp.fc1.weight",
    }
    missing = [name for name in needed.values() if name not in shapes]
    if missing:
        raise NoTransformer(
            what,
            expected="HunyuanVideo's transformer under the official names",
            found=f"no {missing[0]}",
            cure="choose mp_rank_00_model_states.pt of tencent/HunyuanVideo-Avatar",
        )
    found = {name: shapes[tensor] for name, tensor in needed.items()}
    (width, channels, *_), (head,) = found["tokens"], found["head"]
    double, single = (
        len({n.split(".")[1] for n in shapes if n.startswith(f"{k}_blocks.")}) for k in ("double", "single")
    )
    time = head // 8
    return DitSizes(
        width,
        width // head,
        double,
        single,
        found["text"][1],
        found["pooled"][1],
        channels,
        (time, (head - time) // 2, (head - time) // 2),
        found["inner"][0] // width,
    )
