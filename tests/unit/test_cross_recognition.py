"""A key list alone tells what a file is: every published layout, under any name, is its own family's and nobody
else's.
"""

from __future__ import annotations

import random
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from common_adapters import full_face, plain, published_widths
from harness import golden_folder
from key_lists import CONTAINED, FOREIGN, PUBLISHED, Container, Published, all_names, files_of, packed, shapes_of
from likeness_pack.adapters import registry
from likeness_pack.adapters.checkpoint import CheckpointHeader, read_header
from likeness_pack.adapters.errors import AmbiguousCheckpoint, UnknownCheckpoint
from likeness_pack.adapters.family import Ambiguity
from sparse_files import nested_by_part, write_sparse_safetensors, write_zero_storage_torch
from tiny_portraits import SD15_WIDTHS, w_plus_shapes

Claims = dict[str, tuple[str | None, ...]]
SUFFIX: Mapping[Container, str] = {
    "safetensors": ".safetensors",
    "flat": ".pth",
    "legacy": ".pt",
    "parts": ".bin",
    "state_dict": ".ckpt",
    "module": ".ckpt",
    "encoder": ".pt",
}
# Names of other systems' files: none may sway the choice.
DECOYS = ("ip-adapter-faceid-plusv2_sd15", "pulid_v1.1", "ip-adapter", "photomaker-v2", "wplus_adapter", "R50")
LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789 -_.()ABCXYZäß人物臉"


def written(path: Path, shapes: Mapping[str, Any], container: Container, dtype: torch.dtype) -> Path:
    """A file of true length (safetensors) or of true shapes over one number (torch)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if container == "safetensors":
        return write_sparse_safetensors(path, shapes, dtype)
    nested = nested_by_part(shapes) if container == "parts" else packed(shapes, container)
    return write_zero_storage_torch(path, nested, dtype, legacy=container == "legacy")


def five_names(stem: str, container: Container) -> Iterator[Path]:
    """Three names of random letters and two of other systems, in two sub-folders and none."""
    chance = random.Random(zlib.crc32(f"{stem}:{container}".encode()))
    words = ["".join(chance.choices(LETTERS, k=chance.randint(1, 24))).strip(" .") or "x" for _ in range(3)]
    folders = (Path(), Path("sub folder"), Path("人物") / "deep-er")
    for number, name in enumerate((*words, *chance.sample(DECOYS, 2))):
        yield folders[number % 3] / f"{name}{SUFFIX[container]}"


def claims(header: CheckpointHeader) -> Claims:
    """What every family says of a file: its variants by family; each refusal must be a reason."""
    found: Claims = {}
    for family in registry.families():
        answer = family.recognise(header)
        if isinstance(answer, str):
            assert len(answer) > 5, f"{family.id} refuses {header.path.name} without a reason"
        else:
            found[family.id] = answer.candidates if isinstance(answer, Ambiguity) else (answer.variant,)
    return found


CASES = [
    pytest.param(row, container, id=f"{row.stem}-{container}") for row in PUBLISHED for container in row.containers
]


@pytest.mark.parametrize(("row", "container"), CASES)
def test_a_published_layout_is_recognised_under_any_name(tmp_path: Path, row: Published, container: Container) -> None:
    """Five names, three folders: the same family and exactly its candidates, each of which may then be chosen."""
    path = written(tmp_path / "first", shapes_of(row.stem, golden_folder()), container, row.dtype)
    names = list(five_names(row.stem, container))
    assert len(set(names)) == 5
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        path = path.rename(tmp_path / name)
        header = read_header(path)
        assert claims(header) == {row.family: row.variants}, path.name
        if len(row.variants) == 1:
            match = registry.recognise(header)
            assert (match.family.id, match.variant) == (row.family, row.variants[0])
            continue
        with pytest.raises(AmbiguousCheckpoint) as caught:
            registry.recognise(header)
        assert caught.value.candidates == row.variants
        for variant in row.variants:
            assert registry.recognise(header, variant=str(variant)).variant == variant


@pytest.mark.parametrize("row", PUBLISHED, ids=lambda row: row.stem)
def test_the_report_needs_the_header_alone(tmp_path: Path, row: Published) -> None:
    """A file without a single true number is described: family, variant, size of the weights, licence."""
    shapes = shapes_of(row.stem, golden_folder())
    path = written(tmp_path / "a", shapes, "safetensors", row.dtype)
    report = registry.describe(path, variant=str(row.variants[0]) if len(row.variants) > 1 else "auto")
    assert (report.family, report.variant) == (row.family, row.variants[0])
    assert report.weight_bytes + 8 < path.stat().st_size and report.weight_licence
    assert report.weight_bytes >= sum(torch.Size(shape).numel() for shape in shapes.values()) * row.dtype.itemsize


@pytest.mark.parametrize("stem", all_names(golden_folder()))
def test_nobody_takes_a_file_of_another(tmp_path: Path, stem: str) -> None:
    """The whole table: every family against every list; lists that are no family's are refused by each with a
    reason.
    """
    published = {row.stem: {row.family: row.variants} for row in PUBLISHED}
    contained = {name: {family: variants} for name, (family, variants) in CONTAINED.items()}
    for name, shapes in files_of(stem, golden_folder()).items():
        header = read_header(written(tmp_path / "x", shapes, "safetensors", torch.float16))
        assert claims(header) == (published.get(stem) or contained.get(name, {})), name


@pytest.mark.parametrize("stem", FOREIGN)
def test_a_foreign_checkpoint_is_an_error_that_names_every_reason(tmp_path: Path, stem: str) -> None:
    for shapes in files_of(stem, golden_folder()).values():
        for container, file in (("safetensors", "a.safetensors"), ("state_dict", "b.ckpt")):
            header = read_header(written(tmp_path / file, shapes, container, torch.float16))  # type: ignore[arg-type]
            with pytest.raises(UnknownCheckpoint) as caught:
                registry.recognise(header)
            assert caught.value.reasons.keys() == {family.id for family in registry.families()}


def _prefixed(prefix: str, stem: str) -> dict[str, Any]:
    (shapes,) = files_of(stem, golden_folder()).values()
    return {f"{prefix}{name}": shape for name, shape in shapes.items()}


def restorer(slim: bool) -> dict[str, Any]:
    """RestorerID's checkpoint, or what it adds to SD1.5 alone."""
    unet = _prefixed("model.diffusion_model.", "restorerid_unet_full")
    if slim:
        parts = (".spade.", ".IDBalance.", "_lora.", "_ip.")
        unet = {name: shape for name, shape in unet.items() if any(part in name for part in parts)}
    structure = _prefixed("structcond_stage_model.", "restorerid_structenc")
    return unet | structure | _prefixed("Adapter.image_proj_model.", "restorerid_projplus")


def composed() -> dict[str, tuple[dict[str, Any], Claims]]:
    """Published layouts that no single list holds."""
    sd15, sdxl = published_widths("sd15"), published_widths("sdxl")
    photomaker = shapes_of("common_ckpt_photomaker_v1_id_encoder", golden_folder())
    lora = {
        f"lora_weights.unet.{end}_lora.{half}.weight": (8, 8) for end in ("to_q", "to_k") for half in ("up", "down")
    }
    pulid = shapes_of("common_ckpt_pulid_v1", golden_folder())
    return {
        "ip_adapter_sd15": (plain("sd15", sd15), {"ip_adapter": ("plain",)}),
        "ip_adapter_sdxl": (plain("sdxl", sdxl, image_dim=1280), {"ip_adapter": ("plain",)}),
        "ip_adapter_full_face": (full_face("sd15", sd15), {"ip_adapter": ("full_face",)}),
        "w_plus": (w_plus_shapes(SD15_WIDTHS), {"w_plus": (None,)}),
        "photomaker_with_lora": (photomaker | lora, {"photomaker": ("v1",)}),
        "pulid_community": (_community(pulid), {"pulid_sdxl": ("v1",)}),
        "restorerid": (restorer(slim=False), {"restorerid": (None,)}),
        "restorerid_slim": (restorer(slim=True), {"restorerid": (None,)}),
    }


def _community(shapes: Mapping[str, Any]) -> dict[str, Any]:
    """PuLID under the names of IP-Adapter, as it is passed around."""
    found: dict[str, Any] = {}
    for name, shape in shapes.items():
        if name.startswith("id_adapter_attn_layers."):
            name = name.replace("id_adapter_attn_layers", "ip_adapter").replace("id_to_k", "to_k_ip")
            found[name.replace("id_to_v", "to_v_ip")] = shape
        else:
            found[name.replace("id_adapter.", "image_proj.")] = shape
    return found


@pytest.mark.parametrize("name", composed())
def test_layouts_of_several_lists(tmp_path: Path, name: str) -> None:
    """The rest of the table: files that are made of several lists, or whose names others use too."""
    shapes, expected = composed()[name]
    for container in ("safetensors", "parts"):
        for place in five_names(name, container):
            assert claims(read_header(written(tmp_path / place, shapes, container, torch.float16))) == expected


def test_every_family_has_a_file_here() -> None:
    """A family without a row would be tested as a refusal only."""
    # No list of a published file: their layouts are built in tests of their own.
    own_tests = {"avatar_emotion", "eva_clip", "arcface_iresnet", "lafr", "dreamid", "imagineid", "imagineid_adapters"}
    rows = {row.family for row in PUBLISHED} | {family for _, claim in composed().values() for family in claim}
    without = {family.id for family in registry.families()} - rows - own_tests
    assert not without, f"add a row to tests/support/key_lists.py for {sorted(without)}"
