"""Names of a UNet's tensors: those of the original code of Stable Diffusion, and those of diffusers."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

LEVELS = 4
_RESIDUAL = {
    "in_layers.0.": "norm1.",
    "in_layers.2.": "conv1.",
    "emb_layers.1.": "time_emb_proj.",
    "out_layers.0.": "norm2.",
    "out_layers.3.": "conv2.",
    "skip_connection.": "conv_shortcut.",
}
_ENDS = {
    "time_embed.0.": "time_embedding.linear_1.",
    "time_embed.2.": "time_embedding.linear_2.",
    "input_blocks.0.0.": "conv_in.",
    "out.0.": "conv_norm_out.",
    "out.2.": "conv_out.",
}


def to_diffusers(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors by the names of diffusers' ``UNet2DConditionModel``."""
    table = _table()
    return {_renamed(name, table): tensor for name, tensor in tensors.items()}


def to_original(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The other way."""
    table = {new: old for old, new in _table().items()}
    return {_renamed(name, table): tensor for name, tensor in tensors.items()}


def _renamed(name: str, table: Mapping[str, str]) -> str:
    fitting = [old for old in table if name.startswith(old)]
    # Numbers end in a dot, so that one prefix at most fits; names of attention layers are the same in both.
    return table[fitting[0]] + name.removeprefix(fitting[0]) if fitting else name


def _table() -> dict[str, str]:
    """Prefixes of diffusers by original prefixes."""
    table = dict(_ENDS)
    for number in range(2 * LEVELS):
        level, place = divmod(number, 2)
        table |= _block(f"input_blocks.{3 * level + place + 1}", f"down_blocks.{level}", place)
    for level in range(LEVELS - 1):
        table[f"input_blocks.{3 * level + 3}.0.op."] = f"down_blocks.{level}.downsamplers.0.conv."
        # The deepest level up has no attention, so its upsampler comes one place earlier.
        table[f"output_blocks.{3 * level + 2}.{1 if level == 0 else 2}.conv."] = f"up_blocks.{level}.upsamplers.0.conv."
    for number in range(3 * LEVELS):
        level, place = divmod(number, 3)
        table |= _block(f"output_blocks.{number}", f"up_blocks.{level}", place)
    for place in (0, 1):
        table |= _residual(f"middle_block.{2 * place}", f"mid_block.resnets.{place}")
    table["middle_block.1."] = "mid_block.attentions.0."
    # The upsampler of the deepest level stands where others have their attention.
    return dict(sorted(table.items(), key=lambda pair: -len(pair[0])))


def _block(original: str, block: str, place: int) -> dict[str, str]:
    return _residual(f"{original}.0", f"{block}.resnets.{place}") | {f"{original}.1.": f"{block}.attentions.{place}."}


def _residual(original: str, block: str) -> dict[str, str]:
    return {f"{original}.{old}": f"{block}.{new}" for old, new in _RESIDUAL.items()}
