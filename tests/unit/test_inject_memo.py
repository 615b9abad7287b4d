"""The bounded store: it forgets, makes again, and is never copied."""

from __future__ import annotations

import copy
import threading

import pytest
from likeness_pack.inject.memo import Memo


def test_a_value_is_made_once() -> None:
    memo: Memo[list[int]] = Memo(limit=2)
    first = memo.get("a", lambda: [1])
    assert memo.get("a", lambda: [2]) is first


def test_what_was_used_longest_ago_goes_first() -> None:
    memo: Memo[int] = Memo(limit=2)
    memo.get("a", lambda: 1)
    memo.get("b", lambda: 2)
    memo.get("a", lambda: 0)
    memo.get("c", lambda: 3)
    assert len(memo) == 2
    assert memo.get("a", lambda: -1) == 1
    assert memo.get("b", lambda: -1) == -1


def test_a_failure_is_not_kept() -> None:
    memo: Memo[int] = Memo(limit=2)
    with pytest.raises(ZeroDivisionError):
        memo.get("a", lambda: 1 // 0)
    assert memo.get("a", lambda: 7) == 7


def test_copies_share_it() -> None:
    memo: Memo[int] = Memo(limit=1)
    assert copy.deepcopy([memo])[0] is memo
    assert copy.copy(memo) is memo


def test_many_threads_agree() -> None:
    memo: Memo[int] = Memo(limit=8)
    wrong: list[int] = []

    def work() -> None:
        for number in range(400):
            value = memo.get(number % 16, lambda number=number: number % 16)
            if value != number % 16:
                wrong.append(value)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert len(memo) <= 8


def test_a_making_that_asks_for_another_value_does_not_lock() -> None:
    memo: Memo[int] = Memo(limit=4)
    assert memo.get("outer", lambda: memo.get("inner", lambda: 1) + 1) == 2
