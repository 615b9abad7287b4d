"""The counter sees what it is there to forbid, in every mode in which a host may run a step."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from likeness_pack.evaluation.operations import count_calls

MODES = [torch.no_grad, torch.inference_mode]
READS: dict[str, Callable[[torch.Tensor], object]] = {
    "item": lambda x: x[0].item(),
    "float": lambda x: float(x[0]),
    "bool": lambda x: bool(x[0] > 1),
    "equal": lambda x: torch.equal(x, x),
    "nonzero": lambda x: x.nonzero(),
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("read", READS)
def test_a_value_read_back_is_counted_once(mode: Callable[[], object], read: str) -> None:
    x = torch.arange(4.0)
    with mode():  # type: ignore[attr-defined]
        assert count_calls(lambda: READS[read](x)).synchronisations == 1


@pytest.mark.parametrize("mode", MODES)
def test_arithmetic_reads_nothing(mode: Callable[[], object]) -> None:
    x = torch.arange(4.0)
    with mode():  # type: ignore[attr-defined]
        calls = count_calls(lambda: (x[1:] * 2).view(3, 1) + 1)
    assert (calls.compute, calls.synchronisations, calls.copies) == (2, 0, 0)


@pytest.mark.parametrize("mode", MODES)
def test_a_copy_to_another_device_is_counted(mode: Callable[[], object]) -> None:
    x = torch.arange(4.0)
    with mode():  # type: ignore[attr-defined]
        assert count_calls(lambda: x.to("meta")).copies == 1
        assert count_calls(lambda: x.to(torch.float64)).copies == 0
