"""Tracks: stable numbers, gaps, second looks, smoothing, choice."""

from __future__ import annotations

import pytest
import torch
from likeness_pack.adapters.errors import IdentityMismatch
from likeness_pack.adapters.identity import EMBEDDING, Identity
from likeness_pack.evaluation.tracks import people_like
from likeness_pack.faces.errors import FaceChoice, NoFaceFound
from likeness_pack.faces.select import choose_in_batch
from likeness_pack.faces.track_gaps import detect_again, fill_gaps, find_gaps
from likeness_pack.faces.tracking import (
    TrackedFaces,
    TrackOptions,
    select_people,
    smooth,
    track_faces,
    tracks_table,
)
from likeness_pack.faces.types import FaceBatch, Faces
from swap_standins import batch_of, faces_at
from torch import Tensor

PEOPLE = torch.eye(512)
ENCODER = "arcface_buffalo_l"


def moving(*xs: float | None) -> FaceBatch:
    """One face a frame at x, none where None."""
    return batch_of(*(Faces.none() if x is None else faces_at((x, 60, 60)) for x in xs))


def crossing(frames: int = 21, embeddings: bool = True) -> FaceBatch:
    """Two persons who walk through each other; the detector's order changes from frame to frame."""
    found = []
    for frame in range(frames):
        places = [(40.0 + 12 * frame, 60.0, 60.0), (280.0 - 12 * frame, 60.0, 60.0)]
        order = [0, 1] if frame % 2 else [1, 0]
        rows = PEOPLE[order] * 20 if embeddings else None
        found.append(faces_at(*(places[index] for index in order), embeddings=rows))
    return batch_of(*found, encoder=ENCODER if embeddings else None)


def centres(tracks: TrackedFaces, person: int) -> Tensor:
    places = tracks.places(person)
    return torch.stack([tracks.images[frame].boxes[index] for frame, index in places.items()])[:, 0]


def test_persons_keep_their_numbers_when_they_cross() -> None:
    tracks = track_faces(crossing())
    assert tracks.people == (0, 1) and tracks.counts == (2,) * 21
    for person in (0, 1):
        steps = centres(tracks, person).diff()
        torch.testing.assert_close(steps, torch.full((20,), -12.0 if person == 0 else 12.0))


def test_without_embeddings_overlap_links() -> None:
    tracks = track_faces(moving(60, 64, 68, None, 74, 300))
    assert tracks.persons == ((0,), (0,), (0,), (), (0,), (1,))


def test_a_person_comes_back_under_the_same_number_only_with_embeddings() -> None:
    def clip(known: bool) -> FaceBatch:
        def person(number: int, x: float) -> Faces:
            return faces_at((x, 60, 60), embeddings=PEOPLE[number : number + 1] if known else None)

        frames = [person(0, 60), person(1, 200), *(Faces.none() for _ in range(30)), person(0, 260)]
        return batch_of(*frames, encoder=ENCODER if known else None)

    assert track_faces(clip(True)).persons[-1] == (0,)
    assert track_faces(clip(False)).persons[-1] == (2,)


def test_a_cut_to_somebody_else_at_the_same_place_is_another_person() -> None:
    frames = [faces_at((60, 60, 60), embeddings=PEOPLE[number : number + 1]) for number in (0, 0, 1, 1)]
    assert track_faces(batch_of(*frames, encoder=ENCODER)).persons == ((0,), (0,), (1,), (1,))


def test_smoothing_off_is_the_same_object_and_on_lessens_jitter() -> None:
    chance = torch.Generator().manual_seed(0)
    jitter = torch.randn(40, generator=chance) * 2
    batch = moving(*(100 + float(value) for value in jitter))
    tracks = track_faces(batch)
    assert smooth(tracks, 0) is tracks
    for found, given in zip(tracks.images, batch.images, strict=True):
        assert torch.equal(found.landmarks5, given.landmarks5) and torch.equal(found.boxes, given.boxes)
    assert float(centres(smooth(tracks, 2), 0).std()) < 0.7 * float(centres(tracks, 0).std())


def test_smoothing_keeps_a_steady_movement_and_stops_at_cuts() -> None:
    tracks = track_faces(moving(*(40 + 5 * frame for frame in range(10))))
    torch.testing.assert_close(centres(smooth(tracks, 3), 0), centres(tracks, 0))
    frames = [faces_at((x, 60, 60), embeddings=PEOPLE[:1]) for x in (50, 50, 50, 250, 250, 250)]
    cut = track_faces(batch_of(*frames, encoder=ENCODER))
    assert cut.people == (0,)
    torch.testing.assert_close(centres(smooth(cut, 5), 0), centres(cut, 0))


def test_gaps_are_filled_between_and_never_after() -> None:
    tracks = fill_gaps(track_faces(moving(None, 60, None, None, 66, None)), 10)
    assert tracks.counts == (0, 1, 1, 1, 1, 0) and tracks.filled[2] == (True,) and tracks.filled[1] == (False,)
    torch.testing.assert_close(centres(tracks, 0).diff(), torch.full((3,), 2.0))
    assert fill_gaps(track_faces(moving(60, None, None, 66)), 1).counts == (1, 0, 0, 1)
    assert len(tracks) == 6 and "2 of them filled in" in tracks_table(tracks)


class CountingDetector:
    """Finds a face in the middle of what it is shown, or nothing; remembers how often it was asked."""

    name, default_score, network = "counting", 0.8, None

    def __init__(self, sees: bool = True) -> None:
        self.sees, self.asked = sees, 0
        self.scores: list[float] = []

    def __call__(self, images: Tensor, score: float) -> list[Faces]:
        self.asked += len(images)
        self.scores.append(score)
        height, width = images.shape[1:3]
        return [faces_at((width / 2, height / 2, 60)) if self.sees else Faces.none() for _ in images]


def test_only_lost_places_are_looked_at_again() -> None:
    tracks = track_faces(moving(100, 102, None, 106, None, None, 112, None))
    detector = CountingDetector()
    again = detect_again(tracks, torch.rand(8, 120, 320, 3), detector, 10)
    assert detector.asked == len(find_gaps(tracks, 10)) == 3 and max(detector.scores) < 0.8
    assert again.counts == (1,) * 7 + (0,) and not any(again.filled[2])
    torch.testing.assert_close(centres(again, 0), 80.0 + torch.tensor([0.0, 2, 4, 6, 8, 10, 12]), atol=1.5, rtol=0)
    blind = CountingDetector(sees=False)
    assert detect_again(tracks, torch.rand(8, 120, 320, 3), blind, 10).counts == tracks.counts
    whole = CountingDetector()
    detect_again(track_faces(moving(100, 102, 104)), torch.rand(3, 120, 320, 3), whole, 10)
    assert whole.asked == 0


def test_choice_by_number_holds_for_all_frames() -> None:
    tracks = track_faces(crossing())
    second = select_people(tracks, [1])
    assert second.persons == ((1,),) * 21
    torch.testing.assert_close(centres(second, 1), centres(tracks, 1))
    with pytest.raises(FaceChoice, match="7"):
        select_people(tracks, [7])


def test_choice_by_reference_counts_over_all_frames() -> None:
    tracks = track_faces(crossing())
    chosen, told = people_like(tracks, Identity(ENCODER, {EMBEDDING: PEOPLE[:1] * 3}))
    torch.testing.assert_close(centres(select_people(tracks, chosen), chosen[0]).diff(), torch.full((20,), 12.0))
    assert told.startswith(f"person {chosen[0]}: cosine 1.000")
    with pytest.raises(NoFaceFound, match="cosine 0.000"):
        people_like(tracks, Identity(ENCODER, {EMBEDDING: PEOPLE[5:6]}))
    with pytest.raises(IdentityMismatch, match="where faces are tracked"):
        people_like(track_faces(moving(60, 62)), Identity(ENCODER, {EMBEDDING: PEOPLE[:1]}))


def test_tracks_are_faces_and_a_choice_by_order_forgets_them() -> None:
    tracks = track_faces(crossing())
    chosen = choose_in_batch(tracks, "left-right", "0")
    assert not isinstance(chosen, TrackedFaces) and chosen.counts == (1,) * 21
    with pytest.raises(FaceChoice, match="person's number"):
        TrackedFaces(tracks.images, tracks.image_size, "user", None, (), ((0,),), ((False,),))


def test_an_empty_clip_keeps_its_frames() -> None:
    tracks = smooth(fill_gaps(track_faces(moving(None, None, None), TrackOptions()), 5), 2)
    assert len(tracks) == 3 and tracks.people == () and "frames without a face: 3" in tracks_table(tracks)
