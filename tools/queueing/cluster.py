"""The address of a Ray cluster: who it names, and whether anything answers there."""

from __future__ import annotations

import socket

from .errors import NoServer, WrongUsage

THIS_MACHINE = {"127.0.0.1", "localhost", "::1"}


def host_and_port(address: str) -> tuple[str, int]:
    """The two parts of an address such as ``10.0.0.5:6379``.

    Raises:
        WrongUsage: it has another form.
    """
    host, _, port = address.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not host or "/" in host or not port.isascii() or not port.isdecimal() or int(port) > 65535:
        raise WrongUsage(f"--address takes HOST:PORT of a Ray cluster, such as 10.0.0.5:6379, not {address!r}.")
    return host, int(port)


def is_this_machine(address: str) -> bool:
    """Whether it names this machine by loopback: Ray would ask at the machine's outer address instead."""
    return host_and_port(address)[0] in THIS_MACHINE


def check_answers(address: str, seconds: float = 10.0) -> None:
    """Look whether anything listens there, since Ray itself asks an empty address for many minutes.

    Raises:
        NoServer: nothing does.
    """
    try:
        socket.create_connection(host_and_port(address), timeout=seconds).close()
    except OSError as error:
        raise NoServer(
            f"no Ray cluster answers at {address} ({error}): start one with ray start --head, or check --address."
        ) from error
