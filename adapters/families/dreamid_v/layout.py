"""Names and shapes of the two published files, and what shapes tell.

Facts of bytedance/DreamID-V (``dreamidv_wan/modules/model.py``, ``projector.py``; ``dreamidv_wan_faster``). Both files
are a whole Wan 2.1 model whose ``patch_embedding`` takes 48 channels (noise, clip, mask; 16 each) and whose
``ref_conv`` takes the photo. Quirk of the pose file: its cross-attentions hold pose weights too, because their class
inherits them; nothing ever reads those.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from ...checkpoint import CheckpointHeader

LATENT = 16
IN_CHANNELS = 3 * LATENT
HEAD = 128
TEXT = 4096
FREQUENCIES = 256
POSE_PICTURE, POSE_CHANNELS = 3, 512
PROJECTOR = "project_pose."
_BLOCK = re.compile(r"^blocks\.(\d+)\.")
_POSE = re.compile(r"^blocks\.\d+\.self_attn\.(k_pose|v_pose|norm_k_pose|pose_gate)\b")
_DEAD = re.compile(r"^blocks\.\d+\.cross_attn\.(k_pose|v_pose|norm_k_pose|pose_gate)\b")
# Tensors of other Wan files with 48 channels and a ref_conv: an image branch in the cross-attention.
_IMAGE = re.compile(r"^(img_emb\.|blocks\.\d+\.cross_attn\.(k_img|v_img|norm_k_img)\b)")

Shapes = dict[str, tuple[int, ...]]


@dataclass(frozen=True)
class Sizes:
    """Hyper-parameters that shapes tell.

    Attributes:
        width: channels of the model, 128 for each head.
        feed_forward: inner channels of its MLP.
        layers: number of blocks.
    """

    width: int
    feed_forward: int
    layers: int

    @property
    def heads(self) -> int:
        """Number of attention heads."""
        return self.width // HEAD


def sizes_in(header: CheckpointHeader) -> Sizes | str:
    """The sizes of a DreamID-V model, or the reason (a clause) why the file is none."""
    patch, ref = header.shape("patch_embedding.weight"), header.shape("ref_conv.weight")
    if patch is None or len(patch) != 5 or "head.modulation" not in header.tensors:
        return "no patch_embedding.weight of five dimensions with a head.modulation: not a Wan model"
    if patch[1] != IN_CHANNELS or ref != (patch[0], LATENT, 2, 2):
        return f"a Wan model of {patch[1]} input channels with ref_conv {ref}, instead of 48 and ({patch[0]}, 16, 2, 2)"
    if any(_IMAGE.match(name) for name in header.tensors):
        return "a Wan model with an image branch (img_emb or k_img), which DreamID-V lacks"
    feed_forward = header.shape("blocks.0.ffn.0.weight")
    numbers = {int(found.group(1)) for found in map(_BLOCK.match, header.tensors) if found}
    if feed_forward is None or patch[0] % HEAD or numbers != set(range(len(numbers))):
        return f"a Wan model of width {patch[0]} whose blocks ({len(numbers)}) are incomplete"
    return Sizes(patch[0], feed_forward[0], len(numbers))


def is_pose(name: str) -> bool:
    """Whether a tensor belongs to the pose branch and is read."""
    return name.startswith(PROJECTOR) or _POSE.match(name) is not None


def is_dead(name: str) -> bool:
    """Whether a tensor is never read, see the top of this file."""
    return _DEAD.match(name) is not None


def dit_shapes(sizes: Sizes) -> Shapes:
    """Every tensor of the Wan model."""
    width, inner = sizes.width, sizes.feed_forward
    shapes = _biased("patch_embedding", width, IN_CHANNELS, 1, 2, 2) | _biased("ref_conv", width, LATENT, 2, 2)
    shapes |= _biased("text_embedding.0", width, TEXT) | _biased("text_embedding.2", width, width)
    shapes |= _biased("time_embedding.0", width, FREQUENCIES) | _biased("time_embedding.2", width, width)
    shapes |= _biased("time_projection.1", 6 * width, width)
    shapes |= {"head.modulation": (1, 2, width)} | _biased("head.head", 4 * LATENT, width)
    for number in range(sizes.layers):
        block = f"blocks.{number}."
        shapes |= {f"{block}modulation": (1, 6, width)}
        shapes |= {f"{block}norm3.weight": (width,), f"{block}norm3.bias": (width,)}
        shapes |= _biased(f"{block}ffn.0", inner, width) | _biased(f"{block}ffn.2", width, inner)
        for attention in ("self_attn", "cross_attn"):
            shapes |= _attention(f"{block}{attention}.", width, "qkvo", "qk")
    return shapes


def pose_shapes(sizes: Sizes) -> Shapes:
    """Every tensor of the pose branch that is read."""
    channels = (POSE_PICTURE, 128, 256, POSE_CHANNELS, POSE_CHANNELS)
    shapes: Shapes = {}
    for number in (0, 1):
        shapes |= _biased(f"{PROJECTOR}time_down.{number}", POSE_PICTURE, POSE_PICTURE, 3)
    for number, (inputs, outputs) in enumerate(zip(channels, channels[1:], strict=False)):
        shapes |= _biased(f"{PROJECTOR}convs.{3 * number}", outputs, inputs, 3, 3)
    shapes |= _biased(f"{PROJECTOR}out.proj", sizes.width, 4 * POSE_CHANNELS)
    for number in range(sizes.layers):
        shapes |= _pose_attention(f"blocks.{number}.self_attn.", sizes.width)
    return shapes


def dead_shapes(sizes: Sizes) -> Shapes:
    """The tensors of the pose file that nothing reads."""
    shapes: Shapes = {}
    for number in range(sizes.layers):
        shapes |= _pose_attention(f"blocks.{number}.cross_attn.", sizes.width)
    return shapes


def _pose_attention(prefix: str, width: int) -> Shapes:
    shapes = _biased(f"{prefix}k_pose", width, width) | _biased(f"{prefix}v_pose", width, width)
    return shapes | {f"{prefix}norm_k_pose.weight": (width,), f"{prefix}pose_gate": (1,)}


def _attention(prefix: str, width: int, linears: str, norms: str) -> Shapes:
    shapes: Shapes = {}
    for name in linears:
        shapes |= _biased(f"{prefix}{name}", width, width)
    return shapes | {f"{prefix}norm_{name}.weight": (width,) for name in norms}


def _biased(name: str, *shape: int) -> Shapes:
    return {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
