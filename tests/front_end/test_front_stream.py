"""A streamed answer goes at the pace of its client, and ends properly only if it is complete."""

from __future__ import annotations

import asyncio
import json
import re
import socket
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any, TypeVar

import pytest

from raftkv.http.answers import StreamedAnswer
from raftkv.http.connection import RequestHeaders
from raftkv.http.errors import ErrorKind, HttpError
from raftkv.http.exchange import Action
from raftkv.http.server import FrontEnd
from raftkv.http.stream import Stream
from tests.front_end.fronts import Connection, Front, with_front

T = TypeVar("T")
Pieces = AsyncGenerator[bytes, None]

PIECE = bytes(64 << 10)
GET_LIVEZ = b"GET /livez HTTP/1.1\r\nHost: t\r\n\r\n"


class StreamAction:
    """Answers with a stream of the test's own."""

    takes_body = False
    body_limit = 0

    def __init__(self, pieces: Pieces) -> None:
        self._pieces = pieces

    def start(self, body: bytes) -> asyncio.Future[None]:
        started: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        started.set_result(None)
        return started

    def answer(self, outcome: None) -> StreamedAnswer:
        return StreamedAnswer(200, self._pieces, (("Content-Type", "text/plain"),))

    def too_large(self) -> HttpError:
        return HttpError(ErrorKind.BODY_TOO_LARGE)


class StreamingFrontEnd(FrontEnd):
    """Streams what ``source`` gives at ``/stream``."""

    source: Callable[[], Pieces]

    def action(self, method: str, target: str, headers: RequestHeaders) -> Action:
        return StreamAction(self.source()) if target == "/stream" else super().action(method, target, headers)


def with_stream(source: Callable[[], Pieces], scenario: Callable[[Front], Awaitable[T]], **options: Any) -> T:
    """Run a scenario against a front end that streams what ``source`` gives."""

    async def prepared(front: Front) -> T:
        assert isinstance(front.server, StreamingFrontEnd)
        front.server.source = source
        result = await scenario(front)
        while front.server.streams:
            await asyncio.sleep(0)
        return result

    return with_front(prepared, server=StreamingFrontEnd, **options)


def request(version: str = "1.1", method: str = "GET", headers: str = "") -> bytes:
    return f"{method} /stream HTTP/{version}\r\nHost: t\r\n{headers}\r\n".encode()


async def three() -> Pieces:
    for piece in (b"one", b"", b"two", b"three"):
        yield piece


class Endless:
    """Gives pieces for ever, counts them, and notes when it is closed."""

    def __init__(self) -> None:
        self.pieces = 0
        self.closed = False

    async def __call__(self) -> Pieces:
        try:
            while True:
                self.pieces += 1
                yield PIECE
        finally:
            self.closed = True


class Waiting:
    """Gives one piece and then waits until it is told to go on; notes when it is closed."""

    def __init__(self) -> None:
        self.go_on = asyncio.Event()
        self.closed = False

    async def __call__(self) -> Pieces:
        try:
            yield b"first"
            await self.go_on.wait()
            yield b"last"
        finally:
            self.closed = True


async def failing() -> Pieces:
    yield b"first"
    raise ZeroDivisionError("the inside")


def slow_client(port: int) -> socket.socket:
    """Return a connection whose kernel takes little, over which a stream was asked for."""
    raw = socket.socket()
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    raw.connect(("127.0.0.1", port))
    raw.sendall(request())
    raw.setblocking(False)
    return raw


async def blocked(front: Front) -> int:
    """Wait until a stream waits for its client; return how many bytes the front end holds for it."""
    while True:
        for server_connection in front.server._connections:
            stream = server_connection.stream
            assert isinstance(stream, Stream)
            if stream.writing():
                return len(stream._write_buffer)
        await asyncio.sleep(0)


# --- What is sent.


def test_http_1_1_gets_chunks_and_keeps_the_connection() -> None:
    async def scenario(front: Front) -> tuple[bytes, bytes]:
        client = await front.connect()
        client.send(request() + GET_LIVEZ)
        head = await client.reader.readuntil(b"\r\n\r\n")
        body = await client.reader.readuntil(b"\r\n0\r\n\r\n")
        assert (await client.reply()).status == 200
        return re.sub(rb"Date: [^\r]*", b"Date: x", head), body

    assert with_stream(three, scenario) == (
        b"HTTP/1.1 200 OK\r\n"
        b"Content-Type: text/plain\r\n"
        b"Date: x\r\n"
        b"X-Raft-Served-By: n1\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n",
        b"3\r\none\r\n3\r\ntwo\r\n5\r\nthree\r\n0\r\n\r\n",
    )


@pytest.mark.parametrize("headers", ["", "Connection: keep-alive\r\n"])
def test_http_1_0_gets_the_pieces_as_they_are_up_to_the_end_of_the_connection(headers: str) -> None:
    """Whatever it asks for: a connection that stays would never end the answer."""

    async def scenario(front: Front) -> bytes:
        return await front.exchange(request("1.0", headers=headers) + GET_LIVEZ)

    assert with_stream(three, scenario) == (
        b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nX-Raft-Served-By: n1\r\nConnection: close\r\n\r\nonetwothree"
    )


def test_a_client_that_wants_the_connection_closed_gets_chunks_and_the_end() -> None:
    async def scenario(front: Front) -> bytes:
        return await front.exchange(request(headers="Connection: close\r\n"))

    head, _, body = with_stream(three, scenario).partition(b"\r\n\r\n")

    assert b"Connection: close" in head
    assert body == b"3\r\none\r\n3\r\ntwo\r\n5\r\nthree\r\n0\r\n\r\n"


@pytest.mark.parametrize(("version", "headers"), [("1.1", ""), ("1.0", "Connection: keep-alive\r\n")])
def test_head_gets_the_headers_only_and_keeps_the_connection(version: str, headers: str) -> None:
    endless = Endless()

    async def scenario(front: Front) -> tuple[bytes, int]:
        client = await front.connect()
        client.send(request(version, "HEAD", headers) + GET_LIVEZ)
        head = await client.reader.readuntil(b"\r\n\r\n")
        return head, (await client.reply()).status

    head, next_status = with_stream(endless, scenario)

    assert head.startswith(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n")
    assert (next_status, endless.pieces) == (200, 0)


def test_a_stream_without_pieces_is_an_empty_answer() -> None:
    async def nothing() -> Pieces:
        for piece in list[bytes]():
            yield piece

    async def scenario(front: Front) -> list[bytes]:
        requests = (request(headers="Connection: close\r\n"), request("1.0"))
        return [(await front.exchange(data)).partition(b"\r\n\r\n")[2] for data in requests]

    assert with_stream(nothing, scenario) == [b"0\r\n\r\n", b""]


# --- The pace of the client.


def test_the_source_is_asked_only_for_what_the_client_reads() -> None:
    endless = Endless()

    async def scenario(front: Front) -> None:
        raw = slow_client(front.server.port)
        held, pieces = await blocked(front), endless.pieces
        for _ in range(100):
            await asyncio.sleep(0)
        assert (endless.pieces, front.server.busy) == (pieces, 1)
        assert held <= len(PIECE) + len(b"10000\r\n\r\n")
        loop = asyncio.get_running_loop()
        while endless.pieces == pieces:
            await loop.sock_recv(raw, 1 << 20)
        raw.close()

    with_stream(endless, scenario)

    assert endless.closed


def test_everything_arrives_at_a_slow_client() -> None:
    async def numbers() -> Pieces:
        for number in range(200):
            yield b"%08d" % number * 4096

    async def scenario(front: Front) -> bytes:
        raw = slow_client(front.server.port)
        await blocked(front)
        connection = Connection(*await asyncio.open_connection(sock=raw))
        front.connections.append(connection)
        await connection.reader.readuntil(b"\r\n\r\n")
        received = b""
        while size := int(await connection.reader.readline(), 16):
            received += await connection.reader.readexactly(size)
            assert await connection.reader.readexactly(2) == b"\r\n"
        return received

    assert with_stream(numbers, scenario) == b"".join(b"%08d" % number * 4096 for number in range(200))


def test_others_are_served_while_a_source_and_its_client_are_always_ready() -> None:
    async def scenario(front: Front) -> int:
        client = await front.connect()
        client.send(request())

        async def read() -> None:
            while await client.reader.read(1 << 20):
                pass

        reading = asyncio.create_task(read())
        status = (await front.request("GET", "/livez")).status
        await client.close()
        await reading
        return status

    assert with_stream(Endless(), scenario) == 200


def test_a_client_that_reads_nothing_is_cut_off_after_the_body_timeout() -> None:
    endless = Endless()

    async def scenario(front: Front) -> None:
        raw = slow_client(front.server.port)
        await blocked(front)
        while front.server.connections:
            await asyncio.sleep(0.01)
        raw.close()

    with_stream(endless, scenario, body_timeout_s=0.1)

    assert endless.closed


def test_a_source_may_wait_for_as_long_as_it_likes() -> None:
    waiting = Waiting()

    async def scenario(front: Front) -> bytes:
        client = await front.connect()
        client.send(request())
        await client.reader.readuntil(b"first\r\n")
        first = front.server.tick
        while front.server.tick < first + 10:
            await asyncio.sleep(0.005)
        waiting.go_on.set()
        return await client.reader.readuntil(b"0\r\n\r\n")

    assert with_stream(waiting, scenario, idle_timeout_s=0.1, body_timeout_s=0.1) == b"4\r\nlast\r\n0\r\n\r\n"


# --- Ends.


@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_a_client_that_disconnects_ends_the_stream(version: str) -> None:
    waiting = Waiting()

    async def scenario(front: Front) -> None:
        client = await front.connect()
        client.send(request(version))
        await client.reader.readuntil(b"first")
        await client.close()
        while front.server.connections:
            await asyncio.sleep(0)

    with_stream(waiting, scenario)

    assert waiting.closed


def test_a_client_that_disconnects_in_the_middle_of_a_piece_ends_the_stream() -> None:
    endless = Endless()

    async def scenario(front: Front) -> None:
        raw = slow_client(front.server.port)
        await blocked(front)
        raw.close()
        while front.server.connections:
            await asyncio.sleep(0)

    with_stream(endless, scenario)

    assert endless.closed


def test_an_error_in_the_middle_cuts_the_stream_off_and_shows_nothing(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(front: Front) -> tuple[bytes, int]:
        body = (await front.exchange(request() + GET_LIVEZ)).partition(b"\r\n\r\n")[2]
        return body, (await front.request("GET", "/livez")).status

    body, others = with_stream(failing, scenario)

    assert (body, others) == (b"5\r\nfirst\r\n", 200)
    assert [record.message for record in caplog.records] == ["streaming the answer to a GET request failed"]
    assert "the inside" in caplog.text


def test_an_error_in_the_middle_resets_the_connection_of_http_1_0(caplog: pytest.LogCaptureFixture) -> None:
    """The mere end of the connection would look like the end of the answer."""

    async def scenario(front: Front) -> None:
        client = await front.connect()
        client.send(request("1.0"))
        with pytest.raises(ConnectionResetError):
            await client.rest()

    with_stream(failing, scenario)

    assert "the inside" in caplog.text


def test_an_error_before_the_answer_begins_is_an_answer_of_its_own() -> None:
    class Refused(StreamAction):
        def answer(self, outcome: None) -> StreamedAnswer:
            raise HttpError(ErrorKind.NO_SUCH_KEY)

    class RefusingFrontEnd(FrontEnd):
        def action(self, method: str, target: str, headers: RequestHeaders) -> Action:
            return Refused(three())

    async def scenario(front: Front) -> tuple[int, str]:
        reply = await front.request("GET", "/stream")
        return reply.status, json.loads(reply.body)["error"]["code"]

    assert with_front(scenario, server=RefusingFrontEnd) == (404, "no_such_key")


# --- Stopping.


def test_stopping_lets_a_stream_end_within_the_grace() -> None:
    waiting = Waiting()

    async def scenario(front: Front) -> bytes:
        client = await front.connect()
        client.send(request())
        await client.reader.readuntil(b"first\r\n")
        stop = asyncio.create_task(front.server.stop(30))
        await asyncio.sleep(0)
        assert (front.server.busy, stop.done()) == (1, False)
        waiting.go_on.set()
        rest = await client.rest()
        await stop
        return rest

    assert with_stream(waiting, scenario) == b"4\r\nlast\r\n0\r\n\r\n"


@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_stopping_cuts_off_a_stream_that_does_not_end(version: str) -> None:
    waiting = Waiting()

    async def scenario(front: Front) -> bytes | None:
        client = await front.connect()
        client.send(request(version))
        await client.reader.readuntil(b"first")
        await front.server.stop(0.01)
        assert (waiting.closed, front.server.connections, len(front.server.streams)) == (True, 0, 0)
        try:
            return await client.rest()
        except ConnectionResetError:
            return None

    assert with_stream(waiting, scenario) == {"1.0": None, "1.1": b"\r\n"}[version]
