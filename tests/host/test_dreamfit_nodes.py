"""The garment nodes one after the other, as a graph runs them, and what the shipped graphs wire."""

from __future__ import annotations

from pathlib import Path

import torch
from dreamfit_models import write_unet_file
from host_inprocess import conditioning, sample, tiny_model
from likeness_pack.adapters import registry
from likeness_pack.adapters.families.dreamfit.pictures import TASKS
from likeness_pack.inject.loaded import LoadedAdapter
from likeness_pack.nodes import dreamfit
from workflow_files import api_workflow, workflows


def test_a_garment_from_the_picture_to_the_sampler(tmp_path: Path) -> None:
    model = tiny_model("SD15")
    file = write_unet_file(tmp_path / "a.ckpt", model.model.diffusion_model, base=False)
    picture, prompt, width, height = dreamfit.LikenessPrepareGarment().prepare(
        torch.rand(1, 40, 30, 3), "garment (SD1.5)"
    )
    assert (tuple(picture.shape), prompt, width, height) == ((1, 768, 512, 3), "cloth", 512, 768)
    latent = {"samples": torch.nn.functional.avg_pool2d(picture.movedim(-1, 1), 64)[:, [0, 1, 2, 0]]}
    adapter = LoadedAdapter(registry.load(file))
    encoded = dreamfit.LikenessEncodeGarment().encode(
        adapter, latent, conditioning(seed=5), model, conditioning(seed=6)
    )
    garment, report = encoded["result"]
    assert encoded["ui"]["text"] == [report] and "reference pass" in report and "each step" in report
    (patched,) = dreamfit.LikenessApplyGarment().apply(model, garment, 1.0, 0.0, 1.0)
    assert not torch.allclose(sample(patched), sample(model), atol=1e-3)


def test_there_is_a_graph_for_garment_pose_and_try_on() -> None:
    graphs = [api_workflow(name) for name in workflows() if name.startswith("dreamfit_")]
    nodes = [node for graph in graphs for node in graph.values()]
    tasks = [node["inputs"]["task"] for node in nodes if node["class_type"] == "LikenessPrepareGarment"]
    assert len(tasks) == 3 and set(tasks) < set(TASKS)
