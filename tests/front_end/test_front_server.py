"""The front end as a whole: its ports, its patience with slow clients, and its end."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import Awaitable, Callable
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar

import pytest

from raftkv.actors.gateway import Gateway
from raftkv.actors.messages.requests import Applied
from raftkv.config.settings import Limits
from raftkv.http.stream import Lingerer
from raftkv.store.commands import Command, Put, Result
from tests.front_end.fronts import Connection, Front, Reply, with_front

T = TypeVar("T")

GET = b"GET /keys/k/ HTTP/1.1\r\nHost: t\r\n\r\n"
PUT = b'PUT /keys/k/ HTTP/1.1\r\nHost: t\r\nContent-Length: 13\r\n\r\n{"value":"v"}'


async def asked(front: Front) -> None:
    """Wait until the node has been asked something."""
    while not front.node.asked:
        await asyncio.sleep(0)


def test_a_free_port_is_taken_and_told() -> None:
    async def scenario(front: Front) -> tuple[int, int]:
        return front.server.port, (await front.request("GET", "/livez")).status

    port, status = with_front(scenario)

    assert (port > 0, status) == (True, 200)


def test_a_port_in_use_is_an_error() -> None:
    async def scenario(front: Front) -> None:
        other = Front()
        with pytest.raises(OSError, match="in use"):
            other.server.listen("127.0.0.1", front.server.port)
        await other.server.stop(0)

    with_front(scenario)


def test_a_name_that_means_several_addresses_listens_at_all_of_them() -> None:
    async def scenario(front: Front) -> int:
        other = Front()
        other.server.listen("localhost", 0)
        reader, writer = await asyncio.open_connection("127.0.0.1", other.server.port)
        connection = Connection(reader, writer)
        connection.send(b"GET /livez HTTP/1.1\r\nHost: t\r\n\r\n")
        status = (await connection.reply()).status
        await connection.close()
        await other.server.stop(0)
        return status

    assert with_front(scenario) == 200


@pytest.mark.parametrize(
    ("version", "connection", "stays"),
    [
        ("1.1", None, True),
        ("1.1", "keep-alive", True),
        ("1.1", "close", False),
        ("1.0", None, False),
        ("1.0", "keep-alive", True),
    ],
)
def test_a_connection_is_kept_as_the_client_wants(version: str, connection: str | None, stays: bool) -> None:
    async def scenario(front: Front) -> tuple[int, bool, str | None]:
        client = await front.connect()
        header = "" if connection is None else f"Connection: {connection}\r\n"
        client.send(f"GET /livez HTTP/{version}\r\nHost: t\r\n{header}\r\n".encode())
        reply = await client.reply()
        client.send(b"GET /livez HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n")
        try:
            again = await client.rest() != b""
        except ConnectionResetError:
            again = False
        return reply.status, again, reply.headers.get("connection")

    status, again, header = with_front(scenario)

    assert (status, again) == (200, stays)
    assert header == {("1.1", "close"): "close", ("1.0", "keep-alive"): "Keep-Alive"}.get((version, connection or ""))


def test_answers_are_dated() -> None:
    async def scenario(front: Front) -> str:
        return (await front.request("GET", "/livez")).headers["date"]

    before_s = time.time()
    date = with_front(scenario)

    assert before_s - 2 <= parsedate_to_datetime(date).timestamp() <= time.time()


# --- Patience.


@pytest.mark.parametrize("sent", [b"", b"GET /keys/k/ HTTP/1.1\r\nHos"])
def test_a_connection_without_a_complete_header_is_closed_after_the_idle_timeout(sent: bytes) -> None:
    async def scenario(front: Front) -> bytes:
        client = await front.connect()
        client.send(sent)
        return await client.rest()

    assert with_front(scenario, idle_timeout_s=0.1) == b""


def test_a_connection_that_is_not_used_any_more_is_closed_after_the_idle_timeout() -> None:
    async def scenario(front: Front) -> tuple[int, bytes]:
        client = await front.connect()
        client.send(GET)
        return (await client.reply()).status, await client.rest()

    assert with_front(scenario, idle_timeout_s=0.1) == (200, b"")


def test_a_body_that_does_not_come_is_not_waited_for_beyond_the_body_timeout() -> None:
    async def scenario(front: Front) -> tuple[Reply, bytes, list[object], int]:
        client = await front.connect()
        client.send(PUT[:-1])
        return await client.reply(), await client.rest(), front.node.messages, front.server.buffered_bytes

    reply, rest, messages, buffered = with_front(scenario, body_timeout_s=0.1)

    assert (reply.status, reply.headers["connection"], rest, messages, buffered) == (408, "close", b"", [], 0)
    assert json.loads(reply.body)["error"]["outcome"] == "not_done"


def test_all_bodies_under_way_together_are_bounded() -> None:
    """Otherwise many clients that each send a little less than a whole body take all of the memory."""

    async def scenario(front: Front) -> tuple[list[int], int, int, int]:
        lines = [
            b"PUT /keys/k/ HTTP/1.1",
            b"Host: t",
            b"Content-Type: application/octet-stream",
            b"Content-Length: 1000",
        ]
        head = b"\r\n".join([*lines, b"", b""])
        first, second, third = [await front.connect() for _ in range(3)]
        first.send(head + bytes(900))
        while front.server.buffered_bytes < 900:
            await asyncio.sleep(0)
        second.send(head + bytes(600))
        statuses = [(await second.reply()).status]
        left = front.server.buffered_bytes
        await first.close()
        while front.server.buffered_bytes:
            await asyncio.sleep(0)
        third.send(head + bytes(1000))
        return (
            [*statuses, (await third.reply()).status],
            left,
            front.server.buffered_bytes,
            front.node.keyspace.revision,
        )

    assert with_front(scenario, buffered_bytes=1400) == ([429, 200], 900, 0, 1)


def test_an_answer_that_is_not_fetched_is_given_up_after_the_body_timeout() -> None:
    async def scenario(front: Front) -> bool:
        front.node.apply((Put("k", bytes(1 << 20)),))
        raw = socket.socket()
        raw.setblocking(False)
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(raw, ("127.0.0.1", front.server.port))
        await loop.sock_sendall(raw, GET * 8)
        await asked(front)
        # The front end has closed when it stops with nothing left to wait for, long before the grace is over.
        while front.server.connections:
            await asyncio.sleep(0.01)
        raw.close()
        return True

    assert with_front(scenario, body_timeout_s=0.1)


def test_patience_with_the_client_does_not_limit_the_node() -> None:
    """A request that waits for the node is not the client's fault, however long it takes."""

    async def scenario(front: Front) -> Reply:
        applied = asyncio.get_running_loop().create_future()
        front.node.script.append(applied)
        client = await front.connect()
        client.send(PUT)
        await asked(front)
        first = front.server.tick
        while front.server.tick < first + 10:
            await asyncio.sleep(0.005)
        applied.set_result(None)
        return await client.reply()

    assert with_front(scenario, idle_timeout_s=0.1, body_timeout_s=0.1).status == 200


def test_a_connection_too_many_is_told_so() -> None:
    async def scenario(front: Front) -> tuple[list[int], int]:
        clients = [await front.connect() for _ in range(3)]
        for client in clients[:2]:
            client.send(GET)
        statuses = [(await client.reply()).status for client in clients]
        await clients[0].close()
        while front.server.connections == 2:
            await asyncio.sleep(0)
        return statuses, (await front.request("GET", "/livez")).status

    assert with_front(scenario, max_connections=2) == ([200, 200, 503], 200)


# --- Bugs of ours.


class BrokenGateway(Gateway):
    """Can't take a request."""

    def propose(self, command: Command, timeout_s: float) -> asyncio.Future[tuple[Applied, Result]]:
        raise ZeroDivisionError("the inside")


@pytest.mark.parametrize("options", [{"gateway": BrokenGateway}, {"limits": Limits(key_bytes="none")}])  # type: ignore[arg-type]
def test_a_bug_is_a_500_that_shows_nothing_and_leaves_the_others_alone(
    options: Any, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario(front: Front) -> tuple[Reply, int]:
        return await front.request("PUT", "/keys/k/", b'{"value":"v"}'), (await front.request("GET", "/livez")).status

    reply, others = with_front(scenario, **options)

    assert (reply.status, others) == (500, 200)
    assert json.loads(reply.body) == {
        "error": {
            "code": "internal",
            "message": "this node failed to answer; its log says why",
            "outcome": "not_done",
        }
    }
    assert [record.message for record in caplog.records] == ["answering a PUT request failed"]
    assert caplog.records[0].exc_info is not None


# --- Lingering.


def lingering(scenario: Callable[[Lingerer, socket.socket, socket.socket], Awaitable[T]], **bounds: float) -> T:
    """Run a scenario with a lingerer and the two ends of a connection, of which it is to adopt the first."""

    async def main() -> T:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        theirs.setblocking(False)
        lingerer = Lingerer(**bounds)  # type: ignore[arg-type]
        with ours, theirs:
            try:
                return await scenario(lingerer, ours, theirs)
            finally:
                lingerer.close()

    return asyncio.run(main())


async def until_reset(theirs: socket.socket, data: bytes) -> bool:
    """Send ``data`` again and again until nobody takes it any more."""
    loop = asyncio.get_running_loop()
    try:
        while True:
            await loop.sock_sendall(theirs, data)
            await asyncio.sleep(0)
    except OSError:
        return True


def test_an_adopted_connection_ends_for_the_client_and_still_takes_what_it_sends() -> None:
    async def scenario(lingerer: Lingerer, ours: socket.socket, theirs: socket.socket) -> tuple[bytes, bytes]:
        loop = asyncio.get_running_loop()
        ours.send(b"too long")
        lingerer.adopt(ours)
        ours.close()
        await loop.sock_sendall(theirs, bytes(1 << 20))
        return await loop.sock_recv(theirs, 100), await loop.sock_recv(theirs, 100)

    assert lingering(scenario) == (b"too long", b"")


@pytest.mark.parametrize("bounds", [{"seconds": 0.01}, {"most_bytes": 1 << 20}])
def test_lingering_is_bounded_in_time_and_bytes(bounds: dict[str, float]) -> None:
    async def scenario(lingerer: Lingerer, ours: socket.socket, theirs: socket.socket) -> bool:
        lingerer.adopt(ours)
        ours.close()
        return await until_reset(theirs, bytes(1000))

    assert lingering(scenario, **bounds)


def test_lingering_is_bounded_in_connections() -> None:
    async def scenario(lingerer: Lingerer, ours: socket.socket, theirs: socket.socket) -> bool:
        lingerer.adopt(ours)
        ours.close()
        return await until_reset(theirs, b"x")

    assert lingering(scenario, most_connections=0)


def test_a_connection_that_is_gone_is_not_adopted() -> None:
    async def scenario(lingerer: Lingerer, ours: socket.socket, theirs: socket.socket) -> int:
        with socket.socket() as never_connected:
            lingerer.adopt(never_connected)
        ours.close()
        lingerer.adopt(ours)
        return len(lingerer)

    assert lingering(scenario) == 0


# --- The end.


def test_stopping_lets_requests_under_way_end_and_tells_their_clients() -> None:
    async def scenario(front: Front) -> tuple[Reply, bytes, bytes]:
        applied = asyncio.get_running_loop().create_future()
        front.node.script.append(applied)
        idle, fresh, busy = [await front.connect() for _ in range(3)]
        idle.send(b"GET /livez HTTP/1.1\r\nHost: t\r\n\r\n")
        await idle.reply()
        busy.send(PUT)
        await asked(front)
        stop = asyncio.create_task(front.server.stop(30))
        idle_end, fresh_end = await idle.rest(), await fresh.rest()
        with pytest.raises(ConnectionRefusedError):
            await front.connect()
        assert not stop.done()
        applied.set_result(None)
        reply = await busy.reply()
        assert await busy.rest() == b""
        await stop
        return reply, idle_end, fresh_end

    reply, idle_end, fresh_end = with_front(scenario)

    assert (reply.status, reply.body, reply.headers["connection"]) == (200, b'{"value":"v"}\n', "close")
    assert (idle_end, fresh_end) == (b"", b"")


def test_a_request_that_is_still_being_sent_when_stopping_begins_is_answered() -> None:
    async def scenario(front: Front) -> Reply:
        client = await front.connect()
        client.send(PUT[:-5])
        while not front.server.busy:
            await asyncio.sleep(0)
        stop = asyncio.create_task(front.server.stop(30))
        await asyncio.sleep(0)
        client.send(PUT[-5:])
        reply = await client.reply()
        await stop
        return reply

    reply = with_front(scenario)

    assert (reply.status, reply.headers["connection"]) == (200, "close")


def test_stopping_does_not_wait_beyond_its_grace() -> None:
    async def scenario(front: Front) -> tuple[bytes, int]:
        front.node.script.append(asyncio.get_running_loop().create_future())
        client = await front.connect()
        client.send(PUT)
        await asked(front)
        await front.server.stop(0.01)
        return await client.rest(), front.server.connections

    assert with_front(scenario) == (b"", 0)


def test_stopping_twice_is_stopping_once() -> None:
    async def scenario(front: Front) -> int:
        await front.server.stop(0)
        await front.server.stop(0)
        return front.server.connections

    assert with_front(scenario) == 0


def test_a_front_end_that_never_listened_stops() -> None:
    async def main() -> int:
        front = Front()
        await front.server.stop(1)
        return front.server.port

    assert asyncio.run(main()) == 0
