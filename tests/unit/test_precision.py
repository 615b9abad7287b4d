"""Identities as Gaussians, and how far a face can be trusted."""

from __future__ import annotations

import pytest
import torch
from likeness_pack.adapters.errors import IdentityMismatch
from likeness_pack.adapters.identity import Identity
from likeness_pack.adapters.identity_ops import combine
from likeness_pack.adapters.precision import fuse, mutual_likelihood, qualities_from_text, variances_of
from likeness_pack.faces.errors import BadImage
from likeness_pack.faces.filters import gaussian_blur
from likeness_pack.faces.quality import face_qualities, quality_table
from likeness_pack.faces.templates import template_points
from likeness_pack.faces.types import FaceBatch, Faces
from likeness_pack.nodes.identity import LikenessCombineIdentities
from likeness_pack.nodes.quality import LikenessFaceQuality
from sample_faces import face_crops
from torch.nn import functional


def _rows(*rows: list[float]) -> Identity:
    return Identity("e", {"embedding": torch.tensor(rows)})


class TestPrecision:
    def test_a_sure_gaussian_pulls_more_and_the_fusion_is_surer_than_both(self):
        means, variances = torch.eye(2), torch.tensor([[1.0], [4.0]])
        mean, variance = fuse(means, variances)
        assert torch.allclose(mean, torch.tensor([0.8, 0.2])) and float(variance) == pytest.approx(0.8)

    def test_equal_doubt_makes_the_likelihood_an_affine_function_of_the_cosine(self):
        generator = torch.Generator().manual_seed(3)
        first, second = torch.randn(2, 20, 8, generator=generator)
        doubt = torch.full((20, 8), 0.3)
        score, cosine = mutual_likelihood(first, second, doubt, doubt), functional.cosine_similarity(first, second)
        slope = (score[1] - score[0]) / (cosine[1] - cosine[0])
        assert slope > 0 and torch.allclose(score - score[0], slope * (cosine - cosine[0]), atol=1e-5)

    def test_doubt_on_either_side_lowers_a_match(self):
        one = torch.ones(1, 4)
        sure, unsure = torch.full((1, 4), 0.2), torch.full((1, 4), 2.0)
        best = mutual_likelihood(one, one, sure, sure)
        assert mutual_likelihood(one, one, unsure, sure) < best > mutual_likelihood(one, one, sure, unsure)


class TestCombineByPrecision:
    def test_it_is_the_fusion_of_unit_embeddings_at_their_mean_length(self):
        joined = combine([_rows([3.0, 0.0]), _rows([0.0, 1.0])], "precision", [1.0, 0.25])
        expected, _ = fuse(torch.eye(2), variances_of(torch.tensor([[1.0], [0.25]])))
        found = joined.features["embedding"][0]
        assert torch.allclose(functional.normalize(found, dim=0), functional.normalize(expected, dim=0))
        assert float(found.norm()) == pytest.approx(0.8 * 3 + 0.2 * 1)

    def test_one_quality_for_each_face_of_one_identity(self):
        joined = combine([_rows([1.0, 0.0], [0.0, 1.0], [0.0, 0.0])], "precision", [0.9, 0.3, 1.0])
        found = joined.features["embedding"][0]
        assert float(found[0] / found[1]) == pytest.approx(3.0)

    def test_a_quality_of_nothing_still_counts_a_little(self):
        found = combine([_rows([1.0, 0.0], [0.0, 1.0])], "precision", [1.0, 0.0]).features["embedding"][0]
        assert float(found[0] / found[1]) == pytest.approx(1 / 0.05)

    @pytest.mark.parametrize("given", [[1.0, 1.0], [1.0, float("nan"), 1.0], None])
    def test_a_wrong_number_of_qualities_is_one_sentence(self, given):
        with pytest.raises(IdentityMismatch, match="numbers of 0 or more"):
            combine([_rows([1.0, 0.0], [0.0, 1.0], [1.0, 1.0])], "precision", given)

    def test_the_node_reads_qualities_from_text(self):
        identity = _rows([1.0, 0.0], [0.0, 1.0])
        combined, _ = LikenessCombineIdentities().combine(identity, "precision", qualities="0.8, 0.2")
        found = combined.features["embedding"][0]
        assert float(found[0] / found[1]) == pytest.approx(4.0)
        assert qualities_from_text("０.8，0.2、1") == [0.8, 0.2, 1.0]
        with pytest.raises(IdentityMismatch, match="one number for each face"):
            qualities_from_text("good, bad")


class TestFaceQuality:
    @staticmethod
    def _faces(count: int, shift: float = 0.0) -> FaceBatch:
        points = template_points("arcface_112_v2", 256).float()[None].clone()
        points[:, 2, 0] += shift
        box = torch.tensor([[40.0, 40.0, 220.0, 220.0]])
        return FaceBatch((Faces(box, points, torch.tensor([0.99])),) * count, (256, 256), "user")

    def test_blur_and_a_turned_head_cost_quality(self):
        sharp = face_crops(256)[:1]
        soft = gaussian_blur(sharp.movedim(-1, 1).flatten(0, 1), 15).view(1, 3, 256, 256).movedim(1, -1)
        straight, blurred = face_qualities(torch.cat([sharp, soft]), self._faces(2))
        assert blurred.sharpness < 0.7 * straight.sharpness and blurred.total < straight.total
        (turned,) = face_qualities(sharp, self._faces(1, 15.0))
        assert turned.frontality < straight.frontality - 0.1

    def test_the_node_gives_one_number_for_each_face(self):
        pictures = face_crops(256)[:2]
        node = LikenessFaceQuality().rate(pictures, self._faces(2))
        qualities, report = node["result"]
        assert len(qualities_from_text(qualities)) == 2 and report.count("sharpness") == 2
        assert quality_table([]) == "no face"

    def test_other_pictures_than_those_of_the_faces_are_refused(self):
        with pytest.raises(BadImage, match="in which the faces were found"):
            LikenessFaceQuality().rate(face_crops(128)[:1], self._faces(1))
