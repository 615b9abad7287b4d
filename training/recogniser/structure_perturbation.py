"""Random structure perturbation (RSP): a picture may be blurred, greyed, recoloured or partly erased.

Dan et al., "TopoFR", NeurIPS 2024; the operations and ranges are those of torchvision and of timm's random erasing.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..seeds import uniform

CHANCE = 0.2
_ERASE_TRIES = 10


def perturb_structure(images: Tensor, generator: torch.Generator, chance: float = CHANCE) -> Tensor:
    """Perturb some pictures of a batch, each by one of four operations.

    Args:
        images: (B, 3, H, W) in -1..1.
        generator: every choice is drawn from it.
        chance: probability that a picture is perturbed.

    Returns:
        (B, 3, H, W) in -1..1; the clean batch stays as it is.
    """
    changed = images.clone()
    operations = (_blur, _grey, _recolour, _erase)
    chosen = torch.rand(len(images), generator=generator) < chance
    for row in chosen.nonzero().flatten().tolist():
        operation = operations[int(torch.randint(len(operations), (), generator=generator))]
        changed[row] = operation(images[row], generator)
    return changed


def _blur(image: Tensor, generator: torch.Generator) -> Tensor:
    from torchvision.transforms.v2 import functional as operations

    blurred: Tensor = operations.gaussian_blur((image + 1) / 2, [5, 9], [uniform(generator, 0.1, 5.0)] * 2)
    return blurred * 2 - 1


def _grey(image: Tensor, generator: torch.Generator) -> Tensor:
    from torchvision.transforms.v2 import functional as operations

    grey: Tensor = operations.rgb_to_grayscale((image + 1) / 2, num_output_channels=3)
    return grey * 2 - 1


def _recolour(image: Tensor, generator: torch.Generator) -> Tensor:
    from torchvision.transforms.v2 import functional as operations

    steps = (
        (operations.adjust_brightness, uniform(generator, 0.1, 0.5)),
        (operations.adjust_contrast, uniform(generator, 0.3, 0.6)),
        (operations.adjust_saturation, uniform(generator, 0.2, 0.5)),
        (operations.adjust_hue, uniform(generator, -0.1, 0.3)),
    )
    changed = (image + 1) / 2
    for number in torch.randperm(len(steps), generator=generator).tolist():
        operation, amount = steps[number]
        changed = operation(changed, amount)
    return changed * 2 - 1


def _erase(image: Tensor, generator: torch.Generator) -> Tensor:
    height, width = image.shape[-2:]
    erased = image.clone()
    for _ in range(_ERASE_TRIES):
        area = uniform(generator, 0.02, 1 / 3) * height * width
        aspect = math.exp(uniform(generator, math.log(0.3), math.log(1 / 0.3)))
        high, wide = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < high < height and 0 < wide < width:
            top = int(torch.randint(height - high + 1, (), generator=generator))
            left = int(torch.randint(width - wide + 1, (), generator=generator))
            erased[:, top : top + high, left : left + wide] = 0
            break
    return erased
