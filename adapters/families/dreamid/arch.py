"""What DreamID (Ye et al. 2025, arXiv:2504.14509) adds to its two UNets: identity tokens, their keys and values, pose.

No code was published. Attribute names are the names of this project's own file layout, see `layout`. Choices where the
paper is silent: four tokens, and a pose guider whose result is added to the 320 channels behind the first convolution.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn
from torch.nn import functional

from ...layers import casting, casting_conv
from ..ip_adapter_faceid.arch import FaceKeysValues

# Channels behind each convolution of the pose guider, and which of them halve the picture.
GUIDER_CHANNELS = (16, 16, 32, 32, 96, 96, 256)
GUIDER_STRIDES = (1, 2, 1, 2, 1, 2)


class IdTokens(nn.Module):
    """A face embedding as tokens: linear, then LayerNorm over each token.

    Args:
        embedding: channels of the embedding (512).
        tokens: number of tokens (4).
        width: channels of a token, that is of the base model's text context (1024).
        operations: namespace with Linear and LayerNorm.
    """

    def __init__(self, embedding: int, tokens: int, width: int, operations: Any = casting) -> None:
        super().__init__()
        self.width = width
        self.proj = operations.Linear(embedding, tokens * width)
        self.norm = operations.LayerNorm(width)

    def forward(self, embedding: Tensor) -> Tensor:
        """(B, embedding), each of unit length, gives (B, tokens, width)."""
        return self.norm(self.proj(embedding).unflatten(-1, (-1, self.width)))


class PoseGuider(nn.Module):
    """A landmark picture as a map for the latent's grid: seven convolutions with SiLU, and one that starts at zero.

    Args:
        width: channels of the UNet behind its first convolution (320).
        channels: see `GUIDER_CHANNELS`.
        operations: namespace with Conv2d.
    """

    def __init__(self, width: int, channels: Sequence[int] = GUIDER_CHANNELS, operations: Any = casting_conv) -> None:
        super().__init__()
        self.conv_in = operations.Conv2d(3, channels[0], 3, padding=1)
        pairs = zip(channels[:-1], channels[1:], GUIDER_STRIDES, strict=True)
        self.blocks = nn.ModuleList(operations.Conv2d(a, b, 3, padding=1, stride=stride) for a, b, stride in pairs)
        self.conv_out = operations.Conv2d(channels[-1], width, 3, padding=1)

    def forward(self, picture: Tensor) -> Tensor:
        """Landmark picture (B, 3, 8h, 8w), 0..1, gives (B, width, h, w)."""
        h = functional.silu(self.conv_in(picture))
        for block in self.blocks:
            h = functional.silu(block(h))
        return self.conv_out(h)


class DreamIdNetwork(nn.Module):
    """All that is no UNet.

    Args:
        embedding, tokens, context: see `IdTokens`.
        widths: channels of each cross-attention in file order: down, up, middle.
        guider: channels of the pose guider.
        width: channels of the UNet behind its first convolution.
        operations: (namespace of linear layers, namespace of convolutions).
    """

    def __init__(
        self,
        embedding: int,
        tokens: int,
        context: int,
        widths: Sequence[int],
        guider: Sequence[int],
        width: int,
        operations: tuple[Any, Any] = (casting, casting_conv),
    ) -> None:
        super().__init__()
        linear, convolution = operations
        self.image_proj = IdTokens(embedding, tokens, context, linear)
        # Odd numbers: even ones are the self-attentions, which have no keys of their own for the identity.
        layers = {str(2 * i + 1): FaceKeysValues(context, channels, linear) for i, channels in enumerate(widths)}
        self.ip_adapter = nn.ModuleDict(layers)
        self.pose_guider = PoseGuider(width, guider, convolution)

    def layers(self) -> list[FaceKeysValues]:
        """Keys and values of each cross-attention, in file order."""
        return [layer for layer in self.ip_adapter.values() if isinstance(layer, FaceKeysValues)]
