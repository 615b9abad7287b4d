"""The command that makes the demo weights, rehearsed from start to end: little is learned, every file comes out."""

from __future__ import annotations

import importlib
import sys

import pytest
import torch
from likeness_pack.adapters import registry
from likeness_pack.adapters.checkpoint import load_strictly, load_tensors, read_header
from likeness_pack.training.demo.evaluate import Cases, Measure
from likeness_pack.training.demo.recipe import ADAPTERS, SIZE, Workshop, adapter_options, shared_budget
from likeness_pack.training.demo.recognition import Judge
from likeness_pack.training.demo.requests import prompt_network
from likeness_pack.training.drawn_faces import draw
from likeness_pack.training.fact.errors import BadOptions
from pack import ROOT

sys.path.append(str(ROOT / "tools"))
command = importlib.import_module("likeness_pack.tools.train_demo_weights")


@pytest.fixture(scope="module")
def rehearsed(module_folders):
    pytest.importorskip("diffusers")
    folder = module_folders.mktemp("rehearsal")
    assert command.main(["--share", "0.001", "--work", str(folder)]) == 0
    return folder


def test_every_file_of_the_demo_weights_comes_out_in_its_layout(rehearsed):
    """Names, shapes, types and notes are those of the shipped files, which the host loads; only numbers differ."""
    shipped = sorted((ROOT / "demo_weights").glob("*.safetensors"))
    made = sorted((rehearsed / "demo_weights").glob("*.safetensors"))
    assert [path.name for path in made] == [path.name for path in shipped] and len(made) == 5
    for mine, theirs in zip(map(read_header, made), map(read_header, shipped), strict=True):
        assert mine.tensors == theirs.tensors, mine.path.name
        assert mine.metadata.keys() >= theirs.metadata.keys(), mine.path.name
        assert all(torch.isfinite(one).all() for one in load_tensors(mine).values()), mine.path.name


def test_the_ordinary_loaders_read_them(rehearsed):
    weights = rehearsed / "demo_weights"
    adapter = registry.load(weights / "drawn_fact.safetensors", kind="adapter")
    assert adapter.report.family == "fact" and len(adapter.layers) == 16
    assert registry.load(weights / "drawn_encoder.safetensors", kind="encoder").id == "transface_128x4"
    load_strictly(Judge(), load_tensors(read_header(weights / "drawn_judge.safetensors")), what="judge")
    header = read_header(weights / "drawn_base.safetensors")
    sizes = int(header.metadata["context"]), int(header.metadata["tokens"])
    prompt_network({name: one.float() for name, one in load_tensors(header, "prompt.").items()}, *sizes)


def test_every_stage_left_its_state_and_goes_on_from_it(rehearsed):
    workshop = Workshop(rehearsed, share=0.001)
    assert all(workshop.state(stage).is_file() for stage in ADAPTERS)
    # A finished stage has nothing left to do; the same folder is no rehearsal of another length.
    assert workshop.run("encoder") == shared_budget("encoder", 0.001).steps == 1
    assert command.main(["--share", "0.01", "--work", str(rehearsed), "--stage", "encoder"]) == 1


class Latents:
    """An autoencoder that keeps what it is to decode."""

    def __init__(self):
        self.seen = []

    def decode(self, latents):
        self.seen.append(latents)
        return torch.zeros(len(latents), SIZE, SIZE, 3)


def test_the_most_that_fair_could_do_leaves_latents_outside_the_face_alone(rehearsed):
    workshop, spy = Workshop(rehearsed, share=0.001), Latents()
    base, cases = workshop.base(), Cases.of(workshop.encoder(), 2, SIZE, 5)
    measure = Measure(workshop.judge(), spy, base, cases)
    fact = workshop.fact("fact", base)
    for name, gate in fact.network.named_parameters():
        if name.endswith(("alpha_attn", "alpha_dense")):
            gate.fill_(1.0)
    measure.images(fact)
    measure.images(fact, only_face=True)
    fact.attached.close()
    plain, whole, kept = spy.seen
    masks = draw(cases.identities, cases.asked, SIZE).head_mask
    face = torch.nn.functional.max_pool2d(masks[:, None], 8).expand_as(plain) > 0
    assert 0.2 < float(face.float().mean()) < 0.8 and not torch.allclose(whole, plain, atol=1e-3)
    assert torch.equal(kept[~face], plain[~face]) and torch.allclose(kept[face], whole[face], atol=1e-5)


def test_a_rehearsal_keeps_to_itself():
    real = command.folders(None, None, rehearsal=False)
    rehearsal = command.folders(None, None, rehearsal=True)
    assert real[1] == ROOT / "demo_weights" and not {*real} & {*rehearsal}
    assert adapter_options("fact", 0.1).steps == 65 and adapter_options("fact").steps == 650


@pytest.mark.parametrize("share", ["0", "1.5", "-1"])
def test_a_share_of_nothing_is_refused_in_one_sentence(share, capsys, tmp_path):
    assert command.main(["--share", share, "--work", str(tmp_path)]) == 1
    assert "above 0 and at most 1" in capsys.readouterr().err
    with pytest.raises(BadOptions):
        Workshop(tmp_path, share=float(share))
