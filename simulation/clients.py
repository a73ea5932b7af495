"""The clients of a simulated cluster: each sends one request after the other, and records requests and answers.

They are outside of the machines, like programs with an HTTP client: a node that is down refuses the connection, a node
that crashes never answers, and after its time-out a client gives up without knowing whether its request took effect.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from random import Random
from typing import Any

from raftkv.actors.gateway import RequestFailed
from raftkv.actors.messages.requests import (
    Applied,
    Propose,
    Read,
    ReadResult,
    Refused,
)
from raftkv.simulation.checks.history import History
from raftkv.simulation.checks.operation import Operation
from raftkv.simulation.checks.violation import Violation
from raftkv.simulation.cluster.cluster import SimulatedCluster, SimulatedNode
from raftkv.store.commands import NOT_THERE, THERE, Command, Delete, DeleteIf, Get, Put, PutDone, PutIf, Unmatched

PATIENCE_MS = 300.0
"""How much longer than the time-out of its request a client waits for an answer."""

REMEMBERED = 5
"""How many revisions of a key the notes keep: all but the last are stale."""


class Mix:
    """What the clients of one run do, drawn from its seed."""

    def __init__(self, random: Random) -> None:
        self.clients = random.choice([1, 3, 5, 8])
        self.keys = [f"k{number}" for number in range(random.choice([1, 3, 8]))]
        self.think_ms = random.choice([0.0, 5.0, 30.0, 200.0])
        self.timeouts_ms = random.choice([(100.0,), (300.0, 2000.0), (5000.0,)])
        self.value_bytes = random.choice([0, 0, 100, 3000])
        self.weights = {
            "put": random.choice([1, 5]),
            "delete": random.choice([0, 1]),
            "get": random.choice([1, 5]),
            "stale": random.choice([0, 1]),
            "put-many": random.choice([0, 0, 1]),
            "get-many": random.choice([0, 0, 1]),
        }
        self.asks_leader = random.random() < 0.5
        """Whether requests go to a node that believes it is the leader, if there is one."""
        self.stays = random.random()
        """The probability that a client stays with its last node."""
        self.weights["put-if"] = random.choice([0, 1, 5])
        self.weights["delete-if"] = random.choice([0, 0, 1])
        self.weights["if-many"] = random.choice([0, 0, 1])
        self.shares = random.random() < 0.5
        """Whether all clients share their notes of revisions, or each has its own."""
        self.asks_node = random.choice([0.0, 0.0, 0.2])
        """The probability that a request bypasses the gateway."""
        self.stale = random.choice([0.0, 0.2, 0.5])
        """The probability that a condition does not use the latest revision of the notes."""


class Notes:
    """The revisions of keys that clients have seen in answers, for the conditions of their writes."""

    def __init__(self, random: Random, mix: Mix) -> None:
        self._random = random
        self._mix = mix
        self._notes: dict[tuple[str, str], deque[int]] = {}

    def add_reply(self, client: str, request: Propose | Read, reply: Any) -> None:
        """Note the revisions in a reply."""
        if isinstance(request, Read) and isinstance(reply, ReadResult):
            for query, item in zip(request.queries, reply.items, strict=False):
                self._add(client, query.key, NOT_THERE if item is None else item.modify_revision)
        elif isinstance(request, Propose) and isinstance(reply, Applied):
            for command, result in zip(request.commands, reply.results, strict=False):
                if isinstance(result, Unmatched):
                    self._add(client, command.key, result.modify_revision)
                else:
                    self._add(client, command.key, result.revision if isinstance(result, PutDone) else NOT_THERE)

    def choose(self, client: str, key: str) -> int:
        """Return a revision for a condition: mostly the latest one."""
        known: list[int] = [NOT_THERE, *self._notes.get(self._place(client, key), ())]
        return known[-1] if self._random.random() >= self._mix.stale else self._random.choice([THERE, *known])

    def _add(self, client: str, key: str, revision: int) -> None:
        self._notes.setdefault(self._place(client, key), deque(maxlen=REMEMBERED)).append(revision)

    def _place(self, client: str, key: str) -> tuple[str, str]:
        return "" if self._mix.shares else client, key


class Clients:
    """All clients of a cluster."""

    def __init__(self, cluster: SimulatedCluster, history: History, seed: int) -> None:
        self._cluster = cluster
        self.history = history
        self._random = Random(f"clients of {seed}")
        self.mix = Mix(self._random)
        self._notes = Notes(self._random, self.mix)
        self._values = 0
        self._stopped = False
        self.on_request: Callable[[Operation], None] | None = None
        """Called with each request when it is sent."""
        self.answers: dict[str, int] = {}
        """How many requests ended with which kind of answer."""

    def start(self) -> None:
        """Start all clients."""
        for number in range(self.mix.clients):
            self._cluster.simulation.scheduler.after(
                self._random.uniform(0.0, 50.0), self._request_next, f"c{number}", ""
            )

    def stop(self) -> None:
        """Send no further requests."""
        self._stopped = True

    def request_once(self, name: str, kind: str, done: Callable[[Any], None]) -> None:
        """Send one request through this node and call ``done`` with the reply, or with None."""
        node = self._cluster.machines[name].node
        if node is None:
            self._cluster.simulation.scheduler.after(50.0, done, None)
        else:
            self._send_request(f"after-{name}", node, kind, 2000.0, done)

    def _request_next(self, client: str, last: str) -> None:
        if self._stopped:
            return
        name = self._choose_node(last)
        node = self._cluster.machines[name].node
        if node is None or (not node.recovered and self._random.random() < 0.9):
            # The connection is refused; the client tries another node a little later.
            self._again(client, "", 20.0)
            return
        kinds, weights = zip(*self.mix.weights.items(), strict=True)
        kind = self._random.choices(kinds, weights)[0]
        timeout_ms = self._random.choice(self.mix.timeouts_ms)
        self._send_request(client, node, kind, timeout_ms, lambda reply: self._again(client, name, self.mix.think_ms))

    def _again(self, client: str, last: str, think_ms: float) -> None:
        pause_ms = self._random.expovariate(1 / think_ms) if think_ms else 0.1
        self._cluster.simulation.scheduler.after(pause_ms, self._request_next, client, last)

    def _choose_node(self, last: str) -> str:
        leaders = self._cluster.leaders() if self.mix.asks_leader else []
        if leaders:
            return self._random.choice(leaders)
        if last and self._random.random() < self.mix.stays:
            return last
        return self._random.choice(self._cluster.names)

    def _send_request(
        self, client: str, node: SimulatedNode, kind: str, timeout_ms: float, done: Callable[[Any], None]
    ) -> None:
        """Send one request; ``done`` is called once, with the reply or None."""
        request = self._request(client, kind, timeout_ms)
        name = node.machine.name
        scheduler = self._cluster.simulation.scheduler
        operation = self.history.begin(client, name, scheduler.now_ms, request)
        if self.on_request is not None:
            self.on_request(operation)
        waiting, is_recovered = True, node.recovered

        def end(reply: Any) -> None:
            nonlocal waiting
            if waiting:
                waiting = False
                if reply is None and is_recovered:
                    _check_silence(operation, node)
                answer = reply.code if isinstance(reply, Refused) else type(reply).__name__ if reply else "silence"
                self.answers[answer] = self.answers.get(answer, 0) + 1
                self._notes.add_reply(client, request, reply)
                self.history.end(operation, scheduler.now_ms, reply)
                done(reply)

        scheduler.after(timeout_ms + PATIENCE_MS, end, None)
        self._send(node, kind, request, timeout_ms, end)

    def _send(
        self, node: SimulatedNode, kind: str, request: Any, timeout_ms: float, end: Callable[[Any], None]
    ) -> None:
        """Send through the gateway what it supports, and to the node what only messages can express."""
        if kind.endswith("many") or self._random.random() < self.mix.asks_node:
            ask = node.system.ask(node.address, request, (timeout_ms + PATIENCE_MS) / 1000)
            ask.add_done_callback(lambda ask: end(None if ask.cancelled() else ask.result()))
        elif isinstance(request, Propose):
            write = node.gateway.propose(request.commands[0], timeout_ms / 1000)
            write.add_done_callback(lambda write: end(_written(write)))
        else:
            read = node.gateway.read(request.queries[0], request.level, timeout_ms / 1000)
            read.add_done_callback(lambda read: end(_found(read)))

    def _request(self, client: str, kind: str, timeout_ms: float) -> Propose | Read:
        keys = self.mix.keys
        if kind.endswith("many"):
            keys = self._random.sample(keys, self._random.randint(1, min(4, len(keys))))
        else:
            keys = [self._random.choice(keys)]
        if kind in ("put", "put-many"):
            return Propose(tuple([self._put(key) for key in keys]), timeout_ms)
        if kind == "put-if":
            return Propose((self._put_if(client, keys[0]),), timeout_ms)
        if kind == "delete-if":
            return Propose((self._delete_if(client, keys[0]),), timeout_ms)
        if kind == "if-many":
            return Propose(tuple(self._some(client, keys)), timeout_ms)
        if kind == "delete":
            return Propose((Delete(keys[0]),), timeout_ms)
        level: Any = "stale" if kind == "stale" else "linearizable"
        return Read(tuple([Get(key) for key in keys]), level, timeout_ms)

    def _some(self, client: str, keys: list[str]) -> list[Command]:
        """Return the commands of one entry, with two on the same key: the second sees what the first has left."""
        commands: list[Command] = []
        for key in [keys[0], *keys]:
            chance = self._random.random()
            if chance < 0.2:
                commands.append(self._put(key))
            elif chance < 0.3:
                commands.append(Delete(key))
            else:
                commands.append(self._delete_if(client, key) if chance < 0.5 else self._put_if(client, key))
        return commands

    def _put(self, key: str) -> Command:
        return Put(key, self._value())

    def _put_if(self, client: str, key: str) -> Command:
        return PutIf(key, self._value(), self._notes.choose(client, key))

    def _delete_if(self, client: str, key: str) -> Command:
        # Nodes refuse a delete on the condition that the key is absent.
        return DeleteIf(key, self._notes.choose(client, key) or THERE)

    def _value(self) -> bytes:
        self._values += 1
        return b"%d" % self._values + b"." * self._random.randint(0, self.mix.value_bytes)


def _check_silence(operation: Operation, node: SimulatedNode) -> None:
    """Check that a missing answer has a reason: a healthy node at least answers that the outcome is unknown."""
    machine = node.machine
    if machine.is_well_since(node, operation.invoked_ms):
        raise Violation(f"{machine.name} is healthy but has not answered: {operation}")


def _written(write: asyncio.Future[Any]) -> Any:
    """Return the result of a write as a message."""
    error = write.exception()
    if isinstance(error, RequestFailed):
        return error.refused
    applied, result = write.result()
    return Applied(applied.index, applied.term, applied.revision, (result,))


def _found(read: asyncio.Future[Any]) -> Any:
    """Return the result of a read as a message."""
    error = read.exception()
    if isinstance(error, RequestFailed):
        return error.refused
    result, item = read.result()
    return ReadResult(result.index, result.revision, (item,))
