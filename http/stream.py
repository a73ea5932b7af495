"""Tornado's stream, made to tell a client why it is being closed, in a way that the client gets to read."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from typing import Any

from tornado.concurrent import Future
from tornado.iostream import IOStream, UnsatisfiableReadError

from raftkv.http.errors import JSON, REASONS, HttpError

_TORNADO_REFUSES = b"HTTP/1.1 400 Bad Request\r\n\r\n"


def closing_answer(error: HttpError) -> bytes:
    """Return a whole answer after which the connection is closed, for requests that never became one."""
    answer = error.answer()
    head = (
        f"HTTP/1.1 {answer.status} {REASONS[answer.status]}\r\nContent-Type: {JSON}\r\n"
        f"Content-Length: {len(answer.body)}\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + answer.body


_MALFORMED = closing_answer(HttpError(400, "malformed", "this is not well-formed HTTP/1.1"))
_BAD_CHUNK = closing_answer(HttpError(400, "malformed", "the size of a chunk is not well-formed"))


class Stream(IOStream):
    """A connection of a client.

    Two things that Tornado leaves to chance: a header over the limit closes the connection without a word, and closing
    while the client still sends makes the kernel reset the connection, which often destroys the answer on its way.
    """

    def __init__(
        self, connection: socket.socket, lingerer: Lingerer, header_limit: int, *args: Any, **kwargs: Any
    ) -> None:
        super().__init__(connection, *args, **kwargs)
        self._lingerer = lingerer
        self._header_limit = header_limit
        self._lingers = False
        self._in_headers = True
        super().set_nodelay(True)

    def set_nodelay(self, value: bool) -> None:
        """Leave it on: every answer is one write, and Tornado would switch to and fro for each."""

    def linger(self) -> None:
        """When closed, go on reading for a while, to no purpose but that the client can read what it was told."""
        self._lingers = True

    def read_until_regex(self, regex: bytes, max_bytes: int | None = None) -> Awaitable[bytes]:
        """Note that what is read is a header, so that ``close`` can say what was too long."""
        self._in_headers = True
        return super().read_until_regex(regex, max_bytes)

    def read_until(self, delimiter: bytes, max_bytes: int | None = None) -> Awaitable[bytes]:
        """Note that what is read is the size of a chunk."""
        self._in_headers = False
        return super().read_until(delimiter, max_bytes)

    def write(self, data: bytes | memoryview) -> Future[None]:
        """Write ``data``; Tornado's bare 400 is given the shape of every other error."""
        if data == _TORNADO_REFUSES:
            self.linger()
            data = _MALFORMED
        return super().write(data)

    def close(self, exc_info: Any = False) -> None:
        """Close; before, say what is wrong if it is a line or header that does not end."""
        if not self.closed():
            if isinstance(exc_info, UnsatisfiableReadError):
                self._refuse()
            if self._lingers:
                self._lingerer.adopt(self.socket)
        super().close(exc_info)

    def _refuse(self) -> None:
        if self.writing():
            return
        self.linger()
        try:
            self.socket.send(self._too_long() if self._in_headers else _BAD_CHUNK)
        except OSError:
            # It is gone, or does not read: there is nobody to tell.
            self._lingers = False

    def _too_long(self) -> bytes:
        limit = self._header_limit
        # Only Tornado's buffer knows whether the request line has ended; if it is ever renamed, 431 is right enough.
        started: bytes | bytearray = getattr(self, "_read_buffer", b"\n")
        if b"\n" in started[:limit]:
            message = f"the headers of a request have at most {limit} bytes"
            return closing_answer(HttpError(431, "headers_too_large", message, details={"limit_bytes": limit}))
        message = f"a request line with its headers has at most {limit} bytes"
        return closing_answer(HttpError(414, "target_too_long", message, details={"limit_bytes": limit}))


class Lingerer:
    """Connections that are closed but for reading what the client had already sent (RFC 9112, 9.6)."""

    def __init__(self, *, seconds: float = 2.0, most_bytes: int = 16 << 20, most_connections: int = 64) -> None:
        self._seconds = seconds
        self._most_bytes = most_bytes
        self._most_connections = most_connections
        self._open: dict[int, Callable[[], None]] = {}

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._open)

    def adopt(self, connection: socket.socket) -> None:
        """Send what is under way and the end of the connection; read and forget until the client ends it too."""
        if len(self._open) >= self._most_connections:
            return
        loop = asyncio.get_running_loop()
        try:
            ours = connection.dup()
        except OSError:
            return
        number = ours.fileno()
        left = self._most_bytes

        def end() -> None:
            timer.cancel()
            loop.remove_reader(number)
            del self._open[number]
            ours.close()

        def read() -> None:
            nonlocal left
            try:
                data = ours.recv(256 << 10)
            except BlockingIOError:
                return
            except OSError:
                data = b""
            left -= len(data)
            if not data or left <= 0:
                end()

        timer = loop.call_later(self._seconds, end)
        loop.add_reader(number, read)
        self._open[number] = end
        try:
            ours.shutdown(socket.SHUT_WR)
        except OSError:
            end()

    def close(self) -> None:
        """Let go of all of them at once."""
        for end in list(self._open.values()):
            end()
