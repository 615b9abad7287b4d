"""The layouts of IP-Adapter files, and what tells FaceID from its relatives: keys and shapes only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ...checkpoint import CheckpointHeader, TensorInfo
from .arch import HEAD_DIM

# Published files, and raw dumps of the trainer (which may hold the whole UNet beside them, under ``unet.``).
LAYOUTS = (("image_proj.", "ip_adapter."), ("image_proj_model.", "adapter_modules."))
PERCEIVER = "perceiver_resampler."
# attn2 layers of each base model, by the width of its text context.
BASES: Mapping[int, tuple[str, int]] = {768: ("sd15", 16), 2048: ("sdxl", 70)}
PROJECTIONS = ("to_q", "to_k", "to_v", "to_out")

Part = Mapping[str, TensorInfo]


@dataclass(frozen=True)
class Parts:
    """The two parts of a file, names without their prefixes."""

    projection: Part
    attention: Part
    prefixes: tuple[str, str]

    @property
    def context(self) -> int:
        """Width of the base model's text context, 0 where the first layer is missing."""
        shape = _shape(self.attention, "1.to_k_ip.weight")
        return shape[1] if len(shape) == 2 else 0

    @property
    def has_lora(self) -> bool:
        """Whether the file carries its LoRA."""
        return any("_lora." in name for name in self.attention)

    @property
    def has_perceiver(self) -> bool:
        """Whether it is a Plus file."""
        return any(name.startswith(PERCEIVER) for name in self.projection)

    @property
    def tokens(self) -> int:
        """Face tokens per photo."""
        shape = _shape(self.projection, "proj.2.weight")
        return shape[0] // self.context if shape and self.context else 0


def parts_of(header: CheckpointHeader) -> Parts | None:
    """The parts of an IP-Adapter file of either layout, or None."""
    for prefixes in LAYOUTS:
        projection, attention = (header.with_prefix(prefix) for prefix in prefixes)
        if projection and attention:
            return Parts(projection, attention, prefixes)
    return None


def refusal(parts: Parts) -> str | None:
    """Why these parts are not FaceID's, or None if they are."""
    return _other_attention(parts.attention) or _other_projection(parts) or _wrong_sizes(parts)


def _other_attention(part: Part) -> str | None:
    if any(".to_q_wplus" in name for name in part):
        return "attention of a W+ adapter (to_q_wplus)"
    if any(".to_k_face" in name for name in part):
        return "attention of ID-Animator (to_k_face)"
    if not any(name.endswith(".to_k_ip.weight") for name in part):
        return "no to_k_ip (the face keys)"
    return None


def _other_projection(parts: Parts) -> str | None:
    part = parts.projection
    if "body.0.weight" in part or "mapping_0.0.weight" in part:
        return "projection of PuLID"
    if "latents" in part:
        width = _shape(part, "proj_in.weight")[1:]
        if width == (512,):
            return (
                "learned queries over raw embeddings: InstantID, or FaceID-Portrait-unnorm, which no tensor tells apart"
            )
        return "learned queries over CLIP patches: IP-Adapter plus or plus-face"
    if "proj.3.weight" in part:
        return "projection of each CLIP patch: IP-Adapter full-face"
    if "proj.weight" in part:
        return "projection of a CLIP image embedding: the plain IP-Adapter"
    if parts.has_perceiver and not parts.has_lora:
        return "perceiver without LoRA: FaceID for Kolors, or a Plus file that was stripped of its LoRA"
    if "proj.0.weight" not in part or "proj.2.weight" not in part:
        return "no proj.0 and proj.2 (the projection of a face embedding)"
    return None


def _wrong_sizes(parts: Parts) -> str | None:
    if parts.context not in BASES:
        return f"text context {parts.context} wide; FaceID exists for SD1.5 (768) and SDXL (2048)"
    if _shape(parts.projection, "proj.2.weight")[0] % parts.context:
        return f"proj.2 does not give whole tokens of width {parts.context}"
    queries = _shape(parts.projection, f"{PERCEIVER}layers.0.0.to_q.weight")
    if queries and queries[0] % HEAD_DIM:
        return f"perceiver attention {queries[0]} wide, not a multiple of {HEAD_DIM}"
    return None


def _shape(part: Part, name: str) -> tuple[int, ...]:
    info = part.get(name)
    return () if info is None else info.shape
