"""DreamID-V's files: recognised by tensors alone, read strictly, told from other Wan models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from harness import golden_folder
from key_lists import shapes_of
from likeness_pack.adapters import registry
from likeness_pack.adapters.adapter import TokenOptions
from likeness_pack.adapters.errors import EncoderMismatch, KeyMismatch, UnknownCheckpoint
from likeness_pack.adapters.families.dreamid_v import layout
from likeness_pack.adapters.families.dreamid_v.adapter import DreamIDVAdapter
from likeness_pack.adapters.families.dreamid_v.arch import PoseNetwork
from likeness_pack.adapters.identity import Identity
from likeness_pack.tools.standins import dreamid_v as standins
from likeness_pack.tools.standins.fill import filled_all
from torch import Tensor

WIDTHS, LAYERS = (128, 256), 3
LISTS = {"dreamidv_dit_pose_depth2": True, "dreamidv_faster_dit_small": False}


def _tensors(pose: bool, dtype: torch.dtype = torch.bfloat16) -> dict[str, Tensor]:
    return filled_all((standins.pose if pose else standins.faster)(WIDTHS, LAYERS), dtype)


def _written(path: Path, tensors: dict[str, Any]) -> Path:
    torch.save(tensors, path)
    return path


@pytest.mark.parametrize(("stem", "pose"), LISTS.items())
def test_names_and_shapes_are_the_published(stem: str, pose: bool) -> None:
    published = {name: tuple(shape) for name, shape in shapes_of(stem, golden_folder()).items()}
    width, inner = published["head.modulation"][-1], published["blocks.0.ffn.0.weight"][0]
    sizes = layout.Sizes(width, inner, 2)
    own = layout.dit_shapes(sizes)
    if pose:
        own |= layout.pose_shapes(sizes) | layout.dead_shapes(sizes)
    assert own == published == (standins.pose if pose else standins.faster)((width, inner), 2)
    assert {name for name in published if layout.is_pose(name)} == set(layout.pose_shapes(sizes) if pose else ())


def test_sizes_of_the_published_files() -> None:
    sizes = layout.Sizes(1536, 8960, 30)
    faster, added = layout.dit_shapes(sizes), layout.pose_shapes(sizes) | layout.dead_shapes(sizes)
    assert (len(faster), len(faster) + len(added), sizes.heads) == (827, 1201, 12)
    numbers = sum(torch.Size(shape).numel() for shape in (faster | added).values())
    assert round(numbers / 1e9, 3) == 1.710


@pytest.mark.parametrize("pose", [True, False])
def test_a_file_is_built_from_its_tensors(tmp_path: Path, pose: bool) -> None:
    tensors = _tensors(pose)
    adapter = registry.load(_written(tmp_path / "any.pth", tensors), kind="adapter")
    assert isinstance(adapter, DreamIDVAdapter)
    assert adapter.sizes == layout.Sizes(*WIDTHS, LAYERS) and adapter.report.variant == ("pose" if pose else "faster")
    base = adapter.base_tensors()
    assert set(base) == set(standins.faster(WIDTHS, LAYERS))
    assert all(torch.equal(base[name], tensors[name]) for name in base)
    if not pose:
        assert adapter.pose is None and not list(adapter.network.parameters())
        return
    assert isinstance(adapter.pose, PoseNetwork)
    own = adapter.pose.state_dict()
    assert set(own) == {name for name in tensors if layout.is_pose(name)}
    assert all(torch.equal(own[name], tensors[name]) for name in own)
    assert not any(parameter.requires_grad for parameter in adapter.network.parameters())


def test_the_report_says_what_is_left_and_under_which_licence(tmp_path: Path) -> None:
    text = registry.describe(_written(tmp_path / "a.pth", _tensors(True))).as_text()
    assert "sees pose pictures; 18 tensors of its cross-attentions are never read" in text
    assert "Apache-2.0" in text and "not verified" in text
    assert "takes no pose pictures" in registry.describe(_written(tmp_path / "b.pth", _tensors(False))).as_text()


def test_the_unused_weights_may_be_absent(tmp_path: Path) -> None:
    tensors = {name: tensor for name, tensor in _tensors(True).items() if not layout.is_dead(name)}
    assert registry.load(_written(tmp_path / "a.pth", tensors)).pose is not None


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("blocks.1.self_attn.norm_q.weight", None),
        ("blocks.2.ffn.0.weight", (255, 128)),
        ("vace_patch_embedding.weight", (1,)),
        ("blocks.0.self_attn.k_pose.bias", None),
        ("project_pose.convs.12.weight", (1,)),
    ],
)
def test_damaged_files_are_refused(tmp_path: Path, name: str, shape: tuple[int, ...] | None) -> None:
    tensors = _tensors(True)
    if shape is None:
        del tensors[name]
    else:
        tensors[name] = torch.zeros(shape)
    with pytest.raises(KeyMismatch, match="use the publisher's unchanged file"):
        registry.load(_written(tmp_path / "a.pth", tensors))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"patch_embedding.weight": (128, 36, 1, 2, 2)}, "36 input channels"),
        ({"ref_conv.weight": None}, "with ref_conv None"),
        ({"img_emb.proj.0.bias": (1280,)}, "an image branch"),
        ({"blocks.0.cross_attn.k_img.weight": (128, 128)}, "an image branch"),
        ({"head.modulation": None}, "not a Wan model"),
        ({"blocks.0.ffn.0.weight": None}, "incomplete"),
    ],
)
def test_other_wan_models_are_told_apart(
    tmp_path: Path, change: dict[str, tuple[int, ...] | None], reason: str
) -> None:
    """Fun-Control files have 48 channels and a ref_conv too; their cross-attention has an image branch."""
    tensors = _tensors(False)
    for name, shape in change.items():
        tensors.pop(name, None)
        if shape is not None:
            tensors[name] = torch.zeros(shape)
    with pytest.raises(UnknownCheckpoint) as caught:
        registry.load(_written(tmp_path / "a.pth", tensors), kind="adapter")
    assert reason in caught.value.reasons["dreamid_v"]


def test_an_identity_is_refused_with_the_nodes_to_use(tmp_path: Path) -> None:
    adapter = registry.load(_written(tmp_path / "a.pth", _tensors(False)))
    identity = Identity("arcface_buffalo_l", {"embedding": torch.zeros(1, 512)})
    with pytest.raises(EncoderMismatch, match="connect the photo to 'Swap Clip"):
        adapter.tokens(identity, TokenOptions())
