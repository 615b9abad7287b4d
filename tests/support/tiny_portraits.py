"""Small files of ID-Animator, AnimateDiff's motion module and the W+ adapter, in the published layouts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from likeness_pack.adapters.identity import Identity
from likeness_pack.tools.standins.blocks import linear, norm, perceiver
from likeness_pack.tools.standins.fill import Shapes, filled_all
from sparse_files import nested_by_part
from tiny_adapters import widths
from torch import Tensor

# Width of each attn2 layer of SD1.5 in file order.
SD15_WIDTHS = [320] * 2 + [640] * 2 + [1280] * 2 + [1280] * 3 + [640] * 3 + [320] * 3 + [1280]
CONTEXT = 768


def animator_shapes(layers: Sequence[int], rank: int = 4, image: int = 20, depth: int = 1, queries: int = 3) -> Shapes:
    """``animator.ckpt`` without ``module.``; the published file has rank 128, image 1280, depth 4, 16 queries."""
    name = "image_proj_model."
    shapes: Shapes = {f"{name}latents": (1, queries, CONTEXT)}
    shapes |= linear(f"{name}proj_in", image, CONTEXT) | linear(f"{name}proj_out", CONTEXT, CONTEXT)
    shapes |= norm(f"{name}norm_out", CONTEXT) | perceiver(name, CONTEXT, depth, CONTEXT)
    for number, width in enumerate(layers):
        layer = f"adapter_modules.{2 * number + 1}"
        for role, inputs in (("q", width), ("k", CONTEXT), ("v", CONTEXT), ("out", width)):
            shapes |= linear(f"{layer}.to_{role}_lora.down", inputs, rank, bias=False)
            shapes |= linear(f"{layer}.to_{role}_lora.up", rank, width, bias=False)
        shapes |= linear(f"{layer}.to_k_face", CONTEXT, width, bias=False)
        shapes |= linear(f"{layer}.to_v_face", CONTEXT, width, bias=False)
    return shapes


def published_animator() -> Shapes:
    """The published file's names and shapes."""
    return animator_shapes(SD15_WIDTHS, rank=128, image=1280, depth=4, queries=16)


def write_animator(path: Path, image: int = 20) -> dict[str, Tensor]:
    """Write a file for the tiny SD1.5, as the trainer dumps it; return its tensors without ``module.``."""
    tensors = filled_all(animator_shapes(widths("SD15"), image=image), torch.float32)
    torch.save({"state_dict": {f"module.{name}": value for name, value in tensors.items()}}, path)
    return tensors


def aligned_identity(seed: int = 0, photos: int = 1, image: int = 20) -> Identity:
    """CLIP patches of aligned faces."""
    generator = torch.Generator().manual_seed(seed)
    features = {
        "image_tokens": torch.randn(photos, 6, image, generator=generator),
        "image_tokens_zero": torch.randn(1, 6, image, generator=torch.Generator().manual_seed(99)),
    }
    return Identity("clip_vision", features, photos=("0" * 64,) * photos)


def motion_shapes(levels: Sequence[int], positions: int = 32, middle: bool = True) -> Shapes:
    """A motion file; the published one has levels 320, 640, 1280, 1280."""
    places = [(f"down_blocks.{i}.motion_modules.{j}", levels[i]) for i in range(4) for j in range(2)]
    places += [(f"up_blocks.{i}.motion_modules.{j}", levels[3 - i]) for i in range(4) for j in range(3)]
    places += [("mid_block.motion_modules.0", levels[3])] if middle else []
    shapes: Shapes = {}
    for place, width in places:
        name = f"{place}.temporal_transformer"
        block = f"{name}.transformer_blocks.0"
        shapes |= norm(f"{name}.norm", width) | linear(f"{name}.proj_in", width, width)
        for number in (0, 1):
            attend = f"{block}.attention_blocks.{number}"
            for role in ("q", "k", "v"):
                shapes |= linear(f"{attend}.to_{role}", width, width, bias=False)
            shapes |= linear(f"{attend}.to_out.0", width, width) | {f"{attend}.pos_encoder.pe": (1, positions, width)}
            shapes |= norm(f"{block}.norms.{number}", width)
        shapes |= linear(f"{block}.ff.net.0.proj", width, 8 * width) | linear(f"{block}.ff.net.2", 4 * width, width)
        shapes |= norm(f"{block}.ff_norm", width) | linear(f"{name}.proj_out", width, width)
    return shapes


def write_motion(path: Path, levels: Sequence[int] = (32, 64, 128, 128), positions: int = 32) -> dict[str, Tensor]:
    """Write a motion file for the tiny SD1.5 with a weight beside the motion layers, as some publishers leave it."""
    tensors = filled_all(motion_shapes(levels, positions), torch.float32)
    torch.save({"state_dict": {**tensors, "conv_in.weight": torch.ones(1)}, "animatediff_config": {"a": 1}}, path)
    return tensors


def w_plus_shapes(layers: Sequence[int]) -> Shapes:
    """``wplus_adapter.bin``; the mapper has its published size."""
    shapes: Shapes = {}
    for number, rows in enumerate((4, 4, 4, 6)):
        shapes |= linear(f"w_proj.proj_{number}", rows * 512, CONTEXT, bias=False)
    shapes |= norm("w_proj.norm", CONTEXT)
    for number, width in enumerate(layers):
        layer = f"wplus_adapter.{2 * number + 1}"
        shapes |= linear(f"{layer}.to_q_wplus", width, width, bias=False)
        shapes |= linear(f"{layer}.to_k_wplus", CONTEXT, width, bias=False)
        shapes |= linear(f"{layer}.to_v_wplus", CONTEXT, width, bias=False)
    return shapes


def write_w_plus(path: Path) -> dict[str, Tensor]:
    """Write a W+ adapter for the tiny SD1.5; return its tensors by flat name."""
    tensors = filled_all(w_plus_shapes(widths("SD15")), torch.float32)
    torch.save(nested_by_part(tensors), path)
    return tensors


def w_plus_identity(seed: int = 0, photos: int = 1) -> Identity:
    """W+ codes as e4e gives them."""
    codes = torch.randn(photos, 18, 512, generator=torch.Generator().manual_seed(2000 + seed))
    return Identity("e4e", {"w_plus": codes}, photos=(f"{seed}" * 64,) * photos, masked=True)
