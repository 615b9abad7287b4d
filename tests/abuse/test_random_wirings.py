"""Graphs wired at random by type: every failure is a typed sentence or the host's own refusal."""

from __future__ import annotations

from fuzz_counts import Tallies, dice_of, how_many
from fuzz_graphs import Wiring
from fuzz_server import AbuseServer


def test_random_wirings(abused: AbuseServer, tallies: Tallies) -> None:
    """No crash, no way out of the machine, nothing written outside of the output folder, no untyped exception."""
    dice, tally = dice_of(8), tallies["random wirings"]
    wiring = Wiring(abused.object_info(), dice)
    targets = [name for name in wiring.ours for _ in range(6)]
    dice.shuffle(targets)
    before = abused.files_outside()
    for number, target in enumerate(targets[: how_many(30, 500)]):
        abused.judge(abused.outcome(wiring.graph(target, dice.choice((1, 2, 3)))), tally, f"graph {number} of {target}")
        assert abused.running, abused.log[-3000:]
    assert not tally.untyped, "\n\n".join(tally.untyped[:40])
    assert abused.ways_out == []
    assert abused.files_outside() == before
