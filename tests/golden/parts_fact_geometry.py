"""Parity of the aligned crop and the head mask of FaceChain-FACT."""

from __future__ import annotations

import numpy as np
import torch
from harness import Golden, part
from likeness_pack.faces.align import align_matrix, crop_faces
from likeness_pack.faces.masks import head_mask
from torch import Tensor


def photo(height: int, width: int, phase: float) -> Tensor:
    """The file's RGB picture (H, W, 3) of levels 0..255."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    planes = [127.5 + 60 * np.sin(x / 17 + c + phase) + 60 * np.cos(y / 13 + 2 * c - phase) for c in range(3)]
    return torch.from_numpy(np.floor(np.stack(planes, -1))).float()


@part("fact_align")
def align(golden: Golden) -> None:
    """Matrix to 2e-5; levels to 0.05 on average and 4 at most, for OpenCV rounds positions to 1/32 pixel."""
    size = int(golden.metadata["hyper_parameters"]["size"])
    for case, recipe in golden.metadata["inputs"]["cases"].items():
        points = golden.tensors[f"{case}_points"][None]
        golden.check(f"{case}_M", align_matrix(points, "fact_112", size)[0], 2e-5)
        image = photo(recipe["h"], recipe["w"], recipe["phase"])[None] / 255
        crop = crop_faces(image, torch.zeros(1, dtype=torch.long), points, "fact_112", size)[0]
        error = ((crop.movedim(0, -1) * 255).round() - golden.tensors[f"{case}_aligned"]).abs()
        assert error.max() <= 4, f"{case}: {error.max()} levels"
        assert error.mean() <= 0.05, f"{case}: {error.mean()} levels on average"


@part("fact_headmask")
def headmask(golden: Golden) -> None:
    """The head mask of the stored candidates, and the photo masked by it."""
    recipe = golden.metadata["inputs"]
    candidates = torch.stack([golden.tensors[f"in_mask_{number}"] for number in range(len(recipe["labels"]))])
    threshold = float(golden.metadata["hyper_parameters"]["score_threshold"])
    mask = head_mask(candidates, recipe["labels"], recipe["scores"], threshold)
    golden.check("mask_head", mask)
    phase = float(recipe["photo"].rsplit("phase", 1)[1])
    golden.check("masked", (photo(mask.shape[0], mask.shape[1], phase) * mask[..., None]).floor())
