"""Files whose shapes no layout foresees: a family that stumbles over one does not take it, or says so in a sentence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from likeness_pack.adapters.checkpoint import CheckpointHeader, read_header
from likeness_pack.adapters.errors import BadCheckpoint, KeyMismatch, UnknownCheckpoint
from likeness_pack.adapters.family import Ambiguity, Family, Licence, Match, rebuild, report
from likeness_pack.adapters.registry import recognise
from likeness_pack.adapters.strict_load import load_strictly
from safetensors.torch import save_file


class Careless(Family):
    """Reads shapes without a look at how many there are."""

    id, kind, title, folder = "careless", "adapter", "Careless", "face_adapters"
    licence = Licence("MIT", "MIT", True)
    links = ()

    def recognise(self, header: CheckpointHeader) -> Match | Ambiguity | str:
        return Match(self, None, {"tokens": header.tensors["a"].shape[1]})

    def build(self, header: CheckpointHeader, match: Match) -> Any:
        raise ZeroDivisionError("no\nheads")

    def describe(self, header: CheckpointHeader, match: Match) -> Any:
        return [][0]


@pytest.fixture
def header(tmp_path: Path) -> CheckpointHeader:
    path = tmp_path / "lie.safetensors"
    save_file({"a": torch.zeros(2)}, path)
    return read_header(path)


def test_a_family_that_stumbles_does_not_take_the_file(header: CheckpointHeader) -> None:
    with pytest.raises(UnknownCheckpoint, match=r"careless: shapes that no file of it has \(IndexError"):
        recognise(header, candidates=[Careless()])


def test_building_and_describing_end_in_one_sentence(header: CheckpointHeader) -> None:
    family = Careless()
    match = Match(family, None)
    with pytest.raises(BadCheckpoint, match=r"Careless, found .*ZeroDivisionError: no h.*\.$") as caught:
        rebuild(family, header, match)
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    with pytest.raises(BadCheckpoint, match="IndexError"):
        report(family, header, match)


@pytest.mark.parametrize(
    "mistake", [AttributeError, TypeError, AssertionError, NotImplementedError, torch.OutOfMemoryError]
)
def test_a_mistake_of_the_code_is_not_told_as_one_of_the_file(
    mistake: type[Exception], header: CheckpointHeader
) -> None:
    class Wrong(Careless):
        def recognise(self, header: CheckpointHeader) -> Match | Ambiguity | str:
            raise mistake("ours")

        def build(self, header: CheckpointHeader, match: Match) -> Any:
            raise mistake("ours")

    family = Wrong()
    for work in (lambda: recognise(header, candidates=[family]), lambda: rebuild(family, header, Match(family, None))):
        with pytest.raises(mistake, match="ours"):
            work()


def test_names_with_line_breaks_leave_a_sentence_whole() -> None:
    with torch.device("meta"):
        module = torch.nn.Linear(2, 2)
    tensors = {"weight": torch.zeros(2, 2), "bias": torch.zeros(2), "\n\r\t\x00": torch.zeros(1)}
    with pytest.raises(KeyMismatch, match=r"1 left over:\s+\? \(1\); use") as caught:
        load_strictly(module, tensors, what="file")
    assert str(caught.value).isprintable()


def test_whole_numbers_are_no_weights() -> None:
    with torch.device("meta"):
        module = torch.nn.Linear(2, 2)
    tensors = {"weight": torch.zeros(2, 2, dtype=torch.int64), "bias": torch.zeros(2)}
    with pytest.raises(KeyMismatch, match=r"1 of another type: weight of torch\.int64 instead of torch\.float32"):
        load_strictly(module, tensors, what="file")
