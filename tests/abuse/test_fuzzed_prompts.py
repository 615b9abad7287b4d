"""Workflow JSON that is damaged, hostile or no workflow at all, through /prompt and through our own hook."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from fuzz_counts import Tallies, dice_of, how_many
from fuzz_graphs import host_survives, odd_graph, odd_value
from fuzz_server import AbuseServer, Outcome
from likeness_pack.adapters.errors import MissingModelFile
from likeness_pack.inject import provenance
from likeness_pack.tools import demo

TOPIC = "workflow JSON"
RAW = (
    b"", b"{", b"[]", b"null", b"1", b'"x"', b"\xff\xfe\x00", b"{}", b'{"prompt": {}}', b'{"prompt": null}',
    b'{"prompt": [], "client_id": 1}', b'{"prompt": {"1": null}}', b'{"prompt": {"1": {"class_type": ["Likeness"]}}}',
    b'{"prompt": ' + b'{"a":' * 3000 + b"1" + b"}" * 3000 + b"}", b"[" * 100_000,
    b'{"prompt": {"1": {"class_type": "LikenessSavePicture"}}, "extra_data": []}',
    b'{"prompt": {"1": {"class_type": "LikenessSavePicture", "inputs": {}}}, "extra_data": {"extra_pnginfo": 3}}',
    b'{"prompt": {"1": {"class_type": "LikenessSavePicture", "inputs": {"a": "' + b"x" * 2_000_000 + b'.pt"}}}}',
)  # fmt: skip


def test_our_hook_takes_any_json(monkeypatch: pytest.MonkeyPatch, tallies: Tallies) -> None:
    """Whatever is queued, the hook neither fails nor changes a graph that is not ours."""

    def missing(kind: Any, name: str) -> Any:
        raise MissingModelFile(name, expected="a file", found="none", cure="add it")

    monkeypatch.setattr(provenance.model_folders, "find_file", missing)
    dice, tally = dice_of(5), tallies["queue hook"]
    whole = demo.load_workflow("fact_portrait")
    for number in range(how_many(2000, 50_000)):
        queued: Any = {"prompt": odd_graph(whole, dice) if number % 3 else odd_value(dice)}
        if number % 2:
            queued["extra_data"] = dice.choice(({"extra_pnginfo": odd_value(dice)}, odd_value(dice)))
        if number % 50 == 0:
            queued = odd_value(dice)
        before = copy.deepcopy(queued)
        tally.tried += 1
        try:
            answer = provenance.with_manifest(queued)
        except Exception as error:  # noqa: BLE001 (the very thing that is looked for)
            tally.untyped.append(f"{type(error).__name__}: {error} for {str(before)[:300]}")
            continue
        tally.accepted += 1
        if "Likeness" not in str(before):
            assert str(answer) == str(before)
    assert not tally.untyped, tally.untyped[:5]


def test_bytes_that_are_no_prompt(abused: AbuseServer, tallies: Tallies) -> None:
    """The host refuses them, and goes on."""
    tally = tallies[TOPIC]
    for body in RAW:
        status, _ = abused.send(body)
        tally.tried += 1
        tally.host += 1
        assert 400 <= status < 600, body[:80]
        assert abused.running, abused.log[-2000:]
    assert "on_prompt_handler processing" not in abused.log, abused.log[-3000:]


def test_damaged_graphs(abused: AbuseServer, tallies: Tallies) -> None:
    """Each ends in a refusal, a typed sentence or a picture; the server lives, and nothing is written elsewhere."""
    dice, tally = dice_of(6), tallies[TOPIC]
    whole = abused.portrait(strength=0.5)
    before = abused.files_outside()
    for number in range(how_many(30, 300)):
        graph = odd_graph(whole, dice)
        if host_survives(graph):
            abused.judge(_queued(abused, graph), tally, f"graph {number}")
        assert abused.running, abused.log[-2000:]
    assert not tally.untyped, "\n".join(tally.untyped[:10])
    assert abused.files_outside() == before
    assert abused.ways_out == []
    assert "on_prompt_handler processing" not in abused.log


def _queued(abused: AbuseServer, graph: Any) -> Outcome:
    try:
        json.dumps(graph)
    except RecursionError:
        return Outcome("refused", "not JSON")
    return abused.outcome(graph)
