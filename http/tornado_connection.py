"""Tornado's HTTP/1 connection as a ``ClientConnection``: the one place that translates between the two."""

from __future__ import annotations

import socket
import struct
from collections.abc import Awaitable

from tornado.http1connection import HTTP1Connection
from tornado.httputil import HTTPHeaders, HTTPMessageDelegate, ResponseStartLine

from raftkv.http.answers import Headers
from raftkv.http.connection import RequestHeaders, RequestLine
from raftkv.http.errors import REASON_PHRASES
from raftkv.http.exchange import Exchange, Front
from raftkv.http.stream import Stream

_RESET = struct.pack("ii", 1, 0)


class TornadoConnection:
    """What Tornado makes for one request on a connection, behind the five methods of ``ClientConnection``."""

    __slots__ = ("_connection", "_ends_with_connection", "_stream", "headers_of_1_0")

    def __init__(self, connection: HTTP1Connection, stream: Stream) -> None:
        self._connection = connection
        self._stream = stream
        # The headers of the request if it is of HTTP/1.0 and its answer may have a body.
        self.headers_of_1_0: HTTPHeaders | None = None
        # Whether only the end of the connection will show the client where the stream under way ends.
        self._ends_with_connection = False

    def send_answer(self, status: int, headers: Headers, body: bytes | None, *, close: bool) -> None:
        """Send head and body in one write."""
        self._connection.write_headers(*self._head(status, headers, close), body)
        self._connection.finish()

    def begin_stream(self, status: int, headers: Headers, *, close: bool) -> None:
        """Send the head. Tornado sends the pieces as chunks, or as they are to HTTP/1.0."""
        if self.headers_of_1_0 is not None:
            self._ends_with_connection = True
            # Tornado would grant a keep-alive.
            self.headers_of_1_0.pop("Connection", None)
        self._connection.write_headers(*self._head(status, headers, close or self._ends_with_connection))

    def write_piece(self, piece: bytes) -> Awaitable[None]:
        """Send a piece; done when all of it has been given to the kernel, which holds as much as the client reads."""
        self._connection.write(piece)
        # Tornado's own future is done with the write before this one, if that was still under way.
        return self._stream.write(b"")

    def end_stream(self) -> None:
        """Send the last chunk, or close the connection once everything has been sent."""
        if self._ends_with_connection and not self._stream.closed():
            self._ends_with_connection = False
            self._stream.write(b"").add_done_callback(lambda _: self._stream.close())
        self._connection.finish()

    def close(self) -> None:
        """Close; reset the connection if its end would look like that of the stream."""
        if self._ends_with_connection and not self._stream.closed():
            self._stream.linger(False)
            self._stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self._stream.close()

    def _head(self, status: int, headers: Headers, close: bool) -> tuple[ResponseStartLine, HTTPHeaders]:
        fields = HTTPHeaders()
        for name, value in headers:
            fields[name] = value
        if close:
            fields["Connection"] = "close"
            self._stream.linger()
        return ResponseStartLine("HTTP/1.1", status, REASON_PHRASES[status]), fields


class TornadoExchange(Exchange, HTTPMessageDelegate):
    """An ``Exchange`` that Tornado calls: all names are the same but for HTTP/1.0, which cannot take chunks."""

    def __init__(self, front: Front, connection: HTTP1Connection, stream: Stream) -> None:
        self._tornado = TornadoConnection(connection, stream)
        super().__init__(front, self._tornado)
        connection.set_close_callback(self.on_connection_close)

    def headers_received(self, start_line: RequestLine, headers: RequestHeaders) -> None:  # type: ignore[override]
        """Note whether the client understands chunks."""
        if start_line.version != "HTTP/1.1" and start_line.method != "HEAD":
            assert isinstance(headers, HTTPHeaders), "Tornado's connection has Tornado's headers"
            self._tornado.headers_of_1_0 = headers
        super().headers_received(start_line, headers)
