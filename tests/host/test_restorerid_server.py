"""The group photo workflow through a running server's queue, on stand-ins of the published layout."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from likeness_pack.adapters.identity_ops import save_identity
from likeness_pack.tools import demo
from likeness_pack.tools.standins.command import write_standin
from PIL import Image
from restorer_cases import reference_identity
from server_fixtures import Server, text_of, titled

PEOPLE = ("0", "3")
# What the workflow makes with weights that a stand-in cannot replace: who the people are, and their references.
DROPPED = (
    "Photo of person 1",
    "Photo of person 2",
    "Face of person 1",
    "Face of person 2",
    "Image encoder (CLIP ViT-H)",
)


@pytest.fixture(scope="module")
def files(server: Server) -> Iterator[dict[str, str]]:
    """Stand-ins and references where the server looks for them; taken away again."""
    models = server.base / "models"
    written = {
        "RestorerID with its SD1.5": write_standin("restorerid-full", models / "face_adapters", (320,) * 4),
        "Quality (MUSIQ)": write_standin("musiq", models / "face_encoders"),
    }
    folder = server.base / "input" / "identities"
    folder.mkdir(parents=True, exist_ok=True)
    for number in (1, 2):
        written[f"Reference: person {number}"] = folder / f"reference_{number}.safetensors"
        save_identity(reference_identity(seed=number), folder / f"reference_{number}.safetensors")
    yield {title: path.name for title, path in written.items()}
    for path in written.values():
        path.unlink()


def group(files: dict[str, str], people: tuple[str, ...] = PEOPLE, **changes: Any) -> dict[str, Any]:
    """The workflow with stand-ins; the people are taken from the photo itself and told apart by dlib."""
    prompt = demo.load_workflow("restore_group_photo")
    numbers = {entry["_meta"]["title"]: number for number, entry in prompt.items()}
    demo.set_input(prompt, "RestorerID with its SD1.5", file=files["RestorerID with its SD1.5"])
    demo.set_input(prompt, "Quality (MUSIQ)", encoder=files["Quality (MUSIQ)"])
    demo.set_input(prompt, "Encoder (ArcFace, buffalo_l)", encoder="dlib_resnet")
    demo.set_input(prompt, "Damaged faces", size=64)
    demo.set_input(prompt, "Official sampling", steps=3)
    demo.set_input(prompt, "Apply RestorerID", **changes)
    match, found = prompt[numbers["Who is who"]]["inputs"], prompt[numbers["Who is who"]]["inputs"]["faces"][0]
    for place, index in enumerate(people, start=1):
        reference = numbers[f"Reference: person {place}"]
        prompt[reference] |= {
            "class_type": "LikenessLoadIdentity",
            "inputs": {"file": f"[input] {files[f'Reference: person {place}']}"},
        }
        choice = {"images": [found, 1], "faces": [found, 0], "order": "left-right", "index": index}
        prompt[f"9{place}"] = {"class_type": "LikenessSelectFaces", "inputs": choice}
        encode = {"images": [found, 1], "faces": [f"9{place}", 0], "encoder": match["encoder"]}
        encode |= {"which": "best", "on_missing_face": "error"}
        prompt[f"8{place}"] = {"class_type": "LikenessEncodeIdentity", "inputs": encode}
        match |= {f"person_{place}": [f"8{place}", 0], f"reference_{place}": [reference, 0]}
    for title in DROPPED:
        del prompt[numbers[title]]
    plain = {"images": [numbers["Damaged group photo"], 0], "filename_prefix": "likeness/group_as_it_was"}
    prompt["99"] = {"class_type": "SaveImage", "inputs": plain, "_meta": {"title": "As it was"}}
    return prompt


def saved(server: Server, outputs: dict[str, Any], node: str) -> np.ndarray:
    """The picture that a node saved, (H, W, 3)."""
    entry = outputs[node]["images"][0]
    path: Path = server.base / "output" / entry["subfolder"] / entry["filename"]
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB")).copy()


def test_two_people_are_restored_in_one_graph(server: Server, files: dict[str, str]) -> None:
    prompt = group(files)
    outputs = server.run(prompt)
    report = text_of(outputs, titled_of(prompt, "Who is who"))
    assert report.startswith("2 of 6 faces matched, 4 left alone")
    told = text_of(outputs, titled_of(prompt, "Apply RestorerID"))
    assert told.startswith("face 0: quality ")
    before = saved(server, outputs, "99")
    after = saved(server, outputs, titled_of(prompt, "Restored photo"))
    changed = torch.from_numpy((before != after).any(-1))
    assert 0.01 < float(changed.float().mean()) < 0.2
    columns = changed.any(0).nonzero().flatten()
    runs = 1 + int((columns.diff() > 1).sum())
    assert runs == 2
    again = server.run(group(files, id_multiplier=0.0, structure_strength=0.0, fir_strength=0.0))
    other = saved(server, again, titled_of(prompt, "Restored photo"))
    assert (other != after).any()
    # Where the rim is thin, eight bits may hide a change; a few pixels around count as the same place.
    near = torch.nn.functional.max_pool2d(changed[None].float(), 31, 1, 15)[0] > 0
    assert not (other != before).any(-1)[~near.numpy()].any()


def titled_of(prompt: dict[str, Any], title: str) -> str:
    named = {number: entry for number, entry in prompt.items() if "_meta" in entry}
    return titled(named, title)
