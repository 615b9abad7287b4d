"""The face adapters that users own already: each file is claimed by its own family and by no other."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from common_adapters import full_face, photomaker, plain, published_widths, resampled
from harness import golden_folder
from likeness_pack.adapters import registry
from likeness_pack.adapters.checkpoint import read_header
from likeness_pack.adapters.family import Ambiguity, Match
from likeness_pack.tools.standins.adapters import faceid, faceid_portrait, fact
from sparse_files import write_sparse_safetensors

OURS = ("ip_adapter", "instantid", "photomaker")
PLUS, RAW = ("plus", "plus_face"), ("instantid", "portrait_unnorm")
FILES: dict[str, tuple[Any, str, Any]] = {
    "faceid": (faceid("sd15"), "ip_adapter_faceid", "plain"),
    "faceid plus": (faceid("sdxl", plus=True), "ip_adapter_faceid", ("plus", "plus_v2")),
    "portrait": (faceid_portrait(), "ip_adapter_faceid", "portrait"),
    "fact": (fact(), "fact", "v1"),
    "plain": (plain("sd15", published_widths("sd15")), "ip_adapter", "plain"),
    "full-face": (full_face("sd15", published_widths("sd15")), "ip_adapter", "full_face"),
    "plus sd15": (resampled("sd15", published_widths("sd15"), 1280, 768), "ip_adapter", PLUS),
    "plus sdxl": (resampled("sdxl", published_widths("sdxl"), 1280, 1280), "ip_adapter", PLUS),
    "instantid": (resampled("sdxl", published_widths("sdxl"), 512, 1280), "instantid", RAW),
    "photomaker v1": (photomaker(False), "photomaker", "v1"),
    "photomaker v2": (photomaker(True), "photomaker", "v2"),
}
# Published key lists by the name of their file, where the folder with them is at hand.
LISTED = {
    "common_ckpt_plusface_sd15": ("ip_adapter", PLUS),
    "common_ckpt_plusface_sdxl": ("ip_adapter", PLUS),
    "common_ckpt_instantid": ("instantid", RAW),
    "common_ckpt_photomaker_v1_id_encoder": ("photomaker", "v1"),
    "common_ckpt_photomaker_v2_id_encoder": ("photomaker", "v2"),
}


def claims(path: Path) -> dict[str, Any]:
    """Variant or candidates by claiming family."""
    header = read_header(path)
    answers = {family.id: family.recognise(header) for family in registry.families()}
    found: dict[str, Any] = {}
    for name, answer in answers.items():
        if isinstance(answer, Match):
            found[name] = answer.variant
        elif isinstance(answer, Ambiguity):
            found[name] = answer.candidates
    return found


@pytest.mark.parametrize("name", FILES)
def test_one_family_claims_a_file(tmp_path: Path, name: str) -> None:
    shapes, family, answer = FILES[name]
    assert claims(write_sparse_safetensors(tmp_path / "3f9a", shapes, torch.float16)) == {family: answer}


def test_every_key_list_at_hand_is_claimed_by_its_own_family_alone(tmp_path: Path) -> None:
    lists = sorted(golden_folder().glob("*.keys.json"))
    assert lists
    for number, path in enumerate(lists):
        stored = json.loads(path.read_text(encoding="utf-8"))
        shapes = {name: shape for name, shape in stored.items() if isinstance(shape, list)} if stored else {}
        if not shapes or any(not isinstance(size, int) for shape in shapes.values() for size in shape):
            continue
        found = claims(write_sparse_safetensors(tmp_path / f"{number:x}", shapes, torch.float16))
        stem = path.name.removesuffix(".keys.json")
        assert {name: found[name] for name in OURS if name in found} == dict(
            [LISTED[stem]] if stem in LISTED else []
        ), stem
        assert len(found) <= 1, (stem, found)


@pytest.mark.parametrize("name", ["plain", "full-face", "plus sdxl", "instantid", "photomaker v2"])
def test_other_families_say_why_not(tmp_path: Path, name: str) -> None:
    """Every refusal is a reason of its own, and none is empty."""
    shapes, own, _ = FILES[name]
    header = read_header(write_sparse_safetensors(tmp_path / "any", shapes, torch.float16))
    reasons = {family.id: family.recognise(header) for family in registry.families() if family.id != own}
    assert all(isinstance(reason, str) and len(reason) > 5 for reason in reasons.values()), reasons
