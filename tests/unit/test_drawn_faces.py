"""Drawn faces: what is promised of pictures, regions, landmarks, seeds and identities."""

from __future__ import annotations

import pytest
import torch
from likeness_pack.training.drawn_faces import (
    ATTRIBUTES,
    IDENTITY,
    REGIONS,
    Attributes,
    IdentityParameters,
    draw,
    identity_distance,
    sample_attributes,
    sample_identities,
)
from likeness_pack.training.drawn_faces.landmarks import NAMES
from likeness_pack.training.drawn_faces.parameters import BadParameters
from likeness_pack.training.seeds import generator_for


def sampled(count, seed=0):
    generator = generator_for("test", seed)
    return sample_identities(count, generator), sample_attributes(count, generator)


@pytest.fixture(scope="module")
def faces():
    return draw(*sampled(40), 96)


def test_pictures_regions_and_points_have_their_shapes(faces):
    assert faces.images.shape == (40, 96, 96, 3) and faces.regions.shape == (40, len(REGIONS), 96, 96)
    assert faces.landmarks.shape == (40, len(NAMES), 2) and faces.boxes.shape == (40, 4)
    assert float(faces.images.min()) >= 0 and float(faces.images.max()) <= 1
    assert torch.isfinite(faces.images).all()


def test_regions_share_every_pixel(faces):
    assert torch.allclose(faces.regions.sum(dim=1), torch.ones(40, 96, 96), atol=1e-5)
    assert float(faces.regions.min()) >= -1e-6
    bare = faces.attributes["glasses"] < 0.5
    assert (
        float(faces.mask("glasses")[bare].sum()) == 0 and (faces.mask("glasses")[~bare].flatten(1).sum(dim=1) > 5).all()
    )
    assert (faces.mask("mouth").flatten(1).sum(dim=1) > 3).all()


def test_landmarks_lie_on_what_they_name(faces):
    """Eye centres in eyes (or behind frames and hair), mouth corners at the mouth; the picture's left comes first."""
    left, right = faces.landmarks5[:, 0], faces.landmarks5[:, 1]
    assert (left[:, 0] < right[:, 0]).all() and (faces.landmarks5[:, 3, 0] < faces.landmarks5[:, 4, 0]).all()
    eyes = faces.mask("eyes", "glasses", "hair", "face")
    for point in (left, right):
        rows = torch.arange(40)
        assert (eyes[rows, point[:, 1].long(), point[:, 0].long()] > 0.5).all()
    mouths = torch.nn.functional.max_pool2d(faces.mask("mouth")[:, None], 7, 1, 3)[:, 0]
    seen = [mouths[row, int(y), int(x)] for row in range(40) for x, y in faces.landmarks[row, 3:5].tolist()]
    assert sum(float(one) > 0.3 for one in seen) >= 76


def test_boxes_hold_the_face(faces):
    x, y = torch.meshgrid(torch.arange(96) + 0.5, torch.arange(96) + 0.5, indexing="xy")
    for row in range(40):
        x1, y1, x2, y2 = faces.boxes[row]
        inside = (x >= x1 - 8) & (x <= x2 + 8) & (y >= y1 - 8) & (y <= y2 + 8)
        assert float((faces.face_mask[row] * ~inside).sum()) < 0.03 * float(faces.face_mask[row].sum())


def test_same_numbers_same_pictures():
    again = draw(*sampled(5), 96)
    assert torch.equal(draw(*sampled(5), 96).images, again.images)
    before = torch.random.get_rng_state()
    sampled(3, seed=5)
    assert torch.equal(before, torch.random.get_rng_state()), "no global random numbers"


@pytest.mark.parametrize("size", [40, 96])
def test_a_row_does_not_depend_on_the_others(size):
    """Long waved hair on a rolled head, light below the chin and thin lips of small pictures are where it could."""
    people, attributes = sampled(24, seed=7)
    together = draw(people, attributes, size)
    for row in range(24):
        alone = draw(people.rows([row]), attributes.rows([row]), size)
        assert torch.allclose(alone.images[0], together.images[row], atol=1e-6), row
        assert torch.allclose(alone.regions[0], together.regions[row], atol=1e-6), row


PINNED_REGIONS = (
    (11584.62, 1742.73, 1913.85, 1019.29, 75.78, 47.74, 0.0),
    (9787.95, 1899.89, 2919.53, 1320.99, 102.35, 127.23, 226.06),
)
PINNED_COLOURS = ((0.696406, 0.521451, 0.342182), (0.494145, 0.756818, 0.530004))
# (face, row, column) and colour: eyes, nose, brow, mouth, wall, neck, shoulders.
PINNED_PIXELS = (
    ((0, 64, 48), (0.0783, 0.0854, 0.0953)),
    ((0, 64, 71), (0.0448, 0.0445, 0.0441)),
    ((0, 79, 57), (0.9446, 0.7479, 0.5475)),
    ((0, 55, 48), (0.6239, 0.525, 0.3361)),
    ((0, 87, 58), (0.408, 0.1179, 0.123)),
    ((0, 40, 20), (0.765, 0.5492, 0.3334)),
    ((0, 100, 64), (0.523, 0.4126, 0.3117)),
    ((0, 120, 60), (0.1403, 0.184, 0.2628)),
    ((1, 60, 62), (0.2338, 0.4677, 0.6572)),
    ((1, 56, 84), (0.1273, 0.2301, 0.3134)),
    ((1, 72, 77), (0.9728, 0.8312, 0.7248)),
    ((1, 50, 61), (0.3284, 0.3335, 0.3657)),
    ((1, 83, 78), (0.7147, 0.6489, 0.6492)),
    ((1, 40, 20), (0.408, 0.9096, 0.531)),
    ((1, 100, 64), (0.826, 0.6919, 0.5939)),
    ((1, 120, 60), (0.1782, 0.2538, 0.3739)),
)


def pinned():
    """Two faces whose numbers need no random ones; the second wears glasses."""
    first = (torch.arange(len(IDENTITY)) * 0.618034).frac()
    people = IdentityParameters(torch.stack([first, first.flip(0)])).replaced(bald=0.0)
    steps = torch.tensor([0.754878, 0.569840])[:, None]
    states = Attributes((torch.arange(len(ATTRIBUTES)) * steps).frac())
    return people, states.replaced(yaw=torch.tensor([-20.0, 15.0]), glasses=torch.tensor([0.0, 1.0]))


def test_the_drawing_stays_what_the_demo_weights_were_trained_on():
    faces = draw(*pinned(), 128)
    assert torch.allclose(faces.regions.sum(dim=(2, 3)), torch.tensor(PINNED_REGIONS), atol=0.05)
    assert torch.allclose(faces.images.mean(dim=(1, 2)), torch.tensor(PINNED_COLOURS), atol=2e-5)
    for (row, y, x), colour in PINNED_PIXELS:
        assert torch.allclose(faces.images[row, y, x], torch.tensor(colour), atol=2e-4), (row, y, x)


def test_every_number_of_a_person_can_be_seen():
    """Each identity parameter, moved from one bound to the other, changes some person's picture."""
    people, attributes = sampled(8, seed=3)
    people = people.replaced(bald=0.0)
    plain = Attributes.neutral(8)
    for number, one in enumerate(IDENTITY):
        ends = []
        for value in (0.0, 1.0):
            values = people.values.clone()
            values[:, number] = value
            ends.append(draw(IdentityParameters(values), plain, 64).images)
        assert float((ends[0] - ends[1]).abs().amax()) > 0.05, one.name
    assert len(attributes) == 8


def test_every_attribute_can_be_seen():
    people, _ = sampled(8, seed=4)
    shown = Attributes.neutral(8).replaced(light_strength=0.8, glasses=1.0)
    for one in ATTRIBUTES:
        low = {"light_angle": -90.0}.get(one.name, one.low)
        ends = [draw(people, shown.replaced(**{one.name: value}), 64).images for value in (low, one.high)]
        assert float((ends[0] - ends[1]).abs().amax()) > 0.05, one.name


def test_pose_moves_the_points_as_a_turned_head_does():
    people, _ = sampled(6, seed=5)
    front, turned = (draw(people, Attributes.neutral(6).replaced(yaw=yaw), 128).landmarks5 for yaw in (0.0, 30.0))
    assert (turned[:, 2, 0] > front[:, 2, 0] + 8).all(), "the nose goes to the side"
    assert ((turned[:, 1] - turned[:, 0]).norm(dim=1) < (front[:, 1] - front[:, 0]).norm(dim=1)).all()
    rolled = draw(people, Attributes.neutral(6).replaced(roll=10.0), 128).landmarks5
    slope = torch.atan2(*(rolled[:, 1] - rolled[:, 0]).flip(1).unbind(1)).rad2deg()
    assert torch.allclose(slope, torch.full((6,), 10.0), atol=0.2)


def test_identity_distance_is_one_between_strangers():
    first, second = sample_identities(400, generator_for(1)), sample_identities(400, generator_for(2))
    assert float(identity_distance(first, first).max()) == 0
    assert float(identity_distance(first, second).square().mean()) == pytest.approx(1, abs=0.05)


def test_people_are_told_apart_across_attributes():
    """A proof that is quick: 30 persons, a linear reading of small pictures, attributes that were never seen."""
    people = sample_identities(30, generator_for("proof"))
    train = draw(people.repeated(24), sample_attributes(720, generator_for("a")), 32)
    test = draw(people.repeated(4), sample_attributes(120, generator_for("b")), 32)

    def features(faces):
        heads = torch.nn.functional.avg_pool2d((faces.images * faces.head_mask[..., None]).movedim(-1, 1), 2)
        size = faces.head_mask.flatten(1).sum(dim=1, keepdim=True)
        colours = torch.stack(
            [
                (faces.images * faces.mask(region)[..., None]).sum(dim=(1, 2))
                / (faces.mask(region).sum(dim=(1, 2)) + 1)[:, None]
                for region in ("face", "hair", "eyes", "mouth")
            ],
            dim=1,
        ).flatten(1)
        shape = torch.stack([(faces.landmarks[:, k] - faces.landmarks[:, 2]).norm(dim=1) / 32 for k in range(9)], dim=1)
        return torch.cat([heads.flatten(1) * 0.3, colours * 6, shape * 6, size / 300], dim=1).double()

    labels = torch.arange(30).repeat_interleave(24)
    x, y = features(train), torch.nn.functional.one_hot(labels, 30).double()
    mean = x.mean(dim=0)
    weight = torch.linalg.solve((x - mean).T @ (x - mean) + 3.0 * torch.eye(x.shape[1]).double(), (x - mean).T @ y)
    found = ((features(test) - mean) @ weight).argmax(dim=1)
    right = float((found == torch.arange(30).repeat_interleave(4)).float().mean())
    assert right > 0.9


def test_names_rows_and_copies():
    people, attributes = sampled(3)
    assert torch.allclose(attributes.replaced(yaw=12.0)["yaw"], torch.full((3,), 12.0), atol=1e-4)
    assert torch.allclose(attributes.replaced(yaw=99.0)["yaw"], torch.full((3,), 35.0), atol=1e-4)
    assert torch.equal(people.rows([2, 0]).values, people.values[[2, 0]])
    assert torch.equal(people.repeated(2).values[:2], people.values[[0, 0]])
    assert float(Attributes.neutral()["yaw"]) == pytest.approx(0)


REFUSALS = {
    "name": (lambda: Attributes.neutral()["beauty"], "beauty"),
    "width": (lambda: IdentityParameters(torch.zeros(2, 3)), r"\(2, 3\)"),
    "rows": (lambda: draw(*(one.rows(slice(0, n)) for one, n in zip(sampled(3), (2, 3), strict=True)), 64), "2 and 3"),
    "none": (lambda: draw(*(one.rows([]) for one in sampled(1)), 64), "0 and 0"),
    "size": (lambda: draw(*sampled(1), 8), "16 to 4096"),
    "large size": (lambda: draw(*sampled(1), 10**6), "16 to 4096"),
}


@pytest.mark.parametrize("case", sorted(REFUSALS))
def test_refusals_are_one_sentence(case):
    make, told = REFUSALS[case]
    with pytest.raises(BadParameters, match=told) as refused:
        make()
    assert "\n" not in str(refused.value)
