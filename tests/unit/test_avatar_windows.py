"""Windows of long clips: every frame covered, official offsets and audio, fusion, and seams with and without moving."""

from __future__ import annotations

import pytest
import torch
from likeness_pack.adapters.families.hunyuan_avatar import windows
from likeness_pack.adapters.families.hunyuan_avatar.guidance import official_sigmas
from likeness_pack.adapters.families.hunyuan_avatar.windows import BadWindows, WindowPlan
from likeness_pack.nodes.avatar_windows import LikenessAvatarLength

PLAN = WindowPlan()


@pytest.mark.parametrize("total", [1, 2, 32, 33, 34, 52, 65, 66, 97, 100, 129, 400])
@pytest.mark.parametrize("plan", [PLAN, WindowPlan(5, 2), WindowPlan(7, 0), WindowPlan(2, 1)])
def test_every_frame_is_covered_at_every_step(total, plan):
    for step in range(40):
        found = plan.windows(total, step)
        assert {frame for window in found for frame in window} == set(range(total))
        assert len({len(window) for window in found}) == 1
        assert len(found[0]) == min(total, plan.window)
        assert all(len(set(window)) == len(window) for window in found)
        assert len(found) == -(-total // plan.window)


def test_windows_move_back_by_ten_and_wrap_around_the_clip():
    starts = [[window[0] for window in PLAN.windows(65, step)] for step in range(5)]
    assert starts == [[0, 33], [55, 23], [45, 13], [35, 3], [58, 26]]
    first = PLAN.windows(65, 1)[0]
    assert first == (*range(55, 65), *range(23))


def test_frames_of_two_windows_are_few():
    """65 latent frames in two windows of 33: one frame is computed twice."""
    for step in range(33):
        held = [frame for window in PLAN.windows(65, step) for frame in window]
        assert len(held) - len(set(held)) == 1


def test_each_latent_frame_hears_its_four_video_frames():
    """The first of a window hears its last one four times; numbers go on past the clip's end and wrap."""
    total = 65
    heard = windows.audio_frames(PLAN.windows(total, 0)[0], total)
    assert heard[:3] == ((0, 0, 0, 0), (1, 2, 3, 4), (5, 6, 7, 8)) and heard[-1] == (125, 126, 127, 128)
    for step in range(7):
        moved = windows.SHIFT * step % windows.WINDOW
        for number, window in enumerate(PLAN.windows(total, step)):
            start = number * windows.WINDOW - moved
            official = [(4 * start + place) % (4 * total) for place in range(129)]
            flat = [frame for four in windows.audio_frames(window, total) for frame in four]
            assert flat[3:] == official
            assert set(flat[:4]) == {official[0]}


def test_fusion_is_the_mean_and_one_window_is_itself():
    places = ((0, 1, 2), (2, 3, 0))
    outputs = [torch.full((1, 2, 3, 1), 1.0), torch.full((1, 2, 3, 1), 3.0)]
    assert windows.fused(outputs, places, 4)[0, 0, :, 0].tolist() == [2.0, 1.0, 2.0, 3.0]
    single = torch.randn(1, 16, 9, 4, 4, generator=torch.Generator().manual_seed(0))
    assert torch.equal(windows.fused([single], PLAN.windows(9, 0), 9), single)


def test_a_frame_in_no_window_is_refused():
    with pytest.raises(BadWindows, match="all 4 latent frames covered, found 2 in no window"):
        windows.fused([torch.zeros(1, 1, 2, 1)], ((0, 1),), 4)


@pytest.mark.parametrize("wrong", [{"window": 0}, {"shift": -1}])
def test_plans_that_cannot_be(wrong):
    with pytest.raises(BadWindows, match="go back to 33 and 10"):
        WindowPlan(**wrong)


# Lengths


@pytest.mark.parametrize(
    ("frames", "noise", "sampled", "kept"),
    [(1, 65, 33, 33), (129, 65, 33, 33), (130, 65, 65, 34), (200, 65, 65, 52), (300, 97, 97, 77), (400, 129, 129, 102)],
)
def test_official_lengths(frames, noise, sampled, kept):
    length = windows.clip_length(frames)
    assert (length.noise_frames, length.sampled_frames, length.kept_frames) == (noise, sampled, kept)
    assert length.video_length == 4 * sampled - 3 >= frames


def test_the_length_node_counts_the_audio():
    audio = {"waveform": torch.zeros(1, 2, 44_100 * 8), "sample_rate": 44_100}
    length, kept, frames, report = LikenessAvatarLength().measure(129, audio)["result"]
    assert (length, kept, frames) == (257, 52, 200)
    assert "65 latent frames in 2 windows" in report
    assert "quality falls" in LikenessAvatarLength().measure(401)["result"][3]
    with pytest.raises(BadWindows, match="expected 1 frame or more, found 0; give some audio"):
        LikenessAvatarLength().measure(129, {"waveform": torch.zeros(1, 1, 10), "sample_rate": 16_000})


# Seams


def denoised(x):
    """A denoiser that makes each window agree with itself only: every frame goes to the window's own mean."""
    return x.mean(2, keepdim=True).expand_as(x)


def seams(plan, total=99, steps=25):
    """Largest step between neighbouring frames at the places of the unmoved seams, and elsewhere."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1, 16, total, 4, 4, generator=generator)
    sigmas = official_sigmas(steps)
    for step in range(steps):
        places = plan.windows(total, step)
        parts = [x[:, :, list(window)] for window in places]
        moved = [part + (part - denoised(part)) / sigmas[step] * (sigmas[step + 1] - sigmas[step]) for part in parts]
        x = windows.fused(moved, places, total)
    jumps = (x[:, :, 1:] - x[:, :, :-1]).abs().mean((0, 1, 3, 4))
    at = torch.tensor([33, 66]) - 1
    elsewhere = torch.ones(total - 1, dtype=torch.bool)
    elsewhere[at] = False
    return float(jumps[at].max()), float(jumps[elsewhere].max())


def test_moving_windows_soften_the_seams():
    """With windows in place each keeps its own mean; moved, no seam stands out."""
    still, still_elsewhere = seams(WindowPlan(shift=0))
    moved, moved_elsewhere = seams(PLAN)
    assert still > 0.1 and still_elsewhere < 1e-5
    assert moved < 0.25 * still
    assert max(moved, moved_elsewhere) < 0.6 * still
