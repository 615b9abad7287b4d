"""Pictures, sounds and file names that no honest user has, through the real server."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fuzz_counts import Tallies, is_long
from fuzz_graphs import ODD_TEXTS
from fuzz_nodes import IMAGES, MASKS, SOUNDS
from fuzz_server import AbuseServer
from PIL import Image
from server_fixtures import Prompt


def node(kind: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": kind, "inputs": inputs, "_meta": {"title": kind}}


def defaults(info: dict[str, Any], kind: str) -> dict[str, Any]:
    """Values of a node's required widgets."""
    found = {}
    for name, spec in info[kind]["input"].get("required", {}).items():
        if isinstance(spec[0], list) and spec[0]:
            found[name] = spec[1].get("default", spec[0][0]) if len(spec) > 1 else spec[0][0]
        elif len(spec) > 1 and "default" in spec[1]:
            found[name] = spec[1]["default"]
    return found


def simple_nodes(info: dict[str, Any], kinds: set[str]) -> list[str]:
    """Our nodes whose required wires are all of the given types and detectors."""
    simple = []
    for name in sorted(info):
        required = info[name]["input"].get("required", {}).values()
        wires = {s[0] for s in required if isinstance(s[0], str) and s[0] not in ("INT", "FLOAT", "STRING", "BOOLEAN")}
        if name.startswith("Likeness") and wires & kinds and wires <= kinds | {"LIKENESS_DETECTOR"}:
            simple.append(name)
    return simple


def hostile_prompt(info: dict[str, Any], kind: str, sources: dict[str, str]) -> Prompt:
    """A node of ours with each wire from a hostile source; ``sources``: case by type."""
    prompt: Prompt = {"d": node("LikenessLoadDetector", detector="mtcnn")}
    makers = {"IMAGE": "FuzzImage", "MASK": "FuzzMask", "AUDIO": "FuzzAudio"}
    inputs = defaults(info, kind)
    for name, spec in info[kind]["input"].get("required", {}).items():
        if isinstance(spec[0], str) and spec[0] in sources:
            prompt[spec[0]] = node(makers[spec[0]], case=sources[spec[0]])
            inputs[name] = [spec[0], 0]
        elif spec[0] == "LIKENESS_DETECTOR":
            inputs[name] = ["d", 0]
    prompt["n"] = node(kind, **inputs)
    prompt |= {f"e{slot}": node("FuzzEnd", value=["n", slot]) for slot in range(len(info[kind]["output"]))}
    return prompt


def run_sources(abused: AbuseServer, tallies: Tallies, topic: str, kinds: dict[str, list[str]], every: int) -> None:
    """Each simple node with each case of the first type (short version: every n-th), the other types in turn."""
    info, tally = abused.object_info(), tallies[topic]
    before = abused.files_outside()
    first, *others = kinds
    pairs = [(one, case) for one in simple_nodes(info, set(kinds)) for case in kinds[first]]
    for number, (one, case) in enumerate(pairs):
        if number % every and not is_long():
            continue
        sources = {first: case} | {other: kinds[other][number % len(kinds[other])] for other in others}
        abused.judge(abused.outcome(hostile_prompt(info, one, sources)), tally, f"{one} {sources}")
        assert abused.running, abused.log[-2000:]
    assert tally.tried
    assert not tally.untyped, "\n\n".join(tally.untyped[:20])
    assert abused.files_outside() == before
    assert abused.ways_out == []


def test_hostile_pictures(abused: AbuseServer, tallies: Tallies) -> None:
    """Empty, huge, transparent, not finite: a typed sentence or a right result."""
    run_sources(abused, tallies, "hostile pictures", {"IMAGE": list(IMAGES), "MASK": list(MASKS)}, 17)


def test_odd_sounds(abused: AbuseServer, tallies: Tallies) -> None:
    """Empty, one sample, eight channels, 192 kHz, no rate."""
    run_sources(abused, tallies, "odd sounds", {"AUDIO": list(SOUNDS)}, 3)


def picture_files() -> dict[str, bytes]:
    """Files for Load Image that are rare or broken."""

    def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
        buffer = io.BytesIO()
        image.save(buffer, kind, **options)
        return buffer.getvalue()

    noise = np.random.default_rng(0).integers(0, 255, (64, 48, 3), np.uint8)
    plain = Image.fromarray(noise)
    turned = Image.Exif()
    turned[0x0112] = 6
    png, jpeg = encoded(plain, "PNG"), encoded(plain, "JPEG")
    return {
        "empty.png": b"",
        "text.png": b"<html>",
        "cut.png": png[: len(png) // 2],
        "cut.jpg": jpeg[: len(jpeg) // 2],
        "head.png": png[:20],
        "pixel.png": encoded(Image.fromarray(noise[:1, :1]), "PNG"),
        "strip.png": encoded(Image.new("RGB", (16384, 2)), "PNG"),
        "alpha.png": encoded(plain.convert("RGBA"), "PNG"),
        "deep.png": encoded(Image.fromarray(noise[..., 0].astype(np.uint16) * 257), "PNG"),
        "grey.png": encoded(plain.convert("L"), "PNG"),
        "palette.png": encoded(plain.convert("P"), "PNG"),
        "bits.png": encoded(plain.convert("1"), "PNG"),
        "turned.jpg": encoded(plain, "JPEG", exif=turned.tobytes()),
        "cmyk.jpg": encoded(plain.convert("CMYK"), "JPEG"),
        "moving.gif": encoded(plain, "GIF", save_all=True, append_images=[plain.rotate(90)]),
    }


def test_picture_files(abused: AbuseServer, tallies: Tallies) -> None:
    """Through the host's Load Image into our detection: refused by the host, told by us, or right."""
    tally = tallies["picture files"]
    folder = abused.base / "input"
    for name, content in picture_files().items():
        (folder / name).write_bytes(content)
        prompt = {
            "1": node("LoadImage", image=name),
            "2": node("LikenessLoadDetector", detector="mtcnn"),
            "3": node("LikenessDetectFaces", images=["1", 0], detector=["2", 0], score=0.0, on_missing_face="keep"),
            "4": node("FuzzEnd", value=["3", 0]),
        }
        abused.judge(abused.outcome(prompt), tally, name)
        (folder / name).unlink()
    assert not tally.untyped, "\n\n".join(tally.untyped)
    assert abused.running


@pytest.mark.parametrize("topic", ["LikenessSavePicture", "LikenessSaveIdentity"])
def test_names_that_lead_out(abused: AbuseServer, tallies: Tallies, topic: str) -> None:
    """Nothing is written outside of the output folder, whatever a file is to be called."""
    info, tally = abused.object_info(), tallies["file names"]
    before = abused.files_outside()
    inputs = defaults(info, topic)
    (name,) = (key for key in inputs if key in ("filename_prefix", "name", "file_name"))
    for text in ODD_TEXTS:
        prompt: Prompt = {"i": node("EmptyImage", width=16, height=16, batch_size=1, color=0)}
        if topic == "LikenessSaveIdentity":
            prompt = abused.portrait()
            found = next(key for key, entry in prompt.items() if entry["class_type"] == "LikenessEncodeIdentity")
            prompt = {key: entry for key, entry in prompt.items() if int(key) <= int(found)}
            source: list[Any] = [found, 0]
        else:
            source = ["i", 0]
        wires = info[topic]["input"]["required"]
        wired = {key: source for key, spec in wires.items() if spec[0] in ("IMAGE", "LIKENESS_IDENTITY")}
        prompt["s"] = node(topic, **(inputs | {name: text} | wired))
        abused.judge(abused.outcome(prompt), tally, f"{topic} {text[:40]!r}")
    assert not tally.untyped, "\n\n".join(tally.untyped)
    assert abused.files_outside() == before
    assert not [path for path in (abused.base / "output").rglob("*") if not _plain(path)]


def _plain(path: Path) -> bool:
    return "\x00" not in path.name and ".." not in path.parts
