"""Hints for the search for an order: where in the history each write probably took effect.

They come from the answers of servers, or from the log if it is known, and may be wrong: hints change no verdict, only
how soon the search reaches one. Without them, a hundred requests without an answer may be too many to try.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from math import inf
from typing import NamedTuple

from raftkv.actors.messages.requests import Applied, Propose
from raftkv.simulation.checks import positions
from raftkv.simulation.checks.committed import AppliedCommand
from raftkv.simulation.checks.effect import Effect
from raftkv.simulation.checks.linearizability import Value
from raftkv.simulation.checks.operation import Operation
from raftkv.store.commands import Command, Delete, DeleteIf, Put, PutIf, Unmatched


class _Place(NamedTuple):
    """Where in the log a request was applied: the revision before it, and the values it left."""

    revision: int
    leaves: dict[str, Value]


def _earliest_places(operations: Iterable[Operation]) -> dict[int, int]:
    """Return, for each operation, the first index after all writes that had been answered when it began."""
    events = [(operation.began, operation) for operation in operations]
    events += [(operation.ended, operation) for operation in operations if isinstance(operation.reply, Applied)]
    earliest, places = 0, {}
    for moment, operation in sorted(events, key=lambda event: event[0]):
        if moment == operation.began:
            places[operation.number] = earliest
        elif isinstance(operation.reply, Applied):
            earliest = max(earliest, operation.reply.index + 1)
    return places


def _doubt(operation: Operation) -> int:
    """Return how uncertain the index of a write is: deletions look all alike, a value is written once."""
    if isinstance(operation.reply, Applied):
        return 0
    return 2 if all(isinstance(each, Delete | DeleteIf) for each in getattr(operation.request, "commands", ())) else 1


class Hints:
    """The revisions at which writes took effect: from the whole ``log`` if it is given, else from reads."""

    def __init__(self, operations: Sequence[Operation], log: Iterable[AppliedCommand] = ()) -> None:
        self._log = list(log)
        self._read = {} if self._log else positions.revisions(operations)
        self._places: dict[int, _Place] = {}
        """By number of the operation; one that is missing was not applied."""
        if self._log:
            self._find_places(operations)

    def hint(self, operation: Operation, effect: Effect) -> float:
        """Return the revision before an operation with this effect, ``inf`` if it seems to have had no effect."""
        if isinstance(operation.reply, Applied):
            return positions.before(operation)
        if not self._log:
            return min(self._read.get(fact, inf) for fact in effect.leaves) - 1
        place = self._places.get(operation.number)
        return place.revision if place is not None and place.leaves == dict(effect.leaves) else inf

    def _find_places(self, operations: Iterable[Operation]) -> None:
        where: dict[Command, list[int]] = defaultdict(list)
        for number, applied in enumerate(self._log):
            where[applied.command].append(number)
        taken: set[int] = set()
        earliest = _earliest_places(operations)
        for operation in sorted(operations, key=_doubt):
            if isinstance(operation.request, Propose) and operation.outcome != "failed":
                count = len(operation.request.commands)
                for first in where[operation.request.commands[0]]:
                    numbers = range(first, first + count)
                    if taken.isdisjoint(numbers) and self._is_at(first, operation, earliest.get(operation.number, 0)):
                        taken.update(numbers)
                        self._places[operation.number] = self._place(first, count)
                        break

    def _is_at(self, first: int, operation: Operation, earliest: int) -> bool:
        assert isinstance(operation.request, Propose)
        applied = self._log[first : first + len(operation.request.commands)]
        index = applied[0].entry_index
        if index != operation.reply.index if isinstance(operation.reply, Applied) else index < earliest:
            return False
        return (
            tuple([each.command for each in applied]) == operation.request.commands and applied[-1].entry_index == index
        )

    def _place(self, first: int, count: int) -> _Place:
        leaves: dict[str, Value] = {}
        for _, _, command, result in self._log[first : first + count]:
            if isinstance(command, Put | Delete) or not isinstance(result, Unmatched):
                leaves[command.key] = command.value if isinstance(command, Put | PutIf) else None
        return _Place(self._log[first].revision, leaves)
