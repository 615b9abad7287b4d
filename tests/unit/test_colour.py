"""Colour fixes, and crops that go back to their place."""

from __future__ import annotations

import pytest
import torch
from likeness_pack.faces.colour import adain, bands, match_colour, wavelet
from likeness_pack.faces.crops import CroppedFaces, cut_faces, paste_crops, soft_region
from likeness_pack.faces.errors import BadImage, BadMask, FaceChoice, NoFaceFound
from likeness_pack.faces.templates import template_points
from likeness_pack.faces.types import FaceBatch, Faces


def pictures(count: int = 1, height: int = 40, width: int = 48, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    small = torch.rand(count, 3, height // 4, width // 4, generator=generator)
    smooth = torch.nn.functional.interpolate(small, (height, width), mode="bicubic").clamp(0, 1)
    return smooth.movedim(1, -1)


def test_bands_add_up_to_the_picture() -> None:
    picture = pictures().movedim(-1, 1)
    high, low = bands(picture)
    torch.testing.assert_close(high + low, picture, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(wavelet(picture, picture), picture, atol=1e-5, rtol=1e-5)
    flat = torch.full((1, 3, 9, 9), 0.4)
    torch.testing.assert_close(bands(flat)[0], torch.zeros(1, 3, 9, 9), atol=1e-6, rtol=0)


def test_adain_takes_mean_and_spread() -> None:
    first, second = pictures(seed=1).movedim(-1, 1), pictures(seed=2).movedim(-1, 1) * 0.3
    got = adain(first, second)
    torch.testing.assert_close(got.mean((2, 3)), second.mean((2, 3)), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(got.std((2, 3)), second.std((2, 3)), atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("method", ["wavelet", "adain"])
def test_a_colour_cast_is_taken_away(method: str) -> None:
    clean = pictures(seed=3) * 0.5 + 0.2
    cast = clean * torch.tensor([0.8, 1.0, 1.0]) + torch.tensor([0.15, 0.0, -0.1])
    fixed = match_colour(cast, clean, method)  # type: ignore[arg-type]
    assert (fixed - clean).abs().mean() < 0.2 * (cast - clean).abs().mean()


def test_strength_and_sizes() -> None:
    images, reference = pictures(2, seed=4), pictures(1, 20, 24, seed=5)
    assert match_colour(images, reference, "wavelet", 0.0) is images
    whole, half = (match_colour(images, reference, "adain", strength) for strength in (1.0, 0.5))
    assert whole.shape == images.shape
    torch.testing.assert_close(half, (images + whole) / 2)
    with pytest.raises(BadImage, match="found wavelet and 3"):
        match_colour(images, reference.expand(3, -1, -1, -1))
    with pytest.raises(BadImage, match="histogram"):
        match_colour(images, reference, "histogram")  # type: ignore[arg-type]


def faces_at(*places: tuple[float, float, float], image_size: tuple[int, int] = (160, 200)) -> FaceBatch:
    """Faces (x, y of the crop's corner, scale) of one picture."""
    points = torch.stack(
        [template_points("face_restore_512", 64) * scale + torch.tensor([x, y]) for x, y, scale in places]
    )
    boxes = torch.tensor([[x, y, x + 64 * scale, y + 64 * scale] for x, y, scale in places])
    faces = Faces(boxes.float(), points.float(), torch.ones(len(places)))
    return FaceBatch((faces,), image_size, "user")


def test_a_crop_is_the_face_in_its_template() -> None:
    images = pictures(1, 160, 200)
    crops, faces = cut_faces(images, faces_at((20, 30, 1.0)), 64)
    assert isinstance(faces, CroppedFaces)
    assert crops.shape == (1, 64, 64, 3)
    torch.testing.assert_close(crops[0], images[0, 30:94, 20:84], atol=2e-3, rtol=0)


def test_unchanged_crops_change_nothing_but_rounding_and_nothing_outside() -> None:
    images = pictures(1, 160, 200)
    crops, faces = cut_faces(images, faces_at((20, 30, 1.0), (110, 40, 1.2)), 64)
    pasted = paste_crops(images, faces, crops)
    assert (pasted - images).abs().mean() < 0.003
    painted = paste_crops(images, faces, torch.ones_like(crops))
    changed = (painted != images).any(-1)[0]
    inside = torch.zeros(160, 200, dtype=torch.bool)
    inside[29:96, 19:86] = True
    inside[39:119, 109:189] = True
    assert not changed[~inside].any()
    assert changed[50:70, 40:60].all()
    assert changed[60:90, 140:160].all()


def test_larger_crops_go_to_the_same_place() -> None:
    """A ramp is the same after any resampling, unless it was shifted."""
    ramp = (torch.arange(160)[:, None] + 2 * torch.arange(200)[None, :]).float() / 600
    images = ramp[None, :, :, None].expand(1, -1, -1, 3)
    crops, faces = cut_faces(images, faces_at((20, 30, 1.0)), 64)
    twice = torch.nn.functional.interpolate(crops.movedim(-1, 1), scale_factor=2, mode="bilinear").movedim(1, -1)
    assert (paste_crops(images, faces, twice) - images).abs().max() < 2e-4


def test_mask_and_strength_of_a_paste() -> None:
    images = pictures(1, 160, 200)
    crops, faces = cut_faces(images, faces_at((20, 30, 1.0)), 64)
    white = torch.ones_like(crops)
    assert torch.equal(paste_crops(images, faces, white, strength=0.0), images)
    mask = torch.zeros(64, 64)
    mask[:, :32] = 1
    changed = (paste_crops(images, faces, white, mask) != images).any(-1)[0]
    assert changed[50:70, 30:50].all()
    assert not changed[:, 55:].any()
    for masks, words in ((torch.zeros(1, 9, 9), "no crop would be seen"), (torch.ones(2, 9, 9), "one for each crop")):
        with pytest.raises(BadMask, match=words):
            paste_crops(images, faces, white, masks)


def test_a_face_over_the_border_is_pasted_to_the_border() -> None:
    images = pictures(1, 160, 200)
    crops, faces = cut_faces(images, faces_at((-20, -10, 1.0)), 64)
    changed = (paste_crops(images, faces, torch.ones_like(crops)) != images).any(-1)[0]
    assert changed[:30, :25].any()
    assert not changed[56:, :].any()
    box, mask = soft_region(torch.tensor([[1.0, 0, 500], [0, 1.0, 500]]), 64, 160, 200)
    assert box[2] <= box[0] or mask.numel() == 0


def test_wrong_wires_are_told() -> None:
    images = pictures(1, 160, 200)
    crops, faces = cut_faces(images, faces_at((20, 30, 1.0)), 64)
    with pytest.raises(NoFaceFound):
        cut_faces(images, faces_at((20, 30, 1.0)).with_images([Faces.none()]), 64)
    with pytest.raises(FaceChoice, match="select faces before"):
        faces.with_images([Faces.none()])
    with pytest.raises(FaceChoice, match="Crop Faces"):
        paste_crops(images, faces_at((20, 30, 1.0)), crops)
    with pytest.raises(BadImage, match="1 square crops"):
        paste_crops(images, faces, crops.expand(2, -1, -1, -1))
    with pytest.raises(BadImage, match="200 x 160 pixels"):
        paste_crops(pictures(1, 160, 160), faces, crops)
