"""Which base model a file was made for: by the widths of its tensors, and by what its metadata claims."""

from __future__ import annotations

from collections.abc import Mapping

from ...adapters.checkpoint import CheckpointHeader

_WIDTHS = {768: "SD1.x", 1024: "SD2.x", 2048: "SDXL"}
_CLAIMS = (
    ("flux", "FLUX"),
    ("stable-diffusion-xl", "SDXL"),
    ("sdxl", "SDXL"),
    ("stable-diffusion-v2", "SD2.x"),
    ("sd_v2", "SD2.x"),
    ("stable-diffusion-v1", "SD1.x"),
    ("sd_v1", "SD1.x"),
)
_FLUX_NAMES = ("double_blocks", "single_blocks", "single_transformer_blocks")
_INPUT_ENDS = (".weight", "_down.weight", "lora_A.weight", "lora.down.weight")


def base_of_tensors(header: CheckpointHeader) -> str | None:
    """The base model by names and by the width of the text that cross-attention reads, or None."""
    if any(part in name for name in header.tensors for part in _FLUX_NAMES):
        return "FLUX"
    for name, info in header.tensors.items():
        if _reads_text(name) and len(info.shape) >= 2:
            found = _WIDTHS.get(info.shape[1])
            if found is not None:
                return found
    return None


def base_of_claims(metadata: Mapping[str, str]) -> str | None:
    """The base model that the metadata names, or None."""
    for key in ("modelspec.architecture", "ss_base_model_version"):
        claim = metadata.get(key, "").lower()
        for part, base in _CLAIMS:
            if part in claim:
                return base
    return None


def _reads_text(name: str) -> bool:
    if ".to_k_ip." in name or ".to_v_ip." in name:
        return True
    whole = "attn2" in name and ("to_k" in name or "to_v" in name)
    return whole and name.endswith(_INPUT_ENDS) and "lora_up" not in name and "lora_B" not in name
