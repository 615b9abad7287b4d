"""The guidance schedule: official values, the switch, masks, noise levels, and which step a call belongs to."""

from __future__ import annotations

import pytest
import torch
from likeness_pack.adapters.families.hunyuan_avatar.guidance import (
    AvatarGuidance,
    BadGuidance,
    official_sigmas,
    step_of,
)
from likeness_pack.nodes.avatar_windows import LikenessAvatarGuider, LikenessAvatarSigmas


def test_the_official_strengths():
    guidance = AvatarGuidance()
    assert [round(guidance.strength(step, 50), 4) for step in (0, 9, 10, 49)] == [7.5, 6.51, 5.9, 3.56]
    # The switch is an absolute number.
    assert guidance.strength(10, 20) == pytest.approx(5.0)


@pytest.mark.parametrize("steps", [10, 30, 50])
def test_masks_count_less_and_the_negative_text_is_used_before_the_switch(steps):
    guidance = AvatarGuidance()
    assert [guidance.mask_scale(step) for step in range(steps)] == [0.6] * 10 + [1.0] * (steps - 10)
    assert [guidance.audio_only(step) for step in range(steps)] == [False] * 10 + [True] * (steps - 10)


def test_every_number_can_be_set():
    guidance = AvatarGuidance(2, 5.0, 1.0, 4.0, 3.0, 0.5)
    assert [guidance.strength(step, 4) for step in range(4)] == [5.0, 4.0, 3.5, 3.25]
    assert [guidance.mask_scale(step) for step in range(3)] == [0.5, 0.5, 1.0]


def test_the_nodes_defaults_are_the_official_ones():
    given = {
        name: one[1]["default"]
        for name, one in LikenessAvatarGuider.INPUT_TYPES()["required"].items()
        if one[1:] and "default" in one[1]
    }
    official = AvatarGuidance()
    assert given == {
        "cfg": official.text_start,
        "cfg_end": official.text_end,
        "audio_cfg": official.audio_start,
        "audio_cfg_end": official.audio_end,
        "switch_step": official.switch_step,
        "early_mask": official.early_mask,
    }
    required = LikenessAvatarSigmas.INPUT_TYPES()["required"]
    (sigmas,) = LikenessAvatarSigmas().make(*(required[name][1]["default"] for name in ("steps", "shift")))
    assert torch.equal(sigmas, official_sigmas(50, 5.0)) and len(sigmas) == 51


def test_levels_fall_from_one_to_zero():
    for steps in (1, 7, 50):
        sigmas = official_sigmas(steps)
        assert len(sigmas) == steps + 1 and sigmas[0] == 1 and sigmas[-1] == 0 and (sigmas.diff() < 0).all()
    torch.testing.assert_close(official_sigmas(2)[1], torch.tensor(5 / 6))


def test_a_call_between_two_levels_belongs_to_the_step_that_began():
    levels = official_sigmas(6).tolist()
    assert [step_of(level, levels) for level in levels] == [0, 1, 2, 3, 4, 5, 5]
    assert [step_of((a + b) / 2, levels) for a, b in zip(levels, levels[1:], strict=False)] == list(range(6))
    assert step_of(2.0, levels) == 0
    assert step_of(levels[3] * (1 + 1e-6), levels) == 3
    assert step_of(1.0, [1.0]) == 0


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"switch_step": -1}, "a step of 0 or later"),
        ({"text_start": float("nan")}, "strengths of 0 or more"),
        ({"audio_end": -1.0}, "strengths of 0 or more"),
        ({"early_mask": 1.5}, "an early mask of 0 to 1"),
    ],
)
def test_numbers_that_mean_nothing(wrong, told):
    with pytest.raises(BadGuidance, match=f"{told}.*go back to the default values"):
        AvatarGuidance(**wrong)


@pytest.mark.parametrize(("steps", "shift"), [(0, 5.0), (10, 0.0), (10, float("nan"))])
def test_levels_that_cannot_be(steps, shift):
    with pytest.raises(BadGuidance, match="1 step or more and a positive shift"):
        official_sigmas(steps, shift)
