"""Names and shapes of published checkpoints, which family each is, and files written from them.

The lists come from the folder PARITY_GOLDEN where it is given, else from a compressed copy in the repository, which
``python tests/support/key_lists.py FOLDER`` writes anew. Names of several modules in one list are told apart by a tag
before ``::``, ``/`` or another sign; each is a file of its own.
"""

from __future__ import annotations

import json
import lzma
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import torch

ARCHIVE = Path(__file__).parents[1] / "golden" / "data" / "keys" / "published.json.xz"
Shapes = dict[str, list[int]]
Container = Literal["safetensors", "flat", "legacy", "parts", "state_dict", "module", "encoder"]

_TAG = re.compile(r"^(?:([^:/]+)::|([^:/]+)/|(SAGE|GAT|backbone\.pth|header\.pth):)")
_TRAINER_TAGS = {"prcl": ("model.", "uncer_head.")}


@dataclass(frozen=True)
class Published:
    """A key list of a published checkpoint and what must be said of it.

    Attributes:
        stem: name of the list.
        family: the one family that takes it.
        variants: every variant that its tensors fit; more than one means that they cannot decide.
        containers: how such files are packed by their publishers, or may be by users.
        dtype: of the published weights.
    """

    stem: str
    family: str
    variants: tuple[str | None, ...] = (None,)
    containers: tuple[Container, ...] = ("safetensors", "flat")
    dtype: torch.dtype = torch.float16


_PLUS = ("plus", "plus_v2")
_PLUS_FACE = ("plus", "plus_face")
_ELEVEN_PARTS = ("lapa", "helen")
_PARTS: tuple[Container, ...] = ("safetensors", "parts")
_TRAINED: tuple[Container, ...] = ("safetensors", "flat", "state_dict")

PUBLISHED: tuple[Published, ...] = (
    Published("common_ckpt_faceid_sd15", "ip_adapter_faceid", ("plain",), _PARTS),
    Published("common_ckpt_faceid_sdxl", "ip_adapter_faceid", ("plain",), _PARTS),
    Published("common_ckpt_faceid_plus_sd15", "ip_adapter_faceid", _PLUS, _PARTS),
    Published("common_ckpt_faceid_plus_sdxl", "ip_adapter_faceid", _PLUS, _PARTS),
    Published("common_ckpt_faceid_portrait_sd15", "ip_adapter_faceid", ("portrait",), _PARTS),
    Published("common_ckpt_plusface_sd15", "ip_adapter", _PLUS_FACE, _PARTS),
    Published("common_ckpt_plusface_sdxl", "ip_adapter", _PLUS_FACE, _PARTS),
    Published("common_ckpt_instantid", "instantid", ("instantid", "portrait_unnorm"), _PARTS, torch.float32),
    Published("common_ckpt_photomaker_v1_id_encoder", "photomaker", ("v1",), _PARTS),
    Published("common_ckpt_photomaker_v2_id_encoder", "photomaker", ("v2",), _PARTS),
    Published("common_ckpt_pulid_v1", "pulid_sdxl", ("v1",)),
    Published("common_ckpt_pulid_v1_1", "pulid_sdxl", ("v1.1",)),
    Published("common_ckpt_pulid_flux", "pulid_flux", (None,), dtype=torch.bfloat16),
    Published("fact_checkpoint", "fact", ("v1",), dtype=torch.float32),
    Published("id_animator_checkpoint", "id_animator", (None,), ("safetensors", "module"), torch.float32),
    Published("dreamfit_sd15_checkpoint", "dreamfit", ("sd15",), _TRAINED, torch.float32),
    Published("dreamfit_flux_checkpoint", "dreamfit", ("flux",), _TRAINED, torch.bfloat16),
    Published("hyavatar_full", "hunyuan_avatar", ("whole",), ("safetensors", "module"), torch.bfloat16),
    Published("dreamidv_dit_pose_depth2", "dreamid_v", ("pose",), _TRAINED, torch.float32),
    Published("dreamidv_faster_dit_small", "dreamid_v", ("faster",), _TRAINED, torch.float32),
    Published("am_adapter_matcher", "am_adapter", (None,), dtype=torch.float32),
    Published("am_adapter_controlnext", "am_adapter_controlnext", (None,)),
    Published("musetalk_unet", "musetalk", ("v1", "v15"), _TRAINED, torch.float32),
    Published("unavglip_checkpoint", "unavglip", ("resampler",), _TRAINED, torch.float32),
    Published("transface_s", "transface", ("transface",), ("safetensors", "flat", "legacy"), torch.float32),
    Published("transface_b", "transface", ("transface",), dtype=torch.float32),
    Published("transface_l", "transface", ("transface",), dtype=torch.float32),
    Published("topofr_r50", "topofr", (None,), dtype=torch.float32),
    Published("topofr_r100", "topofr", (None,), dtype=torch.float32),
    Published("topofr_r200", "topofr", (None,), dtype=torch.float32),
    Published("face_representation_flr_r50", "face_representation", (None,), _TRAINED, torch.float32),
    Published("w_plus_e4e", "e4e", (None,), ("safetensors", "encoder"), torch.float32),
    Published("fact_retinaface", "retinaface", (None,), _TRAINED, torch.float32),
    Published("restorerid_musiq", "musiq", (None,), _TRAINED, torch.float32),
    Published("musetalk_whisper_v15", "whisper", ("hugging_face",), ("safetensors", "flat"), torch.float32),
    Published("musetalk_whisper_encoder_v1", "whisper", ("openai",), ("safetensors", "flat"), torch.float32),
    Published("damofd_05g_kps", "damofd", (None,), _TRAINED, torch.float32),
    Published("faceswap_reswapper", "reswapper", ("128", "256"), _TRAINED, torch.float32),
    Published("segface_celeb_convnext_base_512", "segface", ("celeba",), dtype=torch.float32),
    Published("segface_celeb_efficientnet_512", "segface", ("celeba",), dtype=torch.float32),
    Published("segface_celeb_mobilenet_512", "segface", ("celeba",), dtype=torch.float32),
    Published("segface_celeb_resnet_512", "segface", ("celeba",), dtype=torch.float32),
    Published("segface_celeb_swin_base_512", "segface", ("celeba",), dtype=torch.float32),
    Published("segface_celeb_swinv2_base_512", "segface", ("celeba",), dtype=torch.float32),
    Published("segface_helen_mobilenet_512", "segface", _ELEVEN_PARTS, dtype=torch.float32),
    Published("segface_lapa_swin_base_224", "segface", _ELEVEN_PARTS, dtype=torch.float32),
)

# Checkpoints of systems that no family takes, and networks that stand beside a family's own file.
FOREIGN: tuple[str, ...] = (
    "cm_unet",
    "graph_adapter",
    "id_animator_motion_module",
    "madation_vitb16",
    "madation_vitl14",
    "prcl",
    "restorerid_projplus",
    "restorerid_structenc",
    "restorerid_unet_full",
    "secla",
    "w_plus_proj",
    "w_plus_stylegan2",
)

# Lists that are no published file and still hold all that a family asks for.
CONTAINED: Mapping[str, tuple[str, tuple[str | None, ...]]] = {
    "hyavatar_dit": ("hunyuan_avatar", ("whole",)),
    "dreamfit_flux": ("dreamfit", ("flux",)),
    "musetalk_unet_small": ("musetalk", ("v1", "v15")),
    "fact_encoder:encoder_file": ("transface", ("transface",)),
    "hyavatar_whisper_windows": ("whisper", ("hugging_face",)),
}


def stored_names() -> tuple[str, ...]:
    """The lists that the repository's copy holds."""
    return (*(row.stem for row in PUBLISHED), *FOREIGN)


def all_names(folder: Path) -> list[str]:
    """Every list there is: of the folder if it has any, else of the repository's copy."""
    found = sorted(path.name.removesuffix(".keys.json") for path in folder.glob("*.keys.json"))
    return sorted({*found, *stored_names()})


@lru_cache(maxsize=1)
def _archive() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(lzma.decompress(ARCHIVE.read_bytes()))
    return found


def raw_list(stem: str, folder: Path) -> dict[str, Any]:
    """A list as it is written, tags included: of the folder where it has it, else of the repository's copy."""
    path = folder / f"{stem}.keys.json"
    if path.exists():
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return found
    return dict(_archive()[stem])


def files_of(stem: str, folder: Path) -> dict[str, Shapes]:
    """The files a list stands for: names and shapes by tag; the tag is empty where the list has none."""
    raw = raw_list(stem, folder)
    if all(isinstance(entry, dict) for entry in raw.values()):
        return {f"{stem}:{tag}": shapes for tag, shapes in raw.items()}
    files: dict[str, Shapes] = {}
    for name, shape in raw.items():
        tag = _tag_of(stem, name)
        files.setdefault(f"{stem}:{tag}" if tag else stem, {})[name.removeprefix(tag)] = shape
    return files


def _tag_of(stem: str, name: str) -> str:
    for tag in _TRAINER_TAGS.get(stem, ()):
        if name.startswith(tag):
            return tag
    found = _TAG.match(name)
    return found.group() if found else ""


def shapes_of(stem: str, folder: Path) -> Shapes:
    """Names and shapes of a list that is one file."""
    (shapes,) = files_of(stem, folder).values()
    return shapes


def packed(shapes: Mapping[str, Any], container: Container) -> dict[str, Any]:
    """Names and shapes, nested as a torch file of that kind has them."""
    if container == "state_dict":
        return {"state_dict": dict(shapes)}
    if container == "module":
        return {"state_dict": {f"module.{name}": shape for name, shape in shapes.items()}}
    if container == "encoder":
        weights = {f"encoder.{name}": shape for name, shape in shapes.items()}
        return {"state_dict": weights, "latent_avg": (18, 512)}
    return dict(shapes)


def write_archive(folder: Path) -> int:
    """Compress the lists from ``folder`` into the repository's copy; return its size in bytes."""
    lists = {
        stem: json.loads((folder / f"{stem}.keys.json").read_text(encoding="utf-8")) for stem in sorted(stored_names())
    }
    text = json.dumps(lists, separators=(",", ":")).encode("utf-8")
    ARCHIVE.parent.mkdir(parents=True, exist_ok=True)
    return ARCHIVE.write_bytes(lzma.compress(text, preset=9 | lzma.PRESET_EXTREME))


if __name__ == "__main__":
    sys.stdout.write(f"{write_archive(Path(sys.argv[1]))} bytes\n")
