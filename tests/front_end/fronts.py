"""A front end on a loop of the test's own, over a node that is a dictionary."""

from __future__ import annotations

import asyncio
import re
import selectors
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from random import Random
from typing import Any, NamedTuple, TypeVar

from raftkv.actors.gateway import Gateway
from raftkv.actors.messages.node import RoleChanged
from raftkv.actors.messages.requests import (
    Applied,
    AskStatus,
    PeerStatus,
    Propose,
    Read,
    ReadResult,
    Status,
)
from raftkv.config.settings import Limits
from raftkv.http.server import FrontEnd
from raftkv.store.commands import Command, Item
from raftkv.store.keyspace import Keyspace

T = TypeVar("T")

STATUS = Status(
    id="n1",
    role="leader",
    term=7,
    leader="n1",
    commit_index=12,
    last_applied=11,
    last_log_index=13,
    durable_index=12,
    cluster_id="c0ffee",
    incarnation="i1",
    voters=("n1", "n2", "n3"),
    peers=(
        PeerStatus("n2", "10.0.0.2:5001", True, 12.5, 12, 13, "replicate"),
        PeerStatus("n3", "10.0.0.3:5001", False),
    ),
    reason=None,
)


class FakeNode:
    """Answers like a node that leads alone; ``script`` has what to answer instead, first come first served.

    A script's item is a reply, an exception to raise, or a future to wait for before the true answer.
    """

    def __init__(self) -> None:
        self.keyspace = Keyspace()
        self.index = 0
        self.status: object = STATUS
        self.asked: list[tuple[object, float]] = []
        self.script: deque[object] = deque()

    @property
    def keys(self) -> dict[str, Item]:
        """What is there now."""
        return dict(self.keyspace.items())

    @property
    def messages(self) -> list[object]:
        """All messages so far, without how long each was waited for."""
        return [message for message, _ in self.asked]

    async def ask(self, message: object, timeout_s: float) -> object | None:
        self.asked.append((message, timeout_s))
        if self.script and not isinstance(message, AskStatus):
            scripted = self.script.popleft()
            if isinstance(scripted, Exception):
                raise scripted
            if isinstance(scripted, asyncio.Future):
                await scripted
            else:
                return scripted
        if isinstance(message, Propose):
            return self.apply(message.commands)
        if isinstance(message, Read):
            items = tuple(self.keyspace.get(query.key) for query in message.queries)
            return ReadResult(self.index, self.keyspace.revision, items)
        assert isinstance(message, AskStatus), f"the front end sent {message!r}"
        return self.status

    def apply(self, commands: tuple[Command, ...]) -> Applied:
        self.index += 1
        results = tuple(map(self.keyspace.apply, commands))
        return Applied(self.index, 7, self.keyspace.revision, results)


class Reply(NamedTuple):
    """An answer as it came over the wire, names of headers in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes


class Connection:
    """A client's connection, which sends any bytes and reads whole answers."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def reply(self, *, head_only: bool = False) -> Reply:
        """Return the next answer; raises ``EOFError`` if the connection ends before."""
        async with asyncio.timeout(10):
            head = await self.reader.readuntil(b"\r\n\r\n")
            first, *lines = head.decode().split("\r\n")[:-2]
            headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
            size = 0 if head_only else int(headers["content-length"])
            return Reply(int(first.split(" ")[1]), headers, await self.reader.readexactly(size))

    async def rest(self) -> bytes:
        """Return everything until the other side ends the connection."""
        async with asyncio.timeout(10):
            return await self.reader.read()

    async def close(self) -> None:
        self.writer.close()
        try:
            await self.writer.wait_closed()
        except OSError:
            return


class Front:
    """A front end that listens, the node behind it, and clients for it."""

    def __init__(self, *, gateway: type[Gateway] = Gateway, server: type[FrontEnd] = FrontEnd, **options: Any) -> None:
        self.node = FakeNode()
        self.gateway = gateway(self.node.ask, rng=Random(1))
        self.gateway.on_role_changed(RoleChanged("n1", "leader", 7, "n1", "test"))
        self.server = server(self.gateway, **{"node_id": "n1", "limits": Limits(), **options})
        self.connections: list[Connection] = []

    async def connect(self) -> Connection:
        connection = Connection(*await asyncio.open_connection("127.0.0.1", self.server.port))
        self.connections.append(connection)
        return connection

    async def request(
        self, method: str, target: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> Reply:
        """Send one request on a connection of its own; with a body, its length is announced."""
        connection = await self.connect()
        lines = {"Host": "test", **({} if body is None else {"Content-Length": str(len(body))}), **(headers or {})}
        head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        connection.send(f"{method} {target} HTTP/1.1\r\n{head}\r\n".encode() + (body or b""))
        reply = await connection.reply(head_only=method == "HEAD")
        await connection.close()
        return reply

    async def exchange(self, data: bytes) -> bytes:
        """Send ``data`` and return all that comes back until the front end ends the connection, without dates."""
        connection = await self.connect()
        connection.send(data)
        received = await connection.rest()
        await connection.close()
        return re.sub(rb"\r\nDate: [^\r]*", b"", received)


@asynccontextmanager
async def serving(**options: Any) -> AsyncIterator[Front]:
    """Serve on a free port of the loopback, and leave nothing open."""
    front = Front(**options)
    front.server.listen("127.0.0.1", 0)
    try:
        yield front
    finally:
        for connection in front.connections:
            await connection.close()
        await front.server.stop(0)
        await front.gateway.close()


Scenario = Callable[[Front], Awaitable[T]]


class _StillLoop(asyncio.SelectorEventLoop):
    """No time passes, so that what is left of a time-out is all of it; timers never fire."""

    def time(self) -> float:
        return 0.0


def with_front(scenario: Scenario[T], *, time_stands_still: bool = False, **options: Any) -> T:
    """Run a scenario against a front end made with these options."""

    async def main() -> T:
        async with serving(**options) as front, asyncio.timeout(60):
            return await scenario(front)

    with asyncio.Runner(loop_factory=_StillLoop if time_stands_still else None) as runner:
        return runner.run(main())


class _VirtualSelector(selectors.SelectSelector):
    """Waits for nothing: the time that would have passed is added to the clock."""

    now_s = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if not ready:
            assert timeout is not None, "everything waits and nothing is scheduled"
            self.now_s += timeout
        return ready


class _VirtualLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self.virtual = _VirtualSelector()
        super().__init__(self.virtual)

    def time(self) -> float:
        return self.virtual.now_s


def in_virtual_time(main: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine on a loop whose clock jumps to the next timer when nothing else is to be done."""
    with asyncio.Runner(loop_factory=_VirtualLoop) as runner:
        return runner.run(main)
