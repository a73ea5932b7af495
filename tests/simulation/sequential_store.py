"""Histories of a store that is right by how it is made: it does one request after the other."""

from __future__ import annotations

from random import Random

from raftkv.actors.messages.base import Level
from raftkv.actors.messages.requests import (
    Applied,
    Propose,
    Read,
    ReadResult,
    Refused,
)
from raftkv.raft.entry import Entry, Kind
from raftkv.simulation.checks.committed import Committed
from raftkv.simulation.checks.history import History, Operation
from raftkv.store.commands import (
    NOT_THERE,
    THERE,
    Command,
    Delete,
    DeleteIf,
    Get,
    Item,
    Put,
    PutIf,
    Unmatched,
    encode_commands,
)
from raftkv.store.keyspace import Keyspace

NODES = ("n1", "n2", "n3")


class SequentialStore:
    """Clients of a store, each with one request at a time, and stale reads that are as old as they may be.

    ``unknown`` is how many requests get no answer, ``many`` how many are about several keys, ``conditional`` how many
    writes have conditions, mostly on the latest revision that a client has seen.
    """

    def __init__(
        self,
        seed: int,
        clients: int = 6,
        operations: int = 300,
        unknown: float = 0.1,
        keys: int = 4,
        many: float = 0.2,
        conditional: float = 0.0,
        keyspace: type[Keyspace] = Keyspace,
    ) -> None:
        self.random = Random(seed)
        self.history = History()
        self.unknown = unknown
        self.many = many
        self.keys = [f"k{number}" for number in range(keys)]
        self.conditional = conditional
        self.keyspace = keyspace()
        self.committed = Committed()
        """What was done, as a log would have it."""
        self.index = 1
        self.states: list[tuple[int, dict[str, Item]]] = [(0, {}), (0, {})]
        """At each index: the revision, and everything under its key."""
        self.shown = dict.fromkeys(NODES, 0)
        """The index that each node has shown last."""
        self.values = 0
        self.reported: dict[str, list[int]] = {}
        """The revisions of each key that a client has seen."""
        self._live(clients, operations)

    def _live(self, clients: int, operations: int) -> None:
        """Begin, do, and answer, in the order of time; a client asks again when it was answered."""
        waiting: list[tuple[float, int, str, int]] = [
            (self.random.random(), client, "begin", 0) for client in range(clients)
        ]
        begun: dict[int, Operation] = {}
        replies: dict[int, Applied | ReadResult] = {}
        while waiting:
            waiting.sort()
            now_ms, client, what, number = waiting.pop(0)
            if what == "begin" and len(begun) < operations:
                number = len(begun)
                request = self._request()
                begun[number] = self.history.begin(f"c{client}", self.random.choice(NODES), now_ms, request)
                done_ms = now_ms + self.random.expovariate(1 / 5)
                end_ms = done_ms + self.random.expovariate(1 / 5)
                if self.random.random() < self.unknown:
                    # It gives up before it is done, or after that, or it is never done.
                    end_ms = now_ms + self.random.expovariate(1 / 10)
                    waiting.append((end_ms, client, "give up", number))
                    done_ms = now_ms + self.random.expovariate(1 / 100)
                    if self.random.random() < 0.7:
                        waiting.append((done_ms, client, "do", number))
                else:
                    waiting += [(done_ms, client, "do", number), (end_ms, client, "answer", number)]
            elif what == "do":
                replies[number] = self._do(begun[number])
            elif what == "answer":
                self.history.end(begun[number], now_ms, replies[number])
                self._learn(begun[number])
                waiting.append((now_ms + self.random.expovariate(1), client, "begin", 0))
            elif what == "give up":
                self.history.end(begun[number], now_ms, self.random.choice([None, Refused("unknown")]))
                waiting.append((now_ms + self.random.expovariate(1), client, "begin", 0))

    def _request(self) -> Propose | Read:
        random = self.random
        count = random.randint(2, min(3, len(self.keys))) if random.random() < self.many and len(self.keys) > 1 else 1
        keys = random.sample(self.keys, count)
        chance = random.random()
        if chance < 0.5:
            level: Level = "stale" if random.random() < 0.25 else "linearizable"
            return Read(tuple(Get(key) for key in keys), level, 1000.0)
        self.values += 1
        if random.random() < self.conditional:
            # The first of them twice: the second time, the condition is on what the first time has left.
            keys = [keys[0], *keys] if count > 1 else keys
            return Propose(tuple(self._conditional(key, place) for place, key in enumerate(keys)), 1000.0)
        if chance < 0.6:
            return Propose(tuple(Delete(key) for key in keys), 1000.0)
        return Propose(tuple(Put(key, b"v%d" % self.values) for key in keys), 1000.0)

    def _conditional(self, key: str, place: int) -> Command:
        known = self.reported.get(key, [NOT_THERE])
        revision = self.random.choice([known[-1]] * 6 + [NOT_THERE, THERE, self.random.choice(known)])
        if self.random.random() < 0.3:
            return DeleteIf(key, revision or THERE)
        value = b"v%d.%d" % (self.values, place)
        return Put(key, value) if place and self.random.random() < 0.2 else PutIf(key, value, revision)

    def _learn(self, operation: Operation) -> None:
        request, reply = operation.request, operation.reply
        if isinstance(request, Read) and isinstance(reply, ReadResult):
            for query, item in zip(request.queries, reply.items, strict=True):
                self.reported.setdefault(query.key, []).append(NOT_THERE if item is None else item.modify_revision)
        elif isinstance(request, Propose) and isinstance(reply, Applied):
            for command, result in zip(request.commands, reply.results, strict=True):
                revision = result.modify_revision if isinstance(result, Unmatched) else result.revision
                deleted = isinstance(command, Delete | DeleteIf) and not isinstance(result, Unmatched)
                self.reported.setdefault(command.key, []).append(NOT_THERE if deleted else revision)

    def _do(self, operation: Operation) -> Applied | ReadResult:
        request = operation.request
        if isinstance(request, Propose):
            results = tuple(self.keyspace.apply(command) for command in request.commands)
            data = encode_commands(request.commands)
            self.committed.add(Entry(len(self.committed) + 1, 1, Kind.COMMANDS, data), 1)
            self.index += 1
            self.states.append((self.keyspace.revision, dict(self.keyspace.items())))
            return Applied(self.index, 1, self.keyspace.revision, results)
        at = self.index
        if request.level == "stale":
            at = self.random.randint(self.shown[operation.node], self.index)
        self.shown[operation.node] = max(self.shown[operation.node], at)
        revision, state = self.states[at]
        return ReadResult(at, revision, tuple(state.get(query.key) for query in request.queries))
