"""One request and its answer: reads the request within bounds, has its action done, and writes what comes of it."""

from __future__ import annotations

import asyncio
import logging
from typing import Any, Protocol

from tornado.http1connection import HTTP1Connection, HTTP1ServerConnection
from tornado.httputil import (
    HTTPHeaders,
    HTTPMessageDelegate,
    RequestStartLine,
    ResponseStartLine,
)

from raftkv.actors.gateway import RequestFailed
from raftkv.http.errors import REASONS, RETRY_SOON, Answer, HttpError, bad_request, internal_error, refusal
from raftkv.http.stream import Stream

DISCARDED_BODY_BYTES = 64 << 10
WRITING = frozenset({"POST", "PUT", "DELETE"})

_log = logging.getLogger("raftkv.http")
_CROWDED_OUT = HttpError(429, "overloaded", "this node has as many bodies in memory as it can take", headers=RETRY_SOON)


class Action(Protocol):
    """What a request asks for, made from its head alone.

    ``takes_body``: otherwise a body is read (up to 64 KiB) and thrown away.
    """

    takes_body: bool
    body_limit: int

    def start(self, body: bytes) -> asyncio.Future[Any]:
        """Begin; return the future of what ``answer`` then makes an answer of. May raise ``HttpError``."""

    def answer(self, outcome: Any) -> Answer:
        """Return the answer, once the future has come true. May raise ``HttpError``."""

    def too_large(self) -> HttpError:
        """Return the error for a body over ``body_limit``."""


class Front(Protocol):
    """What an exchange needs of the server."""

    tick: int
    date: str
    served_by: str
    stopping: bool
    buffered_bytes: int
    buffered_limit: int

    def action(self, method: str, target: str, headers: HTTPHeaders) -> Action:
        """Return what the request asks for; raises ``HttpError``."""


class Exchange(HTTPMessageDelegate):
    """A request from its first byte on, until the connection is ready for the next one."""

    def __init__(self, front: Front, server_connection: HTTP1ServerConnection, connection: HTTP1Connection) -> None:
        self.begun = False
        self.receiving = True
        self.since_tick = front.tick
        self._front = front
        self._server_connection = server_connection
        self._connection = connection
        self._method = ""
        self._action: Action | None = None
        self._failure: HttpError | None = None
        self._body_limit = DISCARDED_BODY_BYTES
        self._body_bytes = 0
        self._chunks: list[bytes] = []
        self._held_bytes = 0
        self._future: asyncio.Future[Any] | None = None
        self._answered = False

    @property
    def waits_for_client(self) -> bool:
        """Whether it is the client that has to do something: send (more of) the request, or fetch the answer."""
        return self.receiving or self._answered

    def give_up(self) -> None:
        """Wait no longer for the client: tell it so if it was sending a body, and close the connection."""
        if self.begun and not self._answered:
            self._release()
            self._send(HttpError(408, "too_slow", "the body did not arrive in time").answer())
        else:
            self._server_connection.stream.close()

    # --- What Tornado's connection calls.

    def headers_received(self, start_line: RequestStartLine, headers: HTTPHeaders) -> None:  # type: ignore[override]
        """Decide by the head what is asked for; refuse a body that is too large before it is sent."""
        self.begun = True
        self.since_tick = self._front.tick
        self._method = start_line.method
        try:
            length = _checked_length(start_line, headers)
        except HttpError as error:
            # Where this request ends is anybody's guess: the connection ends with the answer.
            self._send(error.answer())
            return
        try:
            self._action = self._front.action(start_line.method, start_line.path, headers)
            if self._action.takes_body:
                self._body_limit = self._action.body_limit
        except HttpError as error:
            self._failure = error
        except Exception:
            self._failure = self._bug()
        if length > self._body_limit:
            self._refuse_body()
        elif self._failure is not None and "Expect" in headers:
            # Whoever asks whether to go on is told no; not reading the body costs the connection.
            self._send(self._failure.answer())

    def data_received(self, chunk: bytes) -> None:
        """Keep what belongs to a body that is wanted; count it all."""
        if self._answered:
            return
        self._body_bytes += len(chunk)
        if self._body_bytes > self._body_limit:
            self._refuse_body()
        elif self._failure is None and self._action is not None and self._action.takes_body:
            self._chunks.append(chunk)
            self._held_bytes += len(chunk)
            self._front.buffered_bytes += len(chunk)
            if self._front.buffered_bytes > self._front.buffered_limit:
                self._failure = _CROWDED_OUT
                self._refuse_body()

    def finish(self) -> None:
        """Do what is asked for, now that all of the request is here."""
        self.receiving = False
        if self._failure is not None:
            self._send(self._failure.answer())
            return
        assert self._action is not None, "a request without an action has a failure"
        body = self._chunks[0] if len(self._chunks) == 1 else b"".join(self._chunks)
        # What was in the body still is in memory, as part of a command, until that is answered.
        self._chunks.clear()
        try:
            started = self._action.start(body)
        except HttpError as error:
            self._send(error.answer())
        except Exception:
            self._send(self._bug().answer())
        else:
            self._future = started
            self._connection.set_close_callback(self.on_connection_close)
            started.add_done_callback(self._done)

    def on_connection_close(self) -> None:
        """Forget about an answer that nobody waits for any more."""
        self._answered = True
        if self._future is None or self._future.done():
            self._release()
        elif not self._held_bytes:
            self._future.cancel()

    # --- The answer.

    def _done(self, future: asyncio.Future[Any]) -> None:
        self._release()
        if self._answered:
            # Asking for the exception keeps the loop from complaining that nobody did.
            if not future.cancelled():
                future.exception()
            return
        assert self._action is not None, "a future comes from an action"
        try:
            answer = self._action.answer(future.result())
        except HttpError as error:
            answer = error.answer()
        except RequestFailed as error:
            answer = refusal(error.refused, writes=self._method in WRITING).answer()
        except (Exception, asyncio.CancelledError):
            answer = self._bug().answer()
        self._send(answer)

    def _bug(self) -> HttpError:
        _log.exception("answering a %s request failed", self._method)
        return internal_error(writes=self._future is not None and self._method in WRITING)

    def _refuse_body(self) -> None:
        """Answer before the body has been read; the connection ends with it."""
        self._release()
        error = self._failure
        if error is None:
            assert self._action is not None, "a request without an action has a failure"
            error = self._action.too_large()
        self._send(error.answer())

    def _release(self) -> None:
        """Forget what is here of the body."""
        self._front.buffered_bytes -= self._held_bytes
        self._held_bytes = 0
        self._chunks.clear()

    def _send(self, answer: Answer) -> None:
        self._release()
        self._answered = True
        front = self._front
        if self.receiving:
            stream = self._server_connection.stream
            assert isinstance(stream, Stream), "the front end makes its streams itself"
            stream.linger()
        headers = HTTPHeaders()
        for name, value in answer.headers:
            headers[name] = value
        headers["Content-Length"] = str(len(answer.body))
        headers["Date"] = front.date
        headers["X-Raft-Served-By"] = front.served_by
        if front.stopping or self.receiving:
            headers["Connection"] = "close"
        connection = self._connection
        connection.write_headers(
            ResponseStartLine("HTTP/1.1", answer.status, REASONS[answer.status]),
            headers,
            None if self._method == "HEAD" else answer.body,
        )
        connection.finish()
        self.since_tick = front.tick


def _checked_length(start_line: RequestStartLine, headers: HTTPHeaders) -> int:
    """Return the announced length of the body, 0 without one; raises ``HttpError`` (400) if that is open to doubt.

    Whatever two servers in a row could read in two ways is a door for smuggled requests (RFC 9112, 11.2).
    """
    if "Host" in headers:
        if len(headers.get_list("Host")) > 1:
            raise bad_request("malformed", "there is more than one Host header")
    elif start_line.version == "HTTP/1.1":
        raise bad_request("malformed", "there is no Host header")
    if "Transfer-Encoding" in headers and ("Content-Length" in headers or start_line.version != "HTTP/1.1"):
        raise bad_request("malformed", "Transfer-Encoding together with Content-Length, or in HTTP/1.0")
    if "Content-Length" not in headers:
        return 0
    values = headers.get_list("Content-Length")
    text = values[0]
    if len(values) > 1 or not (text.isascii() and text.isdigit()) or len(text) > 18:
        raise bad_request("malformed", "Content-Length is not one number")
    return int(text)
