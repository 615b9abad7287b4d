"""Pictures while an adapter learns: DDIM with guidance over the diffusers UNet, as latents that any VAE decodes."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ...adapters.families.restorerid.schedule import TRAINED, alphas_cumprod
from .attached import AttachedGatedLayers
from .task import AdapterModel

Predict = Callable[[Tensor, Tensor], Tensor]


def ddim(predict: Predict, noise: Tensor, steps: int, guidance: float) -> Tensor:
    """Denoise (B, 4, h, w) without fresh noise (Song et al. 2021).

    Args:
        predict: noisy latents (2 B, 4, h, w) and timesteps (2 B,) to noise; the first half of the rows is the empty
            prompt.
        noise: of unit variance.
        steps: evenly over the trained ones.
        guidance: scale of classifier-free guidance.
    """
    shares = alphas_cumprod().to(noise)
    times = torch.linspace(TRAINED - 1, 0, steps + 1)[:-1].round().long().tolist()
    x = noise
    with torch.no_grad():
        for number, time in enumerate(times):
            without, given = predict(torch.cat([x, x]), torch.full((2 * len(x),), time)).chunk(2)
            eps = without + guidance * (given - without)
            share = shares[time]
            clean = (x - (1 - share).sqrt() * eps) / share.sqrt()
            after = shares[times[number + 1]] if number + 1 < steps else torch.ones_like(share)
            x = after.sqrt() * clean + (1 - after).sqrt() * eps
    return x


def preview(
    unet: nn.Module,
    model: AdapterModel | None,
    text: Tensor,
    conditions: Tensor | None,
    noise: Tensor,
    *,
    negative_text: Tensor | None = None,
    strength: float = 1.0,
    steps: int = 20,
    guidance: float = 2.0,
) -> Tensor:
    """Latents (B, 4, h, w) with the adapter as it is now, or of the plain model where ``model`` is None.

    Args:
        unet: the diffusers UNet.
        model: the adapter attached to it.
        text: (B, T, C) prompts.
        conditions: (B, ...) face conditions; the negative rows get zeros.
        noise: (B, 4, h, w) of unit variance.
        negative_text: (B, T, C) of the empty prompt; zeros where None.
        strength: of the adapter.
        steps, guidance: see `ddim`.
    """
    empty = torch.zeros_like(text) if negative_text is None else negative_text
    told = torch.cat([empty, text])

    def predict(x: Tensor, times: Tensor) -> Tensor:
        predicted: Tensor = unet(x, times, encoder_hidden_states=told).sample
        return predicted

    if model is None or conditions is None:
        return ddim(predict, noise, steps, guidance)
    with torch.no_grad():
        tokens = model.tokens(torch.cat([torch.zeros_like(conditions), conditions]).float())
    with model.attached.reading(tokens, strength):
        latents = ddim(predict, noise, steps, guidance)
    if isinstance(model.attached, AttachedGatedLayers):
        model.attached.taken_increments()
    return latents
