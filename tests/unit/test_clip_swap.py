"""Swapping through a clip without files: counts, policies, persons, second looks, chunks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from clip_people import BLUE, GREEN, RED, ColourDetector, ColourEncoder, Places, frame_of
from identities import arcface_identity
from likeness_pack.adapters.clip_faces import FollowOptions, Replay, find_faces, part_of
from likeness_pack.adapters.identity import EMBEDDING, Identity
from likeness_pack.adapters.swappers.clip import ClipMasks, ClipSwap, ranges, swap_clip
from likeness_pack.adapters.swappers.pipeline import SwapOptions
from likeness_pack.evaluation.clip_choice import clip_choice
from likeness_pack.faces.errors import BadImage, BadMask, NoFaceFound
from likeness_pack.faces.swap_paste import PasteOptions
from likeness_pack.faces.tracking import TrackedFaces, TrackOptions
from swap_standins import StandIn
from torch import Tensor

FRAMES = 50


@dataclass
class Done:
    """What was written."""

    frames: int
    result: Tensor
    notes: tuple[str, ...] = ()


class Memory:
    """A clip in memory, read in chunks."""

    def __init__(self, frames: Tensor, chunk: int = 7) -> None:
        self.all, self.chunk, self.reads = frames, chunk, 0

    @property
    def expected(self) -> int:
        return len(self.all)

    def frames(self) -> Iterator[Tensor]:
        self.reads += 1
        return iter(self.all.split(self.chunk))

    def write(self, change: Any, on_frame: Any, total: int) -> Done:
        assert total == len(self.all)
        done = []
        for start in range(0, len(self.all), self.chunk):
            part = self.all[start : start + self.chunk]
            done.append(change(part, start))
            for place in range(len(part)):
                on_frame(start + place + 1, total)
        return Done(len(self.all), torch.cat(done))


def clip(*frames: Places) -> Memory:
    return Memory(torch.stack([frame_of(one) for one in frames]).float() / 255)


def walk(number: int) -> Places:
    """Red goes right, green goes left above, so that they pass each other."""
    return {RED: (20.0 + 2 * number, 64.0, 1.0), GREEN: (140.0 - 2 * number, 28.0, 1.0)}


def inverted(crops: Tensor, _: Tensor) -> Tensor:
    return 1 - crops


def job(change: Any = inverted, **settings: Any) -> ClipSwap:
    settings.setdefault("paste", PasteOptions(shrink=2, feather=2))
    return ClipSwap(ColourDetector(), StandIn(32, change), settings.pop("identity", arcface_identity()), **settings)


def changed(before: Tensor, after: Tensor) -> Tensor:
    return (before != after).any(-1)


def test_many_frames_without_a_face_are_named_by_runs() -> None:
    with pytest.raises(NoFaceFound, match=r"images 0-29, 31 \(counted"):
        swap_clip(clip(*[{}] * 30, walk(0), {}), job(on_missing_face="error", follow=FollowOptions(fill=False)))


@pytest.mark.parametrize("track", [True, False])
@pytest.mark.parametrize("policy", ["keep", "skip", "error"])
@pytest.mark.parametrize("missing", [set(), {0, 7, 8, 49}])
def test_as_many_frames_as_before_under_each_policy(missing: set[int], policy: Any, track: bool) -> None:
    source = clip(*({} if number in missing else walk(number) for number in range(FRAMES)))
    settings = job(on_missing_face=policy, follow=FollowOptions(track=track, fill=False))
    if missing and policy == "error":
        with pytest.raises(NoFaceFound, match="0, 7, 8, 49"):
            swap_clip(source, settings)
        return
    told: list[tuple[int, int]] = []
    written, faces, report = swap_clip(source, settings, lambda done, of: told.append((done, of)))
    assert written.frames == FRAMES == len(faces) and told[-1] == (100, 100)
    assert [one for one, _ in told] == sorted(one for one, _ in told)
    untouched = {number for number in range(FRAMES) if torch.equal(written.result[number], source.all[number])}
    assert untouched == missing
    assert f"in {FRAMES - len(missing)} of 50 frames, 50 frames written" in report and "frames per second" in report
    assert ("unchanged: 0, 7-8, 49" in report) == (bool(missing) and policy == "keep")
    assert ("unchanged: 4 frames" in report) == (bool(missing) and policy == "skip")


def test_an_unchanging_swapper_changes_next_to_nothing() -> None:
    source = clip(*(walk(number) for number in range(0, 48, 3)))
    written, _, _ = swap_clip(source, job(lambda crops, _: crops))
    different = changed(source.all, written.result)
    inverse = changed(source.all, swap_clip(source, job())[0].result)
    assert bool(inverse.any()) and not bool((different & ~inverse).any())
    assert float((written.result - source.all).abs()[inverse].mean()) * 255 <= 2


def test_three_persons_are_three_regions_and_nothing_else() -> None:
    source = clip(*({RED: (28.0, 48.0, 1), GREEN: (80.0, 48.0, 1), BLUE: (132.0, 48.0, 1)} for _ in range(5)))
    written, faces, report = swap_clip(source, job())
    assert faces.counts == (3,) * 5 and "3 persons in 5 frames" in report
    for one in changed(source.all, written.result):
        columns = one.any(0).int()
        assert int((columns.diff() == 1).sum()) == 3
        assert all(bool(one[48, x]) for x in (28, 80, 132))


def test_chunks_do_not_change_the_result() -> None:
    frames = clip(*(walk(number) for number in range(20))).all
    results = [swap_clip(Memory(frames, chunk), job())[0].result for chunk in (1, 7, 20)]
    assert torch.equal(results[0], results[1]) and torch.equal(results[0], results[2])


def painted(crops: Tensor, source: Tensor) -> Tensor:
    return source[:, 5, None, None, None].expand_as(crops).contiguous()


def test_persons_keep_their_rows_when_they_pass() -> None:
    people = Identity("arcface_buffalo_l", {EMBEDDING: torch.eye(512)[[5, 6]]})
    source = clip(*(walk(number) for number in range(FRAMES)))
    from likeness_pack.adapters.swappers.pipeline import SwapOptions

    written, faces, _ = swap_clip(
        source, job(painted, identity=people, swap=SwapOptions(rows="one each"), encoder=ColourEncoder())
    )
    assert isinstance(faces, TrackedFaces) and faces.people == (0, 1)
    first = 0 if float(faces.images[0].boxes[0, 0]) < 60 else 1
    for number in range(FRAMES):
        spots = {RED: (64, 20 + 2 * number), GREEN: (28, 140 - 2 * number)}
        red, green = (float(written.result[number, y, x].mean()) for y, x in spots.values())
        assert (red > 0.9 and green < 0.1) if first == 0 else (green > 0.9 and red < 0.1)


@pytest.mark.parametrize("track", [True, False])
def test_the_person_like_a_reference_is_swapped_and_nobody_else(track: bool) -> None:
    source = clip(*(walk(number) for number in range(20)))
    green = Identity("arcface_buffalo_l", {EMBEDDING: torch.eye(512)[[GREEN]]})
    choose = clip_choice("largest", "", green)
    written, faces, _ = swap_clip(
        source, job(choose=choose, encoder=ColourEncoder(), follow=FollowOptions(track=track))
    )
    assert faces.counts == (1,) * 20
    for number, one in enumerate(changed(source.all, written.result)):
        assert bool(one[28, 140 - 2 * number]) and not bool(one[50:].any())


def test_persons_and_faces_are_chosen_by_number() -> None:
    source = clip(*(walk(number) for number in range(10)))
    for track in (True, False):
        chosen = swap_clip(source, job(choose=clip_choice("left-right", "1"), follow=FollowOptions(track=track)))[1]
        assert chosen.counts == (1,) * 10
    assert float(chosen.images[0].boxes[0, 0]) > 80
    beyond = swap_clip(source, job(choose=clip_choice("left-right", "5"), follow=FollowOptions(track=False)))
    assert beyond[1].counts == (0,) * 10 and torch.equal(beyond[0].result, source.all)


def test_a_second_look_goes_only_where_a_person_is_lost() -> None:
    dim = {4, 5, 11}
    source = clip(*({RED: (20.0 + 4 * number, 48.0, float(number not in dim))} for number in range(16)))
    detector = ColourDetector()
    tracks = find_faces(source, detector, options=FollowOptions(fill=False))
    assert tracks.counts == (1,) * 16 and source.reads == 2
    again = [look for look in detector.looked if look[1:] != (96, 160)]
    assert sum(look[0] for look in detector.looked if look[1:] == (96, 160)) == 16
    assert len(again) == 3 and all(count == 1 for count, _, _ in again)
    assert isinstance(tracks, TrackedFaces) and not any(any(one) for one in tracks.filled)
    assert "3 of 3 lost places" in " ".join(tracks.notes)
    gone = clip(*({} if number in dim else {RED: (20.0 + 4 * number, 48.0, 1)} for number in range(16)))
    filled = find_faces(gone, ColourDetector())
    assert isinstance(filled, TrackedFaces)
    assert {number for number, one in enumerate(filled.filled) if any(one)} == dim
    assert find_faces(gone, ColourDetector(), options=FollowOptions(fill=False)).counts.count(0) == 3


def test_nothing_found_at_all_is_searched_again_with_borders_and_sizes() -> None:
    source, detector = clip(*({} for _ in range(3))), ColourDetector()
    assert find_faces(source, detector).counts == (0, 0, 0)
    assert [look[1] for look in detector.looked] == [96, 96, 192, 192]


def test_smoothing_off_keeps_every_point_and_pixel() -> None:
    source = clip(*({RED: (20.0 + 4 * number + (number % 2), 48.0, 1)} for number in range(12)))
    plain = find_faces(source, ColourDetector(), options=FollowOptions(track=False))
    off = find_faces(source, ColourDetector(), options=FollowOptions(smooth=0))
    on = find_faces(source, ColourDetector(), options=FollowOptions(smooth=2))
    for a, b, c in zip(plain.images, off.images, on.images, strict=True):
        assert torch.equal(a.landmarks5, b.landmarks5) and torch.equal(a.boxes, b.boxes)
        assert c.landmarks5.shape == a.landmarks5.shape
    assert not all(torch.equal(a.landmarks5, c.landmarks5) for a, c in zip(plain.images, on.images, strict=True))
    results = [swap_clip(source, job(follow=FollowOptions(track=one)))[0].result for one in (True, False)]
    assert torch.equal(*results)


def test_masks_bound_what_changes() -> None:
    source = clip(*({RED: (80.0, 48.0, 1)} for _ in range(3)))
    whole = changed(source.all, swap_clip(source, job())[0].result)
    left = torch.zeros(1, 96, 160)
    left[..., :80] = 1
    half = changed(source.all, swap_clip(source, job(masks=ClipMasks(picture=left)))[0].result)
    assert bool(half.any()) and not bool(half[..., 80:].any()) and not bool((half & ~whole).any())
    cut = changed(source.all, swap_clip(source, job(masks=ClipMasks(sides=(50.0, 0, 0, 0))))[0].result)
    assert bool(cut.any()) and int(cut.sum()) < 0.7 * int(whole.sum()) and not bool(cut[:, :44].any())


def test_what_was_left_alone_is_told() -> None:
    """Persons without a row of the identity, and frames in which the masks hide the swap, are not called swapped."""
    source = clip(*({RED: (28.0, 48.0, 1), GREEN: (80.0, 48.0, 1), BLUE: (132.0, 48.0, 1)} for _ in range(4)), {})
    rows = arcface_identity()
    embeddings = torch.randn(2, 512, generator=torch.Generator().manual_seed(1))
    two = replace(rows, features={**rows.features, "embedding": embeddings}, photos=("0" * 64,) * 2)
    written, _, report = swap_clip(source, job(identity=two, swap=SwapOptions(rows="one each")))
    assert report.startswith("8 faces swapped in 4 of 5 frames, 5 frames written")
    assert "note: 4 faces left as they are: the identity has no row for them" in report
    assert not bool(changed(source.all, written.result)[:, :, 116:].any())
    nowhere = torch.cat([torch.ones(1, 8, 160), torch.zeros(1, 88, 160)], 1)
    written, _, report = swap_clip(source, job(masks=ClipMasks(picture=nowhere)))
    assert torch.equal(written.result, source.all)
    assert "note: nothing is seen of the swap (masks, shrink or strength) in frames: 0-3 (counted from 0)" in report
    assert "note:" not in swap_clip(source, job())[2]
    report = swap_clip(source, job(masks=ClipMasks(parts="nose")))[2]
    assert "note: parts 'nose' not used: they need a parser" in report


def test_a_mask_for_each_frame_whatever_the_chunks() -> None:
    frames = clip(*({RED: (80.0, 48.0, 1)} for _ in range(6))).all
    masks = torch.zeros(6, 96, 160)
    masks[1], masks[4] = 1, 1
    for chunk in (2, 3, 6):
        written = swap_clip(Memory(frames, chunk), job(masks=ClipMasks(picture=masks)))[0]
        assert changed(frames, written.result).flatten(1).any(1).tolist() == [False, True, False, False, True, False]
    with pytest.raises(BadMask, match="one for each of the 6 frames, found 3 masks"):
        swap_clip(Memory(frames, 3), job(masks=ClipMasks(picture=masks[:3])))


def test_a_parser_bounds_what_changes() -> None:
    from tiny_parser import tiny_parser

    parser = tiny_parser()
    source = clip(*(walk(number) for number in range(3)), {})
    written = swap_clip(source, job(masks=ClipMasks(parser=parser, parts="background")))[0]
    whole = swap_clip(source, job())[0]
    assert torch.equal(written.result[3], source.all[3])
    assert not bool((changed(source.all, written.result) & ~changed(source.all, whole.result)).any())


def test_frames_are_replayed_in_rising_order() -> None:
    source = clip(*(walk(number) for number in range(9)))
    replay = Replay(source.frames)
    assert source.reads == 0
    for number in (0, 6, 7, 8, 8):
        assert torch.equal(replay[number], source.all[number])
    assert source.reads == 1


def test_parts_and_ranges() -> None:
    source = clip(*(walk(number) for number in range(6)))
    tracks = find_faces(source, ColourDetector(), options=FollowOptions(tracks=TrackOptions(0.1)))
    part = part_of(tracks, 2, 5)
    assert isinstance(part, TrackedFaces) and len(part) == 3 and part.persons == tracks.persons[2:5]
    with pytest.raises(BadImage, match="frame 8"):
        part_of(tracks, 4, 9)
    assert ranges([]) == "" and ranges([3]) == "3" and ranges([0, 1, 2, 5, 7, 8]) == "0-2, 5, 7-8"
