"""What holds for every trainer of the project: one loop, and one sentence where there is nothing to learn from."""

from __future__ import annotations

import importlib
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from pack import ROOT, register

register()
sys.path.append(str(ROOT / "tools"))

SENTENCE = re.compile(r"[^\n]+: expected [^\n]+, found [^\n]+; [^\n]+\.\n?")


def config(**values: object) -> Callable[[Path], list[str]]:
    def written(folder: Path) -> list[str]:
        path = folder / "run.json"
        path.write_text(json.dumps({"output": "out", "tensorboard": False, **values}), encoding="utf-8")
        return [str(path)]

    return written


def options(**named: str) -> Callable[[Path], list[str]]:
    """Options of a command; ``{folder}`` is where everything lies."""

    def written(folder: Path) -> list[str]:
        (folder / "list.csv").write_text("file,voice,emotion,content\n", encoding="utf-8")
        return [word for name, value in named.items() for word in (f"--{name}", value.format(folder=folder))]

    return written


# Command, what it is told, and the words of its refusal; {folder}/empty is an empty folder.
CASES = {
    "train recogniser": (config(task="recogniser", source="empty"), "a sub-folder with photographs"),
    "train fact": (config(task="fact", source="empty"), "a sub-folder with photographs"),
    "train faceid": (config(task="faceid", source="empty"), "a sub-folder with photographs"),
    "train_lafr": (
        options(pictures="{folder}/empty", vae="{folder}/none.pt", output="{folder}/a.safetensors"),
        "found no picture",
    ),
    "train_dreamid": (
        options(triplets="{folder}/empty", base="x", clip="y", encoder="z", output="{folder}/a.safetensors"),
        "triplets.jsonl",
    ),
    "train_imagineid": (
        options(clips="{folder}/list.csv", output="{folder}/a.safetensors"),
        "2 or more labels",
    ),
    "train_avatar_emotion": (
        options(clips="{folder}/empty", base="x", output="{folder}/a.safetensors"),
        "encode some clips first",
    ),
}
# It draws what it learns from, so there is no folder that could be empty.
DRAWS = {"train_demo_weights"}


def test_no_trainer_is_left_out() -> None:
    commands = {path.stem for path in (ROOT / "tools").glob("train*.py")}
    assert commands == {name.split()[0] for name in CASES} | DRAWS


@pytest.mark.parametrize("name", CASES)
def test_nothing_to_learn_from_is_one_sentence(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    told, words = CASES[name]
    command = importlib.import_module(f"likeness_pack.tools.{name.split()[0]}")
    assert command.main(told(tmp_path)) == 1
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert SENTENCE.fullmatch(error) and words in error, error
    assert not list(tmp_path.rglob("*.safetensors"))


def test_there_is_one_training_loop() -> None:
    """It stops and resumes to the bit and refuses losses that are no numbers (test_training_loop), so that every
    trainer does."""
    steps = re.compile(r"\.backward\(|torch\.optim\.[A-Z]|optimizer\.step\(|\.zero_grad\(")
    found = {
        path.relative_to(ROOT).as_posix()
        for folder in ("training", "nodes", "inject", "tools")
        for path in (ROOT / folder).rglob("*.py")
        if steps.search(path.read_text(encoding="utf-8"))
    }
    assert found == {"training/loop.py"}
