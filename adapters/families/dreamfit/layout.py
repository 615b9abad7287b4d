"""What DreamFit files change in the base model: names in the file, weights of the base, factors.

Follows ``src/stablediffusion/unet.py`` and ``src/flux/model_dreamfit.py`` of bytedance/DreamFit (Lin et al. 2024,
arXiv:2412.17644). Quirk of the SD1.5 file: its two kinds of LoRA have different factors, 1 in attention and
``8 / rank`` elsewhere. Quirk of the Flux files: they hold a LoRA for ``txt_mod`` which the authors' code never runs.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

ENCODER = "target_unet."
REF_K, REF_V = ".attn1.ref_to_k.weight", ".attn1.ref_to_v.weight"
UNET_ALPHA = 8
DIT_SCALE = 0.5
BASE_TENSORS = 686

_RESIDUALS = (
    *(f"input_blocks.{n}.0" for n in (1, 2, 4, 5, 7, 8, 10, 11)),
    *("middle_block.0", "middle_block.2"),
    *(f"output_blocks.{n}.0" for n in range(12)),
)
_TRANSFORMERS = (
    *(f"input_blocks.{n}.1" for n in (1, 2, 4, 5, 7, 8)),
    "middle_block.1",
    *(f"output_blocks.{n}.1" for n in range(3, 12)),
)
_SKIPS = ("input_blocks.4.0", "input_blocks.7.0", *(f"output_blocks.{n}.0" for n in range(12)))
_SAMPLERS = (
    *(f"input_blocks.{n}.0.op" for n in (3, 6, 9)),
    *("output_blocks.2.1.conv", "output_blocks.5.2.conv", "output_blocks.8.2.conv"),
)
_INNER = ".transformer_blocks.0"
# The blocks whose self-attention reads the reference, in the order of the host's calls: middle, then up.
READ_BLOCKS = tuple(f"{path}{_INNER}" for path in _TRANSFORMERS[6:])

DIT_KEY = re.compile(r"^(double|single)_blocks\.(\d+)\.processor\.ref_qkv_lora_q\.down\.weight$")
DEAD = "txt_mod.lin_lora"
_QKV = ("q", "k", "v")
_DOUBLE = {
    "img_mod.lin_lora": "img_mod.lin.weight",
    "processor.ref_proj_lora1": "img_attn.proj.weight",
    "img_mlp_lora_1": "img_mlp.0.weight",
    "img_mlp_lora_2": "img_mlp.2.weight",
}
_SINGLE = {"modulation.lin_lora": "modulation.lin.weight", "processor.ref_proj_lora": "linear2.weight"}


@dataclass(frozen=True)
class Target:
    """One LoRA of a file.

    Attributes:
        source: name in the file, without ``.down.weight`` and ``.up.weight``.
        weight: name of the weight it changes, in the original naming of the base model (which is the host's).
        part: which third of a fused query-key-value weight (0, 1, 2), or None for the whole weight.
        alpha: numerator of the factor ``alpha / rank``; None for the factor 1.
    """

    source: str
    weight: str
    part: int | None = None
    alpha: int | None = None


def unet_targets() -> Iterator[Target]:
    """The 278 LoRAs of the SD1.5 encoder: 128 in attention, 150 elsewhere."""
    for path in _TRANSFORMERS:
        for attention in (f"{path}{_INNER}.attn1", f"{path}{_INNER}.attn2"):
            for end in _QKV:
                yield Target(f"{attention}.to_{end}_lora", f"{attention}.to_{end}.weight")
            yield Target(f"{attention}.to_out_lora", f"{attention}.to_out.0.weight")
    for layer in _plain_layers():
        yield Target(f"{layer}.lora_layer", f"{layer}.weight", alpha=UNET_ALPHA)


def _plain_layers() -> Iterator[str]:
    for path in _RESIDUALS:
        yield from (f"{path}.in_layers.2", f"{path}.emb_layers.1", f"{path}.out_layers.3")
    yield from (f"{path}.skip_connection" for path in _SKIPS)
    yield from _SAMPLERS
    for path in _TRANSFORMERS:
        yield from (f"{path}.proj_in", f"{path}.proj_out", f"{path}{_INNER}.ff.net.0.proj", f"{path}{_INNER}.ff.net.2")


def dit_targets(double: int, single: int) -> Iterator[Target]:
    """The LoRAs that act in a DiT of that many double and single blocks; the dead ones are not among them."""
    for kind, count, fused, whole in (
        ("double", double, "img_attn.qkv", _DOUBLE),
        ("single", single, "linear1", _SINGLE),
    ):
        for block in (f"{kind}_blocks.{number}." for number in range(count)):
            yield from (Target(block + source, block + weight) for source, weight in whole.items())
            for part, end in enumerate(_QKV):
                yield Target(f"{block}processor.ref_qkv_lora_{end}", f"{block}{fused}.weight", part)


def dead_names(double: int) -> set[str]:
    """Names of tensors of a Flux file that the authors' code loads and never runs."""
    return {name for i in range(double) for name in ends(f"double_blocks.{i}.{DEAD}")}


def ends(source: str) -> tuple[str, str]:
    """Names of the two tensors of a LoRA: down, up."""
    return f"{source}.down.weight", f"{source}.up.weight"


def dit_depths(names: Iterable[str]) -> tuple[int, int]:
    """Numbers of double and single blocks that the names speak of (one more than the largest index)."""
    depths = {"double": 0, "single": 0}
    for name in names:
        found = DIT_KEY.match(name)
        if found:
            depths[found[1]] = max(depths[found[1]], int(found[2]) + 1)
    return depths["double"], depths["single"]


def encoder_names(names: Iterable[str]) -> dict[str, str]:
    """The tensors of the SD1.5 encoder: name inside the UNet by name in the file.

    The authors' loader takes every name that contains ``target_unet`` and nothing else; a file without that part (the
    adapter alone) is taken whole.
    """
    names = tuple(names)
    marked = {name: name.partition(ENCODER)[2] for name in names if ENCODER in name}
    return marked or {name: name for name in names}


def is_adapter_name(name: str) -> bool:
    """Whether a name inside the encoder belongs to the adapter and not to the base UNet."""
    return "lora" in name or ".ref_to_" in name
