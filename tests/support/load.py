"""Clients that write and read through all nodes of a cluster, in a thread of their own, and record a history."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from concurrent.futures import Future
from random import Random
from typing import Any, NamedTuple, TypeVar

from raftkv.actors.messages.requests import (
    Applied,
    Propose,
    Read,
    ReadResult,
    Refused,
)
from raftkv.simulation.checks.history import History, Operation
from raftkv.simulation.checks.linearizability import Value
from raftkv.simulation.checks.operation import NOT_REPORTED
from raftkv.store.commands import NOT_THERE, THERE, Get, Item, Put, PutDone, PutIf, Unmatched
from tests.support.cluster import Cluster, wait_for

# Shorter than the default of a node, because a client that waits for a leader that is gone writes nothing.
REQUEST_TIMEOUT_S = 1.0
PATIENCE_S = 20.0
"""How long a client waits for an answer: longer than any timeout or freeze of a node."""

PACE_S = 0.02
"""Mean pause of a client between two requests, so that the clients leave the machine to the nodes."""

REGISTERS = 4
"""Number of keys that all clients write."""

Result = TypeVar("Result")


def now_ms() -> float:
    """Return the time for the history."""
    return time.monotonic() * 1000


def value_of(request: Propose) -> str:
    """Return the text that a write of one key writes."""
    (put,) = request.commands
    assert isinstance(put, Put | PutIf), put
    return put.value.decode()


def conditions(request: Propose) -> dict[str, str]:
    """Return the headers with the condition of a write of one key."""
    (put,) = request.commands
    if not isinstance(put, PutIf):
        return {}
    if put.revision == NOT_THERE:
        return {"If-None-Match": "*"}
    return {"If-Match": "*" if put.revision == THERE else f'"{put.revision}"'}


class Response(NamedTuple):
    """An answer as it came; ``body`` is decoded JSON, the names of ``headers`` are in lower case."""

    status: int
    body: Any
    headers: Mapping[str, str]


class Connection:
    """A connection to one node; answers come in the order of the requests."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def open(cls, port: int) -> Connection:
        """Connect; raises ``OSError``."""
        return cls(*await asyncio.open_connection("127.0.0.1", port))

    def send(self, method: str, path: str, body: object = None, headers: Mapping[str, str] | None = None) -> None:
        """Send a request; the answers to those before it may still be under way."""
        data = b"" if body is None else json.dumps(body).encode()
        lines = [f"{method} {path} HTTP/1.1", "Host: a", f"Content-Length: {len(data)}"]
        lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
        self._writer.write("\r\n".join([*lines, "", ""]).encode() + data)

    async def receive(self) -> Response:
        """Return the next answer; raises ``OSError`` or ``EOFError``."""
        head = await self._reader.readuntil(b"\r\n\r\n")
        lines = head.decode("latin-1").split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in lines[1:] if line)
        body = await self._reader.readexactly(int(headers["content-length"]))
        return Response(int(lines[0].split()[1]), json.loads(body), headers)

    @property
    def ended(self) -> bool:
        """Whether the node has ended it."""
        return self._reader.at_eof()

    def close(self) -> None:
        """Close it at once."""
        self._writer.transport.abort()


@contextlib.asynccontextmanager
async def connected(port: int) -> AsyncIterator[Connection]:
    """Connect for a while."""
    connection = await Connection.open(port)
    try:
        yield connection
    finally:
        connection.close()


class Load:
    """Writers and readers through each node, until they are stopped. ``seed`` decides what they do, not when.

    Half of the writes go to keys that are written once, the others to a few registers that all clients write and read;
    some of these have the last known revision of the register as their condition.
    """

    def __init__(
        self,
        ports: Mapping[str, int],
        seed: int,
        writers: int = 2,
        readers: int = 1,
        timeout_s: float = REQUEST_TIMEOUT_S,
    ) -> None:
        """Take the nodes' ports, how many writers and readers each node gets, and the timeout of their requests."""
        self.history = History()
        self.surprises: list[str] = []
        """Answers that no node may ever give."""
        self.answers: Counter[str] = Counter()
        self._done: Counter[tuple[str, str]] = Counter()
        self._ports = ports
        self._timeout_s = timeout_s
        self._numbers: Counter[str] = Counter()
        self._revisions: dict[str, int] = {}
        """The last revision of a key that any client has seen."""
        self._ending = False
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="clients")
        self._thread.start()
        self._clients = [
            self._spawn(self._act(node, f"{node}-{kind[0]}{number}", kind == "writer", seed))
            for node in ports
            for kind, count in (("writer", writers), ("reader", readers))
            for number in range(count)
        ]

    # --- Called in the thread of the test.

    def written(self, *nodes: str) -> int:
        """Return how many writes were acknowledged so far, through these nodes or all."""
        return sum(self._done["write", node] for node in nodes or self._ports)

    def wait_for_writes(self, count: int, *nodes: str) -> None:
        """Wait for ``count`` more acknowledged writes through each of these nodes, or in total without ``nodes``."""
        before = {node: self.written(node) for node in self._ports}

        def look() -> bool:
            for client in self._clients:
                if client.done():
                    client.result()
            more = {node: self.written(node) - before[node] for node in before}
            return min(more[node] for node in nodes) >= count if nodes else sum(more.values()) >= count

        wait_for(look, f"{count} more writes through {nodes or 'any'}")

    def stop(self) -> None:
        """Let every client finish its request; raises what went wrong in any of them."""
        self._ending = True
        for client in self._clients:
            client.result(2 * PATIENCE_S)
        assert self.surprises == []

    def close(self) -> None:
        """End the thread and cancel the clients."""
        self._ending = True
        if self._thread.is_alive():
            asyncio.run_coroutine_threadsafe(self._cancel_all(), self._loop).result(PATIENCE_S)
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()

    def read_in_a_row(self, node: str, count: int) -> Future[list[Operation]]:
        """Send ``count`` reads of registers on one connection at once; the future has the finished operations."""
        return self._spawn(self._read_in_a_row(node, count))

    def read_all(self, nodes: Sequence[str], keys: Sequence[str]) -> dict[str, dict[str, Value]]:
        """Return the values of these keys by stale reads at each of these nodes."""
        reading = {node: self._spawn(self._read_all(node, keys)) for node in nodes}
        return {node: future.result(4 * PATIENCE_S) for node, future in reading.items()}

    def run(self, work: Coroutine[Any, Any, Result]) -> Result:
        """Run a coroutine in the thread of the clients, and return its result."""
        return self._spawn(work).result(4 * PATIENCE_S)

    # --- In the thread of the clients.

    def _spawn(self, work: Coroutine[Any, Any, Result]) -> Future[Result]:
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    async def _cancel_all(self) -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        # A transport that was aborted closes its socket in the next turn.
        await asyncio.sleep(0)

    async def _act(self, node: str, name: str, writes: bool, seed: int) -> None:
        rng = Random(f"{seed} {name}")
        while not self._ending:
            try:
                async with connected(self._ports[node]) as connection:
                    await self._act_on(connection, node, name, writes, rng)
            except OSError as error:
                # Nothing was sent, so there is no operation to record.
                self.answers[type(error).__name__] += 1
                await asyncio.sleep(PACE_S)

    async def _act_on(self, connection: Connection, node: str, name: str, writes: bool, rng: Random) -> None:
        """Send one request after another as long as the connection lasts."""
        while not self._ending and not connection.ended:
            request = self._next_write(name, rng) if writes else self._next_read(rng)
            if not await self._receive(connection, self._send(connection, node, name, request)):
                return
            await asyncio.sleep(rng.choice([0, rng.uniform(0, 4 * PACE_S)]))

    def _next_write(self, name: str, rng: Random) -> Propose:
        self._numbers[name] += 1
        value = f"{name}-{self._numbers[name]}"
        if rng.random() < 0.5:
            return Propose((Put(f"once-{value}", value.encode()),), self._timeout_s * 1000)
        key = f"register-{rng.randrange(REGISTERS)}"
        known = self._revisions.get(key, NOT_THERE)
        demanded = rng.choice([None, None, None, known, known, THERE, NOT_THERE])
        put = Put(key, value.encode()) if demanded is None else PutIf(key, value.encode(), demanded)
        return Propose((put,), self._timeout_s * 1000)

    def _next_read(self, rng: Random) -> Read:
        asked = self.history.operations
        key = f"register-{rng.randrange(REGISTERS)}" if rng.random() < 0.7 or not asked else rng.choice(asked).keys[0]
        return Read((Get(key),), "linearizable", self._timeout_s * 1000)

    def _send(self, connection: Connection, node: str, name: str, request: Propose | Read) -> Operation:
        operation = self.history.begin(name, node, now_ms(), request)
        path = f"/keys/{operation.keys[0]}/?timeout={request.timeout_ms / 1000:g}"
        if isinstance(request, Propose):
            connection.send("PUT", path, {"value": value_of(request)}, conditions(request))
        else:
            connection.send("GET", path + "&missing=404")
        return operation

    async def _receive(self, connection: Connection, operation: Operation) -> bool:
        """Record the result of an operation; return whether the connection is still usable."""
        try:
            async with asyncio.timeout(PATIENCE_S):
                response = await connection.receive()
        except (OSError, EOFError, TimeoutError) as error:
            self.history.end(operation, now_ms(), None, type(error).__name__)
            self.answers[f"{operation.kind}: {operation.answer}"] += 1
            return False
        self.history.end(operation, now_ms(), self._reply(operation, response), str(response.status))
        self.answers[f"{operation.kind}: {operation.answer}"] += 1
        return True

    def _reply(self, operation: Operation, response: Response) -> Applied | ReadResult | Refused:
        """Return the message behind an answer, with ``NOT_TOLD`` for the fields that a client does not learn."""
        status, body, headers = response
        reads = isinstance(operation.request, Read)
        if status == 412 and isinstance(operation.request, Propose):
            return self._not_matched(operation, operation.request, response)
        if status == 200 or (reads and status == 404):
            self._done[operation.kind, operation.node] += 1
            revision = int(headers["x-raft-revision"])
            if isinstance(operation.request, Propose):
                if body != {"value": value_of(operation.request)}:
                    self.surprises.append(f"{operation}: {body}")
                self._saw(operation, revision)
                return Applied(NOT_REPORTED, int(headers["x-raft-term"]), revision, (PutDone(revision),))
            if status == 404:
                return ReadResult(NOT_REPORTED, revision, (None,))
            modified = self._saw(operation, int(headers["etag"].strip('"')))
            item = Item(body["value"].encode(), NOT_REPORTED, modified, NOT_REPORTED)
            return ReadResult(NOT_REPORTED, revision, (item,))
        expected = {429: "not_done", 503: "not_done", 504: "unknown", 507: "not_done"}.get(status)
        if expected is None or body["error"]["outcome"] != expected or (reads and status == 504):
            self.surprises.append(f"{operation}: {body}")
        return Refused("retry" if expected == "not_done" else "unknown")

    def _not_matched(self, operation: Operation, request: Propose, response: Response) -> Applied:
        status, body, headers = response
        current = body["error"]["current_revision"]
        etag = None if current is None else f'"{current}"'
        if not conditions(request) or body["error"]["outcome"] != "not_done" or headers.get("etag") != etag:
            self.surprises.append(f"{operation}: {status} {body} {headers}")
        revision = int(headers["x-raft-revision"])
        result = Unmatched(revision, NOT_THERE if current is None else self._saw(operation, current))
        return Applied(NOT_REPORTED, int(headers["x-raft-term"]), revision, (result,))

    def _saw(self, operation: Operation, revision: int) -> int:
        (key,) = operation.keys
        self._revisions[key] = max(revision, self._revisions.get(key, NOT_THERE))
        return revision

    async def _read_in_a_row(self, node: str, count: int) -> list[Operation]:
        async with connected(self._ports[node]) as connection:
            keys = [f"register-{number % REGISTERS}" for number in range(count)]
            requests = [Read((Get(key),), "linearizable", PATIENCE_S / 2 * 1000) for key in keys]
            operations = [self._send(connection, node, f"{node}-row", request) for request in requests]
            for operation in operations:
                await self._receive(connection, operation)
            return operations

    async def _read_all(self, node: str, keys: Sequence[str]) -> dict[str, Value]:
        values: dict[str, Value] = {}
        async with connected(self._ports[node]) as connection, asyncio.timeout(3 * PATIENCE_S):
            for first in range(0, len(keys), 100):
                some = keys[first : first + 100]
                for key in some:
                    connection.send("GET", f"/keys/{key}/?level=stale&missing=404")
                for key in some:
                    response = await connection.receive()
                    assert response.status in (200, 404), (node, key, response)
                    values[key] = response.body["value"].encode() if response.status == 200 else None
        return values


MakeLoad = Callable[..., Load]
"""A fixture: takes a cluster and what else ``Load`` takes, and closes the load after the test."""


def check(cluster: Cluster, load: Load) -> None:
    """Stop the load, and raise unless the cluster has kept all its promises to its clients.

    Every running node has every acknowledged write and no value that was never written, and all reads fit one order of
    the writes.
    """
    load.stop()
    cluster.wait_for_leader()
    last_reads = [load.read_in_a_row(node, REGISTERS) for node in cluster.running]
    assert {operation.outcome for reads in last_reads for operation in reads.result(PATIENCE_S)} == {"ok"}
    cluster.wait_until_equal()
    history = load.history
    verdict = history.verdict(load.read_all(cluster.running, history.keys()))
    print(f"{len(history.operations)} operations, {load.written()} writes acknowledged: {dict(load.answers)}")
    if not verdict.ok:
        path = cluster.directory / "history.txt"
        path.write_text("\n".join(map(str, history.operations)))
        raise AssertionError(f"{verdict.text}\n(all operations are in {path})")
