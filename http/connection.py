"""How a request and its answer meet a client's connection: the five methods that an ``Exchange`` may call.

A connection reads requests and calls the ``Exchange`` of each: ``headers_received``, ``data_received`` for each piece
of the body, ``finish`` at the end of the request, and ``on_connection_close`` if the client disconnects before the
answer has been sent. It serves one request at a time, and starts the next one only after the answer before it has
been written. Everything about framing (chunks, keep-alive, HTTP/1.0) is its own affair.
"""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Protocol

from raftkv.http.answers import Headers


class RequestLine(Protocol):
    """The first line of a request; ``path`` is the whole request target, ``version`` like ``HTTP/1.1``."""

    @property
    def method(self) -> str: ...
    @property
    def path(self) -> str: ...
    @property
    def version(self) -> str: ...


class RequestHeaders(Protocol):
    """The headers of a request, by name in any case; values of a repeated header are joined by commas."""

    def __contains__(self, name: object, /) -> bool: ...
    def __getitem__(self, name: str, /) -> str: ...
    def get_list(self, name: str, /) -> list[str]:
        """Return the values of a header, one for each time it is there."""


class ClientConnection(Protocol):
    """Carries the answer to one request, whole (``send_answer``) or as a stream (the three methods after it).

    With ``close`` the connection serves no further request: it announces that, and closes after the answer in a way
    that lets the client read the answer even if it is still sending. No method but ``write_piece`` raises if the client
    has disconnected.
    """

    def send_answer(self, status: int, headers: Headers, body: bytes | None, *, close: bool) -> None:
        """Send a whole answer. ``headers`` include the length; ``body`` is None for HEAD."""

    def begin_stream(self, status: int, headers: Headers, *, close: bool) -> None:
        """Send the head of an answer whose length is not known. To HEAD, ``end_stream`` must follow at once."""

    def write_piece(self, piece: bytes) -> Awaitable[object]:
        """Send the next piece of a stream, not empty; done when it has left our memory. Raises ``OSError``."""

    def end_stream(self) -> None:
        """End a stream, so that the client can tell that it is complete."""

    def close(self) -> None:
        """Close at once. A stream that has not ended is cut off in a way that the client notices."""
