"""DamoFD's network: searched backbone, path aggregation pyramid, SCRFD head with points. Module names are the file's.

Follows the official repository (ly19965/DamoFD, Apache-2.0; head after insightface's SCRFD, MIT). Paper: Liu et al.
2023, "DamoFD: Digging into Backbone Design on Face Detection" (ICLR). Quirks the files depend on: epsilon 1e-3 in the
backbone, biases in its shortcuts, cell centres at a cell's corner, points that are not scaled by the level.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

STRIDES = (8, 16, 32)
ANCHORS = 2
BACKBONE_EPS = 1e-3
NORM_GROUPS = 16
_REDUCTION = 2


@dataclass(frozen=True)
class Block:
    """One inverted residual block: channels in and out, width inside, side of the depthwise kernel, shortcut."""

    width_in: int
    width: int
    width_out: int
    kernel: int
    shortcut: bool


@dataclass(frozen=True)
class Shape:
    """What a file's shapes tell.

    Attributes:
        stem: channels after the first convolution.
        stages: the blocks of each stage; a stage halves the picture once, in its first block.
        pyramid: channels of the pyramid.
        head: channels of the head's tower.
        tower: number of steps in the tower.
    """

    stem: int
    stages: tuple[tuple[Block, ...], ...]
    pyramid: int
    head: int
    tower: int


class _Wrapped(nn.Module):
    """One layer under the name ``netblock``, as the search's own layer classes keep it."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.netblock = layer

    def forward(self, x: Tensor) -> Tensor:
        return self.netblock(x)


class _Chain(nn.Module):
    """Layers one after another under the name ``module_list``."""

    def __init__(self, layers: Sequence[nn.Module]) -> None:
        super().__init__()
        self.module_list = nn.ModuleList(layers)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.module_list:
            x = layer(x)
        return x


class _InvertedBlock(nn.Module):
    """1x1, depthwise k x k, 1x1, each with a norm; a projected or plain shortcut; no ReLU after the sum."""

    def __init__(self, block: Block, stride: int) -> None:
        super().__init__()
        inside, out = block.width, block.width_out
        depthwise = nn.Conv2d(inside, inside, block.kernel, stride, block.kernel // 2, groups=inside, bias=False)
        self.module_list = nn.ModuleList(
            [
                *_conv_norm(nn.Conv2d(block.width_in, inside, 1, bias=False)),
                nn.ReLU(),
                *_conv_norm(depthwise),
                nn.ReLU(),
                *_conv_norm(nn.Conv2d(inside, out, 1, bias=False)),
            ]
        )
        self.proj: nn.Sequential | None = None
        if block.shortcut:
            self.proj = nn.Sequential(nn.Conv2d(block.width_in, out, 1, stride), nn.BatchNorm2d(out, eps=BACKBONE_EPS))

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.proj is None else self.proj(x)
        for layer in self.module_list:
            x = layer(x)
        return x + shortcut


class _Backbone(nn.Module):
    """(B, 3, H, W) -> what each of the first four halvings after the stem gives, at strides 4, 8, 16, 32."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        stem = _conv_norm(nn.Conv2d(3, shape.stem, 3, _REDUCTION, 1, bias=False))
        stages = [_Chain([*stem, nn.ReLU()])]
        for blocks in shape.stages:
            layers: list[nn.Module] = []
            for number, block in enumerate(blocks):
                layers += [_InvertedBlock(block, 1 if number else _REDUCTION), nn.ReLU()]
            stages.append(_Chain(layers))
        self.module_list = nn.ModuleList(stages)

    def forward(self, x: Tensor) -> list[Tensor]:
        levels = []
        for stage in self.module_list:
            x = stage(x)
            levels.append(x)
        return levels[1:]


class _Conv(nn.Module):
    """A convolution with bias under the name ``conv``."""

    def __init__(self, width_in: int, width: int, kernel: int, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width_in, width, kernel, stride, kernel // 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


class _Pyramid(nn.Module):
    """Path aggregation: coarse to fine by nearest enlargement, then fine to coarse; three levels of one width."""

    def __init__(self, widths: Sequence[int], width: int) -> None:
        super().__init__()
        self.lateral_convs = nn.ModuleList(_Conv(one, width, 1) for one in widths)
        self.fpn_convs = nn.ModuleList(_Conv(width, width, 3) for _ in widths)
        self.downsample_convs = nn.ModuleList(_Conv(width, width, 3, _REDUCTION) for _ in widths[1:])
        self.pafpn_convs = nn.ModuleList(_Conv(width, width, 3) for _ in widths[1:])

    def forward(self, levels: Sequence[Tensor]) -> list[Tensor]:
        lateral = [conv(level) for conv, level in zip(self.lateral_convs, levels, strict=True)]
        for finer in reversed(range(len(lateral) - 1)):
            enlarged = functional.interpolate(lateral[finer + 1], size=lateral[finer].shape[2:], mode="nearest")
            lateral[finer] = lateral[finer] + enlarged
        out = [conv(level) for conv, level in zip(self.fpn_convs, lateral, strict=True)]
        for finer, conv in enumerate(self.downsample_convs):
            out[finer + 1] = out[finer + 1] + conv(out[finer])
        return [out[0], *(conv(level) for conv, level in zip(self.pafpn_convs, out[1:], strict=True))]


class _GroupNormConv(nn.Module):
    """Convolution without bias, group norm, ReLU."""

    def __init__(self, width_in: int, width: int, kernel: int, groups: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width_in, width, kernel, 1, kernel // 2, groups=groups, bias=False)
        self.gn = nn.GroupNorm(NORM_GROUPS, width)

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(self.gn(self.conv(x)))


class _TowerStep(nn.Module):
    """Depthwise 3x3, then 1x1."""

    def __init__(self, width_in: int, width: int) -> None:
        super().__init__()
        self.depthwise_conv = _GroupNormConv(width_in, width_in, 3, width_in)
        self.pointwise_conv = _GroupNormConv(width_in, width, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.pointwise_conv(self.depthwise_conv(x))


class _Scale(nn.Module):
    """One number by which a level's distances are multiplied."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(1.0))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale


class _Integral(nn.Module):
    """A buffer of the file that this configuration never reads."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("project", torch.linspace(0, 8, 9))


class _Head(nn.Module):
    """One tower and three predictions, shared by all levels; ``0`` in the names is that one set."""

    def __init__(self, width_in: int, width: int, steps: int) -> None:
        super().__init__()
        tower = [_TowerStep(width if step else width_in, width) for step in range(steps)]
        self.cls_stride_convs = nn.ModuleDict({"0": nn.Sequential(*tower)})
        self.stride_cls = nn.ModuleDict({"0": nn.Conv2d(width, ANCHORS, 3, 1, 1)})
        self.stride_reg = nn.ModuleDict({"0": nn.Conv2d(width, 4 * ANCHORS, 3, 1, 1)})
        self.stride_kps = nn.ModuleDict({"0": nn.Conv2d(width, 10 * ANCHORS, 3, 1, 1)})
        self.scales = nn.ModuleList(_Scale() for _ in STRIDES)
        self.integral = _Integral()

    def forward(self, levels: Sequence[Tensor]) -> list[tuple[Tensor, Tensor, Tensor]]:
        found = []
        for x, scale in zip(levels, self.scales, strict=True):
            x = self.cls_stride_convs["0"](x)
            found.append((self.stride_cls["0"](x), scale(self.stride_reg["0"](x)), self.stride_kps["0"](x)))
        return found


class DamoFD(nn.Module):
    """(B, 3, H, W) RGB, (v - 127.5) / 128, sides that 32 divides -> for strides 8, 16, 32: logits (B, 2, h, w),
    distances (B, 8, h, w) and points (B, 20, h, w) in strides.
    """

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.backbone = _Backbone(shape)
        widths = [blocks[-1].width_out for blocks in shape.stages]
        self.neck = _Pyramid(widths[1:], shape.pyramid)
        self.bbox_head = _Head(shape.pyramid, shape.head, shape.tower)

    def forward(self, images: Tensor) -> list[tuple[Tensor, Tensor, Tensor]]:
        return self.bbox_head(self.neck(self.backbone(images)[1:]))


def decode(
    levels: Sequence[tuple[Tensor, Tensor, Tensor]], limit: tuple[float, float]
) -> tuple[Tensor, Tensor, Tensor]:
    """Boxes (B, P, 4), points (B, P, 5, 2) and scores (B, P) in pixels of the network's input.

    P runs through the levels, then rows, columns and the two anchors of a cell.

    Args:
        levels: what the network gives.
        limit: (width, height) of the picture inside the input, to which boxes are cut; points are not.
    """
    parts = []
    for (scores, reach, points), stride in zip(levels, STRIDES, strict=True):
        count, _, height, width = scores.shape
        centre = _centres(height, width, stride, scores.device)
        reach = reach.permute(0, 2, 3, 1).reshape(count, -1, 4) * stride
        points = points.permute(0, 2, 3, 1).reshape(count, -1, 5, 2) * stride
        boxes = torch.cat([centre - reach[..., :2], centre + reach[..., 2:]], dim=-1)
        parts.append((boxes, centre[:, None] + points, scores.permute(0, 2, 3, 1).reshape(count, -1).sigmoid()))
    boxes, points, scores = (torch.cat(column, dim=1) for column in zip(*parts, strict=True))
    most = torch.tensor([limit[0], limit[1]] * 2, device=boxes.device)
    return torch.minimum(boxes.clamp(min=0), most), points, scores


def _centres(height: int, width: int, stride: int, device: torch.device) -> Tensor:
    """(P, 2) x and y of every anchor of a level."""
    rows, columns = torch.arange(height, device=device) * stride, torch.arange(width, device=device) * stride
    grid = torch.stack(torch.meshgrid(rows, columns, indexing="ij")[::-1], dim=-1).reshape(-1, 2)
    return grid.repeat_interleave(ANCHORS, dim=0).float()


def _conv_norm(conv: nn.Conv2d) -> list[nn.Module]:
    return [_Wrapped(conv), _Wrapped(nn.BatchNorm2d(conv.out_channels, eps=BACKBONE_EPS))]
