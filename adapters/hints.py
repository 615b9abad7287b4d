"""Files of other kinds, told by a few of their keys, so that a refusal can say what the file probably is.

Key names: the published files' own, as listed in each system's public code.
"""

from __future__ import annotations

from dataclasses import dataclass

from .checkpoint import CheckpointHeader

_LISTED = "use the whole file of a system that the help page of this loader lists"


@dataclass(frozen=True)
class Hint:
    """What a file probably is (a noun phrase) and what to do with it (an imperative clause)."""

    found: str
    cure: str


@dataclass(frozen=True)
class _Rule:
    """A file is of this kind if any of its names contains any of ``parts`` and, if given, all of ``also``."""

    parts: tuple[str, ...]
    hint: Hint
    also: tuple[str, ...] = ()


def _belongs(thing: str, folder: str, loader: str) -> Hint:
    return Hint(f"what looks like {thing}", f"put it into models/{folder} and load it with {loader}")


def _adapter(system: str) -> Hint:
    return _belongs(f"a file of {system}, or a part of one", "face_adapters", "Load Face Adapter")


# Files of supported systems reach these rules only if their own family refused them: a part, or a damaged file.
_FACE_RULES: tuple[_Rule, ...] = (
    _Rule(("pulid_ca.",), _adapter("PuLID for Flux")),
    _Rule(("id_adapter_attn_layers.", "image_proj.mapping_0.", "id_adapter.mapping_0."), _adapter("PuLID for SDXL")),
    _Rule(("id_encoder.vision_model.", "id_encoder.qformer_perceiver."), _adapter("PhotoMaker")),
    _Rule((".to_q_wplus.", ".to_k_wplus."), _adapter("a W+ adapter")),
    _Rule((".to_k_face.", ".to_v_face."), _adapter("ID-Animator")),
    _Rule(
        ("motion_modules.0.temporal_transformer.",),
        _belongs("an AnimateDiff motion module", "face_adapters", "Apply Motion Module"),
    ),
    _Rule(("ref_qkv_lora_", ".ref_to_k."), _adapter("DreamFit")),
    _Rule(("conv4d.0.0.query_conv",), _adapter("the matcher of AM-Adapter")),
    _Rule(("structcond_stage_model.",), _adapter("RestorerID")),
)
_OTHER_RULES: tuple[_Rule, ...] = (
    _Rule(
        ("controlnet_cond_embedding.", "control_model.", "controlnet_down_blocks.", "controlnet_blocks."),
        _belongs("a ControlNet", "controlnet", "the ControlNet loader"),
    ),
    _Rule(
        ("lora_up.", "lora_down.", "lora_A.", "lora_B.", "lora.up.", "lora.down."),
        _belongs("a LoRA", "loras", "a LoRA loader"),
    ),
    _Rule(
        ("diffusion_model.input_blocks.", "diffusion_model.double_blocks.", "diffusion_model.joint_blocks."),
        _belongs("a whole base model", "checkpoints", "the checkpoint loader"),
        also=("first_stage_model.",),
    ),
    _Rule(
        ("input_blocks.0.0.", "double_blocks.0.img_attn.", "down_blocks.0.resnets.", "joint_blocks.0."),
        _belongs("a diffusion model without its text encoder", "diffusion_models", "the diffusion model loader"),
    ),
    _Rule(
        ("vision_model.encoder.layers.0.", "visual.transformer.resblocks.0."),
        _belongs("a CLIP vision encoder", "clip_vision", "the CLIP vision loader"),
    ),
    _Rule(("text_model.encoder.layers.0.",), _belongs("a CLIP text encoder", "text_encoders", "the CLIP loader")),
    _Rule(("decoder.up.0.block.0.", "decoder.up_blocks.0."), _belongs("a VAE", "vae", "the VAE loader")),
)


def likely_kind(header: CheckpointHeader) -> Hint | None:
    """Return what an unrecognised file probably is, or None."""
    names = tuple(header.tensors)
    # PuLID in its community form and ID-Animator carry IP-Adapter keys too, so the rules of such systems come first;
    # an IP-Adapter with a LoRA inside is no LoRA file.
    rules = _FACE_RULES if _contains(names, (".to_k_ip.",)) else _FACE_RULES + _OTHER_RULES
    for rule in rules:
        if _contains(names, rule.parts) and all(_contains(names, (part,)) for part in rule.also):
            return rule.hint
    return _ip_adapter_kind(header)


def _ip_adapter_kind(header: CheckpointHeader) -> Hint | None:
    if not _contains(tuple(header.tensors), (".to_k_ip.",)):
        return None
    width = header.shape("image_proj.proj_in.weight")
    raw_embedding = header.has("image_proj.latents") and width is not None and width[-1:] == (512,)
    if raw_embedding and not _contains(tuple(header.tensors), ("_lora.",)):
        return _adapter("InstantID or FaceID-Portrait-unnorm")
    return Hint("what looks like an IP-Adapter of another kind, or a part of one", _LISTED)


def _contains(names: tuple[str, ...], parts: tuple[str, ...]) -> bool:
    return any(part in name for part in parts for name in names)
