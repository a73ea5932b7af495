"""The requests and answers of all clients, and the verdict whether a correct store could have given these answers.

Three independent checks: whether values and times fit one linear order (``linearizability``); whether the indexes and
revisions in the answers agree with each other and with the times (``positions``); and, if the final contents of the
nodes are known, whether these are equal and a last read of them fits the order too.
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
from raftkv.simulation.checks import explanation, positions
from raftkv.simulation.checks.committed import AppliedCommand
from raftkv.simulation.checks.effect import Effects
from raftkv.simulation.checks.hints import Hints
from raftkv.simulation.checks.linearizability import LIMIT, Call, Value, linearize
from raftkv.simulation.checks.operation import JUDGED, NEVER, NOT_REPORTED, Anomaly, Moment, shown
from raftkv.simulation.checks.operation import Operation as Operation
from raftkv.store.commands import Get, Item

Finals = Mapping[str, Mapping[str, Value]]
"""The value of each node under each key at the end; a missing key has no value."""


class HistoryVerdict(NamedTuple):
    """The verdict on a history. ``ok`` means certainly correct: an undecided history is not ``ok``."""

    ok: bool
    text: str
    """The explanation: the anomalies, and the operations that show them."""
    anomalies: tuple[Anomaly, ...]
    undecided: tuple[str, ...]
    """A line for each group of keys for which the search gave up."""
    configurations: int
    """How many the search for an order tried."""


class History:
    """Operations in the order in which they began."""

    def __init__(self) -> None:
        self.operations: list[Operation] = []
        self.wipes: list[tuple[str, Moment]] = []
        """Nodes that restarted with an empty disk, and when."""
        self._recorded = 0

    def begin(self, client: str, node: str, at_ms: float, request: Propose | Read) -> Operation:
        """Note that a client sends a request to a node; raises ``ValueError`` for a command that no check knows."""
        for command in request.commands if isinstance(request, Propose) else ():
            if type(command) not in JUDGED:
                raise ValueError(f"no check for {type(command).__name__}")
        operation = Operation(len(self.operations), client, node, request, self._moment(at_ms))
        self.operations.append(operation)
        return operation

    def end(
        self, operation: Operation, at_ms: float, reply: Applied | ReadResult | Refused | None, answer: str = ""
    ) -> None:
        """Note the reply that a client got, or with ``None`` that it has stopped waiting.

        ``answer`` is a text for people; by default the code of a refusal. Raises ``ValueError`` for a reply to another
        kind of request, and for a second reply.
        """
        if operation.ended != NEVER:
            raise ValueError(f"the operation has ended already: {operation}")
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
        """Note that a node restarts with an empty disk: it may show readers less than before."""
        self.wipes.append((node, self._moment(at_ms)))

    def keys(self) -> list[str]:
        """Return the keys of all requests, in order."""
        return sorted({key for operation in self.operations for key in operation.keys})

    def verdict(
        self, finals: Finals | None = None, limit: int = LIMIT, log: Iterable[AppliedCommand] = ()
    ) -> HistoryVerdict:
        """Return the verdict; ``limit`` is the number of configurations that the search tries for one group of keys.

        ``log`` is the applied commands, if they are known: they only tell the search where to look first.
        """
        last = _last_reads(len(self.operations), self.operations, finals or {})
        everything = [*self.operations, *last]
        anomalies: list[Anomaly] = []
        undecided: list[str] = []
        tried = 0
        for found in linearize(_calls(everything, log), limit):
            tried += found.configurations
            if found.judgement == "not linearizable":
                anomalies.append(explanation.of(found, everything))
            elif found.judgement == "undecided":
                undecided.append(explanation.undecided(found))
        anomalies += _differences(finals or {}) + positions.contradictions(self.operations, self.wipes)
        text = explanation.whole(self.operations, anomalies, undecided)
        return HistoryVerdict(not anomalies and not undecided, text, tuple(anomalies), tuple(undecided), tried)

    def _moment(self, at_ms: float) -> Moment:
        self._recorded += 1
        return Moment(at_ms, self._recorded)


def _calls(operations: Sequence[Operation], log: Iterable[AppliedCommand]) -> list[Call]:
    """Return the calls that must be linearizable; times are ranks, labels are positions in ``operations``."""
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
            possible = effects.possible(request, applied)
            for effect in possible:
                sees, leaves = effect
                hint = hints.hint(operation, effect)
                if applied is None:
                    name = str(place) if len(possible) > 1 else ""
                    calls.append(Call(began, inf, sees, leaves, str(place), hint, name))
                elif sees or leaves:
                    calls.append(Call(began, ended, sees, leaves, str(place), hint))
        elif isinstance(request, Read) and isinstance(reply, ReadResult) and operation.kind == "read":
            calls.append(Call(began, ended, tuple(positions.found(request, reply)), (), str(place)))
    return calls


def _last_reads(first: int, operations: Iterable[Operation], finals: Finals) -> list[Operation]:
    """Return reads of the final contents of the nodes, after all operations: one for each key and value."""
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
            item = None if value is None else Item(value, NOT_REPORTED, NOT_REPORTED, NOT_REPORTED)
            reply = ReadResult(NOT_REPORTED, NOT_REPORTED, (item,))
            read = Read((Get(key),), "linearizable", 0.0)
            answer = "at the end"
            place = first + len(reads)
            reads.append(Operation(place, "the end", " and ".join(nodes), read, began, ended, "ok", reply, answer))
    return reads


def _differences(finals: Finals) -> list[Anomaly]:
    """Return an anomaly for each key under which the nodes hold different values at the end."""
    anomalies = []
    for key in sorted({key for held in finals.values() for key in held}):
        values = {node: finals[node].get(key) for node in sorted(finals)}
        if len(set(values.values())) > 1:
            contents = ", ".join(f"{node} has {shown(value)}" for node, value in values.items())
            anomalies.append(Anomaly(f"{key}: the nodes differ at the end: {contents}", ()))
    return anomalies
