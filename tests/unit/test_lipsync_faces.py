"""Boxes, cuts, masks and pasting for lip-sync, against OpenCV and Pillow where these are the truth."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from likeness_pack.faces import lip_box, lip_mask, lip_paste, opencv_pixels
from likeness_pack.faces.types import Faces
from torch import Tensor

BOX = (52, 38, 104, 106)


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


@pytest.mark.parametrize("size", [(95, 82), (400, 300), (256, 256), (31, 257), (1, 1)])
def test_resizing_is_opencvs_to_the_bit(size: tuple[int, int]) -> None:
    cv2 = pytest.importorskip("cv2")
    picture = noise(3, *size)
    channels_last = picture.movedim(0, -1).numpy()
    for resize, kind, (height, width) in (
        (opencv_pixels.resize_lanczos4, cv2.INTER_LANCZOS4, (256, 256)),
        (opencv_pixels.resize_linear, cv2.INTER_LINEAR, (68, 52)),
        (opencv_pixels.resize_linear, cv2.INTER_LINEAR, (300, 251)),
    ):
        expected = cv2.resize(channels_last, (width, height), interpolation=kind)
        assert np.array_equal(resize(picture, height, width).movedim(0, -1).numpy(), expected)


@pytest.mark.parametrize("size", [1, 3, 5, 7, 9, 11, 21, 51])
def test_blurring_is_opencvs_to_the_bit(size: int) -> None:
    cv2 = pytest.importorskip("cv2")
    plane = noise(102, 90)
    assert np.array_equal(opencv_pixels.blur(plane, size).numpy(), cv2.GaussianBlur(plane.numpy(), (size, size), 0))
    assert sum(opencv_pixels.blur_kernel(size)) == 256


def test_pasting_is_pillows_to_the_bit() -> None:
    image = pytest.importorskip("PIL.Image")
    below, above, mask = noise(3, 40, 50), noise(3, 40, 50, seed=1), noise(40, 50, seed=2)
    expected = image.fromarray(below.movedim(0, -1).contiguous().numpy())
    expected.paste(image.fromarray(above.movedim(0, -1).contiguous().numpy()), (0, 0), image.fromarray(mask.numpy()))
    assert np.array_equal(lip_paste._mixed(below, above, mask).movedim(0, -1).numpy(), np.asarray(expected))


def test_morphology_is_opencvs() -> None:
    cv2 = pytest.importorskip("cv2")
    skin = torch.zeros(512, 512, dtype=torch.bool)
    skin[100:300, 150:380] = noise(200, 230) > 60
    kernel = lip_mask.jaw_kernel().numpy().astype(np.uint8)
    grown = cv2.dilate(skin.numpy().astype(np.uint8), kernel)
    assert np.array_equal(lip_mask._grown(skin).numpy(), grown > 0)
    ellipse = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (35, 3))
    assert np.array_equal(lip_mask.cheek_kernel().numpy(), ellipse > 0)
    eroded = cv2.erode(grown, ellipse, iterations=2)
    twice = lip_mask._eroded(lip_mask._eroded(lip_mask._grown(skin)))
    assert np.array_equal(twice.numpy(), eroded > 0)


def test_the_box_has_its_middle_line_where_it_is_told() -> None:
    assert lip_box.box_around(20, 55, 80, 95) == (20, 15, 80, 95)
    assert lip_box.box_around(20, 60, 80, 95) == (20, 25, 80, 95)
    # The upper half may not leave the picture; a box beyond its left edge is the detector's to replace.
    assert lip_box.box_around(20, 35, 80, 75) == (20, 0, 80, 75)
    assert lip_box.box_around(-10, 55, 50, 95) is None and lip_box.box_around(20, 99, 80, 95) is None


def test_the_box_of_five_points() -> None:
    marks = torch.tensor([[40.0, 40.0], [60.0, 40.0], [50.0, 55.0], [42.0, 70.0], [58.0, 70.0]])
    faces = Faces(torch.tensor([[20.4, 10.0, 80.9, 90.2]]), marks[None], torch.ones(1))
    assert lip_box.lip_box(faces, 200, 200, 0, 0) == (20, 10, 80, 90)
    assert lip_box.lip_box(faces, 200, 200, 4, 10) == (20, 18, 80, 100)
    assert lip_box.lip_box(faces, 95, 70, 0, 10) == (20, 10, 70, 95)
    assert lip_box.lip_box(Faces.none(), 95, 70, 0, 10) is None
    # Points below the chin: the detector's own box serves.
    below = Faces(faces.boxes, faces.landmarks5 + 80, faces.scores)
    assert lip_box.lip_box(below, 200, 200, 0, 0) == (20, 10, 80, 90)


def test_the_lower_half_is_exactly_black() -> None:
    crops = torch.rand(2, 3, 256, 256)
    found = lip_paste.masked(crops) * 2 - 1
    assert bool((found[:, :, 128:] == -1).all()) and torch.equal(found[:, :, :128], (crops * 2 - 1)[:, :, :128])


def test_without_a_parser_the_lower_half_of_the_box_is_pasted_softly() -> None:
    options = lip_paste.paste_options("box")
    square, mask = lip_paste.crop_box(BOX, options.expand), lip_paste.paste_mask(None, BOX, options)
    assert mask.shape == (102, 102) and int(mask.max()) == 255
    rows, columns = (torch.nonzero(mask.any(axis)).flatten() for axis in (1, 0))
    assert int(rows.min()) >= 51 - 4 and int(rows.max()) < BOX[3] - square[1] + 4
    assert int(columns.min()) >= BOX[0] - square[0] - 4 and int(columns.max()) < BOX[2] - square[0] + 4


def test_pixels_outside_the_mask_stay_bit_equal_and_floats_keep_their_detail() -> None:
    image, painted = torch.rand(144, 160, 3), torch.rand(3, 256, 256)
    found = lip_paste.paste_into(image, painted, None, BOX, lip_paste.paste_options("box"))
    changed = (found != image).any(-1)
    assert 500 < int(changed.sum()) < 144 * 160 // 4 and not bool(changed[:60].any())


@pytest.mark.parametrize("box", [(0, 0, 60, 60), (120, 90, 160, 144), (0, 0, 160, 144)])
def test_faces_at_the_rim_of_a_picture(box: tuple[int, int, int, int]) -> None:
    image, painted = torch.rand(144, 160, 3), torch.rand(3, 256, 256)
    for region in ("box", "full_face"):
        options = lip_paste.paste_options(region)  # type: ignore[arg-type]
        classes = lip_paste.square_classes(
            torch.ones(144, 160, dtype=torch.uint8), torch.arange(256).byte(), lip_paste.crop_box(box, options.expand)
        )
        found = lip_paste.paste_into(image, painted, classes, box, options)
        assert found.shape == image.shape and bool((found != image).any())


def test_regions_of_classes() -> None:
    classes = torch.arange(19).byte().repeat(512 * 512 // 19 + 1)[: 512 * 512].reshape(512, 512)
    kept = {
        region: set(classes[lip_mask.region_mask(classes, region)].tolist()) for region in ("raw", "neck", "full_face")
    }  # type: ignore[arg-type]
    assert kept["raw"] == {1, 11, 12, 13} and kept["neck"] == {1, 11, 12, 13, 14}
    assert kept["full_face"] == set(range(1, 14))
    assert not {10} & set(classes[lip_mask.region_mask(classes, "jaw")].tolist())


def test_names_of_another_parser_become_bisenets_classes() -> None:
    parts = ("background", "neck", "skin", "nose", "inner mouth", "lower lip", "upper lip", "something new")
    assert lip_mask.class_table(parts)[:8].tolist() == [0, 14, 1, 10, 11, 13, 12, 0]


@pytest.mark.parametrize("box", [BOX, (0, 0, 60, 60), (101, 91, 160, 144)])
def test_working_on_a_part_of_the_frame_changes_nothing(box: tuple[int, int, int, int]) -> None:
    pixels, painted = noise(144, 160, 3), torch.rand(3, 256, 256)
    options = lip_paste.paste_options("full_face")
    classes = (noise(512, 512, seed=5) % 19).byte()
    face = opencv_pixels.resize_linear((painted * 255).round().byte(), box[3] - box[1], box[2] - box[0])
    mask = lip_paste.paste_mask(classes, box, options)
    whole = lip_paste.paste_face(pixels.movedim(-1, 0), face, box, mask, options).movedim(0, -1)
    found = lip_paste.paste_into(pixels.float() / 255, painted, classes, box, options)
    assert torch.equal((found * 255).round().byte(), whole)
    part = lip_paste.cut_frame(pixels.float() / 255, box)
    assert torch.equal(part, lip_paste.cut_face(pixels.movedim(-1, 0), box))


def test_the_identity_keeps_the_upper_half() -> None:
    painted, crops = torch.zeros(1, 3, 256, 256), torch.ones(1, 3, 256, 256)
    found = lip_paste.keep_upper(painted, crops)
    assert bool((found[:, :, :128] == 1).all()) and not bool(found[:, :, 128:].any())
