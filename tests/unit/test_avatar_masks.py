"""Masks of talking characters: boxes as officially, several characters apart, clips frame by frame, drawn masks."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from likeness_pack.adapters.families.hunyuan_avatar import face_mask
from likeness_pack.adapters.families.hunyuan_avatar.characters import CharacterOptions, character_masks
from likeness_pack.faces.errors import BadMask, FaceChoice, NoFaceFound
from likeness_pack.faces.tracking import TrackedFaces
from likeness_pack.faces.types import FaceBatch, Faces
from likeness_pack.nodes.avatar_masks import LikenessAvatarFaceMasks

SIZE = (128, 192)


def faces_of(*boxes):
    rows = torch.tensor(boxes, dtype=torch.float32).view(-1, 4)
    count = len(rows)
    return Faces(rows, torch.zeros(count, 5, 2), torch.linspace(0.9, 0.5, count) if count else torch.zeros(0))


def batch_of(*images, size=SIZE):
    return FaceBatch(tuple(images), size, "user")


def tracks_of(images, persons):
    filled = tuple((False,) * len(one) for one in persons)
    return TrackedFaces(tuple(images), SIZE, "user", None, (), tuple(persons), filled)


LEFT, RIGHT = (20.0, 40.0, 52.0, 72.0), (120.0, 40.0, 152.0, 72.0)


def only(faces, size=SIZE, frames=1, **options):
    return character_masks(faces, {}, size, frames, CharacterOptions(**options)).masks[0]


# Boxes


def test_a_box_is_three_times_as_wide_and_high_and_ends_at_the_rim():
    assert face_mask.pixel_box((50, 40, 70, 60), 128, 192) == (30, 20, 90, 80)
    assert face_mask.pixel_box((0, 0, 20, 20), 128, 192) == (0, 0, 40, 40)
    assert face_mask.pixel_box(None, 128, 192) == (0, 0, 192, 128)


def test_floor_division_is_the_official_one():
    # (10.5 + 30.7) // 2 = 20 and 60.6 // 2 = 30: whole numbers on both sides.
    assert face_mask.pixel_box((10.5, 10.5, 30.7, 30.7), 128, 192) == (0, 0, 50, 50)


def test_the_rim_is_soft_and_tokens_take_even_cells():
    mask = face_mask.box_masks([(20, 20, 60, 60)], 128, 128)
    latent = face_mask.latent_masks(mask, 16, 16)
    assert latent[0, 4, 4] == 1
    assert latent[0, 4, 2] == pytest.approx(0.5)
    tokens = face_mask.token_masks(latent, 3, 8, 8)
    assert tokens.shape == (3, 8, 8)
    assert torch.equal(tokens[2], latent[0, ::2, ::2])


def test_masks_of_other_lengths_are_stretched_in_time_by_the_nearest():
    masks = torch.arange(3.0).view(3, 1, 1).expand(-1, 2, 2)
    assert face_mask.token_masks(masks, 6, 1, 1)[:, 0, 0].tolist() == [0, 0, 1, 1, 2, 2]


def test_the_official_choice_is_the_last_face_larger_than_the_first():
    boxes = torch.tensor([[0, 0, 10, 10], [0, 0, 40, 40], [0, 0, 20, 20], [0, 0, 5, 5.0]])
    assert face_mask.official_choice(boxes) == 2
    assert face_mask.official_choice(boxes[1:]) == 0
    found = only(batch_of(faces_of(*boxes.tolist())), order="official", area=1.0)
    assert torch.equal(found, only(batch_of(faces_of([0, 0, 20, 20])), area=1.0))


def test_boxes_grow_with_the_video():
    """Faces of a picture of half the size give the same mask."""
    small = batch_of(faces_of([10, 20, 26, 36]), size=(64, 96))
    assert torch.equal(only(small), only(batch_of(faces_of(LEFT))))
    assert only(small).shape == (1, 16, 24)


# Several characters


@pytest.mark.parametrize("overlap", face_mask.OVERLAPS)
def test_places_that_two_claim(overlap):
    near = batch_of(faces_of((60, 40, 92, 72), (100, 40, 132, 72)))
    options = CharacterOptions(2, "left-right", overlap=overlap)
    first, second = character_masks(near, {}, SIZE, 1, options).masks
    alone = [only(batch_of(faces_of(box))) for box in ((60, 40, 92, 72), (100, 40, 132, 72))]
    shared = (alone[0] > 0) & (alone[1] > 0)
    assert shared.any()
    assert torch.equal(first[~shared], alone[0][~shared])
    if overlap == "keep":
        assert torch.equal(first, alone[0])
    elif overlap == "share":
        torch.testing.assert_close((first + second)[shared], torch.ones(int(shared.sum())), atol=0.5, rtol=0)
        assert (first + second).max() <= 1 + 1e-6
    else:
        assert not ((first > 0) & (second > 0)).any()
        assert torch.equal(torch.maximum(first, second)[shared & (first > 0)], alone[0][shared & (first > 0)])
        # The border is where both faces are equally far: x = 96.
        columns = torch.nonzero((first > 0).any(0).any(0))[:, 0]
        assert int(columns.max()) == 96 // 8 - 1


def test_orders_name_the_characters():
    both = batch_of(faces_of(RIGHT, LEFT))
    left, right = character_masks(both, {}, SIZE, 1, CharacterOptions(2, "left-right")).masks
    assert torch.equal(left, only(batch_of(faces_of(LEFT))))
    assert torch.equal(right, only(batch_of(faces_of(RIGHT))))


def test_a_drawn_mask_stands_instead_of_a_face():
    drawn = torch.zeros(*SIZE)
    drawn[40:72, 120:152] = 1
    made = character_masks(batch_of(faces_of(LEFT)), {1: drawn}, SIZE, 1, CharacterOptions(2))
    assert torch.equal(made.masks[0], only(batch_of(faces_of(LEFT))))
    assert torch.equal(made.masks[1], face_mask.latent_masks(drawn[None], 16, 24))
    assert "from a mask" in made.notes[1] and "from a face" in made.notes[0]
    boxed = character_masks(None, {0: drawn}, SIZE, 1, CharacterOptions(box_of_masks=True)).masks[0]
    assert torch.equal(boxed, only(batch_of(faces_of(RIGHT))))


def test_a_mask_of_the_size_of_latents_stays_as_it_is():
    drawn = torch.rand(5, 16, 24, generator=torch.Generator().manual_seed(0))
    assert torch.equal(character_masks(None, {0: drawn}, SIZE, 17).masks[0], drawn)


# Time


def moving(count=17):
    """Two persons who cross; the second is missing in frames 8 to 11."""
    images, persons = [], []
    for frame in range(count):
        a, b = (20.0 + 6 * frame, 40.0, 52.0 + 6 * frame, 72.0), (140.0 - 6 * frame, 40.0, 172.0 - 6 * frame, 72.0)
        missing = 8 <= frame < 12
        images.append(faces_of(a) if missing else faces_of(a, b))
        persons.append((0,) if missing else (0, 1))
    return tracks_of(images, persons)


def test_masks_move_with_tracked_persons():
    masks = character_masks(moving(), {}, SIZE, 17, CharacterOptions(2, area=1.0, overlap="keep")).masks
    assert [mask.shape for mask in masks] == [(5, 16, 24)] * 2
    for latent in range(5):
        frames = [0] if latent == 0 else range(4 * latent - 3, 4 * latent + 1)
        single = [only(batch_of(moving().images[frame].take([0])), area=1.0)[0] for frame in frames]
        assert torch.equal(masks[0][latent], torch.stack(single).amax(0))


def test_a_person_out_of_sight_keeps_the_nearest_place_or_none():
    held, gone = (
        character_masks(moving(), {}, SIZE, 17, CharacterOptions(2, area=1.0, overlap="keep", hold=hold)).masks[1]
        for hold in (True, False)
    )
    before, after = moving().images[7].boxes[1], moving().images[12].boxes[1]
    ends = [only(batch_of(faces_of(box.tolist())), area=1.0)[0] for box in (before, after)]
    assert torch.equal(held[2], torch.maximum(ends[0], held[2]))
    # Latent frame 2 is of the frames 5 to 8, latent frame 3 of 9 to 12.
    only_last = only(batch_of(faces_of(after.tolist())), area=1.0)[0]
    assert torch.equal(gone[3], only_last)
    assert held[3].sum() > gone[3].sum() > 0


def test_one_picture_serves_the_whole_clip():
    assert only(batch_of(faces_of(LEFT)), frames=129).shape == (1, 16, 24)


def test_frames_of_another_length_are_refused():
    with pytest.raises(BadMask, match=r"1 mask, 17 \(one for each video frame\) or 5 .*found 9; give as many frames"):
        only(batch_of(*[faces_of(LEFT)] * 9), frames=17)


# Refusals


def test_fewer_faces_than_characters_are_refused():
    with pytest.raises(NoFaceFound, match="expected 2 faces, found 1 in frame 0; set fewer characters"):
        only(batch_of(faces_of(LEFT)), characters=2)
    with pytest.raises(NoFaceFound, match="expected 3 faces, found 2 persons in 17 frames"):
        only(moving(), frames=17, characters=3)
    with pytest.raises(NoFaceFound, match="expected a face, found no faces and no mask"):
        only(None)


def test_without_a_face_the_whole_picture_only_where_it_was_chosen():
    empty = batch_of(Faces.none())
    with pytest.raises(NoFaceFound, match="expected a face, found 0 in frame 0"):
        only(empty)
    made = character_masks(empty, {}, SIZE, 1, CharacterOptions(whole_picture=True))
    assert (made.masks[0] == 1).all()
    assert "the whole picture, since there is no face, 100.0% of the picture" in made.notes[0]
    with pytest.raises(NoFaceFound, match="expected 2 faces"):
        only(empty, characters=2, whole_picture=True)


def test_untracked_clips_of_several_are_refused():
    with pytest.raises(FaceChoice, match="17 frames of faces that nobody tracked; put 'Track Faces' before this node"):
        only(batch_of(*[faces_of(LEFT, RIGHT)] * 17), frames=17, characters=2)


def test_an_empty_drawn_mask_has_no_box():
    with pytest.raises(BadMask, match="mask of character 1: expected something drawn, found nothing in frame 0"):
        character_masks(None, {0: torch.zeros(*SIZE)}, SIZE, 1, CharacterOptions(box_of_masks=True))


@pytest.mark.parametrize("wrong", [{"characters": 5}, {"order": "any"}, {"overlap": "none"}])
def test_options_that_do_not_exist(wrong):
    with pytest.raises(FaceChoice, match="choose from the lists"):
        CharacterOptions(**wrong)


# The node


def run_node(**inputs):
    usual = {name: options[1]["default"] for name, options in LikenessAvatarFaceMasks.INPUT_TYPES()["required"].items()}
    return LikenessAvatarFaceMasks().make(**{**usual, **inputs})["result"]


def test_the_node_gives_four_masks_everyone_and_a_report():
    result = run_node(faces=batch_of(faces_of(RIGHT, LEFT)), characters=2, order="left-right")
    first, second, third, fourth, everyone, report = result
    assert torch.equal(everyone, torch.maximum(first, second))
    assert not third.any() and not fourth.any() and third.shape == first.shape
    assert report.splitlines()[1].startswith("character 2: one mask for the whole clip, from a face")


def test_the_node_takes_its_size_from_what_is_there():
    assert run_node(faces=batch_of(faces_of(LEFT)))[0].shape == (1, 16, 24)
    assert run_node(faces=batch_of(faces_of(LEFT)), width=384, height=256)[0].shape == (1, 32, 48)
    assert run_node(mask_1=torch.ones(1, 64, 64))[0].shape == (1, 8, 8)
    assert run_node(tracks=moving(), characters=2)[0].shape == (5, 16, 24)
    with pytest.raises(BadMask, match="expected faces, a mask, or the size of the video, found none of them"):
        run_node()
    with pytest.raises(BadMask, match="a video of 8 to 16384 pixels and 1 frame at least, found 4 x 4"):
        character_masks(batch_of(faces_of(LEFT)), {}, (4, 4), 1)


def test_tracks_of_one_frame_and_one_person_follow_the_order():
    """A tracked picture is a picture: the order chooses."""
    track = tracks_of([faces_of(LEFT, RIGHT)], [(0, 1)])
    assert torch.equal(only(replace(track), order="right-left"), only(batch_of(faces_of(RIGHT))))
