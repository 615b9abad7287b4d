"""MuseTalk: its UNet through the host's own loader and classes, preparation of frames, and pasting."""

from __future__ import annotations

import re
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from harness import Golden, part
from likeness_pack.faces import lip_mask, lip_paste
from musetalk_models import filled_model
from torch import Tensor


@part("musetalk_unet_small")
def musetalk_unet_small(golden: Golden) -> None:
    """A small UNet in the published layout: written, recognised, loaded, called once; and the sound's positions."""
    from likeness_pack.adapters.encoders.whisper.musetalk_position import with_positions
    from likeness_pack.inject.musetalk import predict

    inputs = golden.metadata["inputs"]
    audio = with_positions(golden.input("audio", inputs["audio"]))
    golden.check("audio_pe_first8", audio[:, : golden.tensors["audio_pe_first8"].shape[1]])
    latents = golden.input("latents", golden.tensors["pred"].shape[:1] + (8, *golden.tensors["pred"].shape[2:]))
    with TemporaryDirectory() as folder:
        model = filled_model(golden, golden.keys, Path(folder))
    golden.check("pred", predict(model, latents * _factor(inputs["latents"]), audio))


def _factor(recipe: str) -> float:
    """The number after the asterisk in an input's recipe."""
    return float(recipe.rsplit("*", 1)[1])


def _picture(golden: Golden, name: str, height: int, width: int) -> Tensor:
    """The file's smooth picture (3, H, W) uint8, channels in its own order."""
    numbers = golden.input(f"img:{name}", (9,)).double()
    x, y = (torch.arange(size, dtype=torch.float64) for size in (width, height))
    planes = []
    for channel in range(3):
        rate_x = 0.15 + 0.05 * torch.tanh(numbers[channel])
        rate_y = 0.12 + 0.05 * torch.tanh(numbers[3 + channel])
        waves = rate_x * x[None] + rate_y * y[:, None] + numbers[6 + channel]
        planes.append(torch.floor(127.5 * (1 + torch.sin(waves)) + 0.5))
    return torch.stack(planes).to(torch.uint8)


def _sized(golden: Golden, name: str) -> Tensor:
    """A picture whose size stands in its description, as in "image 144x160"."""
    height, width = re.findall(r"image (\d+)x(\d+)", golden.metadata["inputs"][name])[0]
    return _picture(golden, name, int(height), int(width))


@part("musetalk_preprocess")
def musetalk_preprocess(golden: Golden) -> None:
    """The crop of a frame, and what the VAE is given of it."""
    told = golden.metadata["inputs"]["frame"]
    rows, columns = (tuple(map(int, re.findall(rf"{side} (\d+):(\d+)", told)[0])) for side in ("rows", "cols"))
    crop = lip_paste.cut_face(_sized(golden, "frame"), (columns[0], rows[0], columns[1], rows[1]))
    golden.check("crop256_every4", crop.movedim(0, -1)[::4, ::4])
    # The host's VAE takes 0..1 and makes -1..1 of it.
    whole = crop.flip(0).float()[None] / 255
    for name, pictures in (("full", whole), ("masked", lip_paste.masked(whole))):
        golden.check(f"{name}_every4", (pictures * 2 - 1)[:, :, ::4, ::4])


@part("musetalk_blending")
def musetalk_blending(golden: Golden) -> None:
    """Regions of a parsed face, their soft masks, and whole blended pictures; UnAvgLip's too."""
    classes = _classes(golden)
    for name, region, cheek in (
        ("raw", "raw", 80),
        ("neck", "neck", 80),
        ("jaw", "jaw", 80),
        ("jaw_cheek90", "jaw", 90),
    ):
        mask = lip_mask.region_mask(classes, region, cheek)
        golden.check(f"parse_{name}_sum", mask.sum())
        if f"parse_{name}_every4" in golden.tensors:
            golden.check(f"parse_{name}_every4", mask[::4, ::4] * 255)
    golden.check("unavglip_parse_every4", lip_mask.region_mask(classes, "full_face")[::4, ::4] * 255)
    golden.check("jaw_kernel", lip_mask.jaw_kernel())
    golden.check("cheek_kernel", lip_mask.cheek_kernel())
    _check_blending(golden, classes)


def _check_blending(golden: Golden, classes: Tensor) -> None:
    body, face, box = _sized(golden, "body"), _sized(golden, "mouth"), tuple(golden.metadata["inputs"]["box"])
    square = lip_paste.crop_box(box, 1.5)
    golden.check("crop_box_expand1.5", torch.tensor([*square, (square[2] - square[0]) // 2]))
    golden.check("prepare_crop_box", torch.tensor(square))
    cases: dict[str, Any] = {f"blend_{region}": region for region in ("raw", "jaw")}
    for name, region in (cases | {"unavglip_blend_fullface": "full_face"}).items():
        options = lip_paste.paste_options(region)
        blended = lip_paste.paste_face(body, face, box, lip_paste.paste_mask(classes, box, options), options)
        golden.check(name, blended.movedim(0, -1))
    options = lip_paste.PasteOptions("jaw", blur_share=0.1)
    mask = lip_paste.paste_mask(classes, box, options)
    golden.check("prepare_mask_jaw", mask)
    blended = lip_paste.paste_face(body, face, box, mask, options).movedim(0, -1)
    told = re.search(r"blend_prepared_jaw: rows (\d+):(\d+), cols (\d+):(\d+)", golden.metadata["outputs"])
    assert told
    top, bottom, left, right = map(int, told.groups())
    golden.check("blend_prepared_jaw", blended[top:bottom, left:right])


def _classes(golden: Golden) -> Tensor:
    """The painted map of classes, drawn as the file's inputs tell."""
    told = golden.metadata["inputs"]["fake parsing (argmax of the net)"]
    y, x = torch.meshgrid(torch.arange(512), torch.arange(512), indexing="ij")
    classes = torch.zeros(512, 512, dtype=torch.uint8)
    for part_told in told.split(": ", 1)[1].split("; "):
        number, shape = part_told.split(" ", 1)
        if not number.isdigit():
            continue
        ellipse = re.match(r"E\((\d+),(\d+),(\d+),(\d+)\)", shape)
        if ellipse:
            cx, cy, a, b = map(int, ellipse.groups())
            inside = ((x - cx) / a) ** 2 + ((y - cy) / b) ** 2 <= 1
        else:
            inside = torch.ones_like(x, dtype=torch.bool)
            for axis, plane in (("x", x), ("y", y)):
                between = re.search(rf"{axis} (\d+)\.\.(\d+)", shape)
                least = re.search(rf"{axis}>=(\d+)", shape)
                if between:
                    inside &= (plane >= int(between[1])) & (plane <= int(between[2]))
                if least:
                    inside &= plane >= int(least[1])
        classes[inside] = int(number)
    return classes
