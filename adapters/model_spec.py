"""What a model file says of itself under the names that model tools read.

ModelSpec 1.0.1: https://github.com/Stability-AI/ModelSpec. The hash of the tensors and that of the base model have the
names of https://github.com/kohya-ss/sd-scripts.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

from .nested import printable

PREFIX = "modelspec."
_LONGEST = 200
TENSORS_HASH, BASE_HASH = "sshs_model_hash", "ss_new_sd_model_hash"
# By what the tensors or the metadata of a file call their base model.
BASE_ARCHITECTURES: Mapping[str, str] = {
    "SD1.x": "stable-diffusion-v1",
    "sd15": "stable-diffusion-v1",
    "SD2.x": "stable-diffusion-v2-1",
    "sd21": "stable-diffusion-v2-1",
    "SDXL": "stable-diffusion-xl-v1-base",
    "FLUX": "flux-1-dev",
    "hunyuan_video": "hunyuan-video",
}


def model_spec(title: str, architecture: str, **more: str) -> dict[str, str]:
    """Metadata of a file that is written today.

    Args:
        title: name for people.
        architecture: base model and kind, such as ``stable-diffusion-v1/lora``.
        more: further entries of ModelSpec without their prefix: ``license``, ``author``, ``description``,
            ``merged_from``; empty ones are left out.
    """
    entries = {
        "sai_model_spec": "1.0.1",
        "architecture": architecture,
        "implementation": "likeness",
        "title": title,
        "date": datetime.now(UTC).date().isoformat(),
        **more,
    }
    return {PREFIX + name: value for name, value in entries.items() if value}


def stated_licence(metadata: Mapping[str, str]) -> str:
    """The licence that a file states of itself, as text that can be shown; "" where it states none."""
    return printable(metadata.get(f"{PREFIX}license", ""))[:_LONGEST].strip()


def architecture_of(base: str, kind: str) -> str:
    """The ``architecture`` of a file of that kind on a base model; an unknown base stands for itself."""
    return f"{BASE_ARCHITECTURES.get(base, base)}/{kind}"
