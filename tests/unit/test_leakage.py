"""How much a latent changes outside the masks: written-out numbers, shapes, refusals."""

from __future__ import annotations

import pytest
import torch
from likeness_pack.evaluation.leakage import latent_leakage
from likeness_pack.faces.errors import BadImage, BadMask


def half(height: int, width: int) -> torch.Tensor:
    """Ones in the left half."""
    mask = torch.zeros(height, width)
    mask[:, : width // 2] = 1
    return mask


def test_numbers_are_the_root_mean_squares() -> None:
    plain, patched = torch.zeros(2, 4, 8, 8), torch.zeros(2, 4, 8, 8)
    patched[..., :4], patched[..., 4:] = 2.0, 0.5
    patched[0, 0, 0, 7] = -3.0
    told = latent_leakage(plain, patched, [half(64, 64)])
    outside = ((255 * 0.25 + 9) / 256) ** 0.5
    assert (told.inside, told.peak, told.area) == (2.0, 3.0, 0.5)
    assert told.outside == pytest.approx(outside) and told.ratio == pytest.approx(outside / 2)
    assert "50% of the picture" in told.as_text()


def test_the_union_of_soft_masks_is_inside() -> None:
    """A faint value counts, and so does a cell that a mask only touches."""
    first, second = torch.zeros(32, 32), torch.zeros(32, 32)
    first[0, 0], second[31, 31] = 0.01, 1.0
    change = torch.ones(1, 4, 8, 8)
    change[..., 0, 0] = change[..., 7, 7] = 4.0
    told = latent_leakage(torch.zeros(1, 4, 8, 8), change, [first, second])
    assert (told.inside, told.outside, told.area) == (4.0, 1.0, 1 - 2 / 64)


def test_no_change_is_no_leak_and_a_mere_leak_is_endless() -> None:
    zeros = torch.zeros(1, 4, 8, 8)
    assert latent_leakage(zeros, zeros, [half(8, 8)]).ratio == 0.0
    right = zeros.clone()
    right[..., 5:] = 1
    assert latent_leakage(zeros, right, [half(8, 8)]).ratio == float("inf")


def test_masks_of_each_picture_and_of_each_frame() -> None:
    masks = torch.stack([half(8, 8), 1 - half(8, 8), torch.zeros(8, 8)])
    change = masks[:, None].expand(3, 4, 8, 8).contiguous()
    assert latent_leakage(torch.zeros(3, 4, 8, 8), change, [masks]).outside == 0.0
    clip = change.transpose(0, 1)[None]
    told = latent_leakage(torch.zeros_like(clip), clip, [masks])
    assert (told.inside, told.outside, told.area) == (1.0, 0.0, pytest.approx(2 / 3))


@pytest.mark.parametrize(
    ("masks", "told"),
    [
        ([], "found none"),
        ([torch.zeros(8, 8)], "cover nothing"),
        ([torch.ones(8, 8)], "cover all"),
        ([torch.ones(3, 8, 8)], "one mask or 2, found 3"),
    ],
)
def test_masks_that_say_nothing_are_refused(masks: list[torch.Tensor], told: str) -> None:
    with pytest.raises(BadMask, match=told):
        latent_leakage(torch.zeros(2, 4, 8, 8), torch.zeros(2, 4, 8, 8), masks)


def test_latents_of_two_shapes_are_refused() -> None:
    with pytest.raises(BadImage, match="one shape"):
        latent_leakage(torch.zeros(1, 4, 8, 8), torch.zeros(1, 4, 8, 4), [half(8, 8)])
