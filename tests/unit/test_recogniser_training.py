"""Training of face encoders: the recipes' parts, a run that learns, and the file that it leaves."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from likeness_pack.adapters import registry
from likeness_pack.evaluation.verification import best_threshold, equal_error_rate, verify, wilson
from likeness_pack.training.loop import LoopOptions, TrainingFailed, train
from likeness_pack.training.recogniser.entropy_weights import sample_weights, weighted_margin_loss
from likeness_pack.training.recogniser.margins import arcface_logits, constant_margin_logits
from likeness_pack.training.recogniser.networks import save_recogniser, small_recogniser
from likeness_pack.training.recogniser.patch_amplitude import mix_amplitudes, perturb_dominant_patches
from likeness_pack.training.recogniser.people import DrawnPeople
from likeness_pack.training.recogniser.structure_damage import fit_mixture, signed_entropies
from likeness_pack.training.recogniser.structure_perturbation import perturb_structure
from likeness_pack.training.recogniser.task import RecipeOptions, RecogniserTask
from likeness_pack.training.recogniser.topology import death_edges, topological_loss
from torch.nn import functional


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class TestMargins:
    def test_both_forms_have_one_value_but_not_one_gradient(self):
        cosine = torch.tensor([[0.3, 0.1], [-0.2, 0.6]])
        labels = torch.tensor([0, 1])
        grads = []
        for logits in (arcface_logits, constant_margin_logits):
            leaf = cosine.clone().requires_grad_()
            out = logits(leaf, labels)
            assert torch.allclose(out[0, 0] / 64, (cosine[0, 0].arccos() + 0.5).cos(), atol=1e-6)
            assert torch.equal(out.detach()[0, 1], 64 * cosine[0, 1])
            out[0, 0].backward()
            grads.append(float(leaf.grad[0, 0]))
        assert grads[1] == pytest.approx(64.0) and grads[0] != pytest.approx(64.0, rel=0.01)

    def test_the_curve_keeps_falling_beyond_the_half_turn(self):
        cosine = torch.linspace(-0.999, -0.9, 20)[:, None]
        logits = arcface_logits(cosine, torch.zeros(20, dtype=torch.long)).flatten()
        assert bool((logits.diff() > 0).all())


class TestTransFaceParts:
    def test_samples_whose_patches_say_little_weigh_more(self):
        weights = sample_weights(torch.tensor([[0.0, 0.0], [2.0, 2.0]], requires_grad=True))
        assert weights.tolist() == pytest.approx([2.0, 1 + math.exp(-2)]) and not weights.requires_grad

    def test_the_hardest_sample_still_has_a_gradient(self):
        logits = torch.tensor([[-200.0, 200.0]], requires_grad=True)
        loss = weighted_margin_loss(logits, torch.tensor([0]), torch.ones(1))
        loss.backward()
        assert float(loss) == pytest.approx(-math.log(1e-30), rel=1e-4)
        assert logits.grad[0].tolist() == pytest.approx([-1.0, 1.0])

    def test_a_patch_keeps_its_phase_and_takes_the_others_amplitude(self):
        own, other = torch.rand(2, 3, 9, 9, generator=_generator()) * 255
        assert (mix_amplitudes(own, other, 0.0) - own).abs().max() < 1.01
        full = torch.fft.fft2(own)
        expected = torch.fft.ifft2(torch.polar(torch.fft.fft2(other).abs(), full.angle())).real.clamp(0, 255)
        assert (mix_amplitudes(own, other, 1.0) - expected).abs().max() < 1.01

    def test_only_the_dominant_patches_change_and_only_in_chosen_pictures(self):
        images = torch.rand(6, 3, 112, 112, generator=_generator()) * 2 - 1
        weight = torch.zeros(6, 144)
        weight[:, [0, 13, 143]] = torch.tensor([3.0, 2.0, 1.0])
        none = perturb_dominant_patches(images, weight, _generator(1), chance=0.0)
        assert torch.equal(none, images)
        changed = perturb_dominant_patches(images, weight, _generator(1), chance=1.0, dominant=3) != images
        allowed = torch.zeros(112, 112, dtype=torch.bool)
        for place in (0, 13, 143):
            top, left = 9 * (place // 12), 9 * (place % 12)
            allowed[top : top + 9, left : left + 9] = True
        places = changed.any(dim=1)
        assert not bool(places[:, ~allowed].any()) and bool(places[:, allowed].float().mean() > 0.9)


class TestTopoFRParts:
    def test_edges_are_a_minimum_spanning_tree_even_of_equal_pictures(self):
        points = torch.tensor([[0.0], [1.0], [1.0], [5.0]])
        edges = death_edges(torch.cdist(points, points))
        lengths = [float((points[a] - points[b]).abs()) for a, b in edges.tolist()]
        assert lengths == [0.0, 1.0, 4.0]

    def test_the_loss_is_zero_for_embeddings_that_hang_together_as_the_pictures_do(self):
        images = torch.rand(8, 3, 4, 4, generator=_generator()) * 2 - 1
        same = images.flatten(1) / (2 * math.sqrt(48))
        assert float(topological_loss(images, same)) < 1e-10
        assert float(topological_loss(images, 3 * same)) > 1e-3
        assert float(topological_loss(images, 3 * same, "alike")) < 1e-10

    def test_a_scale_of_its_own_does_not_count_where_scales_are_alike(self):
        images = torch.rand(8, 3, 4, 4, generator=_generator()) * 2 - 1
        found = []
        for length in (1.0, 20.0):
            embeddings = (length * torch.randn(8, 5, generator=_generator(1))).requires_grad_()
            loss = topological_loss(images, embeddings, "alike")
            loss.backward()
            found.append((float(loss), length * embeddings.grad))
        assert found[0][0] == pytest.approx(found[1][0], rel=1e-4) and found[0][0] > 1e-5
        assert torch.allclose(found[0][1], found[1][1], rtol=1e-3, atol=1e-7)

    def test_a_mixture_finds_what_stands_out(self):
        values = torch.cat([torch.randn(60, generator=_generator()) * 0.1, torch.tensor([4.0, -4.0, 5.0])])
        clean = fit_mixture(values).clean
        assert float(clean[-3:].max()) < 0.1 < 0.5 < float(clean[:60].median())

    def test_entropies_alternate_in_sign(self):
        signs = signed_entropies(torch.randn(5, 7, generator=_generator())).sign().tolist()
        assert signs == [-1.0, 1.0, -1.0, 1.0, 1.0]

    def test_a_perturbed_picture_stays_a_picture(self):
        images = torch.rand(24, 3, 112, 112, generator=_generator()) * 2 - 1
        changed = perturb_structure(images, _generator(2), chance=1.0)
        kinds = (changed != images).flatten(1).any(dim=1)
        assert bool(kinds.all()) and changed.min() >= -1.001 and changed.max() <= 1.001
        assert torch.equal(perturb_structure(images, _generator(2), chance=0.0), images)
        assert torch.equal(perturb_structure(images, _generator(2), chance=1.0), changed)


class TestVerification:
    def test_perfect_and_blind_embeddings(self):
        generator = _generator()
        first = torch.randn(200, 8, generator=generator)
        same = torch.arange(200) % 2 == 0
        second = torch.where(same[:, None], first, -first)
        found = verify(first, second, same)
        assert found.accuracy == 1.0 and found.equal_error == 0.0 and found.high <= 1.0 and found.low > 0.97
        blind = verify(first, torch.randn(200, 8, generator=generator), same)
        assert blind.low < 0.5 < blind.high

    def test_threshold_and_error_rate(self):
        scores, same = torch.tensor([0.9, 0.8, 0.3, 0.1]), torch.tensor([True, True, False, False])
        assert 0.3 < best_threshold(scores, same) < 0.8 and equal_error_rate(scores, same) == 0.0
        assert wilson(50, 100) == pytest.approx((0.4038, 0.5962), abs=1e-3)


def _task(recipe: str, kind: str, seed: int = 0, people: int = 6) -> RecogniserTask:
    recogniser = small_recogniser(kind, people, seed, embedding=16)
    return RecogniserTask(recogniser, DrawnPeople(people, seed=1), RecipeOptions(recipe, batch=12, seed=seed))


class TestTraining:
    @pytest.mark.parametrize(("recipe", "kind"), [("transface", "transformer"), ("topofr", "resnet")])
    def test_stop_and_resume_end_with_equal_weights(self, recipe, kind, tmp_path):
        options = LoopOptions(4, 1e-3, save_every=1)
        whole, parts = _task(recipe, kind), _task(recipe, kind)
        train(whole, options)
        train(parts, options, tmp_path / "state.safetensors", stop_after=2)
        again = _task(recipe, kind)
        train(again, options, tmp_path / "state.safetensors")
        for name, value in whole.network.state_dict().items():
            assert torch.equal(value, again.network.state_dict()[name]), name

    @pytest.mark.parametrize(("recipe", "kind"), [("transface", "transformer"), ("plain", "resnet")])
    def test_it_learns_and_the_file_is_read_by_the_ordinary_loader(self, recipe, kind, tmp_path):
        task, seen = _task(recipe, kind), []
        train(task, LoopOptions(14, 3e-3, clip=5.0), on_step=lambda step, losses: seen.append(losses["total"]))
        assert sum(seen[-3:]) < 0.95 * sum(seen[:3])
        path = tmp_path / "encoder.safetensors"
        save_recogniser(task.recogniser, path, {"likeness.recipe": recipe})
        encoder = registry.load(Path(path), kind="encoder")
        pictures = DrawnPeople(6, seed=1).pictures(torch.arange(3), _generator(5))
        task.recogniser.eval()
        with torch.no_grad():
            expected = task.recogniser.embeddings(pictures)
            found = encoder.network(pictures)
        found = found if isinstance(found, torch.Tensor) else found.embedding
        assert functional.cosine_similarity(found, expected).min() > 0.999999

    def test_a_loss_that_is_not_a_number_is_one_sentence(self):
        task = _task("plain", "resnet")
        with torch.no_grad():
            task.recogniser.centres.fill_(float("nan"))
        with pytest.raises(TrainingFailed, match="lower the learning rate"):
            train(task, LoopOptions(1, 1e-3))

    def test_wrong_networks_and_too_few_people_are_refused(self):
        with pytest.raises(TrainingFailed, match="a gated transformer"):
            _task("transface", "resnet")
        with pytest.raises(TrainingFailed, match="2 to 1 persons"):
            _task("plain", "resnet", people=1)
