"""Parts as masks in the picture: names, places, several faces, heads, and shapes without a network."""

from __future__ import annotations

import math

import pytest
import torch
from likeness_pack.adapters.parsers.segface.labels import CELEBA, FEW
from likeness_pack.faces.errors import FaceChoice
from likeness_pack.faces.landmarks import landmarks5_from_boxes
from likeness_pack.faces.masks import head_mask_of_parts
from likeness_pack.faces.parts import (
    ParsedFaces,
    by_picture,
    grown,
    head_masks,
    label_maps,
    parsed,
    part_masks,
    part_numbers,
)
from likeness_pack.faces.parts_picture import COLOURS, draw_parts, parts_table
from likeness_pack.faces.shape_masks import SHAPES, shape_masks
from likeness_pack.faces.types import FaceBatch, Faces

NAMES = tuple(label.name for label in CELEBA)
SIZE = (60, 80)


def shift(x: float, y: float, scale: float = 1.0) -> torch.Tensor:
    """From picture to a map that begins at (x, y) and is ``scale`` times as fine."""
    half = (scale - 1) / 2
    return torch.tensor([[scale, 0, -x * scale + half], [0, scale, -y * scale + half]], dtype=torch.float64)


def labels(size: int, **boxes: tuple[int, int, int, int]) -> torch.Tensor:
    """A map with rectangles ``x1 y1 x2 y2`` of parts, later ones on top."""
    found = torch.zeros(size, size, dtype=torch.uint8)
    for name, (x1, y1, x2, y2) in boxes.items():
        found[y1:y2, x1:x2] = NAMES.index(name)
    return found


def faces_of(counts: tuple[int, ...], maps: list[torch.Tensor], matrices: list[torch.Tensor]) -> ParsedFaces:
    boxes = torch.tensor([[5.0, 5.0, 25.0, 30.0]]).expand(max(counts), -1).clone()
    all_faces = Faces(boxes, landmarks5_from_boxes(boxes), torch.ones(len(boxes)))
    images = tuple(all_faces.take(range(count)) for count in counts)
    return ParsedFaces(
        images, SIZE, "test", parts=NAMES, labels=tuple(maps), matrices=torch.stack(matrices) if matrices else None
    )


@pytest.fixture
def group() -> ParsedFaces:
    """Two faces in the first picture, none in the second, one in the third."""
    first = labels(32, hair=(4, 0, 28, 12), skin=(8, 8, 24, 28), glasses=(10, 12, 22, 16))
    return faces_of((2, 0, 1), [first, first, first], [shift(4, 6), shift(40, 20), shift(30, 20)])


def test_names_groups_and_minus() -> None:
    def chosen(text: str) -> list[str]:
        return [NAMES[number] for number in part_numbers(NAMES, text)]

    assert (
        chosen("glasses, hat; earring\nnecklace") == ["glasses", "hat", "earring", "necklace"] == chosen("accessories")
    )
    assert chosen("Earrings, LEFT_EYE") == ["left eye", "earring"]
    assert chosen("glasses，hat；earring、necklace") == chosen("accessories")
    assert chosen("eyes") == ["left eye", "right eye"]
    assert len(chosen("person")) == 18 and "background" not in chosen("person")
    assert set(chosen("head")) - set(chosen("head, -hat, -hair")) == {"hat", "hair"}
    assert chosen("background") == ["background"]
    assert set(chosen("face")) == {"skin", *NAMES[6:14]}


def test_a_group_takes_what_the_label_set_has() -> None:
    names = tuple(label.name for label in FEW)
    assert {names[number] for number in part_numbers(names, "head")} == set(names) - {"background"}
    for text in ("glasses", "accessories"):
        with pytest.raises(FaceChoice, match="choose among background, skin, left brow"):
            part_numbers(names, text)


@pytest.mark.parametrize("text", ["", " , ;", "hat, -hat", "beard", "-"])
def test_a_choice_of_nothing_is_told(text: str) -> None:
    with pytest.raises(FaceChoice):
        part_numbers(NAMES, text)


def test_masks_lie_where_the_maps_do(group: ParsedFaces) -> None:
    masks = part_masks(group, part_numbers(NAMES, "hair"))
    assert masks.shape == (3, *SIZE) and masks.dtype == torch.float32
    expected = torch.zeros(SIZE)
    expected[6:18, 8:32] = 1
    expected[14:18, 12:28] = 0
    assert torch.allclose(masks[0], expected, atol=1e-5)
    assert torch.allclose(masks[1, 20:32, 44:68], expected[6:18, 8:32], atol=1e-5)


def test_each_pixel_belongs_to_one_part(group: ParsedFaces) -> None:
    whole = part_masks(group, range(len(NAMES)))
    each = sum(part_masks(group, [number]) for number in range(len(NAMES)))
    assert torch.allclose(each, whole, atol=1e-5)
    inside = torch.zeros(SIZE)
    inside[6:38, 4:36] = 1
    assert torch.allclose(whole[0], inside, atol=1e-5)


def test_pictures_unite_their_faces(group: ParsedFaces) -> None:
    masks = part_masks(group, part_numbers(NAMES, "person"))
    united = by_picture(group, masks)
    assert united.shape == (3, *SIZE)
    assert torch.equal(united[0], torch.maximum(masks[0], masks[1]))
    assert not united[1].any() and torch.equal(united[2], masks[2])


def test_a_finer_map_is_averaged_and_a_turned_one_turns() -> None:
    """Half of every block of the fine map is hair: the mask is half there, not all or nothing."""
    fine = torch.zeros(128, 128, dtype=torch.uint8)
    fine[::2] = NAMES.index("hair")
    found = part_masks(faces_of((1,), [fine], [shift(10, 10, 4.0)]), part_numbers(NAMES, "hair"))[0]
    assert torch.allclose(found[12:40, 12:40], torch.tensor(0.5), atol=1e-4)
    angle = math.radians(30)
    turn = torch.tensor([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]], dtype=torch.float64)
    centre = torch.tensor([40.0, 30.0], dtype=torch.float64)
    matrix = torch.cat([turn, (torch.tensor([15.5, 15.5]).double() - turn @ centre)[:, None]], dim=1)
    bar = labels(32, hair=(0, 14, 32, 18))
    mask = part_masks(faces_of((1,), [bar], [matrix]), part_numbers(NAMES, "hair"))[0]
    rows, columns = torch.nonzero(mask > 0.5).double().T
    slope = ((rows - 30) * (columns - 40)).sum() / (columns - 40).square().sum()
    assert float(slope) == pytest.approx(math.tan(angle), rel=0.1)
    assert float(mask.sum()) == pytest.approx(32 * 4, rel=0.05)


def test_growing_narrowing_and_feathering() -> None:
    masks = torch.zeros(1, 40, 40)
    masks[0, 15:25, 15:25] = 1
    assert float(grown(masks, 3, 0).sum()) == 16 * 16
    assert float(grown(masks, -3, 0).sum()) == 4 * 4
    soft = grown(masks, 0, 4)
    assert 0 < float(soft[0, 20, 12]) < float(soft[0, 20, 16]) < 1 and float(soft.sum()) == pytest.approx(100, rel=1e-4)
    assert torch.equal(grown(masks, 0, 0), masks) and grown(masks[:0], 5, 5).shape == (0, 40, 40)


def test_the_head_mask_is_facts(group: ParsedFaces) -> None:
    face, hair, person = (part_masks(group, part_numbers(NAMES, name)).round() for name in ("face", "hair", "person"))
    best, without = head_masks(group, everyone=False)
    assert without == [1] and bool((best[1] == 1).all())
    assert torch.equal(best[0], head_mask_of_parts(face[0], hair[0], person[0]))
    # Glasses are no part of the face; the filled outline closes the hole.
    assert bool((best[0][20:22, 16:24] == 1).all())
    everyone, _ = head_masks(group, everyone=True)
    second = head_mask_of_parts(face[1], hair[1], person[1])
    assert torch.equal(everyone[0], torch.maximum(best[0], second)) and set(everyone.unique().tolist()) == {0.0, 1.0}


def test_the_first_face_holds_where_faces_overlap() -> None:
    skin, hair = labels(20, skin=(0, 0, 20, 20)), labels(20, hair=(0, 0, 20, 20))
    faces = faces_of((2,), [skin, hair], [shift(10, 10), shift(20, 10)])
    maps = label_maps(faces)
    assert maps.shape == (1, *SIZE) and maps.dtype == torch.uint8
    assert maps[0, 15, 25] == NAMES.index("skin") and maps[0, 15, 35] == NAMES.index("hair") and maps[0, 5, 5] == 0


def test_pictures_and_tables_tell_the_parts(group: ParsedFaces) -> None:
    images = torch.full((3, *SIZE, 3), 0.25)
    coloured, over = draw_parts(images, group)
    assert torch.allclose(coloured[0, 10, 10] * 255, torch.tensor(COLOURS["hair"]).float())
    assert torch.equal(over[1], images[1]) and torch.allclose(over[0, 10, 10], (coloured[0, 10, 10] + 0.25) / 2)
    lines = parts_table(group).splitlines()
    assert [line.split(":")[0] for line in lines] == ["image 0 face 0", "image 0 face 1", "image 2 face 0"]
    assert "glasses 4.7" in lines[0]
    assert set(COLOURS) == set(NAMES) and len(set(COLOURS.values())) == len(COLOURS)


def test_a_face_beyond_the_picture_gives_nothing() -> None:
    faces = faces_of((1,), [labels(16, skin=(0, 0, 16, 16))], [shift(200, 200)])
    assert not part_masks(faces, [2]).any() and not label_maps(faces).any()


def test_faces_that_were_not_parsed_are_refused() -> None:
    with pytest.raises(FaceChoice, match="connect the faces of Parse Faces"):
        parsed(FaceBatch((Faces.none(),), SIZE, "test"), "head mask")


def plain(angle: float = 0.0) -> FaceBatch:
    boxes = torch.tensor([[100.0, 80.0, 180.0, 200.0]])
    points = landmarks5_from_boxes(boxes)
    turn = torch.tensor([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    middle = torch.tensor([140.0, 140.0])
    face = Faces(boxes, (points - middle) @ turn + middle, torch.ones(1))
    return FaceBatch((face, Faces.none()), (300, 320), "test")


def test_boxes_and_ovals_have_their_size() -> None:
    box = shape_masks(plain(), "box")
    assert box.shape == (1, 300, 320) and float(box.sum()) == pytest.approx(80 * 120, rel=1e-3)
    assert float(box[0, 81, 101]) == 1 and float(box[0, 78, 140]) == 0
    oval = shape_masks(plain(), "oval of the box")
    assert float(oval.sum()) == pytest.approx(math.pi * 40 * 60, rel=1e-2)
    assert float(shape_masks(plain(), "box", 1.5).sum()) == pytest.approx(80 * 120 * 2.25, rel=1e-3)


def test_the_oval_of_the_points_turns_with_the_face() -> None:
    upright, turned = (shape_masks(plain(angle), SHAPES[0])[0] for angle in (0.0, math.pi / 2))
    assert float(turned.sum()) == pytest.approx(float(upright.sum()), rel=1e-3)
    high, wide = (float((mask > 0.5).any(1 - axis).sum()) for mask, axis in ((upright, 0), (turned, 1)))
    assert high == pytest.approx(wide, abs=2)
    for mask, batch in ((upright, plain()), (turned, plain(math.pi / 2))):
        for x, y in batch.images[0].landmarks5[0].round().long().tolist():
            assert float(mask[y, x]) == 1


def test_no_face_gives_no_mask() -> None:
    none = FaceBatch((Faces.none(),), (30, 40), "test")
    assert shape_masks(none, "box").shape == (0, 30, 40)
    assert not by_picture(none, shape_masks(none, "box")).any()
    with pytest.raises(FaceChoice):
        shape_masks(none, "star")  # type: ignore[arg-type]
