"""An exchange knows its connection by five methods: it works the same over another one that is not Tornado's."""

from __future__ import annotations

import ast
import asyncio
import inspect
import json
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import pytest

from raftkv.http.answers import Headers
from raftkv.http.connection import ClientConnection
from raftkv.http.exchange import Exchange
from raftkv.store.commands import Put
from tests.front_end.fronts import Front
from tests.front_end.test_front_stream import Endless, StreamingFrontEnd, failing, three

T = TypeVar("T")
HTTP = Path(__file__).resolve().parents[2] / "http"


class Line(NamedTuple):
    """The first line of a request."""

    method: str
    path: str
    version: str = "HTTP/1.1"


class PlainHeaders(dict[str, str]):
    """Headers as another connection might have them."""

    def get_list(self, name: str, /) -> list[str]:
        return [self[name]] if name in self else []


class RecordingConnection:
    """Records what it is to send. A piece is sent when the test says so, or fails."""

    def __init__(self, *, takes_pieces: bool = True) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.takes_pieces = takes_pieces
        self.waiting: asyncio.Future[None] | None = None

    def send_answer(self, status: int, headers: Headers, body: bytes | None, *, close: bool) -> None:
        self.calls.append(("answer", status, dict(headers)["Content-Length"], body, close))

    def begin_stream(self, status: int, headers: Headers, *, close: bool) -> None:
        self.calls.append(("begin", status, close))

    def write_piece(self, piece: bytes) -> asyncio.Future[None]:
        self.calls.append(("piece", piece))
        self.waiting = asyncio.get_running_loop().create_future()
        if self.takes_pieces:
            self.waiting.set_result(None)
        return self.waiting

    def end_stream(self) -> None:
        self.calls.append(("end",))

    def close(self) -> None:
        self.calls.append(("close",))


async def settled(front: Front) -> None:
    """Wait until no task but this one has anything left to do without the test."""
    for _ in range(50):
        await asyncio.sleep(0)


def exchanged(front: Front, connection: RecordingConnection, line: Line, body: bytes = b"") -> Exchange:
    """Receive a whole request."""
    exchange = Exchange(front.server, connection)
    exchange.headers_received(line, PlainHeaders({"Host": "t", "Content-Length": str(len(body))}))
    if body:
        exchange.data_received(body)
    exchange.finish()
    return exchange


def run(scenario: Coroutine[Any, Any, T]) -> T:
    with asyncio.Runner() as runner:
        return runner.run(scenario)


def test_a_connection_has_five_methods_and_no_more() -> None:
    methods = {name for name, _ in inspect.getmembers(ClientConnection, inspect.isfunction) if name[0] != "_"}

    assert methods == {"send_answer", "begin_stream", "write_piece", "end_stream", "close"}


def test_only_three_modules_know_tornado() -> None:
    """Another connection takes its place there; exchanges and actions stay as they are."""
    known = set()
    for path in HTTP.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if any(name.split(".")[0] == "tornado" for name in names):
                known.add(path.name)

    assert known == {"server.py", "stream.py", "tornado_connection.py"}


def test_whole_answers() -> None:
    async def scenario() -> list[Any]:
        front, connection = Front(), RecordingConnection()
        exchanged(front, connection, Line("PUT", "/keys/k/"), b'{"value":"v"}')
        await settled(front)
        exchanged(front, connection, Line("GET", "/keys/k/"))
        await settled(front)
        exchanged(front, connection, Line("HEAD", "/keys/k/"))
        await settled(front)
        front.server.stopping = True
        exchanged(front, connection, Line("GET", "/keys/k/"))
        await settled(front)
        return connection.calls

    value = b'{"value":"v"}\n'
    assert run(scenario()) == [
        ("answer", 200, "14", value, False),
        ("answer", 200, "14", value, False),
        ("answer", 200, "14", None, False),
        ("answer", 200, "14", value, True),
    ]


def test_a_body_that_is_too_large_is_refused_before_it_is_there() -> None:
    async def scenario() -> tuple[Any, ...]:
        front, connection = Front(), RecordingConnection()
        exchange = Exchange(front.server, connection)
        exchange.headers_received(Line("PUT", "/keys/k/"), PlainHeaders({"Host": "t", "Content-Length": "9" * 9}))
        exchange.data_received(bytes(1000))
        (call,) = connection.calls
        return call

    kind, status, _, body, close = run(scenario())

    assert (kind, status, close) == ("answer", 413, True)
    assert json.loads(body)["error"]["limit_bytes"] == 1 << 20


def test_a_client_that_disconnects_gets_nothing() -> None:
    async def scenario() -> tuple[list[Any], int]:
        front, connection = Front(), RecordingConnection()
        front.node.apply((Put("k", b"v"),))
        exchange = exchanged(front, connection, Line("PUT", "/keys/k/"), b'{"value":"w"}')
        exchange.on_connection_close()
        await settled(front)
        return connection.calls, front.server.buffered_bytes

    assert run(scenario()) == ([], 0)


@pytest.mark.parametrize(
    ("method", "calls"),
    [
        ("GET", [("begin", 200, False), ("piece", b"one"), ("piece", b"two"), ("piece", b"three"), ("end",)]),
        ("HEAD", [("begin", 200, False), ("end",)]),
    ],
)
def test_a_stream(method: str, calls: list[Any]) -> None:
    async def scenario() -> list[Any]:
        front, connection = Front(server=StreamingFrontEnd), RecordingConnection()
        front.server.source = three  # type: ignore[attr-defined]
        exchanged(front, connection, Line(method, "/stream"))
        await settled(front)
        return connection.calls

    assert run(scenario()) == calls


def test_a_stream_waits_for_its_client_only_while_a_piece_is_being_sent() -> None:
    endless = Endless()

    async def scenario() -> tuple[list[bool], list[int]]:
        front, connection = Front(server=StreamingFrontEnd), RecordingConnection(takes_pieces=False)
        front.server.source = endless  # type: ignore[attr-defined]
        exchange = exchanged(front, connection, Line("GET", "/stream"))
        waits, pieces = [exchange.waits_for_client], []
        for _ in range(3):
            await settled(front)
            waits.append(exchange.waits_for_client)
            pieces.append(endless.pieces)
            assert connection.waiting is not None
            connection.waiting.set_result(None)
        exchange.on_connection_close()
        await settled(front)
        return waits, pieces

    assert run(scenario()) == ([False, True, True, True], [1, 2, 3])
    assert endless.closed


@pytest.mark.parametrize("failure", [BrokenPipeError("gone"), None])
def test_a_stream_ends_with_its_client(failure: OSError | None) -> None:
    """The connection reports it, or fails to send a piece; either way nothing more is sent."""
    endless = Endless()

    async def scenario() -> list[Any]:
        front, connection = Front(server=StreamingFrontEnd), RecordingConnection(takes_pieces=False)
        front.server.source = endless  # type: ignore[attr-defined]
        exchange = exchanged(front, connection, Line("GET", "/stream"))
        await settled(front)
        assert connection.waiting is not None
        if failure is not None:
            connection.waiting.set_exception(failure)
            await settled(front)
        exchange.on_connection_close()
        await settled(front)
        assert front.server.streams == set()
        return [call[0] for call in connection.calls if call[0] != "close"]

    assert run(scenario()) == ["begin", "piece"]
    assert endless.closed


def test_a_stream_that_fails_is_cut_off(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> list[Any]:
        front, connection = Front(server=StreamingFrontEnd), RecordingConnection()
        front.server.source = failing  # type: ignore[attr-defined]
        exchanged(front, connection, Line("GET", "/stream"))
        await settled(front)
        return connection.calls

    assert run(scenario()) == [("begin", 200, False), ("piece", b"first"), ("close",)]
    assert "the inside" in caplog.text
