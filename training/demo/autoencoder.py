"""A latent autoencoder of TAESD's layout for drawn faces, trained narrow and written at TAESD's width.

The layout's convolutions have 64 channels. Networks of fewer channels are the same function as wide ones whose further
channels are zero, so the narrow one is trained and zeros are written around it.
Layout: madebyollin/taesd (MIT), as ComfyUI loads it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..drawn_faces import REGIONS, draw, sample_identities
from ..loop import TOTAL
from ..seeds import generator_for
from .portraits import portrait_attributes

Network = TypeVar("Network", bound=nn.Module)

PUBLISHED_WIDTH = 64
LATENT_CHANNELS = 4
DOWNSCALE = 8
# SD1.5's factor between VAE latents and the UNet's; the autoencoder itself speaks the UNet's.
LATENT_SCALE = 0.18215
# How much an error in a region weighs; small regions say who a face is.
_WEIGHTS = {"background": 0.5, "body": 0.5, "face": 1.5, "hair": 1.0, "eyes": 4.0, "mouth": 3.0, "glasses": 2.0}


def _conv(inputs: int, outputs: int, stride: int = 1, bias: bool = True) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, stride, 1, bias=bias)


class _Clamp(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(x / 3) * 3


class _Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Sequential(_conv(width, width), nn.ReLU(), _conv(width, width), nn.ReLU(), _conv(width, width))

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(self.conv(x) + x)


class Autoencoder(nn.Module):
    """TAESD's encoder and decoder. Latents are those of the UNet, of about unit variance.

    Args:
        widths: channels at full, half, quarter and eighth size; 64 at each in the published layout.
    """

    def __init__(self, widths: Sequence[int] = (PUBLISHED_WIDTH,) * 4) -> None:
        super().__init__()
        down: list[nn.Module] = [_conv(3, widths[0]), _Block(widths[0])]
        for before, width in zip(widths, widths[1:], strict=False):
            down += [_conv(before, width, 2, bias=False), *(_Block(width) for _ in range(3))]
        self.taesd_encoder = nn.Sequential(*down, _conv(widths[-1], LATENT_CHANNELS))
        up: list[nn.Module] = [_Clamp(), _conv(LATENT_CHANNELS, widths[-1]), nn.ReLU()]
        for before, width in zip(widths[::-1], widths[-2::-1], strict=False):
            up += [*(_Block(before) for _ in range(3)), nn.Upsample(scale_factor=2), _conv(before, width, bias=False)]
        self.taesd_decoder = nn.Sequential(*up, _Block(widths[0]), _conv(widths[0], 3))
        _start(self)

    def encode(self, images: Tensor) -> Tensor:
        """Pictures (B, H, W, 3), 0..1, give latents (B, 4, H/8, W/8)."""
        return self.taesd_encoder(_planes(images))

    def decode(self, latents: Tensor) -> Tensor:
        """Latents (B, 4, h, w) give pictures (B, 8h, 8w, 3), 0..1."""
        return self.taesd_decoder(latents).movedim(1, -1).clamp(0, 1)


def _start(network: nn.Module) -> None:
    """Blocks start as the identity and other convolutions keep the variance, which makes short training possible."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    for module in network.modules():
        if isinstance(module, _Block):
            last: Any = module.conv[4]
            nn.init.zeros_(last.weight)


def channels_last(network: Network) -> Network:
    """The same network with its convolutions' weights in the order that processors prefer."""
    changed: Any = network
    changed.to(memory_format=torch.channels_last)
    return network


def _planes(images: Tensor) -> Tensor:
    return images.movedim(-1, 1).contiguous(memory_format=torch.channels_last)


def published_tensors(network: Autoencoder) -> dict[str, Tensor]:
    """The weights at the published width: channels beyond the trained ones are zero. Adds the latents' scale."""
    wide = Autoencoder().state_dict()
    tensors: dict[str, Tensor] = {}
    for name, value in network.state_dict().items():
        padded = torch.zeros_like(wide[name])
        padded[tuple(slice(0, size) for size in value.shape)] = value
        tensors[name] = padded
    tensors["vae_scale"] = torch.tensor(LATENT_SCALE)
    return tensors


class AutoencoderTask:
    """Rebuild drawn faces; latents are drawn towards mean 0 and variance 1.

    Args:
        widths: channels in training, see `Autoencoder`.
        size: side of the pictures.
        batch: pictures of a step.
        seed: of the run.
        start: weights to go on from with the decoder alone, so that latents stay what they are.
    """

    def __init__(
        self, widths: Sequence[int], size: int, batch: int, seed: int, start: Mapping[str, Tensor] | None = None
    ) -> None:
        self._options: dict[str, Any] = {"widths": list(widths), "size": size, "batch": batch, "seed": seed}
        self._size, self._batch, self._seed = size, batch, seed
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(generator_for(seed, "autoencoder").initial_seed())
            self._network = channels_last(Autoencoder(widths))
        self._decoder_only = start is not None
        if start is not None:
            self._options["decoder_only"] = True
            self._network.load_state_dict(start)
            self._network.taesd_encoder.requires_grad_(False)
        self._weights = torch.tensor([_WEIGHTS[name] for name in REGIONS])

    @property
    def network(self) -> Autoencoder:
        """The autoencoder."""
        return self._network

    @property
    def options(self) -> Mapping[str, Any]:
        """What the run was started with."""
        return self._options

    def parameter_groups(self) -> list[dict[str, Any]]:
        """All weights, without decay."""
        return [{"params": [one for one in self._network.parameters() if one.requires_grad], "weight_decay": 0.0}]

    def losses(self, step: int) -> dict[str, Tensor]:
        """Weighted error of the pictures, and how far the latents are from unit variance."""
        generator = generator_for(self._seed, "pictures", step)
        faces = draw(sample_identities(self._batch, generator), portrait_attributes(self._batch, generator), self._size)
        weights = torch.einsum("brhw,r->bhw", faces.regions, self._weights)[:, None]
        target = _planes(faces.images)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            latents = self._network.taesd_encoder(target)
            if self._decoder_only:
                # A base model's latents are never exact.
                latents = latents + 0.1 * torch.randn(latents.shape, generator=generator)
            rebuilt = self._network.taesd_decoder(latents)
        error = rebuilt.float() - target
        picture = (weights * (error.abs() + 4 * error.square())).mean()
        if self._decoder_only:
            return {TOTAL: picture, "picture": error.abs().mean()}
        latents = latents.float()
        spread = latents.mean(dim=(0, 2, 3)).square().mean() + (latents.std(dim=(0, 2, 3)) - 1).square().mean()
        loudest = functional.relu(latents.abs() - 3).square().mean()
        total = picture + 0.02 * spread + 0.02 * loudest
        return {TOTAL: total, "picture": error.abs().mean(), "spread": spread}

    def after_step(self, step: int) -> None:
        """Nothing follows."""

    def extra_state(self) -> dict[str, Tensor]:
        """Nothing further."""
        return {}

    def load_extra(self, tensors: Mapping[str, Tensor]) -> None:
        """Nothing further."""
