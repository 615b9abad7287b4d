"""The residual network of ArcFace and TopoFR. Module names are those of the published checkpoints.

Follows TopoFR (Dan et al. 2024, arXiv 2410.10587; official copy in modelscope/facechain, face_module/TopoFR,
backbones/iresnet.py, Apache-2.0) and insightface's arcface_torch (MIT), whose module and names are the same. Quirks the
checkpoints depend on: the stride is on a block's second convolution, and nothing follows the sum of a block.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

IMAGE_SIZE = 112
# Four layers halve the side of the picture each.
LAST_SIDE = IMAGE_SIZE // 16


@dataclass(frozen=True)
class IResNetConfig:
    """Sizes of one network.

    Attributes:
        blocks: residual blocks of the four layers.
        widths: channels of the stem and of the four layers.
        embedding: width of the identity embedding.
        classes: rows of class centres (TopoFR keeps them in the backbone); 0 leaves them out.
    """

    blocks: tuple[int, int, int, int]
    widths: tuple[int, int, int, int, int] = (64, 64, 128, 256, 512)
    embedding: int = 512
    classes: int = 0


class IBasicBlock(nn.Module):
    """Residual block: (N, in, H, W) -> (N, out, H / stride, W / stride)."""

    def __init__(self, width_in: int, width: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(width_in)
        self.conv1 = nn.Conv2d(width_in, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.prelu = nn.PReLU(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride=stride, padding=1, bias=False)
        self.bn3 = nn.BatchNorm2d(width)
        self.downsample: nn.Sequential | None = None
        if stride != 1 or width_in != width:
            self.downsample = nn.Sequential(
                nn.Conv2d(width_in, width, 1, stride=stride, bias=False), nn.BatchNorm2d(width)
            )

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        x = self.prelu(self.bn2(self.conv1(self.bn1(x))))
        return self.bn3(self.conv2(x)) + shortcut


class IResNet(nn.Module):
    """Aligned faces (N, 3, 112, 112), RGB in -1..1, to identity embeddings (N, E), not normalised."""

    def __init__(self, config: IResNetConfig) -> None:
        super().__init__()
        self.config = config
        stem, *widths = config.widths
        if config.classes:
            self.weight = nn.Parameter(torch.zeros(config.classes, config.embedding))
        self.conv1 = nn.Conv2d(3, stem, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(stem)
        self.prelu = nn.PReLU(stem)
        self.layer1 = _layer(stem, widths[0], config.blocks[0])
        self.layer2 = _layer(widths[0], widths[1], config.blocks[1])
        self.layer3 = _layer(widths[1], widths[2], config.blocks[2])
        self.layer4 = _layer(widths[2], widths[3], config.blocks[3])
        self.bn2 = nn.BatchNorm2d(widths[3])
        self.fc = nn.Linear(widths[3] * LAST_SIDE**2, config.embedding)
        self.features = nn.BatchNorm1d(config.embedding)

    def stages(self, images: Tensor) -> list[Tensor]:
        """What the four layers give, (N, C, H, W) each, for faces (N, 3, 112, 112)."""
        x = self.prelu(self.bn1(self.conv1(images)))
        found = []
        for layer in (self.layer1, self.layer2, self.layer3, self.layer4):
            x = layer(x)
            found.append(x)
        return found

    def forward(self, images: Tensor) -> Tensor:
        last = self.bn2(self.stages(images)[-1])
        return self.features(self.fc(last.flatten(1)))


def class_cosines(embedding: Tensor, centres: Tensor) -> Tensor:
    """Cosines (N, K) of embeddings (N, E) and class centres (K, E), TopoFR's logits before margin and scale."""
    return functional.normalize(embedding, dim=-1) @ functional.normalize(centres, dim=-1).T


def _layer(width_in: int, width: int, count: int) -> nn.Sequential:
    blocks = [IBasicBlock(width_in, width, 2)]
    blocks += [IBasicBlock(width, width, 1) for _ in range(count - 1)]
    return nn.Sequential(*blocks)
