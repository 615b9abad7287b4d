"""Windows and guidance of avatars in the host's own sampler, against the loop written out."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from host_inprocess import engine, tiny_model
from likeness_pack.adapters.errors import BaseModelMismatch, HostTooOld
from likeness_pack.adapters.families.hunyuan_avatar.guidance import MASK_SCALE, AvatarGuidance, official_sigmas
from likeness_pack.adapters.families.hunyuan_avatar.windows import BadWindows, WindowPlan, fused
from likeness_pack.inject.avatar_windows import HANDLER, apply_windows, avatar_guider
from likeness_pack.nodes.avatar_windows import LikenessAvatarGuider, LikenessAvatarWindows
from tiny_hunyuan import clip_noise, hunyuan_conditioning, need_hunyuan, run_guider, tiny_hunyuan
from torch import Tensor

STEPS = 4
PLAN = WindowPlan(window=5, shift=2)
SCHEDULE = AvatarGuidance(switch_step=2)
POSITIVE, NEGATIVE = 1, 2


@pytest.fixture(scope="module")
def model() -> Any:
    """Two double and two single blocks."""
    need_hunyuan()
    return tiny_hunyuan(2, 2)


class Noted:
    """Calls of the model that a patch sees."""

    def __init__(self) -> None:
        self.calls: list[dict[str, Any]] = []

    def on(self, model: Any) -> Any:
        clone = model.clone()
        clone.set_model_unet_function_wrapper(self._wrapper)
        return clone

    def _wrapper(self, apply_model: Any, args: dict[str, Any]) -> Tensor:
        options = args["c"]["transformer_options"]
        window = options.get("context_window")
        self.calls.append(
            {
                "frames": args["input"].shape[2],
                "window": None if window is None else tuple(window.index_list),
                "clip": getattr(window, "total_frames", None),
                "mask": options.get(MASK_SCALE),
                "rows": tuple(args["cond_or_uncond"]),
                "texts": args["c"]["c_crossattn"].clone(),
            }
        )
        return apply_model(args["input"], args["timestep"], **args["c"])


def guided(model: Any, frames: int, schedule: AvatarGuidance = SCHEDULE, sampler: str = "euler") -> Tensor:
    guider = avatar_guider(model, hunyuan_conditioning(POSITIVE), hunyuan_conditioning(NEGATIVE), schedule)
    return run_guider(guider, clip_noise(frames), official_sigmas(STEPS), sampler)


def written_out(model: Any, frames: int, plan: WindowPlan, schedule: AvatarGuidance) -> Tensor:
    """The official loop with the host's network called directly: an Euler step for each window, then the mean."""
    network, sigmas = model.model.diffusion_model, official_sigmas(STEPS)
    texts = {seed: hunyuan_conditioning(seed)[0] for seed in (POSITIVE, NEGATIVE)}
    x = clip_noise(frames)

    def velocity(part: Tensor, sigma: Tensor, seed: int) -> Tensor:
        context, other = texts[seed]
        return network(part, 1000 * sigma.view(1), context=context, y=other["pooled_output"])

    with torch.inference_mode():
        for step in range(STEPS):
            places, moved = plan.windows(frames, step), []
            for window in places:
                part = x[:, :, list(window)]
                below = velocity(part, sigmas[step], POSITIVE if schedule.audio_only(step) else NEGATIVE)
                above = velocity(part, sigmas[step], POSITIVE)
                v = below + schedule.strength(step, STEPS) * (above - below)
                moved.append(part + v * (sigmas[step + 1] - sigmas[step]))
            x = fused(moved, places, frames)
    return x


def out_of(model: Any, latent: Tensor) -> Tensor:
    """The model's own scale, as the sampler gives it back."""
    return model.model.process_latent_out(latent)


def test_the_guider_is_the_written_out_loop(model: Any) -> None:
    """Both texts before the switch, the positive one alone after it."""
    expected = out_of(model, written_out(model, 5, PLAN, SCHEDULE))
    got = guided(model, 5)
    torch.testing.assert_close(got, expected, atol=1e-4, rtol=1e-4)
    late = guided(model, 5, AvatarGuidance(switch_step=3))
    assert (late - got).abs().max() > 1e-3


def test_windows_are_the_written_out_loop(model: Any) -> None:
    """Thirteen latent frames in windows of five that wrap around and move by two: the step after the mean or before."""
    got = guided(apply_windows(model, PLAN), 13)
    assert got.shape == (1, 16, 13, 4, 4)
    torch.testing.assert_close(got, out_of(model, written_out(model, 13, PLAN, SCHEDULE)), atol=1e-4, rtol=1e-4)
    still = guided(apply_windows(model, WindowPlan(5, 0)), 13)
    assert (still - got).abs().max() > 1e-3


def test_a_clip_no_longer_than_a_window_is_untouched(model: Any) -> None:
    assert torch.equal(guided(apply_windows(model, PLAN), 5), guided(model, 5))
    assert HANDLER not in model.model_options


def test_what_patches_are_told(model: Any) -> None:
    """Bounded windows, the clip's length, and the factor of masks by step."""
    noted = Noted()
    guided(noted.on(apply_windows(model, PLAN)), 13)
    assert {call["frames"] for call in noted.calls} == {5}
    assert {call["clip"] for call in noted.calls} == {13}
    by_step = [PLAN.windows(13, step) for step in range(STEPS)]
    told = [call["window"] for call in noted.calls]
    assert list(dict.fromkeys(told)) == list(dict.fromkeys(window for step in by_step for window in step))
    factors = [call["mask"] for call in noted.calls]
    assert factors == sorted(factors) and set(factors) == {0.6, 1.0}
    positive = hunyuan_conditioning(POSITIVE)[0][0]
    for call in noted.calls:
        texts = call["texts"].chunk(len(call["rows"]))
        negative_rows = [text for row, text in zip(call["rows"], texts, strict=True) if row == 1]
        assert all(torch.equal(text, positive) == (call["mask"] == 1.0) for text in negative_rows)


def test_a_sampler_that_calls_between_levels_works(model: Any) -> None:
    """Heun looks ahead to the next level, and DPM2 between two."""
    for sampler in ("heun", "dpm_2"):
        assert torch.isfinite(guided(apply_windows(model, PLAN), 7, sampler=sampler)).all()


def test_the_plain_sampler_takes_windows_too(model: Any) -> None:
    """Without the guider: the host's own KSampler on a clip of wrapped windows."""
    samplers = __import__("comfy.samplers", fromlist=["CFGGuider"])
    guider = samplers.CFGGuider(apply_windows(model, PLAN))
    guider.set_conds(hunyuan_conditioning(POSITIVE), hunyuan_conditioning(NEGATIVE))
    guider.set_cfg(3.0)
    assert run_guider(guider, clip_noise(13), official_sigmas(2)).shape[2] == 13


def test_twice_does_not_stack_and_other_windows_are_refused(model: Any) -> None:
    twice = apply_windows(apply_windows(model, WindowPlan(9)), PLAN)
    assert torch.equal(guided(twice, 13), guided(apply_windows(model, PLAN), 13))
    other = model.clone()
    other.model_options[HANDLER] = object()
    with pytest.raises(BadWindows, match=r"those of another node \(object\); remove one of the two nodes"):
        apply_windows(other, PLAN)


def test_a_cancelled_run_stops_at_a_window(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def stop() -> None:
        calls.append(1)
        if len(calls) == 3:
            raise InterruptedError

    monkeypatch.setattr("likeness_pack.inject.avatar_windows.stop_if_cancelled", stop)
    with pytest.raises(InterruptedError):
        guided(apply_windows(model, PLAN), 13)
    assert len(calls) == 3


def test_another_model_or_host_is_told(request: pytest.FixtureRequest) -> None:
    """On every host the nodes load; what they need is said when they run."""
    other = tiny_model("SD15")
    error: type[Exception] = BaseModelMismatch if engine().has_wrappers else HostTooOld
    told = "expected a HunyuanVideo model" if engine().has_wrappers else r"expected ComfyUI 0\.3\.64 or newer"
    with pytest.raises(error, match=told):
        LikenessAvatarWindows().apply(other, 33, 10)
    defaults = {
        name: options[1]["default"]
        for name, options in LikenessAvatarGuider.INPUT_TYPES()["required"].items()
        if "default" in options[1]
    }
    with pytest.raises(error, match=told):
        LikenessAvatarGuider().make(other, [], [], **defaults)
