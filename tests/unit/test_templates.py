"""The table of templates and the rule of sizes."""

from __future__ import annotations

import pytest
import torch
from likeness_pack.faces.landmarks import check_landmarks5
from likeness_pack.faces.templates import TEMPLATES, UnknownTemplate, template_names, template_points

ARCFACE_112 = torch.tensor(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]],
    dtype=torch.float64,
)


@pytest.mark.parametrize("size", [112, 224, 336, 896])
def test_multiples_of_112_enlarge_the_square(size: int) -> None:
    torch.testing.assert_close(template_points("arcface", size), ARCFACE_112 * (size / 112))


@pytest.mark.parametrize("size", [128, 256, 512])
def test_multiples_of_128_shift_x_only(size: int) -> None:
    factor = size / 128
    difference = template_points("arcface", size) - ARCFACE_112 * factor
    torch.testing.assert_close(difference[:, 0], torch.full((5,), 8 * factor).double())
    torch.testing.assert_close(difference[:, 1], torch.zeros(5).double())


def test_896_follows_the_112_rule_although_128_divides_it() -> None:
    torch.testing.assert_close(template_points("arcface", 896), ARCFACE_112 * 8)


@pytest.mark.parametrize("size", [0, -112, 100, 160])
def test_other_arcface_sizes_are_refused_with_the_rule(size: int) -> None:
    with pytest.raises(UnknownTemplate, match="multiple of 112 or of 128"):
        template_points("arcface", size)


def test_unknown_name_lists_the_table() -> None:
    with pytest.raises(UnknownTemplate, match="ffhq_512"):
        template_points("nobody", 112)


def test_same_faces_under_two_names_agree() -> None:
    torch.testing.assert_close(
        template_points("arcface_112_v2", 112), template_points("arcface", 112), atol=1e-4, rtol=0
    )
    torch.testing.assert_close(template_points("arcface_128", 128), template_points("arcface", 128), atol=1e-4, rtol=0)
    torch.testing.assert_close(
        template_points("face_restore_512", 512), template_points("ffhq_512", 512), atol=1e-3, rtol=0
    )
    torch.testing.assert_close(template_points("fact_112", 112), template_points("arcface", 112))


@pytest.mark.parametrize("name", sorted(TEMPLATES))
def test_every_template_is_a_face_inside_its_crop_with_a_source(name: str) -> None:
    points = template_points(name, 256)
    check_landmarks5(points, name)
    assert bool(((points > 0) & (points < 256)).all())
    assert "/" in TEMPLATES[name].source
    assert name in template_names()
