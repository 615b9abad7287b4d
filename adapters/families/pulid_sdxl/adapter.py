"""A loaded PuLID file for SDXL: from an identity to tokens, keys and values."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ...adapter import CrossAttentionAdapter, IdentityTokens, TokenOptions, module_device_dtype
from ...identity import Identity
from ...report import DetectionReport
from .arch import IDEncoder, IdentityKeysValues
from .features import pulid_features
from .id_former import IDFormer


class PulidNetwork(nn.Module):
    """Identity encoder, keys and values, in one place for the memory manager.

    Args:
        id_adapter: the encoder of the file's version.
        keys_values: the maps of each attn2 layer in the order of the file.
    """

    id_adapter: IDEncoder | IDFormer
    keys_values: nn.ModuleList

    def __init__(self, id_adapter: IDEncoder | IDFormer, keys_values: Sequence[IdentityKeysValues]) -> None:
        super().__init__()
        self.id_adapter = id_adapter
        self.keys_values = nn.ModuleList(keys_values)


class PulidAdapter(CrossAttentionAdapter):
    """PuLID v1 and v1.1 for SDXL.

    Several photos, as the authors do it: v1.1 gives one set of 32 tokens from all of them; v1 gives the ten tokens of
    the first photo and five of each further one (``TokenOptions.mix``: all ten). The negative rows get the tokens of an
    identity of zeros.

    Args:
        report: what was recognised.
        digest: identifies the file.
        network: identity encoder, keys and values.
    """

    network: PulidNetwork

    def __init__(self, report: DetectionReport, digest: str, network: PulidNetwork) -> None:
        self.report = report
        self.digest = digest
        self.network = network.eval().requires_grad_(False)
        self.base = report.base
        self.context_dim = network.id_adapter.width

    @property
    def layer_widths(self) -> Sequence[int]:
        """Width of each attn2 layer: down blocks, up blocks, middle block."""
        return [layer.width for layer in self._layers()]

    def tokens(self, identity: Identity, options: TokenOptions) -> IdentityTokens:
        """Identity tokens (1, T + zero_tokens, 2048) of N photos, in float32.

        Raises:
            EncoderMismatch: features are missing, or of another encoder or width.
        """
        encoder = self.network.id_adapter
        device, _ = module_device_dtype(encoder)
        face, hidden = pulid_features(identity, self.report.title, encoder.id_dim, encoder.image_dim, device)
        nobody = [torch.zeros_like(features[:1]) for features in hidden]
        if isinstance(encoder, IDFormer):
            cond = of_all_photos(encoder, face, hidden)
            uncond = encoder(torch.zeros_like(face[:1]), nobody)
        else:
            cond = _side_by_side(encoder(face, hidden), encoder.id_tokens, options.mix)
            negative = encoder(torch.zeros_like(face[:1]), nobody).expand(len(face), -1, -1)
            uncond = _side_by_side(negative, encoder.id_tokens, options.mix)
        zeros = cond.new_zeros(1, options.zero_tokens, cond.shape[-1])
        cond = torch.cat((cond, zeros), dim=1)
        return IdentityTokens(cond, torch.cat((uncond, zeros), dim=1) if options.negative else None)

    def keys_values(self, tokens: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Tokens (B, T, 2048) to keys and values (B, T, width) of every attn2 layer, in file order."""
        return [layer(tokens) for layer in self._layers()]

    def _layers(self) -> list[IdentityKeysValues]:
        return [layer for layer in self.network.keys_values if isinstance(layer, IdentityKeysValues)]


def of_all_photos(encoder: IDFormer, face: Tensor, hidden: Sequence[Tensor]) -> Tensor:
    """One set of tokens (1, queries, width) of N photos: face vectors (N, D), picture features (N, S, C) each."""
    return encoder(face[None], [features.flatten(0, 1)[None] for features in hidden])


def _side_by_side(tokens: Tensor, id_tokens: int, mix: bool) -> Tensor:
    """Tokens (N, T, C) of N photos as (1, T', C): all of the first, then all or the face vector's of the others."""
    first, others = tokens[:1].flatten(0, 1), tokens[1:]
    return torch.cat((first, (others if mix else others[:, :id_tokens]).flatten(0, 1)))[None]
