"""The three networks of MTCNN (Zhang, Zhang, Li, Qiao 2016, "Joint Face Detection and Alignment using MTCNN").

Layer sizes follow the networks of the ``mtcnn`` package 1.0 (MIT), whose weights are used; they are those of the
authors' Caffe models. Inputs are RGB, ``(v - 127.5) / 128``.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


def _stage(channels_in: int, channels_out: int, kernel: int) -> list[nn.Module]:
    return [nn.Conv2d(channels_in, channels_out, kernel), nn.PReLU(channels_out)]


class PNet(nn.Module):
    """Proposals: (B, 3, H, W) -> boxes (B, 4, h, w) and face probability (B, h, w), stride 2, cell 12."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *_stage(3, 10, 3), nn.MaxPool2d(2, 2, ceil_mode=True), *_stage(10, 16, 3), *_stage(16, 32, 3)
        )
        self.box = nn.Conv2d(32, 4, 1)
        self.face = nn.Conv2d(32, 2, 1)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        features = self.body(images)
        return self.box(features), self.face(features).softmax(dim=1)[:, 1]


class RNet(nn.Module):
    """Refinement: (N, 3, 24, 24) -> boxes (N, 4) and face probability (N,)."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *_stage(3, 28, 3),
            nn.MaxPool2d(3, 2, ceil_mode=True),
            *_stage(28, 48, 3),
            nn.MaxPool2d(3, 2),
            *_stage(48, 64, 2),
        )
        self.dense = nn.Linear(576, 128)
        self.dense_act = nn.PReLU(128)
        self.box = nn.Linear(128, 4)
        self.face = nn.Linear(128, 2)

    def forward(self, crops: Tensor) -> tuple[Tensor, Tensor]:
        features = self.dense_act(self.dense(_flatten_columns_first(self.body(crops))))
        return self.box(features), self.face(features).softmax(dim=1)[:, 1]


class ONet(nn.Module):
    """Output: (N, 3, 48, 48) -> boxes (N, 4), landmarks (N, 10) as five x then five y, face probability (N,)."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *_stage(3, 32, 3),
            nn.MaxPool2d(3, 2, ceil_mode=True),
            *_stage(32, 64, 3),
            nn.MaxPool2d(3, 2),
            *_stage(64, 64, 3),
            nn.MaxPool2d(2, 2, ceil_mode=True),
            *_stage(64, 128, 2),
        )
        self.dense = nn.Linear(1152, 256)
        self.dense_act = nn.PReLU(256)
        self.box = nn.Linear(256, 4)
        self.points = nn.Linear(256, 10)
        self.face = nn.Linear(256, 2)

    def forward(self, crops: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        features = self.dense_act(self.dense(_flatten_columns_first(self.body(crops))))
        return self.box(features), self.points(features), self.face(features).softmax(dim=1)[:, 1]


class Mtcnn(nn.Module):
    """The cascade's weights in one module, so that one owner can move them."""

    def __init__(self) -> None:
        super().__init__()
        self.pnet = PNet()
        self.rnet = RNet()
        self.onet = ONet()


def _flatten_columns_first(features: Tensor) -> Tensor:
    """(N, C, H, W) -> (N, W*H*C): the Caffe originals were trained on transposed pictures."""
    return torch.flatten(features.permute(0, 3, 2, 1), start_dim=1)
