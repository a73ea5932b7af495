"""What clients asked and were told, and whether a store that keeps its promises could have told them that.

Three checks that know nothing of each other: whether values and times fit one order of all that is linearizable
(``linearizability``), whether the indexes and revisions that came with them fit each other and the times
(``positions``), and, where it is known what the nodes hold when all is over, whether that is one thing, and a last
read of it fits too.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from math import inf
from typing import NamedTuple

from raftkv.actors.messages.requests import (
    Applied,
    Propose,
    Read,
    ReadResult,
    Refused,
)
from raftkv.simulation.checks import positions
from raftkv.simulation.checks.committed import Carried
from raftkv.simulation.checks.effect import Effects
from raftkv.simulation.checks.hints import Hints
from raftkv.simulation.checks.linearizability import LIMIT, Call, Value, linearize
from raftkv.simulation.checks.operation import NEVER, NOT_TOLD, Anomaly, Moment, shown
from raftkv.simulation.checks.operation import Operation as Operation
from raftkv.simulation.report import story
from raftkv.store.commands import Get, Item

Finals = Mapping[str, Mapping[str, Value]]
"""What each node holds under each key when all is over; a key that is missing is not there."""


class HistoryVerdict(NamedTuple):
    """What became of a history. Only what is certain is ``ok``: what remained undecided is not."""

    ok: bool
    text: str
    """The story: what was found, and which operations show it."""
    faults: tuple[Anomaly, ...]
    undecided: tuple[str, ...]
    """The keys of stores for which the search gave up, a line for each."""
    configurations: int
    """How many the search for an order has tried."""


class History:
    """Operations in the order in which they began."""

    def __init__(self) -> None:
        self.operations: list[Operation] = []
        self.wipes: list[tuple[str, Moment]] = []
        """Which nodes began again with nothing on their disk, and when."""
        self._recorded = 0

    def begin(self, client: str, node: str, at_ms: float, request: Propose | Read) -> Operation:
        """Note that a client asks a node."""
        operation = Operation(len(self.operations), client, node, request, self._moment(at_ms))
        self.operations.append(operation)
        return operation

    def end(
        self, operation: Operation, at_ms: float, reply: Applied | ReadResult | Refused | None, answer: str = ""
    ) -> None:
        """Note what a client was told, or with ``None`` that it has stopped to wait.

        ``answer`` is for people; without it, it is the reply's name or its code. Raises ``ValueError`` for the reply to
        another kind of request, and for a second one.
        """
        if operation.ended != NEVER:
            raise ValueError(f"this one has ended already: {operation}")
        if isinstance(reply, ReadResult if isinstance(operation.request, Propose) else Applied):
            raise ValueError(f"{reply} does not answer {operation}")
        operation.ended = self._moment(max(at_ms, operation.invoked_ms))
        operation.reply = reply
        if isinstance(reply, Refused):
            operation.outcome = "unknown" if reply.code == "unknown" else "failed"
            operation.answer = answer or f"{reply.code}: {reply.detail}".rstrip(": ")
        elif reply is None:
            operation.answer = answer or "no answer"
        else:
            operation.outcome = "ok"
            operation.answer = answer

    def wiped(self, node: str, at_ms: float) -> None:
        """Note that a node begins again with an empty disk: what it had shown to readers binds it no more."""
        self.wipes.append((node, self._moment(at_ms)))

    def keys(self) -> list[str]:
        """Return the keys that anybody asked for, in order."""
        return sorted({key for operation in self.operations for key in operation.keys})

    def verdict(self, finals: Finals | None = None, limit: int = LIMIT, log: Iterable[Carried] = ()) -> HistoryVerdict:
        """Judge it all; ``limit`` is to the configurations that the search for an order tries for one store.

        ``log`` is what was carried out, where somebody knows that: it tells where to look first, and no more.
        """
        last = _last_reads(len(self.operations), self.operations, finals or {})
        everything = [*self.operations, *last]
        faults: list[Anomaly] = []
        undecided: list[str] = []
        tried = 0
        for found in linearize(_calls(everything, log), limit):
            tried += found.configurations
            if found.outcome == "not linearizable":
                faults.append(story.of(found, everything))
            elif found.outcome == "undecided":
                undecided.append(story.undecided(found))
        faults += _differences(finals or {}) + positions.contradictions(self.operations, self.wipes)
        told = story.whole(self.operations, faults, undecided)
        return HistoryVerdict(not faults and not undecided, told, tuple(faults), tuple(undecided), tried)

    def _moment(self, at_ms: float) -> Moment:
        self._recorded += 1
        return Moment(at_ms, self._recorded)


def _calls(operations: Sequence[Operation], log: Iterable[Carried]) -> list[Call]:
    """Return what must be linearizable, with ranks as times; labels are the places of the operations."""
    moments = sorted({moment for operation in operations for moment in (operation.began, operation.ended)})
    ranks = {moment: float(rank) for rank, moment in enumerate(moments)}
    hints = Hints(operations, log)
    effects = Effects(operations)
    calls = []
    for place, operation in enumerate(operations):
        began, ended = ranks[operation.began], ranks[operation.ended]
        request, reply = operation.request, operation.reply
        if isinstance(request, Propose) and operation.outcome != "failed":
            applied = reply if isinstance(reply, Applied) else None
            ways = effects.ways(request, applied)
            for way in ways:
                sees, leaves = way
                hint = hints.hint(operation, way)
                if applied is None:
                    name = str(place) if len(ways) > 1 else ""
                    calls.append(Call(began, inf, sees, leaves, str(place), hint, name))
                elif sees or leaves:
                    calls.append(Call(began, ended, sees, leaves, str(place), hint))
        elif isinstance(request, Read) and isinstance(reply, ReadResult) and operation.kind == "read":
            calls.append(Call(began, ended, tuple(positions.found(request, reply)), (), str(place)))
    return calls


def _last_reads(first: int, operations: Iterable[Operation], finals: Finals) -> list[Operation]:
    """Return reads, after everything, of what the nodes hold in the end: one for each key and value."""
    touched = {key for operation in operations for key in operation.keys}
    after_ms = max(
        [moment.ms for each in operations for moment in (each.began, each.ended) if moment.ms < inf] or [0.0]
    )
    began, ended = Moment(after_ms, 2**62), Moment(after_ms, 2**62 + 1)
    reads: list[Operation] = []
    for key in sorted(touched.union(*finals.values())) if finals else ():
        holders: dict[Value, list[str]] = {}
        for node in sorted(finals):
            holders.setdefault(finals[node].get(key), []).append(node)
        for value, nodes in holders.items():
            item = None if value is None else Item(value, NOT_TOLD, NOT_TOLD, NOT_TOLD)
            reply = ReadResult(NOT_TOLD, NOT_TOLD, (item,))
            read = Read((Get(key),), "linearizable", 0.0)
            told = "when all was over"
            place = first + len(reads)
            reads.append(Operation(place, "the end", " and ".join(nodes), read, began, ended, "ok", reply, told))
    return reads


def _differences(finals: Finals) -> list[Anomaly]:
    """Return the keys under which the nodes hold different things in the end."""
    faults = []
    for key in sorted({key for held in finals.values() for key in held}):
        values = {node: finals[node].get(key) for node in sorted(finals)}
        if len(set(values.values())) > 1:
            told = ", ".join(f"{node} has {shown(value)}" for node, value in values.items())
            faults.append(Anomaly(f"{key}: the nodes differ in the end: {told}", ()))
    return faults
