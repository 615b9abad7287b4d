"""FLR: ResNet-50 over faces, learnt without labels (SwAV). Module names are those of the published checkpoints.

Bulat, Cheng, Yang, Garbett, Sanchez, Tzimiropoulos 2022, "Pre-training strategies and datasets for facial
representation learning" (ECCV); official repository 1adrianb/unsupervised-face-representation (MIT). The body is ResNet
v1.5: the stride is on the 3x3 convolution; with v1 the same file loads and gives other numbers.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional

IMAGE_SIZE = 224
# The first deviation is the authors' .228, not the usual .229.
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.228, 0.224, 0.225)


@dataclass(frozen=True)
class ReprConfig:
    """Sizes of one network.

    Attributes:
        stem: channels after the first convolution; the body ends with 32 times as many.
        blocks: bottlenecks of the four layers.
        hidden: width inside the projection; 0 leaves projection and prototypes out.
        projection: width of the projection.
        prototypes: number of prototypes.
    """

    stem: int = 64
    blocks: tuple[int, int, int, int] = (3, 4, 6, 3)
    hidden: int = 0
    projection: int = 128
    prototypes: int = 3000


class Bottleneck(nn.Module):
    """(B, in, H, W) -> (B, 4 * width, H / stride, W / stride)."""

    def __init__(self, width_in: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width_in, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, 4 * width, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * width)
        self.downsample: nn.Sequential | None = None
        if stride != 1 or width_in != 4 * width:
            self.downsample = nn.Sequential(
                nn.Conv2d(width_in, 4 * width, 1, stride, bias=False), nn.BatchNorm2d(4 * width)
            )

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        x = functional.relu(self.bn1(self.conv1(x)))
        x = functional.relu(self.bn2(self.conv2(x)))
        return functional.relu(self.bn3(self.conv3(x)) + shortcut)


class Body(nn.Module):
    """Normalised faces (B, 3, H, W) to features (B, 32 * stem)."""

    def __init__(self, config: ReprConfig) -> None:
        super().__init__()
        stem, first, second, third, fourth = config.stem, *config.blocks
        self.conv1 = nn.Conv2d(3, stem, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(stem)
        self.layer1 = _layer(stem, stem, first, 1)
        self.layer2 = _layer(4 * stem, 2 * stem, second, 2)
        self.layer3 = _layer(8 * stem, 4 * stem, third, 2)
        self.layer4 = _layer(16 * stem, 8 * stem, fourth, 2)

    def stages(self, images: Tensor) -> list[Tensor]:
        """What the four layers give, at 1/4, 1/8, 1/16 and 1/32 of the size."""
        x = functional.max_pool2d(functional.relu(self.bn1(self.conv1(images))), 3, 2, 1)
        found = []
        for layer in (self.layer1, self.layer2, self.layer3, self.layer4):
            x = layer(x)
            found.append(x)
        return found

    def forward(self, images: Tensor) -> Tensor:
        return self.stages(images)[-1].mean((2, 3))


class Projection(nn.Module):
    """Features (B, D) to the space of the prototypes, length 1: (B, P)."""

    def __init__(self, width: int, hidden: int, out: int) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(width, hidden), nn.BatchNorm1d(hidden), nn.ReLU(), nn.Linear(hidden, out))

    def forward(self, features: Tensor) -> Tensor:
        return functional.normalize(self.net(features), dim=-1)


class FaceRepresentation(nn.Module):
    """Normalised faces (B, 3, H, W) to features (B, 32 * stem): a description of the face, not an identity.

    Projection and prototypes served the training; they exist only where the configuration asks for them.
    """

    def __init__(self, config: ReprConfig) -> None:
        super().__init__()
        self.config = config
        self.base_net = Body(config)
        if config.hidden:
            self.projection_net = Projection(32 * config.stem, config.hidden, config.projection)
            self.prototypes = nn.Linear(config.projection, config.prototypes, bias=False)

    def forward(self, images: Tensor) -> Tensor:
        return self.base_net(images)


def _layer(width_in: int, width: int, count: int, stride: int) -> nn.Sequential:
    blocks = [Bottleneck(width_in, width, stride)]
    blocks += [Bottleneck(4 * width, width, 1) for _ in range(count - 1)]
    return nn.Sequential(*blocks)
