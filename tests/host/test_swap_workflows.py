"""The swapping workflows from end to end through the node classes: real photos, real detection, stand-in networks."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from graph_runner import Outputs, StandIn, run_graph
from host_inprocess import engine
from likeness_pack.inject import model_folders
from likeness_pack.inject.host import folder_paths
from module_folders import ModuleFolders
from swap_standins import write_onnx_recogniser, write_onnx_swapper
from torch import Tensor
from workflow_files import api_workflow

EMAP = torch.randn(512, 512, generator=torch.Generator().manual_seed(9))


@pytest.fixture(scope="module")
def files(module_folders: ModuleFolders) -> Iterator[None]:
    """A swapper and a recognition network where the workflows look for them."""
    for package in ("onnx", "onnxruntime", "insightface", "skimage"):
        pytest.importorskip(package)
    engine()
    model_folders.register_model_folders()
    folder = module_folders.mktemp("models")
    (folder / "swappers").mkdir()
    write_onnx_swapper(folder / "swappers" / "inswapper_128.onnx", emap=EMAP)
    write_onnx_recogniser(folder / "insightface" / "models" / "buffalo_l" / "w600k_r50.onnx")
    table = folder_paths().folder_names_and_paths
    added = {"face_swappers": str(folder / "swappers"), "insightface": str(folder / "insightface")}
    for name, place in added.items():
        table[name][0].append(place)
    yield
    for name, place in added.items():
        table[name][0].remove(place)


def photo(name: str) -> Tensor:
    """The photos that the workflows name, from the packages that bring them."""
    from skimage import data, io

    if name.startswith("astronaut"):
        return torch.from_numpy(data.astronaut()).float()[None] / 255
    import insightface

    path = Path(insightface.__file__).parent / "data" / "images" / name
    return torch.from_numpy(io.imread(str(path))[..., :3].copy()).float()[None] / 255


def run(name: str) -> dict[str, Outputs]:
    """Outputs of every node, by title; pictures that are saved under the title of the saving node."""
    stand_ins: dict[str, StandIn] = {
        "LoadImage": lambda given: (photo(given["image"]),),
        "SaveImage": lambda given: (given["images"],),
    }
    return run_graph(api_workflow(name), stand_ins)


def test_a_face_of_a_photo_is_swapped_and_nothing_else(files: None) -> None:
    found = run("swap_photo")
    before, after, mask = found["Photo to change"][0], found["Swapped photo"][0], found["Swap faces"][3]
    assert after.shape == before.shape and sum(found["Swap faces"][1].counts) == 1
    assert torch.equal(after[mask == 0], before[mask == 0])
    # The stand-in only changes the colour, most of which the colour transfer takes back.
    assert float((after != before)[mask > 0.9].float().mean()) > 0.95
    assert "inswapper 128" in found["Swapper"][1] and "1 faces swapped in 1 of 1 pictures" in found["Swap faces"][4]


def test_two_of_a_group_become_somebody_each(files: None) -> None:
    found = run("swap_group_photo")
    before, after = found["Group photo"][0], found["Swapped group"][0]
    mask = found["Paste with this mask"][1]
    swapped, everyone = found["Swap faces"][1], found["Faces of the group"][0]
    assert swapped.counts == (2,) and sum(everyone.counts) > 2
    changed = (after != before).any(-1)[0]
    assert torch.equal(after[mask == 0], before[mask == 0])
    centres = [tuple(int(one) for one in points[2]) for points in swapped.images[0].landmarks5]
    assert all(bool(changed[y, x]) for x, y in centres) and len(centres) == 2
    others = [
        points[2] for points in everyone.images[0].landmarks5 if tuple(int(one) for one in points[2]) not in centres
    ]
    assert len(others) == sum(everyone.counts) - 2
    assert not any(bool(changed[int(y), int(x)]) for x, y in others)
