"""The table of restorers: measures against their definitions, faces that are lost, refusals, the node."""

from __future__ import annotations

import csv
import io
import math

import numpy as np
import pytest
import torch
from likeness_pack.adapters.errors import IdentityMismatch
from likeness_pack.adapters.identity import Identity
from likeness_pack.evaluation.compare import Candidate, compare, comparison_csv, comparison_text, psnr, ssim
from likeness_pack.faces.errors import BadImage
from likeness_pack.nodes.compare import LikenessCompareRestorers
from likeness_pack.training.degradations import Strengths, degrade
from sample_faces import face_crops
from skimage.metrics import peak_signal_noise_ratio, structural_similarity


@pytest.fixture(scope="module")
def faces():
    return face_crops(64)


@pytest.fixture(scope="module")
def bad(faces):
    return degrade(faces.movedim(-1, 1), range(7)).movedim(1, -1)


def identity(*rows, encoder="dlib_resnet"):
    return Identity(encoder, {"embedding": torch.tensor(rows, dtype=torch.float32)})


def grey(images):
    return (images * torch.tensor([0.299, 0.587, 0.114])).sum(-1)


def test_measures_are_those_of_the_field(faces, bad):
    row = compare(faces, None, [Candidate("bad", bad)])[0]
    pairs = list(zip(faces.numpy(), bad.numpy(), strict=True))
    expected = np.mean([peak_signal_noise_ratio(a, b, data_range=1) for a, b in pairs])
    assert row.psnr == pytest.approx(expected, abs=1e-3)
    similar = [
        structural_similarity(a, b, data_range=1, gaussian_weights=True, sigma=1.5, use_sample_covariance=False)
        for a, b in zip(grey(faces).numpy(), grey(bad).numpy(), strict=True)
    ]
    assert row.ssim == pytest.approx(np.mean(similar), abs=1e-4)


def test_equal_pictures_are_equal(faces):
    row = compare(faces, None, [Candidate("same", faces.clone())])[0]
    assert row.psnr == math.inf and row.ssim == pytest.approx(1)
    assert "equal" in comparison_text([row])


def test_a_worse_picture_ranks_lower(faces):
    nchw = faces.movedim(-1, 1)
    results = [
        degrade(nchw, [3] * 7, Strengths(jpeg=j, blur=0, resize=0, noise=0)).movedim(1, -1) for j in (0.3, 1, 1.4)
    ]
    rows = compare(faces, None, [Candidate(str(number), images) for number, images in enumerate(results)])
    assert [r.psnr for r in rows] == sorted((r.psnr for r in rows), reverse=True)
    assert [r.ssim for r in rows] == sorted((r.ssim for r in rows), reverse=True)


@pytest.mark.parametrize("size", [(3, 9), (1, 1), (11, 11), (4, 40)])
def test_pictures_smaller_than_the_window(size):
    one = 0.4 * torch.rand(2, 1, *size, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(ssim(one, one), torch.ones(2)) and (ssim(one, 1 - one) < 0.99).all()
    assert torch.isinf(psnr(one, one)).all()


def test_people_are_counted_row_by_row():
    original = identity([1.0, 0], [0, 1.0], [1.0, 1.0], [0, 0])
    found = identity([1.0, 0.3], [0, 2.0], [0, 0], [1.0, 0])
    row = compare(torch.zeros(4, 8, 8, 3), original, [Candidate("r", identity=found, score=61.234)])[0]
    # Distances 0.3 and 1.0; the third face is lost, the fourth picture never had one.
    assert (row.same, row.faces, row.lost) == (1, 2, 1)
    assert row.similarity == pytest.approx(0.65) and row.psnr is None
    text = comparison_text([row], "dlib_resnet")
    assert "less is better, one person below 0.6" in text and "1 of 2 (1 faces lost)" in text and "61.23" in text


def test_cosine_encoders_say_that_more_is_better():
    one = identity([1.0, 0], encoder="arcface_buffalo_l")
    row = compare(torch.zeros(1, 8, 8, 3), one, [Candidate("r", identity=one)])[0]
    assert (row.similarity, row.same) == (pytest.approx(1), 1)
    assert "more is better, one person from 0.4" in comparison_text([row], "arcface_buffalo_l")


def test_all_faces_lost_gives_no_similarity():
    row = compare(torch.zeros(1, 8, 8, 3), identity([1.0, 0]), [Candidate("r", identity=identity([0.0, 0]))])[0]
    assert (row.similarity, row.faces, row.lost) == (None, 0, 1)
    assert "- (1 faces lost)" in comparison_text([row])


def test_another_size_is_fitted_and_told(faces):
    large = torch.nn.functional.interpolate(faces.movedim(-1, 1), (128, 128), mode="bicubic").movedim(1, -1)
    row = compare(faces, None, [Candidate("upscaler", large)])[0]
    assert row.psnr > 30 and row.note == "resized from 128x128 to 64x64"
    assert comparison_text([row]).endswith("upscaler: resized from 128x128 to 64x64")


def test_refusals(faces):
    with pytest.raises(BadImage, match="two: expected 7 pictures, as the original has, found 2"):
        compare(faces, None, [Candidate("two", faces[:2])])
    with pytest.raises(BadImage, match='expected 2 faces.*found 1.*"keep"'):
        compare(faces, identity([1.0, 0], [1.0, 0]), [Candidate("r", identity=identity([1.0, 0]))])
    with pytest.raises(IdentityMismatch, match="of one encoder"):
        compare(faces, identity([1.0, 0]), [Candidate("r", identity=identity([1.0, 0], encoder="arcface_vit"))])


def test_the_csv_can_be_read(faces, bad):
    rows = compare(faces, None, [Candidate('a "bad", one', bad, score=3.5), Candidate("no pictures", score=1.0)])
    read = list(csv.DictReader(io.StringIO(comparison_csv(rows))))
    assert [row["restorer"] for row in read] == ['a "bad", one', "no pictures"]
    assert float(read[0]["psnr"]) == pytest.approx(rows[0].psnr, rel=1e-4) and read[1]["psnr"] == ""
    assert [float(row["quality"]) for row in read] == [3.5, 1.0]


def test_the_node_takes_what_is_connected(faces, bad):
    node = LikenessCompareRestorers()
    result = node.compare(faces, name_1="degraded", images_1=bad, score_1=-1.0, name_3="三", score_3=44.0, score_4=-1.0)
    report, table = result["result"]
    lines = report.splitlines()
    assert result["ui"]["text"] == [report] and [line.split()[0] for line in lines[2:]] == ["degraded", "三"]
    assert len(table.splitlines()) == 3
    with pytest.raises(BadImage, match="none connected"):
        node.compare(faces, score_1=-1.0)
    optional = LikenessCompareRestorers.INPUT_TYPES()["optional"]
    assert len(optional) == 17 and all(spec[1]["tooltip"].endswith(".") for spec in optional.values())
