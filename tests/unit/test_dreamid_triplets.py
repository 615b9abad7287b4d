"""DreamID's triplets: what is made of photos, which filters drop what, how faces are deformed, what is read back."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from likeness_pack.faces.errors import BadImage, BadLandmarks
from likeness_pack.training.drawn_faces.draw import draw
from likeness_pack.training.drawn_faces.parameters import sample_attributes, sample_identities
from likeness_pack.training.dreamid_build import (
    BuildOptions,
    FacePhoto,
    GlassesEdit,
    build_triplets,
    landmark_distance,
    sharpness,
)
from likeness_pack.training.dreamid_data import LIST, BadTriplets, TripletBatch, TripletFolder, TripletRows
from likeness_pack.training.dreamid_drawn import drawn_triplets
from likeness_pack.training.dreamid_shape import deformed, other_outline, rigid_map
from torch import Tensor

SIZE, PERSONS, PHOTOS = 64, 3, 2
# Exact swaps of drawn faces move eyes and mouth to where the other person has them.
EASY = BuildOptions(sharpness=0.0, pose=1.0)


class DrawnAlbum:
    """Drawn persons: photos, an exact swapper, and an exact look at what it makes."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(3)
        self.people = sample_identities(PERSONS, generator)
        self.states = sample_attributes(PERSONS * PHOTOS, generator).replaced(glasses=0.0)
        self.persons: dict[str, list[FacePhoto]] = {}
        self.rows: dict[str, tuple[int, int]] = {}
        for person in range(PERSONS):
            for number in range(PHOTOS):
                name = f"person {person}/{number}.png"
                self.rows[name] = (person, person * PHOTOS + number)
                self.persons.setdefault(f"person {person}", []).append(self.photo(name, person, self.rows[name][1]))

        states = range(PERSONS * PHOTOS)
        self.every = [self.photo("", person, state) for person in range(PERSONS) for state in states]

    def photo(self, name: str, person: int, state: int) -> FacePhoto:
        """A person in the state of some photo; the embedding is the person's exact numbers."""
        drawn = draw(self.people.rows([person]), self.states.rows([state]), SIZE)
        picture, points = drawn.images[0].movedim(-1, 0), drawn.landmarks[0]
        return FacePhoto(name, picture, points[:5], points, self.people.values[person] - 0.5)

    def proxy(self, truth: FacePhoto, other: FacePhoto) -> Tensor:
        """A2 as B: B's numbers in A2's state."""
        return self.photo("", self.rows[other.name][0], self.rows[truth.name][1]).picture

    def look(self, name: str, picture: Tensor) -> FacePhoto | None:
        """Whose picture it is, of all that can be drawn."""
        return next((one for one in self.every if torch.allclose(one.picture, picture, atol=1e-6)), None)


@pytest.fixture(scope="module")
def album() -> DrawnAlbum:
    return DrawnAlbum()


def test_roles_are_the_papers(album: DrawnAlbum, tmp_path: Path) -> None:
    """A1 and A2 one person; B~ has B's face in A2's state; names tell who is who."""
    report = build_triplets(album.persons, album.proxy, album.look, tmp_path, EASY)
    assert report.kept == PERSONS * PHOTOS * (PHOTOS - 1) == 6
    lines = [json.loads(line) for line in (tmp_path / LIST).read_text(encoding="utf-8").splitlines()]
    triplets = TripletFolder(tmp_path, SIZE)
    assert len(triplets) == 6
    assert triplets.points == 12
    for number, line in enumerate(lines):
        rows = triplets.rows([number])
        (person, _), (same, state), (other, _) = (album.rows[line[name]] for name in ("A1", "A2", "B"))
        assert person == same != other
        assert line["A1"] != line["A2"]
        expected = {
            "source": album.photo("", *album.rows[line["A1"]]),
            "truth": album.photo("", same, state),
            "target": album.photo("", other, state),
        }
        for name, photo in expected.items():
            assert float((getattr(rows, name)[0] - photo.picture).abs().max()) <= 0.5 / 255 + 1e-6
        torch.testing.assert_close(rows.source5[0], expected["source"].landmarks5, atol=1e-3, rtol=0)
        torch.testing.assert_close(rows.truth5[0], expected["truth"].landmarks5, atol=1e-3, rtol=0)
        # The pseudo-target's own landmarks, which are B's in A2's pose.
        torch.testing.assert_close(rows.points[0], expected["target"].points, atol=1e-3, rtol=0)


def test_the_same_photos_give_the_same_triplets(album: DrawnAlbum, tmp_path: Path) -> None:
    options = replace(EASY, limit=3)
    texts = []
    for name in ("first", "second"):
        report = build_triplets(album.persons, album.proxy, album.look, tmp_path / name, options)
        assert report.kept == 3
        texts.append((tmp_path / name / LIST).read_text(encoding="utf-8"))
    assert texts[0] == texts[1]
    build_triplets(album.persons, album.proxy, album.look, tmp_path / "third", replace(options, seed=1))
    assert (tmp_path / "third" / LIST).read_text(encoding="utf-8") != texts[0]


def dropped(album: DrawnAlbum, folder: Path, options: BuildOptions, **other: object) -> str:
    """The sentence of a run in which nothing passes."""
    parts = {"persons": album.persons, "proxy": album.proxy, "look": album.look, **other}
    with pytest.raises(BadTriplets) as refused:
        build_triplets(parts["persons"], parts["proxy"], parts["look"], folder, options)  # type: ignore[arg-type]
    assert not (folder / LIST).exists()
    return str(refused.value)


def blurred(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    return lambda *args: torch.nn.functional.avg_pool2d(function(*args)[None], 9, 1, 4)[0]


def test_each_filter_drops_what_it_should(album: DrawnAlbum, tmp_path: Path) -> None:
    assert "A1 and A2 are not alike enough: 6" in dropped(album, tmp_path, replace(EASY, same_person=1.01))
    assert "a photo is not sharp enough: 6" in dropped(album, tmp_path, replace(EASY, sharpness=1e6))
    assert "no face found in B~: 6" in dropped(album, tmp_path, EASY, look=lambda name, picture: None)
    # A swapper that does nothing leaves A2's face where B's should be.
    still = dropped(album, tmp_path, EASY, proxy=lambda truth, other: truth.picture)
    assert "B~ is still more like A2 than like B: 6" in still

    def shifted(name: str, picture: Tensor) -> FacePhoto | None:
        found = album.look(name, picture)
        return None if found is None else replace(found, landmarks5=found.landmarks5 + 40.0)

    assert "B~'s landmarks lie elsewhere than A2's: 6" in dropped(album, tmp_path, EASY, look=shifted)
    least = min(sharpness(photo.picture) for photos in album.persons.values() for photo in photos)
    options = replace(EASY, sharpness=least * 0.9)
    found = dropped(
        album, tmp_path, options, proxy=blurred(album.proxy),
        look=lambda name, picture: album.look(name, album.proxy(*_named(album, name))),
    )  # fmt: skip
    assert "B~ is not sharp enough" in found


def _named(album: DrawnAlbum, name: str) -> tuple[FacePhoto, FacePhoto]:
    truth, other = name.split(" as ")
    every = {photo.name: photo for photos in album.persons.values() for photo in photos}
    return every[truth], every[other]


def test_a_pose_filter_of_the_right_size() -> None:
    points = torch.tensor([[10.0, 10.0], [30.0, 10.0], [20.0, 20.0], [12.0, 30.0], [28.0, 30.0]])
    assert landmark_distance(points, points + torch.tensor([3.0, 4.0])) == pytest.approx(5 / 20)


def test_sharpness_is_the_variance_of_the_laplacian() -> None:
    """By hand: one white pixel on black, 5 x 5, of which 3 x 3 responses: -4 once, 1 four times, times 255."""
    picture = torch.zeros(3, 5, 5)
    picture[:, 2, 2] = 1
    values = torch.tensor([0, 1, 0, 1, -4, 1, 0, 1, 0.0]) * 255 * 0.9999
    assert sharpness(picture) == pytest.approx(float(values.var(unbiased=False)), rel=1e-3)


def test_glasses_are_taken_from_the_pseudo_target_alone(album: DrawnAlbum, tmp_path: Path) -> None:
    """Only pairs that wear them; the truth keeps them, B~ is made of the picture without."""
    worn = {"person 0/0.png", "person 0/1.png", "person 1/0.png"}
    bare: list[str] = []

    def removed(photo: FacePhoto) -> FacePhoto | None:
        bare.append(photo.name)
        return replace(photo, picture=photo.picture.flip(-1))

    def proxy(truth: FacePhoto, other: FacePhoto) -> Tensor:
        expected = album.photo("", *album.rows[truth.name]).picture.flip(-1)
        assert torch.equal(truth.picture, expected), "the swapper gets A2 without glasses"
        return album.proxy(truth, other)

    edit = GlassesEdit(lambda photo: photo.name in worn, removed)
    report = build_triplets(album.persons, proxy, album.look, tmp_path, EASY, edit)
    assert report.kept == 2, "person 0's two orders; person 1 wears them once only"
    assert report.dropped == {"A1 and A2 do not both wear glasses": 4}
    assert sorted(bare) == ["person 0/0.png", "person 0/1.png"]
    triplets = TripletFolder(tmp_path, SIZE)
    line = json.loads((tmp_path / LIST).read_text(encoding="utf-8").splitlines()[0])
    truth = album.photo("", *album.rows[line["A2"]])
    assert float((triplets.rows([0]).truth[0] - truth.picture).abs().max()) <= 0.5 / 255 + 1e-6


def test_the_outline_of_the_pseudo_target_changes_and_its_features_stay(album: DrawnAlbum, tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    shaped = tmp_path / "shaped"
    persons = {name: [replace(one, points=one.landmarks5) for one in photos] for name, photos in album.persons.items()}

    def look(name: str, picture: Tensor) -> FacePhoto | None:
        found = album.look(name, picture)
        return None if found is None else replace(found, points=found.landmarks5)

    options = replace(EASY, limit=2)
    build_triplets(persons, album.proxy, look, plain, options)
    build_triplets(persons, album.proxy, look, shaped, replace(options, outline=0.15))
    before, after = TripletFolder(plain, SIZE).rows([0, 1]), TripletFolder(shaped, SIZE).rows([0, 1])
    assert torch.equal(before.truth, after.truth)
    assert float((before.target - after.target).abs().mean()) > 0.005
    eyes = before.points[0, :2].round().long()
    for x, y in eyes.tolist():
        window = (slice(None), slice(y - 1, y + 2), slice(x - 1, x + 2))
        assert float((before.target[0][window] - after.target[0][window]).abs().mean()) < 0.12


def test_folders_that_give_nothing_are_refused(album: DrawnAlbum, tmp_path: Path) -> None:
    for persons in ({}, {"a": album.persons["person 0"]}, {"a": [], "b": album.persons["person 0"][:1]}):
        with pytest.raises(BadTriplets, match="two persons or more, one of them with two photos"):
            build_triplets(persons, album.proxy, album.look, tmp_path)
    build_triplets(album.persons, album.proxy, album.look, tmp_path, replace(EASY, limit=1))
    with pytest.raises(BadTriplets, match="expected a new folder"):
        build_triplets(album.persons, album.proxy, album.look, tmp_path)


def test_a_rigid_map_keeps_lengths_and_carries_handles() -> None:
    """A turn of all handles turns everything; a handle comes exactly to its target."""
    generator = torch.Generator().manual_seed(0)
    handles = torch.randn(6, dtype=torch.complex128, generator=generator)
    places = torch.randn(9, dtype=torch.complex128, generator=generator)
    turn, shift = torch.polar(torch.ones(()), torch.tensor(0.4)).to(torch.complex128), 2 + 1j
    torch.testing.assert_close(rigid_map(places, handles, handles * turn + shift), places * turn + shift)
    moved = handles + torch.randn(6, dtype=torch.complex128, generator=generator) * 0.1
    torch.testing.assert_close(rigid_map(handles, handles, moved), moved, atol=1e-5, rtol=0)


def test_a_point_of_a_picture_comes_to_its_target() -> None:
    picture = torch.zeros(3, 41, 41)
    picture[:, 19:22, 19:22] = 1
    corners = torch.tensor([[0.0, 0.0], [40.0, 0.0], [0.0, 40.0], [40.0, 40.0]])
    sources = torch.cat([corners, torch.tensor([[20.0, 20.0]])])
    targets = torch.cat([corners, torch.tensor([[26.0, 15.0]])])
    moved = deformed(picture, sources, targets)
    assert float(moved[0, 15, 26]) > 0.9
    assert float(moved[0, 24, 16]) < 0.1
    assert torch.allclose(deformed(picture, sources, sources), picture, atol=1e-4)


def test_both_kinds_of_points_have_an_outline() -> None:
    picture = torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(0))
    five = torch.tensor([[24.0, 26.0], [40.0, 26.0], [32.0, 36.0], [26.0, 44.0], [38.0, 44.0]])
    ring = torch.stack([32 + 20 * torch.linspace(0, 3.14, 17).cos(), 30 + 24 * torch.linspace(0, 3.14, 17).sin()], 1)
    inner = torch.cat([five.repeat(10, 1), five[:1]]) + torch.rand(51, 2, generator=torch.Generator().manual_seed(1))
    for points in (five, torch.cat([ring, inner])):
        first, again, second = (other_outline(picture, points, seed) for seed in (0, 0, 2))
        assert torch.equal(first, again)
        assert not torch.equal(first, second)
        assert torch.allclose(first[:, 0, 0], picture[:, 0, 0], atol=0.05)
    with pytest.raises(BadLandmarks, match="68 points"):
        other_outline(picture, torch.zeros(4, 2), 0)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (None, "no such file"),
        ("", "no triplet"),
        ("{", "one JSON object per line"),
        ('{"name": "x"}', "a line without them"),
        ("[1]", "a line without them"),
    ],
)
def test_bad_lists_are_refused(tmp_path: Path, text: str | None, told: str) -> None:
    if text is not None:
        (tmp_path / LIST).write_text(text, encoding="utf-8")
    with pytest.raises(BadTriplets, match=told) as refused:
        TripletFolder(tmp_path, SIZE)
    assert "tools/build_triplets.py" in str(refused.value)
    with pytest.raises(BadTriplets, match="no such folder"):
        TripletFolder(tmp_path / "nowhere", SIZE)


def test_a_list_whose_pictures_are_gone_is_refused(album: DrawnAlbum, tmp_path: Path) -> None:
    build_triplets(album.persons, album.proxy, album.look, tmp_path, replace(EASY, limit=2))
    (tmp_path / "B_" / "000001.png").unlink()
    with pytest.raises(BadTriplets, match="none in B_"):
        TripletFolder(tmp_path, SIZE)
    with pytest.raises(BadImage, match="128 pixels or more"):
        TripletFolder(tmp_path, 128)


def test_points_follow_the_pictures_when_they_are_made_smaller(album: DrawnAlbum, tmp_path: Path) -> None:
    build_triplets(album.persons, album.proxy, album.look, tmp_path, replace(EASY, limit=1))
    large, small = (TripletFolder(tmp_path, size).rows([0]) for size in (SIZE, SIZE // 2))
    torch.testing.assert_close(small.points, (large.points + 0.5) / 2 - 0.5)
    assert small.source.shape == (1, 3, 32, 32)


def test_no_triplets_in_memory_are_refused() -> None:
    rows = drawn_triplets(2, "none").triplets.rows([0, 1])
    empty = TripletRows(*(getattr(rows, name)[:0] for name in TripletRows.__dataclass_fields__))
    with pytest.raises(BadTriplets, match="expected one or more"):
        TripletBatch(empty)


def test_drawn_triplets_are_exact() -> None:
    """Truth and target differ inside the head alone; source and truth are one person."""
    drawn = drawn_triplets(4, "exact")
    rows = drawn.triplets.rows(range(4))
    drawing = draw(drawn.people, drawn.attributes, 32)
    differ = (rows.truth - rows.target).abs().amax(dim=1)
    assert float((differ * (drawing.mask("background") == 1)).max()) < 1e-6
    heads = drawing.head_mask
    assert float((differ * heads).mean()) > 0.01
