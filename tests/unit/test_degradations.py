"""The degradation model: seeds decide everything, strengths act alone, kernels and camera are what they should be."""

from __future__ import annotations

import math

import pytest
import torch
from likeness_pack.training.degradation_camera import (
    CameraNoise,
    camera_matrix,
    demosaic,
    draw_camera,
    mosaic,
    sites,
)
from likeness_pack.training.degradation_kernels import TAPS, draw_blur, filtered, gaussian_kernel, sinc_kernel
from likeness_pack.training.degradations import (
    Filter,
    Jpeg,
    Resize,
    Sharpen,
    Strengths,
    apply_plan,
    degrade,
    draw_plan,
    plan_for_frame,
    plan_text,
    to_bytes,
)
from likeness_pack.training.seeds import generator_for, pick, seed_for, uniform
from sample_faces import face_crops

QUIET = CameraNoise(3, 0.0, 0.0, 2.2, (0.25, 0.25, 0.25, 0.25), 0.8, 0.9, (0, 1))


@pytest.fixture(scope="module")
def faces() -> torch.Tensor:
    return face_crops(64).movedim(-1, 1).contiguous()


def kinds(plan):
    return [type(stage) for stage in plan]


def test_a_seed_gives_the_same_damage_whatever_stands_beside_it(faces):
    together = degrade(faces, range(7))
    assert torch.equal(together, degrade(faces, range(7)))
    assert torch.equal(together[3:4], degrade(faces[3:4], [3]))
    assert not torch.equal(together[3:4], degrade(faces[3:4], [4]))


def test_global_random_numbers_are_neither_used_nor_touched(faces):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first = degrade(faces[:1], [0])
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(6)
    assert torch.equal(first, degrade(faces[:1], [0]))


def test_damage_keeps_size_and_is_whole_8_bit_values(faces):
    bad = degrade(faces[:, :, :56], range(7))
    assert bad.shape == faces[:, :, :56].shape and bad.dtype == faces.dtype
    assert torch.equal((bad * 255).round() / 255, bad) and bad.min() >= 0 and bad.max() <= 1


def test_bad_pictures_are_bad_but_not_lost(faces):
    """Across seeds a picture loses detail, and stays nearer to itself than to any other."""
    pool = torch.nn.functional.avg_pool2d
    edges = [(image[..., 1:] - image[..., :-1]).abs().mean() for image in (faces, degrade(faces, range(7)))]
    assert edges[1] < edges[0]
    hits = 0
    for seed in range(10):
        bad = pool(degrade(faces, [seed_for(seed, row) for row in range(7)]), 8).flatten(1)
        hits += int((torch.cdist(bad, pool(faces, 8).flatten(1)).argmin(1) == torch.arange(7)).sum())
    assert hits >= 63


def test_no_strength_and_no_round_leave_the_picture_alone(faces):
    for strengths in (Strengths(0, 0, 0, 0), Strengths(rounds=0)):
        assert draw_plan(64, 64, 1, strengths) == ()
        assert degrade(faces, range(7), strengths) is not None
        assert torch.equal(degrade(faces, range(7), strengths), faces)
    assert plan_text(()) == "nothing"


@pytest.mark.parametrize(
    ("strengths", "allowed"),
    [
        (Strengths(1, 0, 0, 0), {Sharpen, Filter}),
        (Strengths(0, 1, 0, 0), {Resize}),
        (Strengths(0, 0, 1, 0), {CameraNoise}),
        (Strengths(0, 0, 0, 1), {Jpeg}),
    ],
)
def test_each_strength_brings_its_own_steps_only(strengths, allowed):
    found = {kind for seed in range(20) for kind in kinds(draw_plan(64, 64, seed, strengths))}
    assert found == allowed


def test_one_strength_moves_no_number_of_another_part():
    for seed in range(20):
        full, without = draw_plan(64, 64, seed), draw_plan(64, 64, seed, Strengths(noise=0))
        assert [plan_text([stage]) for stage in full if not isinstance(stage, CameraNoise)] == [
            plan_text([stage]) for stage in without
        ]


def test_two_rounds_in_the_published_order():
    swapped = set()
    for seed in range(40):
        plan = draw_plan(512, 512, seed)
        found = kinds(plan)
        assert found[:2] == [Sharpen, Filter] and found.count(Jpeg) == found.count(CameraNoise) == 2
        first = found.index(Jpeg)
        assert found[2:first] in ([Resize, CameraNoise], [CameraNoise])
        resizes = [stage for stage in plan if isinstance(stage, Resize)]
        assert (resizes[-1].height, resizes[-1].width) == (512, 512) if resizes else True
        assert all(15 <= stage.height <= 768 for stage in resizes)
        assert all(30 <= stage.quality <= 95 for stage in plan if isinstance(stage, Jpeg))
        swapped.add(found[-1] is Jpeg)
    assert swapped == {True, False}
    assert kinds(draw_plan(512, 512, 0, Strengths(rounds=1))).count(Jpeg) == 1


def test_the_shares_of_the_scales_are_the_published_ones():
    scales = [[s for s in draw_plan(1000, 1000, seed, Strengths(0, 1, 0, 0, 1)) if isinstance(s, Resize)][:1]
              for seed in range(400)]  # fmt: skip
    up = sum(bool(one) and one[0].height > 1000 for one in scales)
    kept = sum(not one for one in scales)
    assert 15 < up < 75 and 15 < kept < 75
    assert min(one[0].height for one in scales if one) >= 30


@pytest.mark.parametrize("name", ["blur", "noise", "jpeg"])
def test_stronger_is_worse(faces, name):
    """Noise and JPEG move further from the picture; blur, which comes with sharpening, leaves less detail."""
    found = []
    for strength in (0.5, 1.0, 2.0):
        part = Strengths(**{"blur": 0, "resize": 0, "noise": 0, "jpeg": 0, name: strength}, rounds=1)
        bad = degrade(faces, range(7), part)
        detail = (bad[..., 1:] - bad[..., :-1]).square().mean()
        found.append(-float(detail) if name == "blur" else float((bad - faces).abs().mean()))
    assert found == sorted(found) and len(set(found)) == 3


def test_frames_of_a_clip_share_everything_but_the_noise(faces):
    plan = draw_plan(64, 64, 7)
    first, second = plan_for_frame(plan, 0), plan_for_frame(plan, 1)
    assert plan_text(first) == plan_text(second)
    assert not torch.equal(apply_plan(faces[:1], first), apply_plan(faces[:1], second))
    quiet = draw_plan(64, 64, 7, Strengths(noise=0))
    assert torch.equal(apply_plan(faces[:1], plan_for_frame(quiet, 0)), apply_plan(faces[:1], plan_for_frame(quiet, 9)))


@pytest.mark.parametrize("size", [(1, 1), (5, 9), (16, 200)])
def test_small_and_long_pictures(size):
    image = torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(0))
    for seed in range(6):
        bad = degrade(image, [seed])
        assert bad.shape == image.shape and torch.isfinite(bad).all()


def test_gaussian_kernels_against_the_formula():
    kernel = gaussian_kernel(7, (1.5, 1.5))
    axis = torch.exp(-((torch.arange(7) - 3.0) ** 2) / (2 * 1.5**2))
    expected = axis[:, None] * axis[None]
    assert torch.allclose(kernel, expected / expected.sum(), atol=1e-7)
    long = gaussian_kernel(9, (3.0, 0.5))
    assert long[4].sum() > 0.75 and torch.allclose(gaussian_kernel(9, (3.0, 0.5), math.pi / 2), long.T, atol=1e-6)
    plateau = gaussian_kernel(9, (2.0, 2.0), shape="plateau", exponent=2.0)
    assert torch.allclose(plateau[4, 6] / plateau[4, 4], torch.tensor(0.5))
    assert torch.allclose(
        gaussian_kernel(9, (2.0, 1.0), 0.3, "generalised", 1.0), gaussian_kernel(9, (2.0, 1.0), 0.3), atol=1e-7
    )


def test_the_low_pass_passes_low_and_stops_high():
    kernel = sinc_kernel(TAPS, math.pi / 3)
    x = torch.arange(64, dtype=torch.float32)
    for frequency, passes in ((math.pi / 12, True), (math.pi * 0.9, False)):
        wave = torch.cos(frequency * x).expand(1, 1, 64, 64)
        power = float(filtered(wave, kernel)[..., 16:48, 16:48].square().mean() / wave.square().mean())
        assert (power > 0.8) == passes and (power < 0.1) != passes


def test_drawn_kernels_are_normalised():
    for seed in range(60):
        kernel, text = draw_blur(generator_for(seed), 0.2, 3.0, 1.0)
        assert abs(float(kernel.sum()) - 1) < 1e-5 and kernel.shape[0] % 2 == 1 and kernel.shape[0] <= TAPS and text


@pytest.mark.parametrize("phase", [(0, 0), (0, 1), (1, 0), (1, 1)])
def test_mosaic_keeps_the_sites_and_demosaic_restores_smooth_pictures(phase):
    ramp = torch.linspace(0.2, 0.8, 32)
    smooth = torch.stack([ramp[None].expand(32, 32), ramp[:, None].expand(32, 32), (ramp[None] + ramp[:, None]) / 2])[
        None
    ]
    raw = mosaic(smooth, phase)
    for channel, place in enumerate(sites(smooth, phase)):
        assert torch.equal(raw[0, 0][place], smooth[0, channel][place])
    counts = [int(place.sum()) for place in sites(smooth, phase)]
    assert counts == [256, 512, 256]
    inside = (slice(None), slice(None), slice(4, -4), slice(4, -4))
    assert torch.allclose(demosaic(raw, phase)[inside], smooth[inside], atol=1e-5)
    grey = torch.full((1, 3, 8, 8), 0.4)
    assert torch.allclose(demosaic(mosaic(grey, phase), phase), grey, atol=1e-6)


def test_a_camera_without_noise_returns_grey_and_keeps_smooth_colours():
    grey = torch.full((1, 3, 16, 16), 0.5)
    assert torch.allclose(QUIET.apply(grey), grey, atol=1e-5)
    assert torch.allclose(camera_matrix(QUIET.weights).sum(dim=1), torch.ones(3), atol=1e-6)
    colour = torch.tensor([0.6, 0.4, 0.3])[None, :, None, None].expand(1, 3, 16, 16)
    assert torch.allclose(QUIET.apply(colour), colour, atol=1e-4)


def test_the_sensor_noise_has_the_variance_that_was_asked_for():
    noisy = CameraNoise(1, 4e-3, 1e-3, 1.0, (0.25, 0.25, 0.25, 0.25), 1.0, 1.0, (0, 0))
    raw = mosaic(torch.full((1, 3, 128, 128), 0.5), (0, 0))
    green = noisy.apply(torch.full((1, 3, 128, 128), 0.5))
    # Green sites keep their own noise; the colour matrix mixes other sites in, so the order of size is what holds.
    assert 0.5 < float(green[0, 1].std()) / math.sqrt(4e-3 * 0.5 + 1e-3) < 2
    assert raw.std() == 0
    camera = draw_camera(generator_for(3), 1.0)
    assert 5e-5 <= camera.shot <= 5e-4 and 5e-6 <= camera.read <= 5e-5 and 0.75 <= camera.red <= 1


def test_jpeg_is_pillows(faces):
    import io

    import numpy as np
    from PIL import Image

    buffer = io.BytesIO()
    pixels = to_bytes(faces[0].movedim(0, -1)).numpy()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=40, subsampling=2)
    expected = torch.from_numpy(np.array(Image.open(buffer))).movedim(-1, 0)
    assert torch.equal(to_bytes(Jpeg(40).apply(faces[:1]))[0], expected)


def test_seeds_do_not_run_into_each_other():
    assert len({seed_for(a, b) for a in range(30) for b in range(30)}) == 900
    assert seed_for(1, 12) != seed_for(11, 2)
    generator = generator_for("x")
    values = [uniform(generator, 2, 3) for _ in range(200)]
    assert min(values) >= 2 and max(values) < 3 and max(values) - min(values) > 0.9
    assert {pick(generator, (0, 1, 1)) for _ in range(50)} == {1, 2}
