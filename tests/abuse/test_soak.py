"""Many prompts with interrupts at random moments: memory flat, and nothing of ours stays in the model."""

from __future__ import annotations

import time
from statistics import median

import numpy as np
from fuzz_counts import Tallies, dice_of, how_many
from fuzz_server import AbuseServer
from likeness_pack.tools import demo
from server_fixtures import Prompt, titled, without_node


def plain(abused: AbuseServer, name: str) -> np.ndarray:
    """The picture of the model alone."""
    prompt = abused.portrait()
    apply = titled(prompt, "Apply identity")
    prompt = without_node(prompt, apply, {0: prompt[apply]["inputs"]["model"] and "model"})
    kept: Prompt = {number: entry for number, entry in prompt.items() if not _dangles(entry, prompt)}
    kept[titled(kept, "Portrait")]["inputs"]["filename_prefix"] = name
    ends = {number for number, entry in kept.items() if "Similarity" in entry["class_type"]}
    outputs = abused.run({number: entry for number, entry in kept.items() if number not in ends})
    return abused.pixels(outputs)


def _dangles(entry: dict[str, object], prompt: Prompt) -> bool:
    inputs = entry["inputs"]
    assert isinstance(inputs, dict)
    return any(isinstance(value, list) and value[0] not in prompt for value in inputs.values())


def rested(abused: AbuseServer) -> float:
    """Memory in MB with models freed and one plain picture made since."""
    abused.free()
    plain(abused, "rested")
    return abused.memory or 0.0


def test_soak_with_interrupts(abused: AbuseServer, tallies: Tallies) -> None:
    """Interrupts never leave a patched layer, and memory does not grow: medians of the first and last readings.

    One reading alone moves by several percent with what the allocator gives back; so does the short run's.
    """
    dice, tally = dice_of(9), tallies["soak"]
    before = plain(abused, "before")
    total, warm = how_many(20, 300), how_many(6, 40)
    readings: list[float] = []
    interrupted = 0
    for number in range(total):
        prompt = abused.portrait(strength=dice.choice((0.3, 0.7, 1.0)))
        demo.set_input(prompt, "Sampler", steps=dice.choice((1, 2, 8)), seed=number)
        queued = abused.post_prompt(prompt)
        if dice.random() < 0.6:
            time.sleep(dice.random() * 1.2)
            abused.interrupt()
        outcome = abused.ended(queued)
        interrupted += outcome.kind == "interrupted"
        tally.tried += 1
        tally.accepted += outcome.kind in ("finished", "interrupted")
        if outcome.kind not in ("finished", "interrupted"):
            tally.untyped.append(f"prompt {number}: {outcome.kind} {outcome.text[-600:]}")
        if number + 1 >= warm and (number + 1 - warm) % how_many(7, 20) == 0:
            readings.append(rested(abused))
    abused.free()
    assert np.array_equal(plain(abused, "after"), before)
    readings.append(rested(abused))
    few = how_many(1, 5)
    settled, ended = median(readings[:few]), median(readings[-few:])
    tally.facts = {"interrupted": interrupted, "memory_mb_settled": settled, "memory_mb_at_the_end": ended}
    tally.facts["memory_mb_readings"] = [round(one) for one in readings]
    assert not tally.untyped, tally.untyped[:5]
    assert abused.running
    assert abused.ways_out == []
    assert ended <= how_many(115, 105) / 100 * settled, readings
