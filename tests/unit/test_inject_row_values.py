"""Keys and values by rows: whatever order the host chooses, each row gets its own, and usual orders cost no copy."""

from __future__ import annotations

import copy
import itertools

import pytest
import torch
from likeness_pack.inject.row_values import RowKeysValues
from likeness_pack.inject.rows import NEGATIVE, POSITIVE, row_pattern
from torch import Tensor

LAYERS, TOKENS, WIDTH = 3, 4, 8


def pairs(base: float) -> list[tuple[Tensor, Tensor]]:
    """Pairs whose numbers say which layer and which half they are."""
    full = torch.ones(1, TOKENS, WIDTH)
    return [(full * (base + layer), full * (base + layer + 0.5)) for layer in range(LAYERS)]


@pytest.fixture
def values() -> RowKeysValues:
    return RowKeysValues(pairs(100.0), pairs(-100.0))


@pytest.mark.parametrize("length", [1, 2, 3])
def test_every_order_of_rows_gets_its_own(values: RowKeysValues, length: int) -> None:
    for layer, pattern in itertools.product(range(LAYERS), itertools.product((POSITIVE, NEGATIVE), repeat=length)):
        k, v = values.rows(layer, pattern, torch.zeros(1))
        assert k.shape == v.shape == (length, TOKENS, WIDTH)
        expected = torch.tensor([{POSITIVE: 100.0, NEGATIVE: -100.0}[row] + layer for row in pattern])
        assert torch.equal(k[:, 0, 0], expected)
        assert torch.equal(v[:, -1, -1], expected + 0.5)


@pytest.mark.parametrize("pattern", [(NEGATIVE, POSITIVE), (POSITIVE,), (NEGATIVE,)])
def test_usual_orders_are_views(values: RowKeysValues, pattern: tuple[int, ...]) -> None:
    first, again = (values.rows(1, pattern, torch.zeros(1))[0] for _ in range(2))
    assert first.data_ptr() == again.data_ptr()
    both = values.rows(1, (NEGATIVE, POSITIVE), torch.zeros(1))[0]
    assert first.untyped_storage().data_ptr() == both.untyped_storage().data_ptr()


def test_other_orders_are_made_once(values: RowKeysValues) -> None:
    pattern = (POSITIVE, NEGATIVE)
    assert values.rows(0, pattern, torch.zeros(1))[0] is values.rows(0, pattern, torch.zeros(1))[0]


def test_another_dtype_is_followed(values: RowKeysValues) -> None:
    k, v = values.rows(2, (NEGATIVE, POSITIVE), torch.zeros(1, dtype=torch.bfloat16))
    assert k.dtype == v.dtype == torch.bfloat16
    assert k[1, 0, 0] == 102.0
    assert values.rows(2, (NEGATIVE, POSITIVE), torch.zeros(1))[0].dtype == torch.float32
    for dtype in (torch.float32, torch.float16, torch.float32):
        assert values.rows(2, (POSITIVE, NEGATIVE), torch.zeros(1, dtype=dtype))[0].dtype == dtype


def test_size_and_length_are_told(values: RowKeysValues) -> None:
    assert len(values) == LAYERS
    assert values.tokens == TOKENS
    assert values.bytes == LAYERS * 2 * 2 * TOKENS * WIDTH * 4


def test_copies_share_the_numbers(values: RowKeysValues) -> None:
    assert copy.deepcopy({"patch": values})["patch"] is values


def test_layers_of_one_half_only_are_refused() -> None:
    with pytest.raises(ValueError, match="shorter"):
        RowKeysValues(pairs(1.0), pairs(1.0)[:-1])


@pytest.mark.parametrize(
    ("extra", "batch", "expected"),
    [
        ({"cond_or_uncond": [1, 0]}, 4, ((1, 0), 2)),
        ({"cond_or_uncond": [0, 1]}, 2, ((0, 1), 1)),
        ({"cond_or_uncond": [0]}, 3, ((0,), 3)),
        ({"cond_or_uncond": [0, 0, 1]}, 6, ((0, 0, 1), 2)),
        # Where the host says nothing, or something that cannot be, every row is positive.
        ({}, 2, ((POSITIVE,), 2)),
        ({"cond_or_uncond": []}, 2, ((POSITIVE,), 2)),
        ({"cond_or_uncond": [1, 0]}, 3, ((POSITIVE,), 3)),
    ],
)
def test_the_order_is_the_hosts(extra: dict, batch: int, expected: tuple) -> None:
    assert row_pattern(extra, batch) == expected
