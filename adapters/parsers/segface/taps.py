"""What the backbones share: layers in a row of which some results are kept, and the convolution with its norm."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from torch import Tensor, nn

Activation = Callable[[], nn.Module]


class Taps(nn.Sequential):
    """Layers one after another; the results of those at ``taps`` are what counts.

    Args:
        layers: the layers, under their numbers as names.
        taps: numbers of the layers whose results are kept, in order.
    """

    def __init__(self, layers: Iterable[nn.Module], taps: Sequence[int]) -> None:
        super().__init__(*layers)
        self.taps = tuple(taps)

    def forward(self, input: Tensor) -> list[Tensor]:  # noqa: A002 (the name torch gives it)
        """(B, 3, H, W) -> the kept results, finest first."""
        kept = []
        for number, layer in enumerate(self):
            input = layer(input)  # noqa: A001 (the name torch gives it)
            if number in self.taps:
                kept.append(input)
        return kept


def conv_norm(
    width_in: int,
    width: int,
    kernel: int,
    stride: int = 1,
    groups: int = 1,
    *,
    eps: float,
    activation: Activation | None = None,
) -> nn.Sequential:
    """Convolution without bias (``0``), batch norm (``1``) and, where given, an activation."""
    conv = nn.Conv2d(width_in, width, kernel, stride, (kernel - 1) // 2, groups=groups, bias=False)
    layers: list[nn.Module] = [conv, nn.BatchNorm2d(width, eps=eps)]
    return nn.Sequential(*layers, *([] if activation is None else [activation()]))


class SqueezeExcitation(nn.Module):
    """Channels weighed by their means: (B, C, H, W) -> (B, C, H, W).

    Args:
        width: C.
        inside: width between the two layers.
        activation: between them.
        gate: after them, giving 0..1.
    """

    def __init__(self, width: int, inside: int, activation: Activation, gate: Activation) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(width, inside, 1)
        self.fc2 = nn.Conv2d(inside, width, 1)
        self.activation, self.gate = activation(), gate()

    def forward(self, x: Tensor) -> Tensor:
        """Weigh."""
        means = x.mean((2, 3), keepdim=True)
        return x * self.gate(self.fc2(self.activation(self.fc1(means))))


class Residual(nn.Module):
    """Layers under the name ``block`` with a shortcut where ``shortcut`` says so."""

    def __init__(self, layers: Iterable[nn.Module], shortcut: bool) -> None:
        super().__init__()
        self.block = nn.Sequential(*layers)
        self.shortcut = shortcut

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C', H', W')."""
        return x + self.block(x) if self.shortcut else self.block(x)
