"""Reference pictures of DreamFit: sizes, order, stretching as PIL does it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from likeness_pack.adapters.families.dreamfit.pictures import TASKS, fitted, reference_picture, stretched
from likeness_pack.faces.errors import BadImage
from PIL import Image


def picture(height: int, width: int, seed: int = 0) -> torch.Tensor:
    """Smooth noise in 8-bit steps, (1, H, W, 3)."""
    small = torch.rand(1, 3, 5, 6, generator=torch.Generator().manual_seed(seed))
    large = torch.nn.functional.interpolate(small, size=(height, width), mode="bilinear").movedim(1, -1)
    return (large * 255).round() / 255


def test_every_task_has_its_size() -> None:
    shapes = {
        name: tuple(reference_picture(task, picture(90, 70), picture(50, 60)).shape[1:3])
        for name, task in TASKS.items()
    }
    assert shapes == {
        "garment (SD1.5)": (768, 512),
        "garment (Flux)": (1024, 768),
        "pose (Flux)": (768, 1024),
        "try-on (Flux)": (768, 1024),
    }
    assert [task.output for task in TASKS.values()] == [(512, 768)] + [(768, 1024)] * 3


def test_the_garment_stands_right_of_a_pose_and_left_of_a_keep_picture() -> None:
    white, black = torch.ones(1, 30, 20, 3), torch.zeros(1, 30, 20, 3)
    pose = reference_picture(TASKS["pose (Flux)"], white, black)
    tryon = reference_picture(TASKS["try-on (Flux)"], white, black)
    assert pose[..., :512, :].max() == 0 and pose[..., 512:, :].min() == 1
    assert tryon[..., :512, :].min() == 1 and tryon[..., 512:, :].max() == 0


@pytest.mark.parametrize("size", [(512, 768), (33, 47), (200, 20)])
def test_stretching_is_that_of_pil(size: tuple[int, int]) -> None:
    """PIL rounds between its two passes too, hence one level of difference."""
    image = picture(120, 100)
    official = Image.fromarray((image[0] * 255).round().byte().numpy()).resize(size, Image.Resampling.BICUBIC)
    got = (stretched(image, size)[0] * 255).numpy()
    assert np.abs(got - np.asarray(official, dtype=np.float32)).max() <= 1.01


def test_a_pose_map_keeps_its_proportions_on_black() -> None:
    image = fitted(torch.ones(1, 100, 200, 3), (512, 768))
    assert tuple(image.shape) == (1, 768, 512, 3)
    rows = image[0, :, 256, 0]
    assert rows.sum() == 256 and rows[256:512].min() == 1


def test_the_flux_garment_follows_the_output_size() -> None:
    assert tuple(reference_picture(TASKS["garment (Flux)"], picture(9, 9), None, (640, 480)).shape[1:3]) == (480, 640)


def test_what_is_missing_or_too_much_is_named() -> None:
    with pytest.raises(BadImage, match="connect the pose map"):
        reference_picture(TASKS["pose (Flux)"], picture(9, 9), None)
    with pytest.raises(BadImage, match="several garments are pasted into one"):
        reference_picture(TASKS["garment (SD1.5)"], picture(9, 9).repeat(2, 1, 1, 1), None)


def test_the_prompts_are_the_authors() -> None:
    assert [task.prompt for task in TASKS.values()] == [
        "cloth",
        "cloth",
        "Two reference image. [IMAGE1] pose. [IMAGE2] cloth.",
        "Two reference image. [IMAGE1] keep image and pose. [IMAGE2] cloth.",
    ]
