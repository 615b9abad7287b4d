"""The benchmarks measure what they say: 'with' is another picture than 'without', and another person another again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from host_inprocess import engine
from likeness_pack.tools.benchmarks import families_dit, families_more, families_unet, steps
from likeness_pack.tools.benchmarks.families import Case
from likeness_pack.tools.benchmarks.rows import Row, Task

Build = Callable[[Path], Iterator[Case]]
ON_ANY = {**families_unet.BUILDERS, **families_more.BUILDERS}
ON_NEWER = {f"{name} on a transformer": build for name, build in families_dit.BUILDERS.items()}


def builders() -> dict[str, Build]:
    return {**ON_ANY, **(ON_NEWER if engine().has_wrappers else {})}


@pytest.mark.parametrize("name", builders())
def test_with_is_not_without(name: str, tmp_path: Path) -> None:
    for case in builders()[name](tmp_path):
        results = [case.sampled.run(case.model, 1)]
        results += [case.sampled.run(case.apply(1, 1.0, person), 1) for person in (0, 1)]
        assert all(torch.isfinite(one).all() for one in results), case.subject
        for number, one in enumerate(results):
            for other in results[number + 1 :]:
                assert not torch.allclose(one, other, rtol=1e-4, atol=1e-5), case.subject
        assert torch.equal(case.sampled.run(case.model, 1), results[0]), "the plain model stays plain"
        assert case.file_bytes > 0 and case.people[0] == 1


def test_a_step_gives_every_row_and_a_read_value_counts_as_a_wait(tmp_path: Path) -> None:
    """Of UnAvgLip, whose step is the shortest, with a number read back in each step of the patched model."""
    (case,) = families_unet.lips(tmp_path)

    class Reading:
        def run(self, model: Any, steps: int, callback: Any = None) -> torch.Tensor:
            out = case.sampled.run(model, steps, callback)
            for _ in range(steps if model is not case.model else 0):
                float(out.sum())
            return out

    rows: list[Row] = list(steps.measured(replace(case, sampled=Reading()), Task(tmp_path, "cpu", 1)))
    found = {row.measure: row.ratio.value for row in rows}
    assert {row.family for row in rows} == {"unavglip"} and {row.people for row in rows} == {1}
    assert found.keys() == {"operations", "synchronisations added", "weights held", "step time", "apply time"}
    assert found["synchronisations added"] == 1
    assert all(found[name] > 0 for name in found)
