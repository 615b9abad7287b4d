"""How a RestorerID file is laid out, and what tells it from others: keys and shapes only.

The official checkpoint and the slim adapter file carry the same names; the slim one leaves the base model out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from types import MappingProxyType

from ...checkpoint import CheckpointHeader

UNET = "model.diffusion_model."
STRUCTURE = "structcond_stage_model."
PROJECTION = "Adapter.image_proj_model."
BASE_PARTS = (UNET, "first_stage_model.", "cond_stage_model.")
ADDITIONS = (".spade.", ".IDBalance.", "_lora.", "_ip.")
SPADE_KEY = ".spade.param_free_norm.weight"
CONTEXT = 768

# The transformer blocks in the order of IP-Adapter files: down, up, middle.
ATTENTION_BLOCKS = (
    *(f"input_blocks.{number}.1" for number in (1, 2, 4, 5, 7, 8)),
    *(f"output_blocks.{number}.1" for number in range(3, 12)),
    "middle_block.1",
)
RESIDUAL_BLOCKS = (
    *(f"input_blocks.{number}.0" for number in (1, 2, 4, 5, 7, 8, 10, 11)),
    "middle_block.0",
    "middle_block.2",
    *(f"output_blocks.{number}.0" for number in range(12)),
)


def attention_name(block: str, number: int) -> str:
    """Name of attn1 or attn2 of a transformer block inside the UNet."""
    return f"{block}.transformer_blocks.0.attn{number}"


def is_addition(name: str) -> bool:
    """Whether a tensor belongs to RestorerID and not to SD1.5."""
    if name.startswith((STRUCTURE, PROJECTION)):
        return True
    return name.startswith(UNET) and any(part in name for part in ADDITIONS)


def is_base(name: str) -> bool:
    """Whether a tensor belongs to the SD1.5 inside the official checkpoint."""
    return name.startswith(BASE_PARTS) and not is_addition(name)


def has_base(header: CheckpointHeader) -> bool:
    """Whether the file holds a whole SD1.5 beside the adapter."""
    return header.has(f"{UNET}input_blocks.0.0.weight", f"{UNET}out.2.weight")


def refusal(header: CheckpointHeader) -> str | None:
    """Why a file is not RestorerID's, or None if it is."""
    if not header.has(f"{UNET}{RESIDUAL_BLOCKS[0]}{SPADE_KEY}"):
        return "no spade layers in the residual blocks"
    if not header.with_prefix(STRUCTURE):
        return "no structure encoder (structcond_stage_model)"
    if not header.has(f"{UNET}{RESIDUAL_BLOCKS[0]}.IDBalance.mlp_shared.0.weight"):
        return "no FIR-Adapter (IDBalance): a base restoration model of the first training stage, without identity"
    first = header.shape(f"{UNET}{attention_name(ATTENTION_BLOCKS[0], 2)}.to_k_ip.weight")
    if first is None or len(first) != 2:
        return "no to_k_ip (the keys of the reference)"
    if first[1] != CONTEXT:
        return f"text context {first[1]} wide; RestorerID exists for SD1.5 ({CONTEXT})"
    return None


def narrowed(header: CheckpointHeader, names: Iterable[str]) -> CheckpointHeader:
    """The header of the same file with only some of its tensors, so that only these are read."""
    chosen = set(names)
    raw: Mapping[str, str] = {name: raw for name, raw in header.raw_names.items() if name in chosen}
    return replace(header, raw_names=MappingProxyType(dict(raw)))
