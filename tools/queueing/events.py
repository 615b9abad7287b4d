"""The server's progress events over its websocket (RFC 6455), on the standard library: it reads text frames only."""

from __future__ import annotations

import base64
import json
import os
import select
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

TEXT, CLOSE, PING, PONG = 1, 8, 9, 10
MOST_HEADER = 65536


class Events:
    """Progress of the workflows of one client; without a websocket nothing is told, and all else works the same.

    Args:
        tell: called with (event, data) of every event.
    """

    def __init__(self, host: str, port: int, client_id: str, tell: Callable[[str, dict[str, Any]], None]) -> None:
        self._tell = tell
        self._buffer = b""
        self._message = b""
        self._socket = _connect(host, port, f"/ws?clientId={client_id}")

    def close(self) -> None:
        """Let go of the connection."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def pause(self, seconds: float) -> None:
        """Wait so long and tell what comes in meanwhile."""
        limit = time.monotonic() + seconds
        while self._socket is not None and (left := limit - time.monotonic()) > 0:
            if select.select([self._socket], [], [], left)[0]:
                self._receive()
        if (left := limit - time.monotonic()) > 0:
            time.sleep(left)

    def drain(self) -> None:
        """Tell what has come in already."""
        while self._socket is not None and select.select([self._socket], [], [], 0)[0]:
            self._receive()

    def _receive(self) -> None:
        assert self._socket is not None
        try:
            block = self._socket.recv(65536)
        except OSError:
            block = b""
        if not block:
            self.close()
            return
        self._buffer += block
        for kind, last, payload in self._frames():
            self._take(kind, last, payload)

    def _frames(self) -> Iterator[tuple[int, bool, bytes]]:
        while (frame := split_frame(self._buffer)) is not None:
            kind, last, payload, self._buffer = frame
            yield kind, last, payload

    def _take(self, kind: int, last: bool, payload: bytes) -> None:
        if kind == CLOSE:
            self.close()
        elif kind == PING and self._socket is not None:
            self._socket.sendall(masked_frame(PONG, payload))
        elif kind == TEXT or (kind == 0 and self._message):
            self._message += payload
            if last:
                text, self._message = self._message, b""
                self._event(text)

    def _event(self, text: bytes) -> None:
        try:
            event = json.loads(text)
        except ValueError:
            return
        if isinstance(event, dict) and isinstance(event.get("data"), dict):
            self._tell(str(event.get("type")), event["data"])


def split_frame(data: bytes) -> tuple[int, bool, bytes, bytes] | None:
    """The first frame of ``data`` as (kind, whether the message ends with it, payload, rest), or None if incomplete."""
    if len(data) < 2:
        return None
    last, kind, length, start = bool(data[0] & 0x80), data[0] & 0x0F, data[1] & 0x7F, 2
    if length > 125:
        width = 2 if length == 126 else 8
        start += width
        if len(data) < start:
            return None
        length = int.from_bytes(data[2:start], "big")
    if len(data) < start + length:
        return None
    return kind, last, data[start : start + length], data[start + length :]


def masked_frame(kind: int, payload: bytes) -> bytes:
    """A short control frame as a client sends it."""
    mask = os.urandom(4)
    body = bytes(byte ^ mask[place % 4] for place, byte in enumerate(payload[:125]))
    return bytes([0x80 | kind, 0x80 | len(body)]) + mask + body


def _connect(host: str, port: int, path: str) -> socket.socket | None:
    key = base64.b64encode(os.urandom(16)).decode()
    request = (
        f"GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
    try:
        made = socket.create_connection((host, port), timeout=10)
    except OSError:
        return None
    try:
        made.sendall(request.encode())
        answer = b""
        while b"\r\n\r\n" not in answer and len(answer) < MOST_HEADER:
            # One byte at a time: what follows the header belongs to the first frame.
            block = made.recv(1)
            if not block:
                break
            answer += block
    except OSError:
        answer = b""
    if answer.split(b"\r\n")[0].split()[1:2] == [b"101"]:
        made.settimeout(10)
        return made
    made.close()
    return None
