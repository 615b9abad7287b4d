"""Names in HunyuanVideo-Avatar's checkpoint: what it adds, what is HunyuanVideo's, and how ComfyUI names that.

Facts: the state dict of ``HYVideoDiffusionTransformer`` in ``hymm_sp/modules/models_audio.py`` of
Tencent-Hunyuan/HunyuanVideo-Avatar. Against HunyuanVideo for text the file lacks ``guidance_in`` (it is guided by CFG)
and holds 94 tensors more.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping

from ...checkpoint import CheckpointHeader
from .arch import AUDIO_TOKENS, BUCKETS, AvatarSizes

ADDED = ("ref_in.", "before_proj.", "audio_proj.", "motion_exp.", "motion_pose.", "fps_proj.", "audio_adapter_blocks.")
ADAPTER = re.compile(r"^audio_adapter_blocks\.(\d+)\.")
BLOCK = re.compile(r"^(double|single)_blocks\.(\d+)\.")

# What ComfyUI's loader replaces in each name, in its order.
_RENAMED = (
    ("txt_in.t_embedder.mlp.0.", "txt_in.t_embedder.in_layer."),
    ("txt_in.t_embedder.mlp.2.", "txt_in.t_embedder.out_layer."),
    ("txt_in.c_embedder.linear_1.", "txt_in.c_embedder.in_layer."),
    ("txt_in.c_embedder.linear_2.", "txt_in.c_embedder.out_layer."),
    ("_mod.linear.", "_mod.lin."),
    ("_attn_qkv.", "_attn.qkv."),
    ("mlp.fc1.", "mlp.0."),
    ("mlp.fc2.", "mlp.2."),
    ("_attn_q_norm.weight", "_attn.norm.query_norm.scale"),
    ("_attn_k_norm.weight", "_attn.norm.key_norm.scale"),
    (".q_norm.weight", ".norm.query_norm.scale"),
    (".k_norm.weight", ".norm.key_norm.scale"),
    ("_attn_proj.", "_attn.proj."),
    (".modulation.linear.", ".modulation.lin."),
    ("_in.mlp.2.", "_in.out_layer."),
    ("_in.mlp.0.", "_in.in_layer."),
)


def is_added(name: str) -> bool:
    """Whether a tensor is one that HunyuanVideo does not have."""
    return name.startswith(ADDED)


def host_name(name: str) -> str:
    """The name that ComfyUI's HunyuanVideo gives to an official name; those of added tensors stay as they are."""
    if is_added(name):
        return name
    for official, host in _RENAMED:
        name = name.replace(official, host)
    return name


def depths(names: Iterable[str]) -> tuple[int, int]:
    """Numbers of double and single blocks that the names speak of."""
    found = {"double": 0, "single": 0}
    for name in names:
        block = BLOCK.match(name)
        if block:
            found[block[1]] = max(found[block[1]], int(block[2]) + 1)
    return found["double"], found["single"]


def _linear(*names: str) -> Iterator[str]:
    for name in names:
        yield from (f"{name}.weight", f"{name}.bias")


def _refiner() -> Iterator[str]:
    yield from _linear("txt_in.input_embedder", "txt_in.t_embedder.mlp.0", "txt_in.t_embedder.mlp.2")
    yield from _linear("txt_in.c_embedder.linear_1", "txt_in.c_embedder.linear_2")
    ends = ("norm1", "norm2", "self_attn_qkv", "self_attn_proj", "mlp.fc1", "mlp.fc2", "adaLN_modulation.1")
    for block in range(2):
        yield from _linear(*(f"txt_in.individual_token_refiner.blocks.{block}.{end}" for end in ends))


def base_names(double: int, single: int) -> set[str]:
    """Official names of all tensors of HunyuanVideo itself, for that many double and single blocks."""
    names = {*_refiner(), *_linear("img_in.proj", "time_in.mlp.0", "time_in.mlp.2")}
    names |= {*_linear("vector_in.in_layer", "vector_in.out_layer", "final_layer.linear")}
    names |= {*_linear("final_layer.adaLN_modulation.1")}
    for number in range(double):
        for stream in (f"double_blocks.{number}.{side}" for side in ("img", "txt")):
            names |= {*_linear(f"{stream}_mod.linear", f"{stream}_attn_qkv", f"{stream}_attn_proj")}
            names |= {*_linear(f"{stream}_mlp.fc1", f"{stream}_mlp.fc2")}
            names |= {f"{stream}_attn_q_norm.weight", f"{stream}_attn_k_norm.weight"}
    for block in (f"single_blocks.{number}" for number in range(single)):
        names |= {*_linear(f"{block}.linear1", f"{block}.linear2", f"{block}.modulation.linear")}
        names |= {f"{block}.q_norm.weight", f"{block}.k_norm.weight"}
    return names


def base_in(names: Iterable[str]) -> dict[str, str]:
    """HunyuanVideo's part of a file: the host's name by the name in the file."""
    return {name: host_name(name) for name in names if not is_added(name)}


def base_differences(found: Mapping[str, str]) -> tuple[list[str], list[str]]:
    """What HunyuanVideo's part of a file (from `base_in`) lacks and has too much, by the host's names."""
    expected = {host_name(name) for name in base_names(*depths(found))}
    present = set(found.values())
    return sorted(expected - present), sorted(present - expected)


def is_block_linear(name: str) -> bool:
    """Whether a weight, by its official name, is one that the fp8 file quantises: every linear layer of a block."""
    return bool(BLOCK.match(name)) and name.endswith(".weight") and "norm" not in name


def sizes_in(header: CheckpointHeader) -> AvatarSizes | str:
    """Widths by the shapes of the added tensors, or why this is no such file (a clause)."""
    query, tokens = header.shape("audio_adapter_blocks.0.to_q.weight"), header.shape("audio_proj.proj1.weight")
    if query is None or tokens is None:
        return "no audio_adapter_blocks.0.to_q.weight beside audio_proj.proj1.weight"
    patch, motion = header.shape("ref_in.proj.weight"), header.shape("motion_exp.mlp.0.weight")
    if patch is None or motion is None:
        return "an audio adapter without ref_in.proj.weight or motion_exp.mlp.0.weight"
    if (len(query), len(tokens), len(patch), len(motion)) != (2, 2, 5, 2):
        return "audio adapters, ref_in or motion_exp of other dimensions"
    inner, width = query
    out = header.shape("audio_proj.proj3.weight")
    if motion[0] * BUCKETS != width or patch[0] != width or out is None or out[0] != AUDIO_TOKENS * width:
        return f"parts that do not fit a width of {width}"
    numbers = {int(found[1]) for name in header.tensors if (found := ADAPTER.match(name))}
    return AvatarSizes(width, inner, tokens[0], tokens[1], patch[1], len(numbers))
