"""Parts of the demo that need no ComfyUI: photos, files of the user, stand-ins, and what it says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from likeness_pack.tools import demo
from likeness_pack.tools.standins.command import write_standin
from PIL import Image
from sparse_files import write_sparse_safetensors


def test_photos_are_written_where_they_are_asked_for(tmp_path: Path) -> None:
    demo.write_photos(tmp_path / "my photos 面")
    names = sorted(path.name for path in (tmp_path / "my photos 面").iterdir())
    assert names == ["astronaut.png", "astronaut_copy.png", "t1.jpg"]
    first, second = (np.asarray(Image.open(tmp_path / "my photos 面" / name), float) for name in names[:2])
    assert first.shape == second.shape
    mirrored = second[:, ::-1]
    # The copy is darker and blurred, yet the same picture from the other side.
    assert 0.6 < mirrored.mean() / first.mean() < 0.8
    assert np.corrcoef(mirrored.ravel(), first.ravel())[0, 1] > 0.95


@pytest.mark.parametrize("name", ["identity_check", "fact_portrait"])
def test_titles_are_unique_so_that_inputs_can_be_set_by_title(name: str) -> None:
    workflow = demo.load_workflow(name)
    for node in workflow.values():
        demo.set_input(workflow, node["_meta"]["title"], mark=1)
    assert all(node["inputs"]["mark"] == 1 for node in workflow.values())


def test_a_title_that_is_not_there_is_told() -> None:
    with pytest.raises(SystemExit, match="0 nodes are titled 'Nobody'"):
        demo.set_input(demo.load_workflow("identity_check"), "Nobody", value=1)


def test_the_nodes_that_the_demo_sets_are_in_the_workflow() -> None:
    titles = {node["_meta"]["title"]: node for node in demo.load_workflow("fact_portrait").values()}
    assert {demo.BASE_MODEL, demo.ENCODER, demo.ADAPTER, "Size", "Sampler"} <= set(titles)


def test_users_files_are_known_by_content(tmp_path: Path) -> None:
    adapters = tmp_path / "face_adapters"
    path = write_standin("fact-v1", adapters, (32,))
    assert demo.usable_files(tmp_path) == {}
    mine = path.rename(adapters / "my own file.ckpt")
    assert demo.usable_files(tmp_path) == {demo.ADAPTER: mine}
    (tmp_path / "checkpoints").mkdir()
    for name, context, latent in (("standin-sd15", 768, 4), ("a sd2", 1024, 4), ("b inpainting", 768, 9)):
        checkpoint(tmp_path, name, context, latent)
    (tmp_path / "checkpoints" / "c cut.safetensors").touch()
    assert demo.BASE_MODEL not in demo.usable_files(tmp_path)
    model = checkpoint(tmp_path, "my model", 768, 4)
    assert demo.usable_files(tmp_path)[demo.BASE_MODEL] == model


def checkpoint(models: Path, name: str, context: int, latent: int) -> Path:
    """A base model of true shapes in the places that tell which one it is."""
    unet = "model.diffusion_model.input_blocks."
    shapes = {
        f"{unet}0.0.weight": (320, latent, 3, 3),
        f"{unet}1.1.transformer_blocks.0.attn2.to_k.weight": (320, context),
        "first_stage_model.decoder.conv_in.weight": (512, 4, 3, 3),
    }
    return write_sparse_safetensors(models / "checkpoints" / f"{name}.safetensors", shapes)


def test_files_that_are_none_are_passed_over(tmp_path: Path) -> None:
    (tmp_path / "face_adapters" / "a folder").mkdir(parents=True)
    (tmp_path / "face_adapters" / "notes.txt").write_text("not a model", encoding="utf-8")
    (tmp_path / "face_adapters" / "empty.safetensors").touch()
    assert demo.usable_files(tmp_path) == {}


def test_noise_is_told_with_the_files_that_help() -> None:
    sentence = demo.noise_sentence()
    assert "noise" in sentence
    assert "ms1mv2_model_TransFace_S.pt" in sentence and "models/face_encoders" in sentence
    assert "\n" not in sentence


def test_texts_of_a_node_that_showed_none_are_empty() -> None:
    assert demo.texts({"5": {"text": ["a", "b"]}}, "5") == "a\nb"
    assert demo.texts({"5": None}, "5") == demo.texts({}, "5") == ""
