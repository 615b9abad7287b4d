"""Shared by all tests: the package object, one thread, and a closed network."""

from __future__ import annotations

import ipaddress
import os
import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch  # noqa: E402  (the thread count must be set before torch starts its pools)
from module_folders import module_folders  # noqa: E402, F401  (a fixture)
from pack import register  # noqa: E402

torch.set_num_threads(1)
register()


def _is_loopback(address: Any) -> bool:
    if not isinstance(address, tuple):
        return True
    host = str(address[0])
    if host in ("localhost", ""):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


@pytest.fixture(autouse=True, scope="session")
def closed_network() -> Iterator[None]:
    """Every connection that leaves this machine fails, so that no test can depend on one."""
    names = ("connect", "connect_ex")
    real = {name: getattr(socket.socket, name) for name in names}

    def guarded(name: str) -> Callable[[socket.socket, Any], Any]:
        def call(self: socket.socket, address: Any) -> Any:
            if not _is_loopback(address):
                raise OSError(f"the network is closed in tests: {address}")
            return real[name](self, address)

        return call

    for name in names:
        setattr(socket.socket, name, guarded(name))
    yield
    for name in names:
        setattr(socket.socket, name, real[name])


@pytest.fixture(autouse=True)
def same_draws() -> None:
    """A test draws the same numbers alone and among others."""
    torch.manual_seed(0)
