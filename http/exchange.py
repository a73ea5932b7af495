"""One request and its answer: reads the request within bounds, starts its action, and sends the answer that results.

An exchange holds no more of a body than its action accepts, and all exchanges together no more than the front end's
limit. It answers exactly once, and at any moment it knows whether it waits for the node or for the client, so that only
clients are timed out. A streamed answer reads its source no faster than the client reads: a slow client holds one piece
in memory. It knows its connection by the five methods of ``ClientConnection`` only.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any, Protocol

from raftkv.actors.gateway import RequestFailed
from raftkv.http.answers import Answer, Headers, StreamedAnswer
from raftkv.http.connection import ClientConnection, RequestHeaders, RequestLine
from raftkv.http.errors import ErrorKind, HttpError, refusal

DISCARDED_BODY_BYTES = 64 << 10
WRITING = frozenset({"POST", "PUT", "DELETE"})

_log = logging.getLogger("raftkv.http")


class Action(Protocol):
    """What a request asks for, known from its head alone.

    Without ``takes_body``, a body is read (up to 64 KiB) and discarded.
    """

    takes_body: bool
    body_limit: int

    def start(self, body: bytes) -> asyncio.Future[Any]:
        """Begin, and return the future of what ``answer`` takes. May raise ``HttpError``."""

    def answer(self, outcome: Any) -> Answer | StreamedAnswer:
        """Return the answer, given the result of the future. May raise ``HttpError``."""

    def too_large(self) -> HttpError:
        """Return the error for a body over ``body_limit``."""


class Front(Protocol):
    """What an exchange needs of the front end.

    ``tick`` counts up about once a second. ``streams`` are the streamed answers under way. ``buffered_bytes`` are those
    of all bodies that are not complete yet; they may not exceed ``buffered_limit``.
    """

    tick: int
    answer_headers: Headers
    stopping: bool
    streams: set[asyncio.Task[None]]
    buffered_bytes: int
    buffered_limit: int

    def action(self, method: str, target: str, headers: RequestHeaders) -> Action:
        """Return what the request asks for; raises ``HttpError``."""


class _Disconnected(Exception):
    """The client has closed the connection in the middle of a stream."""


class Exchange:
    """A request from its first byte until its connection is ready for the next one."""

    def __init__(self, front: Front, connection: ClientConnection) -> None:
        self.begun = False
        self.receiving = True
        self.since_tick = front.tick
        self._front = front
        self._connection = connection
        self._method = ""
        self._action: Action | None = None
        self._failure: HttpError | None = None
        self._body_limit = DISCARDED_BODY_BYTES
        self._body_bytes = 0
        self._chunks: list[bytes] = []
        self._held_bytes = 0
        self._future: asyncio.Future[Any] | None = None
        # True from the moment at which the answer begins, or is not needed any more.
        self._answered = False
        self._stream: asyncio.Task[None] | None = None
        self._stream_is_blocked = False

    @property
    def waits_for_client(self) -> bool:
        """Whether the client has to act: send (more of) the request, or read (more of) the answer."""
        return self.receiving or (self._answered and (self._stream is None or self._stream_is_blocked))

    def give_up(self) -> None:
        """Stop waiting for the client: answer 408 if it was sending a body, and close the connection."""
        if self.begun and not self._answered:
            self._send(HttpError(ErrorKind.TOO_SLOW).answer())
        else:
            self.close()

    def close(self) -> None:
        """Close the connection at once, whatever is under way."""
        self._connection.close()

    # --- Called by the connection.

    def headers_received(self, start_line: RequestLine, headers: RequestHeaders) -> None:
        """Find out what is asked for; refuse a body that is too large before it is sent."""
        self.begun = True
        self.since_tick = self._front.tick
        self._method = start_line.method
        try:
            length = _checked_length(start_line, headers)
        except HttpError as error:
            # It is impossible to tell where this request ends, so the connection closes after the answer.
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
            # The client asks whether to go on. As the body is not read, the connection closes after the answer.
            self._send(self._failure.answer())

    def data_received(self, chunk: bytes) -> None:
        """Keep a piece of a body that the action takes; count it in any case."""
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
                self._failure = HttpError(ErrorKind.OVERLOADED, "too many request bodies are in memory")
                self._refuse_body()

    def finish(self) -> None:
        """Start the action: the whole request is here."""
        self.receiving = False
        if self._failure is not None:
            self._send(self._failure.answer())
            return
        assert self._action is not None, "a request without an action has a failure"
        body = self._chunks[0] if len(self._chunks) == 1 else b"".join(self._chunks)
        # The bytes stay counted: they are in memory, as part of a command, until that is answered.
        self._chunks.clear()
        try:
            started = self._action.start(body)
        except HttpError as error:
            self._send(error.answer())
        except Exception:
            self._send(self._bug().answer())
        else:
            self._future = started
            started.add_done_callback(self._done)

    def on_connection_close(self) -> None:
        """Drop the answer, or end its stream: the client has disconnected."""
        self._answered = True
        if self._stream is not None:
            self._stream.cancel()
        elif self._future is None or self._future.done():
            self._release()
        elif not self._held_bytes:
            self._future.cancel()

    # --- The answer.

    def _done(self, future: asyncio.Future[Any]) -> None:
        if self._answered:
            self._release()
            # The loop logs an exception that is never retrieved.
            if not future.cancelled():
                future.exception()
            return
        assert self._action is not None, "a future comes from an action"
        answer: Answer | StreamedAnswer
        try:
            answer = self._action.answer(future.result())
        except HttpError as error:
            answer = error.answer()
        except RequestFailed as error:
            answer = refusal(error.refused, writes=self._method in WRITING).answer()
        except (Exception, asyncio.CancelledError):
            answer = self._bug().answer()
        if isinstance(answer, Answer):
            self._send(answer)
        else:
            self._send_stream(answer)

    def _bug(self) -> HttpError:
        """Log the exception that is being handled, and return an error that shows nothing of it."""
        _log.exception("answering a %s request failed", self._method)
        passed_on = self._future is not None and self._method in WRITING
        return HttpError(ErrorKind.INTERNAL, outcome="unknown" if passed_on else "not_done")

    def _refuse_body(self) -> None:
        """Answer before the body has been read; the connection closes after the answer."""
        error = self._failure
        if error is None:
            assert self._action is not None, "a request without an action has a failure"
            error = self._action.too_large()
        self._send(error.answer())

    def _release(self) -> None:
        """Drop what is here of the body."""
        self._front.buffered_bytes -= self._held_bytes
        self._held_bytes = 0
        self._chunks.clear()

    def _send(self, answer: Answer) -> None:
        self._release()
        self._answered = True
        front = self._front
        self._connection.send_answer(
            answer.status,
            (*answer.headers, ("Content-Length", str(len(answer.body))), *front.answer_headers),
            None if self._method == "HEAD" else answer.body,
            close=front.stopping or self.receiving,
        )
        self.since_tick = front.tick

    def _send_stream(self, answer: StreamedAnswer) -> None:
        self._release()
        self._answered = True
        front = self._front
        self._connection.begin_stream(
            answer.status, (*answer.headers, *front.answer_headers), close=front.stopping or self.receiving
        )
        self._stream = asyncio.get_running_loop().create_task(self._send_pieces(answer.pieces))
        front.streams.add(self._stream)
        self._stream.add_done_callback(self._stream_ended)

    async def _send_pieces(self, pieces: AsyncGenerator[bytes, None]) -> None:
        """Send the pieces at the pace of the client. Only a stream that is complete is ended, any other is cut off."""
        try:
            async with aclosing(pieces):
                if self._method != "HEAD":
                    async for piece in pieces:
                        if piece:
                            await self._write(piece)
                            # Neither the source nor the client may ever have made us wait.
                            await asyncio.sleep(0)
        except _Disconnected:
            return
        except Exception:
            _log.exception("streaming the answer to a %s request failed", self._method)
            self._connection.close()
        except BaseException:
            self._connection.close()
            raise
        else:
            self._connection.end_stream()

    async def _write(self, piece: bytes) -> None:
        self.since_tick = self._front.tick
        self._stream_is_blocked = True
        try:
            await self._connection.write_piece(piece)
        except OSError:
            raise _Disconnected from None
        finally:
            self._stream_is_blocked = False

    def _stream_ended(self, stream: asyncio.Task[None]) -> None:
        self._front.streams.discard(stream)
        self._stream = None
        self.since_tick = self._front.tick


def _checked_length(start_line: RequestLine, headers: RequestHeaders) -> int:
    """Return the announced length of the body, 0 without one; raises ``HttpError`` (400) if it is open to doubt.

    A request that two servers in a row could read in two ways lets other requests be smuggled in (RFC 9112, 11.2).
    """
    if "Host" in headers:
        if len(headers.get_list("Host")) > 1:
            raise HttpError(ErrorKind.MALFORMED, "it has more than one Host header")
    elif start_line.version == "HTTP/1.1":
        raise HttpError(ErrorKind.MALFORMED, "it has no Host header")
    if "Transfer-Encoding" in headers and ("Content-Length" in headers or start_line.version != "HTTP/1.1"):
        raise HttpError(ErrorKind.MALFORMED, "Transfer-Encoding is not allowed with Content-Length or in HTTP/1.0")
    if "Content-Length" not in headers:
        return 0
    values = headers.get_list("Content-Length")
    text = values[0]
    if len(values) > 1 or not (text.isascii() and text.isdigit()) or len(text) > 18:
        raise HttpError(ErrorKind.MALFORMED, "Content-Length must be a single number")
    return int(text)
