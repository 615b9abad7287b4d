"""Reference pictures as DreamFit's inference scripts make them, and the fixed prompts that belong to them.

Follows the inference scripts and configurations of bytedance/DreamFit. Sizes are (width, height). The aspect ratio of a
garment is not kept, on purpose: the weights were trained so.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import interpolate, pad

from ....faces.errors import BadImage


@dataclass(frozen=True)
class Task:
    """What a published file was trained for.

    Attributes:
        prompt: the fixed text for the reference pass.
        panel: size of one picture in the reference, or None for the size of the output.
        output: size of the output picture.
        beside: what stands beside the garment, or None.
        garment_first: whether the garment stands on the left.
    """

    prompt: str
    panel: tuple[int, int] | None
    output: tuple[int, int]
    beside: str | None = None
    garment_first: bool = True


TASKS: dict[str, Task] = {
    "garment (SD1.5)": Task("cloth", (512, 768), (512, 768)),
    "garment (Flux)": Task("cloth", None, (768, 1024)),
    "pose (Flux)": Task(
        "Two reference image. [IMAGE1] pose. [IMAGE2] cloth.", (512, 768), (768, 1024), "pose map", garment_first=False
    ),
    # The text counts the pictures the other way round than they stand; the weights were trained so.
    "try-on (Flux)": Task(
        "Two reference image. [IMAGE1] keep image and pose. [IMAGE2] cloth.", (512, 768), (768, 1024), "keep picture"
    ),
}


def reference_picture(
    task: Task, garment: Tensor, beside: Tensor | None, output: tuple[int, int] | None = None
) -> Tensor:
    """Compose the picture for the reference pass.

    Args:
        task: of `TASKS`.
        garment: (1, H, W, 3), 0..1.
        beside: pose map, fitted with its proportions kept, or keep picture (the person with the garment's place
            blanked), stretched; (1, H, W, 3), 0..1.
        output: size of the output picture, where it is not the task's own; the reference of "garment (Flux)" has it.

    Returns:
        (1, H', W', 3), 0..1, in steps of 1/255 as the scripts' 8-bit pictures are.

    Raises:
        BadImage: no picture, several, or none beside the garment where the task needs one.
    """
    size = task.panel or output or task.output
    parts = [stretched(_single(garment, "garment"), size)]
    if task.beside is not None:
        if beside is None:
            raise BadImage(task.beside, expected="a picture", found="none", cure=f"connect the {task.beside}")
        fit = fitted if task.beside == "pose map" else stretched
        parts.append(fit(_single(beside, task.beside), size))
    return torch.cat(parts if task.garment_first else parts[::-1], dim=2)


def stretched(image: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize (1, H, W, 3) to a (width, height) as PIL does it (bicubic, antialiased), in steps of 1/255."""
    width, height = size
    if tuple(image.shape[1:3]) == (height, width):
        return _levels(image)
    moved = interpolate(image.movedim(-1, 1), size=(height, width), mode="bicubic", antialias=True)
    return _levels(moved.movedim(1, -1))


def fitted(image: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize (1, H, W, 3) into a (width, height) with its proportions kept, centred on black."""
    width, height = size
    scale = min(width / image.shape[2], height / image.shape[1])
    inner = (max(1, round(image.shape[2] * scale)), max(1, round(image.shape[1] * scale)))
    left, top = (width - inner[0]) // 2, (height - inner[1]) // 2
    return pad(stretched(image, inner), (0, 0, left, width - inner[0] - left, top, height - inner[1] - top))


def _levels(image: Tensor) -> Tensor:
    return (image.clamp(0, 1) * 255).round() / 255


def _single(image: Tensor, what: str) -> Tensor:
    shape = tuple(image.shape) if isinstance(image, Tensor) else ()
    if len(shape) != 4 or shape[0] != 1 or shape[-1] < 3 or 0 in shape:
        raise BadImage(
            what,
            expected="one colour picture (1, H, W, 3)",
            found=f"the shape {shape}",
            cure="choose one picture; several garments are pasted into one picture first",
        )
    return image[..., :3].float()
