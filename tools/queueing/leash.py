"""Runs a command and ends it when its owner is gone, however that went: ``python leash.py PORT COMMAND...``.

The owner listens on a port of 127.0.0.1 as long as it lives; the connection to it breaks when it dies, on every system.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence


def main(arguments: Sequence[str]) -> int:
    """Run the command; return its exit code."""
    with socket.create_connection(("127.0.0.1", int(arguments[0])), timeout=30) as owner:
        child = subprocess.Popen(list(arguments[1:]), stdin=subprocess.DEVNULL)
        while child.poll() is None:
            if select.select([owner], [], [], 0.3)[0] and _is_gone(owner):
                _end(child)
    return child.returncode


def _is_gone(owner: socket.socket) -> bool:
    try:
        return not owner.recv(1)
    except OSError:
        return True


def _end(child: subprocess.Popen[bytes]) -> None:
    if os.name == "nt":
        subprocess.run(["taskkill", "/PID", str(child.pid), "/T", "/F"], capture_output=True, check=False)
        return
    child.terminate()
    try:
        child.wait(timeout=5)
    except subprocess.TimeoutExpired:
        # The whole group, this process too: it was started for nothing else.
        os.killpg(os.getpgrp(), signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
