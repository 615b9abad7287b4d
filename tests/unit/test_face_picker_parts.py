"""What the face picker is told: numbers in the chosen order, boxes as fractions inside the picture, small pictures."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from likeness_pack.faces.select import choose_in_batch
from likeness_pack.faces.types import FaceBatch, Faces
from likeness_pack.inject import face_picker, shown_pictures
from likeness_pack.inject.face_picker import LONGEST_SIDE, PICTURES, face_choices
from PIL import Image

HEIGHT, WIDTH = 40, 80
# The largest in the middle; the last one reaches over the edge of the picture.
BOXES = torch.tensor([[30.0, 5.0, 60.0, 35.0], [4.0, 10.0, 14.0, 20.0], [70.0, 30.0, 90.0, 44.0]])


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A host that has a temporary folder."""

    def place(prefix: str, root: str, width: int, height: int) -> tuple[str, str, int, str, str]:
        taken = len(list(Path(root).iterdir()))
        return root, prefix, taken + 1, "", prefix

    host = SimpleNamespace(get_temp_directory=lambda: str(tmp_path), get_save_image_path=place)
    monkeypatch.setattr(shown_pictures, "folder_paths", lambda: host)
    return tmp_path


def batch(*boxes: torch.Tensor) -> FaceBatch:
    images = [Faces(box, torch.zeros(len(box), 5, 2), torch.linspace(0.9, 0.5, len(box))) for box in boxes]
    return FaceBatch(tuple(images), (HEIGHT, WIDTH), "mtcnn")


def choices(faces: FaceBatch, order: str, index: str, size: tuple[int, int] = (HEIGHT, WIDTH)) -> list[dict[str, Any]]:
    chosen = choose_in_batch(faces, order, index, keep_empty=True)
    return face_choices(torch.rand(len(faces), *size, 3), faces, chosen, order, False)


@pytest.mark.parametrize(
    ("order", "index", "lefts", "kept"),
    [
        ("left-right", "0,2", [0.05, 0.375, 0.875], [True, False, True]),
        ("largest", "0", [0.375, 0.875, 0.05], [True, False, False]),
        ("left-right", "", [0.05, 0.375, 0.875], [True, True, True]),
    ],
)
def test_faces_come_in_their_order_with_those_that_were_kept(
    order: str, index: str, lefts: list[float], kept: list[bool]
) -> None:
    (entry,) = choices(batch(BOXES), order, index)
    assert [face["box"][0] for face in entry["faces"]] == pytest.approx(lefts)
    assert [face["chosen"] for face in entry["faces"]] == kept
    assert (entry["order"], entry["by_reference"], entry["size"]) == (order, False, [WIDTH, HEIGHT])


def test_boxes_are_fractions_inside_the_picture() -> None:
    (entry,) = choices(batch(BOXES), "left-right", "0")
    assert entry["faces"][1]["box"] == pytest.approx([0.375, 0.125, 0.75, 0.875])
    assert entry["faces"][2]["box"] == pytest.approx([0.875, 0.75, 1.0, 1.0])
    assert [face["score"] for face in entry["faces"]] == pytest.approx([0.7, 0.9, 0.5])


def test_only_the_first_pictures_are_shown_and_one_without_faces_too(temporary: Path) -> None:
    boxes = [BOXES[: number % 2] for number in range(PICTURES + 2)]
    entries = choices(batch(*boxes), "left-right", "")
    assert [len(entry["faces"]) for entry in entries] == [0, 1] * (PICTURES // 2)
    names = [entry["picture"]["filename"] for entry in entries]
    assert sorted(names) == sorted(path.name for path in temporary.iterdir())
    assert {entry["picture"]["type"] for entry in entries} == {"temp"}


def test_pictures_are_small_and_look_as_they_were(temporary: Path) -> None:
    rgb = torch.zeros(1, 30, 2 * LONGEST_SIDE, 3)
    rgb[..., 0], rgb[:, :, LONGEST_SIDE:, 1] = 1.2, 0.5
    faces = batch(BOXES)
    (entry,) = face_choices(rgb, faces, faces, "left-right", True)
    assert entry["by_reference"] and entry["picture"]["filename"].startswith(face_picker.NAME)
    with Image.open(temporary / entry["picture"]["filename"]) as picture:
        assert picture.format == "JPEG" and picture.size == (LONGEST_SIDE, 15)
        pixels = np.asarray(picture.convert("RGB"), dtype=int)
    assert np.abs(pixels[7, 100] - [255, 0, 0]).max() < 12
    assert np.abs(pixels[7, -100] - [255, 128, 0]).max() < 12
