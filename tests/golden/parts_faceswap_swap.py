"""Parity of face swapping with insightface, ReSwapper, facefusion and facexlib's restoration helper."""

from __future__ import annotations

import re

import torch
from harness import Golden, part
from likeness_pack.adapters.swappers.base import latents
from likeness_pack.adapters.swappers.pixel_boost import join_pixels, split_pixels
from likeness_pack.adapters.swappers.reswapper.arch import StyleBlock, SwapNetwork
from likeness_pack.faces import colour_transfer, swap_masks
from likeness_pack.faces.align import align_matrix, warp
from likeness_pack.faces.crops import CroppedFaces, paste_crops
from likeness_pack.faces.masks import box_mask
from likeness_pack.faces.paste import paste
from likeness_pack.faces.swap_paste import paste_swaps
from likeness_pack.faces.types import Faces
from likeness_pack.faces.warp import invert
from parts_faceswap_geometry import numbers_in, scene
from torch import Tensor
from torch.nn import functional

# Grey levels: OpenCV places pixels on a grid of 1/32, which no float re-implementation repeats.
LEVELS = 2
SHARE = 0.995


def picture(golden: Golden, name: str) -> Tensor:
    """The picture (3, H, W) in levels of the recipe's entry ``name``, in the file's channel order."""
    text = str(golden.metadata["inputs"][name])
    named, height, width = re.search(r"image (?:\(?(\w+)[, ]+)?(\d+)x(\d+)", text).groups()  # type: ignore[union-attr]
    return scene(golden, named or name, int(height), int(width))[0]


def levels(golden: Golden, name: str, got: Tensor, tolerance: float = LEVELS) -> None:
    """99.5 % of the levels (H, W, 3) within two; official code truncates."""
    expected = golden.tensors[name]
    assert got.shape == expected.shape, f"{name}: {tuple(got.shape)} != {tuple(expected.shape)}"
    share = ((got.clamp(0, 255).floor() - expected).abs() <= tolerance).double().mean().item()
    assert share >= SHARE, f"{name}: only {share:.2%} of levels within {tolerance}"


def cut(points: Tensor, template: str, size: int, image: Tensor) -> CroppedFaces:
    """One face of one picture (3, H, W) with the place of its crop."""
    found = Faces(torch.zeros(1, 4), points[None].float(), torch.ones(1))
    matrix = align_matrix(points[None].double(), template, size)
    return CroppedFaces((found,), (image.shape[1], image.shape[2]), "file", matrices=matrix, size=size)


@part("faceswap_reswapper")
def reswapper(golden: Golden) -> None:
    """The whole network, and its first style block alone."""
    recipe = golden.metadata["inputs"]
    shape = [int(number) for number in numbers_in(recipe["target"])]
    network = SwapNetwork(blocks=int(golden.metadata["hyper"]["blocks"]))
    assert {name: list(one.shape) for name, one in network.state_dict().items()} == golden.keys
    golden.fill(network)
    target = golden.input("target", shape).sigmoid()
    latent = functional.normalize(golden.input("latent", [1, 512]), dim=-1)
    with torch.no_grad():
        golden.check("swapped", network(target, latent))
        block = network.style_blocks[0]
        assert isinstance(block, StyleBlock)
        golden.check("style_block0", block(golden.input("feat", recipe["feat"]), latent))


@part("faceswap_inswapper_official")
def inswapper(golden: Golden) -> None:
    """Latent, blob, and the pasted face for each stored place."""
    from parity import tensor_for

    emap = tensor_for("emap", (512, 512), golden.salt)
    source = golden.input("source_embedding", (512,)) * 9
    golden.check("latent", latents(source[None], emap))
    image = picture(golden, "scene")
    size = int(numbers_in(str(golden.metadata["inputs"]["session output"]))[0])
    matrix = align_matrix(golden.tensors["kps_frontal"][None].double(), "arcface", size)
    corners = torch.tensor([[0.0, 0, 1], [size, 0, 1], [0, size, 1]]).double()
    away = corners @ (matrix[0] - golden.tensors["matrix_frontal"].double()).T
    assert away.abs().max() < 2e-2, f"matrix_frontal: {away.abs().max()} pixels"
    # The file's pictures are BGR and the network's RGB.
    blob = warp(image[None], matrix, size)[:, [2, 1, 0]]
    expected = golden.tensors["target_blob_every4"]
    step = size // expected.shape[-1]
    close = ((blob[..., ::step, ::step] / 255 - expected).abs() <= LEVELS / 255).double().mean().item()
    assert close >= SHARE, f"target_blob_every4: only {close:.2%}"
    fake = scene(golden, "swapped", size, size)[0]
    step = size // golden.tensors["bgr_fake_every4"].shape[0]
    levels(golden, "bgr_fake_every4", fake.movedim(0, -1)[::step, ::step])
    for name in golden.tensors:
        if name.startswith("merged_") and "box" not in name:
            kind = name.removeprefix("merged_")
            faces = cut(golden.tensors[f"kps_{kind}"], "arcface", size, image)
            whole, mask = paste_swaps(image.movedim(0, -1)[None] / 255, faces, fake.movedim(0, -1)[None] / 255)
            x1, y1, x2, y2 = (int(value) for value in golden.tensors[f"merged_box_{kind}"])
            levels(golden, name, (whole[0] * 255 + 1e-3)[y1:y2, x1:x2])
            outside = mask[0].clone()
            outside[y1:y2, x1:x2] = 0
            assert float(outside.max()) < 0.05, f"{name}: changes beyond the stored box"


@part("faceswap_pixel_boost")
def pixel_boost(golden: Golden) -> None:
    """Interleaved parts, and back."""
    size, _, model, factor = numbers_in(golden.metadata["inputs"]["boost"])
    crop = scene(golden, "boost", int(size), int(size))
    parts = split_pixels(crop, int(factor))
    assert parts.shape[-1] == int(model)
    golden.check("imploded", parts.movedim(1, -1))
    assert torch.equal(join_pixels(parts, int(factor)), crop)
    for name in golden.tensors:
        found = re.fullmatch(r"part_(\d+)_is_crop_(\d+)::\d+_(\d+)::\d+", name)
        if found:
            number, row, column = map(int, found.groups())
            same = torch.equal(parts[number], crop[0, :, row :: int(factor), column :: int(factor)])
            assert same == bool(golden.tensors[name]), name


@part("faceswap_masks")
def masks(golden: Golden) -> None:
    """Box, occlusion, regions and areas."""
    stored = golden.tensors
    for name, expected in stored.items():
        kind, *rest = name.split("_")
        if kind == "box":
            blur, padding = float(rest[0].removeprefix("blur")), rest[1].removeprefix("pad")
            sides = [float(side) for side in padding.split("-")]
            golden.check(name, box_mask(expected.shape[0], blur, tuple(sides if len(sides) == 4 else sides * 4)))  # type: ignore[arg-type]
        elif kind == "area":
            areas = list(swap_masks.AREAS) if rest[0] == "all" else rest
            area_agrees(golden, name, swap_masks.area_mask(stored["landmark_68"], areas, 256))
        elif kind == "region":
            wanted = swap_masks.REGIONS if rest[0] == "all" else rest
            labels = classes(golden)
            assert torch.equal(labels, stored["parse_argmax_8x8"].long())
            classed = [number for region in wanted for number in swap_masks.REGIONS[region]]
            large = labels.repeat_interleave(64, 0).repeat_interleave(64, 1)[None]
            golden.check(name, swap_masks.region_mask(large, classed, 256)[0, ::2, ::2], 2e-5)
        elif kind == "occlusion":
            raw = occlusion(golden)
            if rest[0] == "raw":
                golden.check(name, raw[0, ::4, ::4])
                continue
            size = int(rest[0])
            step = size // expected.shape[0]
            golden.check(name, swap_masks.occlusion_mask(raw, size)[0, ::step, ::step], 2e-5)
        else:
            assert name in ("landmark_68", "parse_argmax_8x8"), f"{name} is not reproduced"


def classes(golden: Golden) -> Tensor:
    """The parser's map (8, 8)."""
    return golden.input("cls", (1, 19, 8, 8)).argmax(1)[0]


def occlusion(golden: Golden) -> Tensor:
    """The occlusion network's output (1, 256, 256), not clipped."""
    raw = functional.interpolate(golden.input("occ", (1, 1, 8, 8)), (256, 256), mode="bilinear", align_corners=False)
    return raw[0] * 1.2 + 0.5


def area_agrees(golden: Golden, name: str, mask: Tensor) -> None:
    """Within 0.1 on 99 % of pixels: OpenCV's polygons have their own idea of a border pixel."""
    expected = golden.tensors[name]
    step = mask.shape[0] // expected.shape[0]
    share = ((mask[::step, ::step] - expected).abs() <= 0.1).double().mean().item()
    assert share >= 0.99, f"{name}: only {share:.2%} of pixels within 0.1"


@part("faceswap_color")
def colours(golden: Golden) -> None:
    """Working sizes, one equalisation, and the whole match; facefusion's blend by histogram is left out by choice."""
    source, target = picture(golden, "colA"), scene(golden, "colB", 64, 64)[0]
    target = (target * 0.6 + 40).floor()
    sizes = colour_transfer.working_sizes(target.shape[-1])
    golden.check("sizes", torch.tensor(sizes).float())
    for name in golden.tensors:
        allowed = LEVELS
        if name.startswith("equalize_"):
            size = int(name.split("_")[1])
            got = colour_transfer.equalised(source[None] / 255, target[None] / 255, size)[0]
        elif name == "matched":
            # Official code cuts fractions off after each size and once more at the end.
            got, allowed = colour_transfer.local(target[None] / 255, source[None] / 255)[0], LEVELS + len(sizes)
        else:
            assert name in ("sizes", "conditional", "hist_factor", "hist_factor_same"), f"{name} is not reproduced"
            continue
        levels(golden, name, (got * 255 + 1e-3).movedim(0, -1), allowed)


@part("faceswap_paste_facefusion")
def facefusion_paste(golden: Golden) -> None:
    """Box, matrix and pasted face for each stored place."""
    image, fake = picture(golden, "scene").movedim(0, -1), picture(golden, "swapped")
    size = fake.shape[-1]
    for name in golden.tensors:
        if name.startswith("pasted_"):
            kind = name.removeprefix("pasted_")
            matrix = align_matrix(golden.tensors[f"kps_{kind}"][None].double(), "arcface_128", size)[0]
            result = paste(image, fake, matrix, box_mask(size)) + 1e-3
            x1, y1, x2, y2 = (int(value) for value in golden.tensors[f"paste_box_{kind}"])
            levels(golden, name, result[y1:y2, x1:x2])
            inside = torch.zeros(image.shape[:2], dtype=torch.bool)
            inside[y1:y2, x1:x2] = True
            assert torch.equal((result - 1e-3 - image).abs().amax(-1)[~inside] < 1e-2, torch.ones_like(inside)[~inside])
            backward = invert(matrix)
            backward[:, 2] -= torch.tensor([x1, y1], dtype=torch.float64)
            away = (backward - golden.tensors[f"paste_matrix_{kind}"].double()).abs().max()
            assert away < 2e-3, f"paste_matrix_{kind}: {away}"


@part("faceswap_restore_paste")
def restoration_paste(golden: Golden) -> None:
    """facexlib's square, and the square with parsing."""
    image, restored = picture(golden, "scene600"), picture(golden, "restored")
    size = restored.shape[-1]
    faces = cut(golden.tensors["kps"], "face_restore_512", size, image)
    assert faces.matrices is not None
    corners = torch.tensor([[0.0, 0, 1], [size, 0, 1], [0, size, 1]]).double()
    away = corners @ (invert(faces.matrices[0]) - golden.tensors["inverse_affine"].double()).T
    assert away.abs().max() < 1e-2, f"inverse_affine: {away.abs().max()} pixels"
    labels = golden.input("parse", (1, 19, 8, 8)).argmax(1)
    assert torch.equal(labels[0], golden.tensors["parse_argmax_8x8"].long())
    large = labels.repeat_interleave(size // 8, 1).repeat_interleave(size // 8, 2)
    for name in golden.tensors:
        if name.startswith("pasted_"):
            parsed = swap_masks.parse_mask(large, size) if "parse" in name else None
            whole = paste_crops(image.movedim(0, -1)[None] / 255, faces, restored.movedim(0, -1)[None] / 255, parsed)
            levels(golden, name, (whole[0] * 255 + 1e-3)[::3, ::3])


@part("faceswap_reactor")
def reactor(golden: Golden) -> None:
    """The boost's matrix and the soft ellipse; what depends on its robust fit is a record and not reproduced."""
    boosted, size = picture(golden, "boosted").shape[-1], 128
    matrix = align_matrix(golden.tensors["kps_frontal"][None].double(), "arcface", size)[0] * (boosted / size)
    corners = torch.tensor([[0.0, 0, 1], [320, 0, 1], [0, 240, 1]]).double()
    away = corners @ (matrix - golden.tensors["boost_matrix"].double()).T
    assert away.abs().max() < 5e-2, f"boost_matrix: {away.abs().max()} pixels"
    expected = golden.tensors["gradient_mask_256_every2"]
    mask = swap_masks.ellipse_mask(256)[::2, ::2]
    error = (mask - expected).abs()
    assert error.max() <= 0.1 and error.mean() <= 3e-3, f"gradient mask: {error.max()} {error.mean()}"
