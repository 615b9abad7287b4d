"""A loaded LAFR adapter, and how it moves the host's latents."""

from __future__ import annotations

import torch
from torch import Tensor

from ....faces.errors import BadImage
from ...adapter import Adapter, IdentityTokens, TokenOptions, module_device_dtype
from ...errors import EncoderMismatch
from ...identity import Identity
from ...report import DetectionReport
from .arch import LatentAlignAdapter
from .layout import LafrFacts


class LafrAdapter(Adapter):
    """Aligns latents. It knows no identity: what it keeps of a person is what the bad picture shows of them.

    Args:
        report: what was recognised.
        digest: identifies the file.
        network: the adapter, in float32.
        facts: the file's metadata.
    """

    network: LatentAlignAdapter

    def __init__(self, report: DetectionReport, digest: str, network: LatentAlignAdapter, facts: LafrFacts) -> None:
        self.report = report
        self.digest = digest
        self.network = network.eval().requires_grad_(False)
        self.facts = facts
        self.base = facts.base
        # The text context does not matter here.
        self.context_dim = 0

    def tokens(self, identity: Identity, options: TokenOptions) -> IdentityTokens:
        """Refuse. Raises EncoderMismatch, which names the node to use instead."""
        raise EncoderMismatch(
            self.report.title,
            expected="the latent of a bad picture",
            found=f"an identity of the encoder {identity.encoder}",
            cure="use 'Align Latent (LAFR)'",
        )

    def align(self, samples: Tensor, strength: float = 1.0) -> Tensor:
        """Move latents (B, 4, H, W), unscaled as the host's LATENT holds them; in their device and dtype.

        Args:
            samples: what a VAE of the base model made of the bad pictures.
            strength: 1 is the paper's; 0 gives ``samples`` itself; between, a mixture of both.

        Raises:
            BadImage: latents of another model.
        """
        if samples.ndim != 4 or samples.shape[1] != 4:
            raise BadImage(
                "latent for LAFR",
                expected=f"(B, 4, H, W) of a VAE of {self.base}",
                found=f"{tuple(samples.shape)}",
                cure="encode the picture with the VAE of an SD1.x or SD2.x model",
            )
        if strength == 0:
            return samples
        device, _ = module_device_dtype(self.network)
        latents = samples.to(device, torch.float32) * self.facts.latent_scale
        mixed = torch.lerp(latents, self.network(latents), strength)
        return (mixed / self.facts.latent_scale).to(samples)
