"""DreamID's file: recognised by keys and shapes, loaded strictly; what its small networks compute."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from likeness_pack.adapters import registry
from likeness_pack.adapters.adapter import TokenOptions
from likeness_pack.adapters.checkpoint import read_header
from likeness_pack.adapters.errors import BadCheckpoint, EncoderMismatch, KeyMismatch, UnknownCheckpoint
from likeness_pack.adapters.families.dreamid.adapter import DreamIdAdapter
from likeness_pack.adapters.families.dreamid.landmark_picture import landmark_pictures
from likeness_pack.adapters.families.dreamid.layout import (
    DreamIdFacts,
    Sizes,
    is_dead,
    sizes_in,
    timesteps_of,
)
from likeness_pack.adapters.identity import EMBEDDING, Identity
from likeness_pack.adapters.unet_shapes import unet_shapes
from likeness_pack.faces.errors import BadLandmarks
from module_folders import ModuleFolders
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional

LEVELS, CONTEXT, EMBEDDED, TOKENS = (32, 32, 64, 64), 24, 16, 3
GUIDER = (16, 16, 32, 32, 96, 96, 256)
FACTS = DreamIdFacts(face_encoder="drawn", head_channels=16, steps=3, triplets=5, size=64)


def shapes(levels: tuple[int, ...] = LEVELS, context: int = CONTEXT) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a file."""
    sizes = Sizes(levels, context, EMBEDDED, TOKENS, GUIDER)
    found = {f"swapnet.{name}": shape for name, shape in unet_shapes(levels, 8, context).items()}
    found |= {f"facenet.{name}": shape for name, shape in unet_shapes(levels, 4, context).items()}
    found |= {"image_proj.proj.weight": (TOKENS * context, EMBEDDED), "image_proj.proj.bias": (TOKENS * context,)}
    found |= {f"image_proj.norm.{end}": (context,) for end in ("weight", "bias")}
    for number, width in enumerate(sizes.widths):
        found |= {f"ip_adapter.{2 * number + 1}.to_{end}_ip.weight": (width, context) for end in "kv"}
    ends = (3, *GUIDER, levels[0])
    names = ("conv_in", *(f"blocks.{number}" for number in range(6)), "conv_out")
    for name, inputs, outputs in zip(names, ends[:-1], ends[1:], strict=True):
        found |= {f"pose_guider.{name}.weight": (outputs, inputs, 3, 3), f"pose_guider.{name}.bias": (outputs,)}
    return found


@pytest.fixture(scope="module")
def tensors() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        name: torch.randn(shape, generator=generator) * (0.5 / max(1, torch.Size(shape[1:]).numel()) ** 0.5)
        for name, shape in shapes().items()
    }


def written(path: Path, tensors: dict[str, Tensor], facts: DreamIdFacts = FACTS, **told: str) -> Path:
    save_file(tensors, path, {**facts.metadata(TOKENS), **told})
    return path


@pytest.fixture(scope="module")
def adapter(tensors: dict[str, Tensor], module_folders: ModuleFolders) -> DreamIdAdapter:
    path = written(module_folders.mktemp("dreamid") / "any name.safetensors", tensors)
    loaded = registry.load(path)
    assert isinstance(loaded, DreamIdAdapter)
    return loaded


def person(seed: int = 0, encoder: str = "drawn", rows: int = 2) -> Identity:
    generator = torch.Generator().manual_seed(seed)
    return Identity(encoder, {EMBEDDING: torch.randn(rows, EMBEDDED, generator=generator)})


def test_the_layout_is_stable_diffusion_2_1s_at_full_width() -> None:
    """The published UNet of Stable Diffusion 2.1 has 686 tensors and 865 910 724 numbers."""
    found = unet_shapes((320, 640, 1280, 1280), 4, 1024)
    assert len(found) == 686
    assert sum(torch.Size(shape).numel() for shape in found.values()) == 865_910_724
    assert found["output_blocks.2.1.conv.weight"] == (1280, 1280, 3, 3)
    assert found["output_blocks.5.2.conv.weight"] == (1280, 1280, 3, 3)


def test_a_file_is_recognised_and_told(adapter: DreamIdAdapter) -> None:
    report = adapter.report
    assert (report.family, report.base, report.tokens, report.layers) == ("dreamid", "sd21", TOKENS, 16)
    assert report.commercial is None
    told = report.as_text()
    assert "3 steps on 5 triplets of 64 px" in told
    assert "no number of the paper is promised" in told
    assert adapter.sizes.widths == (32, 32, 32, 32, 64, 64, 64, 64, 64, 32, 32, 32, 32, 32, 32, 64)


def test_both_unets_are_read_whole(adapter: DreamIdAdapter, tensors: dict[str, Tensor]) -> None:
    swapnet, facenet = adapter.swapnet_tensors(), adapter.facenet_tensors()
    assert set(swapnet) == set(facenet) == set(unet_shapes(LEVELS, 8, CONTEXT))
    assert all(torch.equal(one, tensors[f"swapnet.{name}"]) for name, one in swapnet.items())
    assert all(torch.equal(one, tensors[f"facenet.{name}"]) for name, one in facenet.items())


def test_what_nothing_reads_of_facenet_may_be_absent(tensors: dict[str, Tensor], tmp_path: Path) -> None:
    kept = {name: one for name, one in tensors.items() if not is_dead(name.removeprefix("facenet."))}
    gone = set(tensors) - set(kept)
    assert "facenet.output_blocks.11.1.transformer_blocks.0.attn1.to_q.weight" in gone
    assert "facenet.output_blocks.11.1.transformer_blocks.0.norm1.weight" not in gone
    assert all(name.startswith("facenet.") for name in gone), "SwapNet needs all of it"
    loaded = registry.load(written(tmp_path / "short.safetensors", kept))
    facenet = loaded.facenet_tensors()
    assert not facenet["out.2.weight"].any()
    assert torch.equal(facenet["input_blocks.0.0.weight"], tensors["facenet.input_blocks.0.0.weight"])


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("swapnet.middle_block.1.proj_in.weight", "1 missing: middle_block.1"),
        ("facenet.input_blocks.1.0.in_layers.0.weight", "1 missing: input_blocks.1"),
        ("ip_adapter.31.to_v_ip.weight", "ip_adapter.31"),
        ("pose_guider.conv_out.bias", "pose_guider.conv_out"),
        ("image_proj.norm.bias", "image_proj.norm"),
        ("+swapnet.lora", "1 leftover: lora"),
        ("+discriminator.weight", "discriminator"),
    ],
)
def test_loading_is_strict(tensors: dict[str, Tensor], tmp_path: Path, change: str, told: str) -> None:
    changed = {**tensors, change[1:]: torch.zeros(2)} if change[0] == "+" else dict(tensors)
    changed.pop(change, None)
    with pytest.raises(KeyMismatch, match=told):
        registry.load(written(tmp_path / "changed.safetensors", changed))


def test_a_tensor_of_another_shape_is_named(tensors: dict[str, Tensor], tmp_path: Path) -> None:
    changed = {**tensors, "swapnet.time_embed.0.weight": torch.zeros(7, 7)}
    with pytest.raises(KeyMismatch, match="1 of another shape: time_embed"):
        registry.load(written(tmp_path / "shape.safetensors", changed))


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ({"steps": "0"}, "0 training steps"),
        ({"num_tokens": "4"}, "3 tokens"),
        ({"dreamid_version": "2"}, "version 1"),
        ({"prediction": "x0"}, "eps or v"),
        ({"timesteps": "249,999"}, "falling timesteps"),
        ({"timesteps": "one"}, "numbers in the metadata"),
        ({"head_channels": "0"}, "head_channels above 0"),
        ({"face_encoder": ""}, "none for face_encoder"),
    ],
)
def test_metadata_that_contradict_or_lack_are_refused(
    tensors: dict[str, Tensor], tmp_path: Path, told: dict[str, str], expected: str
) -> None:
    with pytest.raises(BadCheckpoint, match=expected):
        registry.load(written(tmp_path / "told.safetensors", tensors, **told))


@pytest.mark.parametrize(
    "missing", ["swapnet.input_blocks.0.0.weight", "facenet.input_blocks.0.0.weight", "pose_guider.conv_in.weight"]
)
def test_a_part_alone_is_no_dreamid_file(tensors: dict[str, Tensor], tmp_path: Path, missing: str) -> None:
    kept = {name: one for name, one in tensors.items() if name.split(".")[0] != missing.split(".")[0]}
    path = written(tmp_path / "part.safetensors", kept)
    assert sizes_in(read_header(path)) == f"no {missing} (DreamID)"
    with pytest.raises(UnknownCheckpoint):
        registry.load(path)


def test_tokens_are_the_norm_of_a_linear_map(adapter: DreamIdAdapter, tensors: dict[str, Tensor]) -> None:
    """By hand: the mean of the unit embeddings, of length 1 again, through W and b, each token normalised."""
    identity = person()
    rows = functional.normalize(identity.features[EMBEDDING], dim=1)
    unit = functional.normalize(rows.mean(0), dim=0)
    flat = tensors["image_proj.proj.weight"] @ unit + tensors["image_proj.proj.bias"]
    plain = flat.view(TOKENS, CONTEXT)
    centred = plain - plain.mean(1, keepdim=True)
    expected = centred / (plain.var(1, unbiased=False, keepdim=True) + 1e-5).sqrt()
    expected = expected * tensors["image_proj.norm.weight"] + tensors["image_proj.norm.bias"]
    found = adapter.tokens(identity, TokenOptions())
    assert found.uncond is None
    torch.testing.assert_close(found.cond[0], expected, atol=1e-5, rtol=1e-5)
    pairs = adapter.keys_values(found.cond)
    assert len(pairs) == 16
    torch.testing.assert_close(pairs[15][1][0], expected @ tensors["ip_adapter.31.to_v_ip.weight"].T)


def test_an_identity_of_another_encoder_is_refused(adapter: DreamIdAdapter) -> None:
    with pytest.raises(EncoderMismatch, match="16 numbers of the encoder drawn.*of the encoder arcface_buffalo_l"):
        adapter.tokens(person(encoder="arcface_buffalo_l"), TokenOptions())
    with pytest.raises(EncoderMismatch, match="a row without one"):
        adapter.tokens(Identity("drawn", {EMBEDDING: torch.zeros(1, EMBEDDED)}), TokenOptions())


def test_pose_maps_lie_on_the_latents_grid(adapter: DreamIdAdapter) -> None:
    pictures = landmark_pictures(torch.full((2, 5, 2), 20.0), 64, 64, 128)
    assert adapter.pose_maps(pictures).shape == (2, 32, 8, 16)


def test_timesteps_have_trailing_spacing() -> None:
    assert timesteps_of(1) == (999,)
    assert timesteps_of(4) == (999, 749, 499, 249)


def test_landmarks_are_white_discs_of_three_pixels_in_512() -> None:
    picture = landmark_pictures(torch.tensor([[[100.0, 200.0], [300.0, 50.0]]]), 512, 512, 512)
    assert picture.shape == (1, 3, 512, 512)
    assert float(picture[0, :, 200, 102].min()) == 1.0
    assert float(picture[0, :, 203, 100].min()) == 0.5
    assert float(picture[0, :, 200, 104].max()) == 0.0
    assert float(picture[0, 0].sum()) == pytest.approx(2 * 3**2 * torch.pi, rel=0.05)
    half = landmark_pictures(torch.tensor([[[100.5, 200.5], [300.5, 50.5]]]), 512, 256, 256)
    centre = half[0, 0, 95:106, 45:56]
    assert tuple(torch.nonzero(centre == centre.max()).float().mean(0).tolist()) == (5.0, 5.0)


def test_bad_points_are_refused() -> None:
    with pytest.raises(BadLandmarks, match="finite points"):
        landmark_pictures(torch.full((1, 5, 2), torch.nan), 64, 64, 64)


def test_facts_survive_the_file(tensors: dict[str, Tensor], tmp_path: Path) -> None:
    facts = replace(FACTS, timesteps=(999, 749, 499, 249), prediction="v", points=5, base="mine")
    assert registry.load(written(tmp_path / "facts.safetensors", tensors, facts)).facts == facts
