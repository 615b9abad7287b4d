"""No test can reach another machine: asked in this process, where the fixture of all tests stands guard."""

from __future__ import annotations

import socket
import urllib.request

import pytest


@pytest.mark.parametrize("call", ["connect", "connect_ex"])
@pytest.mark.parametrize("address", [("192.0.2.1", 9), ("example.invalid", 80)])
def test_another_machine_is_out_of_reach(call: str, address: tuple[str, int]) -> None:
    with socket.socket() as way, pytest.raises(OSError, match="closed in tests"):
        getattr(way, call)(address)


def test_libraries_cannot_go_round_it() -> None:
    with pytest.raises(OSError, match="closed in tests"):
        urllib.request.urlopen("http://192.0.2.1:9/", timeout=1)


def test_this_machine_is_within_reach() -> None:
    with socket.socket() as server, socket.socket() as way:
        server.bind(("127.0.0.1", 0))
        server.listen(1)
        assert way.connect_ex(server.getsockname()) == 0
