"""Stand-ins of the published widths end to end: a whole SD1.5 file of 2 GB, FACT and FaceID at full size."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from identities import arcface_identity
from likeness_pack.adapters.identity_ops import save_identity
from likeness_pack.tools import demo
from likeness_pack.tools.standins.command import write_standin
from server_fixtures import Server, text_of, titled, without_node

PERSON = "full_width_00001.safetensors"


@dataclass(frozen=True)
class Files:
    """Stand-ins of full width in the server's model folders."""

    base: Path
    fact: Path
    faceid: Path


@pytest.fixture(scope="module")
def files(server: Server) -> Iterator[Files]:
    models = server.base / "models"
    adapters = models / "face_adapters"
    written = Files(
        write_standin("sd15-full", models / "checkpoints"),
        write_standin("fact-v1", adapters),
        write_standin("faceid-sd15", adapters),
    )
    folder = server.base / "input" / "identities"
    folder.mkdir(exist_ok=True)
    save_identity(arcface_identity(), folder / PERSON)
    # What another module left loaded must not stand beside two gigabytes more.
    server.free()
    yield written
    server.free()
    for path in (written.base, written.fact, written.faceid):
        path.unlink()


def fact_prompt(server: Server, files: Files) -> dict[str, Any]:
    prompt = server.portrait(strength=0.5)
    demo.set_input(prompt, demo.BASE_MODEL, ckpt_name=files.base.name)
    demo.set_input(prompt, demo.ADAPTER, file=files.fact.name)
    demo.set_input(prompt, "Sampler", steps=1)
    return prompt


def faceid_prompt(server: Server, files: Files) -> dict[str, Any]:
    prompt = fact_prompt(server, files)
    demo.set_input(prompt, demo.ADAPTER, file=files.faceid.name)
    identity = titled(prompt, "Identity")
    for title in ("Photo of the person", "Detector", "Face", "Encoder (TransFace-S)"):
        del prompt[titled(prompt, title)]
    title = prompt[identity]["_meta"]
    inputs = {"file": f"[input] {PERSON}"}
    prompt[identity] = {"class_type": "LikenessLoadIdentity", "inputs": inputs, "_meta": title}
    demo.set_input(prompt, "Apply identity", strength=1.0)
    return prompt


@pytest.fixture(scope="module")
def plain(server: Server, files: Files) -> np.ndarray:
    prompt = fact_prompt(server, files)
    return server.pixels(server.run(without_node(prompt, titled(prompt, "Apply identity"), {0: "model"})))


def test_fact_on_a_full_sd15(server: Server, files: Files, plain: np.ndarray) -> None:
    prompt = fact_prompt(server, files)
    outputs = server.run(prompt)
    report = text_of(outputs, titled(prompt, "Adapter (FACT)"))
    assert "patched layers: 16" in report
    pixels = server.pixels(outputs)
    assert pixels.std() > 5.0
    assert np.abs(pixels.astype(int) - plain.astype(int)).mean() > 1.0


def test_faceid_on_a_full_sd15(server: Server, files: Files, plain: np.ndarray) -> None:
    prompt = faceid_prompt(server, files)
    outputs = server.run(prompt)
    assert "patched layers: 16" in text_of(outputs, titled(prompt, "Adapter (FACT)"))
    pixels = server.pixels(outputs)
    assert pixels.std() > 5.0
    assert np.abs(pixels.astype(int) - plain.astype(int)).mean() > 1.0


def test_both_families_together(server: Server, files: Files, plain: np.ndarray) -> None:
    prompt, other = fact_prompt(server, files), faceid_prompt(server, files)
    apply = titled(prompt, "Apply identity")
    names = {titled(other, title): str(100 + n) for n, title in enumerate(("Identity", "Adapter (FACT)"))}
    second = copy.deepcopy(other[apply])
    second["inputs"] |= {
        key: [names[value[0]], 0] for key, value in second["inputs"].items() if key in ("identity", "adapter")
    }
    second["inputs"]["model"] = [apply, 0]
    prompt |= {names[name]: other[name] for name in names} | {"110": second}
    prompt[titled(prompt, "Sampler")]["inputs"]["model"] = ["110", 0]
    both = server.pixels(server.run(prompt))
    assert np.abs(both.astype(int) - plain.astype(int)).mean() > 1.0


def test_the_full_model_comes_back_unpatched(server: Server, files: Files, plain: np.ndarray) -> None:
    prompt = faceid_prompt(server, files)
    demo.set_input(prompt, "Apply identity", strength=0.0, lora_strength=0.0)
    assert np.array_equal(server.pixels(server.run(prompt)), plain)
