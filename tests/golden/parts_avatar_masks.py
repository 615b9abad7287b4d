"""HunyuanVideo-Avatar: face masks, and the sampling loop with the documented stand-in for the transformer."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from harness import Golden, part
from torch import Tensor
from torch.nn import functional


@part("hyavatar_facemask")
def hyavatar_facemask(golden: Golden) -> None:
    """Boxes to pixel boxes, latent masks and token masks."""
    from likeness_pack.adapters.families.hunyuan_avatar import face_mask

    for number, case in enumerate(golden.metadata["hyper_parameters"]["cases"]):
        height, width = case["h"], case["w"]
        box = None
        if case["bbox_xywh"] is not None:
            x, y, w, h = case["bbox_xywh"]
            box = (x, y, x + w, y + h)
        found = face_mask.pixel_box(box, height, width, case["area"])
        golden.check(f"case{number}_pixel_box_x1y1x2y2", torch.tensor(found).float())
        mask = face_mask.box_masks([found], height, width)
        latent = face_mask.latent_masks(mask, height // 8, width // 8)
        golden.check(f"case{number}_latent", latent[None, None])
        golden.check(f"case{number}_tokens", face_mask.token_masks(latent, 1, height // 16, width // 16)[None, None])


@dataclass
class _Mock:
    """The stand-in: rows are [negative, positive]; remembers what its cached steps read, by latent frame."""

    mask: Tensor
    reference: Tensor
    stored: dict[int, tuple[Tensor, Tensor, Tensor]] = field(default_factory=dict)

    def velocity(
        self, x: Tensor, t: float, audio: Tensor, texts: Any, scale: float, window: tuple[int, ...], full: bool
    ) -> Tensor:
        """(2, 16, F, 4, 4) of one window ``x`` (2, 16, F, 4, 4) with ``audio`` (2, F)."""
        if full:
            self._store(x, audio, texts, scale, window)
        hidden = torch.cat([self.stored[frame][1] for frame in window], dim=1)
        reference, _, text = self.stored[window[0]]
        h = (hidden + 0.1 * reference.mean(1, keepdim=True) + 0.1 * text.mean(1, keepdim=True)) * (1 + 0.1 * t / 1000)
        wide = h.view(2, len(window), 2, 2).repeat_interleave(2, 2).repeat_interleave(2, 3)
        return wide[:, None] * (1 + 0.05 * torch.arange(16.0)).view(1, 16, 1, 1, 1)

    def _store(self, x: Tensor, audio: Tensor, texts: Any, scale: float, window: tuple[int, ...]) -> None:
        frames = len(window)
        mean = 0.5 * x.mean(1) + 0.25 * self.reference[:, :, :frames].mean(1)
        tokens = functional.avg_pool2d(mean, 2).reshape(2, frames, 4)
        mask = functional.interpolate((scale * self.mask).expand(1, 1, frames, 4, 4), size=(frames, 2, 2))
        h = tokens + 0.5 * audio[..., None] * mask.reshape(1, frames, 4)
        text, pooled = texts
        h = h + (0.1 * text.mean((1, 2)) + 0.05 * pooled.mean(1))[:, None, None]
        h = h + (0.02 * torch.cos(0.3 * torch.arange(float(frames))))[None, :, None]
        first = functional.avg_pool2d(self.reference[:, :, 0].mean(1, keepdim=True), 2).reshape(1, 4).expand(2, -1)
        for place, frame in enumerate(window):
            self.stored[frame] = (first, h[:, place], text.mean(2))


@part("hyavatar_loop")
def hyavatar_loop(golden: Golden) -> None:
    """Noise levels, guidance, mask factor, windows and their fusion over whole runs."""
    from likeness_pack.adapters.families.hunyuan_avatar.guidance import AvatarGuidance, official_sigmas

    hyper = golden.metadata["hyper_parameters"]
    for name in golden.tensors:
        if name.startswith("sigmas_"):
            golden.check(name, official_sigmas(int(name.removeprefix("sigmas_")), hyper["shift"]))
    for name, case in hyper["cases"].items():
        steps = case["steps"]
        guidance = AvatarGuidance(text_start=hyper["cfg_scale"])
        golden.check(f"{name}_t", 1000 * official_sigmas(steps, hyper["shift"])[:-1])
        golden.check(f"{name}_guidance", torch.tensor([guidance.strength(step, steps) for step in range(steps)]))
        golden.check(f"{name}_latents_nobf16", _run(golden, name, case, torch.float32))
        golden.check(f"{name}_latents", _run(golden, name, case, torch.bfloat16))


def _run(golden: Golden, name: str, case: dict[str, Any], rounding: torch.dtype) -> Tensor:
    from likeness_pack.adapters.families.hunyuan_avatar import windows
    from likeness_pack.adapters.families.hunyuan_avatar.guidance import AvatarGuidance, official_sigmas

    hyper, inputs = golden.metadata["hyper_parameters"], golden.metadata["inputs"]
    length = windows.clip_length(case["audio_frames"])
    assert (length.noise_frames, length.kept_frames) == (case["latent_frames_total"], case["latent_frames_out"])
    latents = golden.input(f"latents_{name}", (1, 16, length.noise_frames, 4, 4))[:, :, : length.sampled_frames]
    total, steps = length.sampled_frames, case["steps"]
    sound = golden.input(f"audio_{name}", (1, case["audio_frames"], 10, 5, 4)).mean((0, 2, 3, 4))
    sound = functional.pad(sound, (0, windows.RATE * total - len(sound)))
    texts = {one: golden.input(one, shape) for one, shape in inputs.items() if "prompt_embeds" in one}
    mask = torch.zeros(1, 1, 1, 4, 4)
    mask[..., :2, 2:], mask[..., 2:, 2:] = 1.0, 0.5
    mock = _Mock(mask, golden.input("ref_latents", inputs["ref_latents"]))
    plan, guidance = windows.WindowPlan(), AvatarGuidance(text_start=hyper["cfg_scale"])
    sigmas, cached = official_sigmas(steps, hyper["shift"]), golden.tensors[f"{name}_is_cached"]
    for step in range(steps):
        places = plan.windows(total, step)
        assert len(places) == case["windows_per_step"]
        negative = "" if guidance.audio_only(step) else "negative_"
        rows = [torch.cat([texts[f"{negative}{one}"], texts[one]]) for one in ("prompt_embeds", "prompt_embeds_2")]
        moved = []
        for window in places:
            x = latents[:, :, list(window)]
            heard = sound[torch.tensor(windows.audio_frames(window, total))].mean(1)
            audio = torch.stack([torch.zeros_like(heard), heard])
            factor, t, full = guidance.mask_scale(step), 1000 * float(sigmas[step]), not cached[step]
            below, above = mock.velocity(x.expand(2, -1, -1, -1, -1), t, audio, rows, factor, window, full).chunk(2)
            velocity = below + guidance.strength(step, steps) * (above - below)
            moved.append((x + velocity * (sigmas[step + 1] - sigmas[step])).to(rounding).float())
        latents = windows.fused(moved, places, total)
    return latents[:, :, : length.kept_frames]
