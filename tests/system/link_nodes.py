"""Helpers for the tests of the link: nodes on one loop, and peers that misbehave."""

from __future__ import annotations

import asyncio
import functools
import random
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any, ParamSpec

import msgspec

from raftkv.actors.system.link import listener
from raftkv.actors.system.link.handshake import PREAMBLE, Acceptor, Dialler, HandshakeRecord, PeerIdentity, RecordReader
from raftkv.actors.system.link.link import Codec, Link, LinkSettings
from raftkv.actors.system.link.settings import BoundedLog

WITHIN_S = 45.0
SECRET = b"a secret"
P = ParamSpec("P")


class Note(msgspec.Struct, frozen=True, array_like=True):
    """A minimal message."""

    sender: str
    text: str
    control: bool = False
    data: bytes = b""


NOTES = Codec(
    msgspec.msgpack.Encoder().encode,
    msgspec.msgpack.Decoder(Note).decode,
    lambda note: note.control,
    lambda note: note.sender,
)


def on_a_loop(test: Callable[P, Awaitable[None]]) -> Callable[P, None]:
    """Turn a coroutine function into a test; nothing may reach the loop's exception handler while it runs."""

    @functools.wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        raised: list[dict[str, Any]] = []

        async def scenario() -> None:
            asyncio.get_running_loop().set_exception_handler(lambda loop, context: raised.append(context))
            async with asyncio.timeout(2 * WITHIN_S):
                await test(*args, **kwargs)

        asyncio.run(scenario())
        assert raised == []

    return run


async def until(condition: Callable[[], object]) -> None:
    """Return once ``condition`` holds."""
    async with asyncio.timeout(WITHIN_S):
        while not condition():
            await asyncio.sleep(0.001)


async def turns(count: int) -> None:
    """Let ``count`` turns of the loop pass."""
    for _ in range(count):
        await asyncio.sleep(0)


def settings(node_id: str, **changes: Any) -> LinkSettings:
    """Return settings with a short backoff and a long silence."""
    quick = {"backoff_min_ms": 2, "backoff_max_ms": 20, "ping_ms": 1000, "silence_ms": 60_000}
    fixed = {"node_id": node_id, "incarnation": f"{node_id}-1", "secret": SECRET}
    return LinkSettings(**(fixed | quick | changes))


class Node:
    """A link and its callbacks: messages in ``received``, all other calls in ``events``, in order."""

    def __init__(self, node_id: str, *, codec: Codec = NOTES, cluster_id: str | None = None, **changes: Any) -> None:
        self.id = node_id
        self.cluster_id = cluster_id
        self.received: list[tuple[str, str, str, Any]] = []
        self.events: list[tuple[Any, ...]] = []
        self.settings = settings(node_id, **changes)
        self.link = Link(
            self.settings,
            {},
            codec,
            receive=lambda *what: self.received.append(what),
            on_up=lambda *what: self.events.append(("up", *what)),
            on_down=lambda *what: self.events.append(("down", *what)),
            on_refused=lambda *what: self.events.append(("refused", *what)),
            cluster_id=lambda: self.cluster_id,
            rng=random.Random(1),
        )

    @property
    def address(self) -> str:
        """Where it listens."""
        return f"127.0.0.1:{self.link.port}"

    @property
    def texts(self) -> list[str]:
        """The texts of the notes received."""
        return [note.text for _, _, _, note in self.received]

    def events_of(self, *kinds: str) -> list[tuple[Any, ...]]:
        """Return the events of these kinds."""
        return [event for event in self.events if event[0] in kinds]

    def note(self, peer: str, text: str, *, control: bool = False, data: bytes = b"") -> Note:
        """Send a note from actor "source" to actor "target"; return it."""
        note = Note(self.id, text, control, data)
        self.link.send(peer, "target", "source", note)
        return note


@asynccontextmanager
async def running(*nodes: Node) -> AsyncIterator[None]:
    """Start the nodes, and close them in the end."""
    try:
        for node in nodes:
            await node.link.start()
        yield
    finally:
        for node in nodes:
            await node.link.close()


def introduce(*nodes: Node) -> None:
    """Make all nodes peers of each other."""
    for node in nodes:
        for peer in nodes:
            if peer is not node:
                node.link.add_peer(peer.id, peer.address)


async def connected(*nodes: Node) -> None:
    """Wait until all nodes are connected to each other, and this has been reported."""
    for node in nodes:
        for peer in nodes:
            if peer is not node:
                await until(lambda node=node, peer=peer: node.link.connected(peer.id))  # type: ignore[misc]
    await turns(2)


@asynccontextmanager
async def cluster(*nodes: Node) -> AsyncIterator[None]:
    """Start the nodes and connect all to all; close them in the end."""
    async with running(*nodes):
        introduce(*nodes)
        await connected(*nodes)
        yield


class Raw:
    """A bare connection, for sending bytes that no link would send."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def record(self) -> HandshakeRecord:
        """Read a handshake record."""
        records = RecordReader()
        while True:
            room = records.room()
            room[:] = await self.reader.readexactly(len(room))
            record = records.record(len(room))
            if record is not None:
                return record

    async def raw_record(self) -> bytes:
        """Read the bytes of a handshake record."""
        preamble = await self.reader.readexactly(PREAMBLE.size)
        return preamble + await self.reader.readexactly(PREAMBLE.unpack(preamble)[2])

    async def rest(self) -> bytes:
        """Read until the other side ends the connection."""
        async with asyncio.timeout(WITHIN_S):
            with suppress(ConnectionError):
                return await self.reader.read(-1)
        return b""

    async def prove(self, us: PeerIdentity, target: str, secret: bytes = SECRET) -> PeerIdentity:
        """Do the dialler's handshake."""
        dialler = Dialler(us, target, secret)
        self.writer.write(dialler.hello())
        while dialler.peer is None:
            self.writer.write(dialler.gets(await self.record()))
        return dialler.peer

    async def admit(self, us: PeerIdentity, secret: bytes = SECRET) -> PeerIdentity:
        """Do the acceptor's handshake."""
        acceptor = Acceptor(us, secret, lambda peer: True)
        while acceptor.peer is None:
            self.writer.write(acceptor.gets(await self.record()))
        return acceptor.peer

    async def close(self) -> None:
        """End the connection."""
        self.writer.close()
        with suppress(ConnectionError):
            await self.writer.wait_closed()


@asynccontextmanager
async def dialled(node: Node, receive_buffer: int = 0) -> AsyncIterator[Raw]:
    """Connect to a node without a handshake; the kernel buffers about ``receive_buffer`` bytes (0: its default)."""
    sock = socket.socket()
    sock.setblocking(False)
    if receive_buffer:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", node.link.port))
    raw = Raw(*await asyncio.open_connection(sock=sock))
    try:
        yield raw
    finally:
        await raw.close()


def identity(node_id: str, cluster_id: str = "") -> PeerIdentity:
    """Return an identity of a node."""
    return PeerIdentity(node_id, f"{node_id}-1", cluster_id)


class Listener:
    """Listens for peers; runs ``serve`` for each connection and closes the connection after it."""

    def __init__(self, serve: Callable[[Raw], Awaitable[None]]) -> None:
        self._serve = serve
        self._tasks: set[asyncio.Task[None]] = set()
        self._listener = listener.Listener(self._protocol, BoundedLog())
        self.port = 0

    @property
    def address(self) -> str:
        """Where it listens."""
        return f"127.0.0.1:{self.port}"

    async def __aenter__(self) -> Listener:
        self.port = await self._listener.start("127.0.0.1", 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._listener.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _protocol(self) -> asyncio.StreamReaderProtocol:
        return asyncio.StreamReaderProtocol(asyncio.StreamReader(), self._connected)

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(self._run(Raw(reader, writer)))
        # A task that is cancelled before it has started closes nothing itself.
        task.add_done_callback(lambda _: writer.close())
        self._tasks.add(task)

    async def _run(self, raw: Raw) -> None:
        try:
            with suppress(ConnectionError, asyncio.IncompleteReadError):
                await self._serve(raw)
        finally:
            await raw.close()


class Relay:
    """A proxy to a port that records both directions, and can drop everything, as a broken network does."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.passes = True
        self.forth = bytearray()
        self.back = bytearray()
        self._listener = Listener(self._serve)

    @property
    def address(self) -> str:
        """Where it listens."""
        return self._listener.address

    async def __aenter__(self) -> Relay:
        await self._listener.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._listener.__aexit__()

    async def _serve(self, raw: Raw) -> None:
        far = Raw(*await asyncio.open_connection("127.0.0.1", self._port))
        try:
            copying = [self._copy(raw, far, self.forth), self._copy(far, raw, self.back)]
            await asyncio.gather(*copying)
        finally:
            await far.close()

    async def _copy(self, here: Raw, there: Raw, record: bytearray) -> None:
        while data := await here.reader.read(1 << 16):
            if self.passes:
                record += data
                there.writer.write(data)
                await there.writer.drain()
        if self.passes and there.writer.can_write_eof():
            there.writer.write_eof()
