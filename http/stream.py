"""Tornado's stream, changed so that a client always gets to read why its connection is being closed.

A server that closes while the client still sends makes the kernel reset the connection, which often destroys the answer
on its way. So a ``Stream`` is closed for writing only, and a ``Lingerer`` goes on reading for a while (RFC 9112, 9.6).
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from typing import Any

from tornado.concurrent import Future
from tornado.iostream import IOStream, UnsatisfiableReadError

from raftkv.http.errors import REASON_PHRASES, ErrorKind, HttpError, over_limit

_TORNADO_REFUSES = b"HTTP/1.1 400 Bad Request\r\n\r\n"


def closing_answer(error: HttpError) -> bytes:
    """Return the bytes of an answer that ends the connection, for requests that Tornado does not pass on."""
    answer = error.answer()
    headers = (*answer.headers, ("Content-Length", str(len(answer.body))), ("Connection", "close"))
    lines = [f"HTTP/1.1 {answer.status} {REASON_PHRASES[answer.status]}", *map(": ".join, headers), "", ""]
    return "\r\n".join(lines).encode() + answer.body


_MALFORMED = closing_answer(HttpError(ErrorKind.MALFORMED))
_BAD_CHUNK = closing_answer(HttpError(ErrorKind.MALFORMED, "the size of a chunk is not valid"))


class Stream(IOStream):
    """The socket of a client. Tornado itself would close it without an answer if a header is over the limit."""

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
        """Leave TCP_NODELAY on: every answer is one write, and Tornado would switch it on and off for each."""

    def linger(self, lingers: bool = True) -> None:
        """Go on reading for a while when closed, and discard what comes, so that the client can read the answer."""
        self._lingers = lingers

    def read_until_regex(self, regex: bytes, max_bytes: int | None = None) -> Awaitable[bytes]:
        """Note that a header is being read, so that ``close`` can tell what was too long."""
        self._in_headers = True
        return super().read_until_regex(regex, max_bytes)

    def read_until(self, delimiter: bytes, max_bytes: int | None = None) -> Awaitable[bytes]:
        """Note that the size of a chunk is being read."""
        self._in_headers = False
        return super().read_until(delimiter, max_bytes)

    def write(self, data: bytes | memoryview) -> Future[None]:
        """Write ``data``, but replace Tornado's bare 400 by an error in JSON."""
        if data == _TORNADO_REFUSES:
            self.linger()
            data = _MALFORMED
        return super().write(data)

    def close(self, exc_info: Any = False) -> None:
        """Close, after an error in JSON if the client has sent a line or header that is too long."""
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
            # The client is gone, or does not read.
            self._lingers = False

    def _too_long(self) -> bytes:
        limit = self._header_limit
        # Only Tornado's buffer shows whether the request line has ended. If it is ever renamed, 431 is close enough.
        started: bytes | bytearray = getattr(self, "_read_buffer", b"\n")
        if b"\n" in started[:limit]:
            return closing_answer(over_limit(ErrorKind.HEADERS_TOO_LARGE, limit, "bytes, with the request line"))
        return closing_answer(over_limit(ErrorKind.TARGET_TOO_LONG, limit, "bytes, with the headers"))


class Lingerer:
    """Connections that are closed for writing, and read until the client closes them too (RFC 9112, 9.6).

    Each is closed after ``seconds`` or ``most_bytes`` at the latest; there are ``most_connections`` of them at most.
    """

    def __init__(self, *, seconds: float = 2.0, most_bytes: int = 16 << 20, most_connections: int = 64) -> None:
        self._seconds = seconds
        self._most_bytes = most_bytes
        self._most_connections = most_connections
        self._open: dict[int, Callable[[], None]] = {}

    def __len__(self) -> int:
        """Return how many connections linger."""
        return len(self._open)

    def adopt(self, connection: socket.socket) -> None:
        """Send what is under way and the end of the connection, and discard what comes until the client ends it too."""
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
        """Close all of them at once."""
        for end in list(self._open.values()):
            end()
