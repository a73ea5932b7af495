"""Where in the order of a history its writes probably stand: where a search does well to try them.

It goes by what servers say, and by the log where that is known; all of it may be wrong. That changes no verdict, only
how soon a search comes to one: without hints, a hundred requests of unknown outcome may be more than it can try.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from math import inf
from typing import NamedTuple

from raftkv.actors.messages.requests import Applied, Propose
from raftkv.simulation.checks import positions
from raftkv.simulation.checks.committed import Carried
from raftkv.simulation.checks.effect import Way
from raftkv.simulation.checks.linearizability import Value
from raftkv.simulation.checks.operation import Operation
from raftkv.store.commands import Command, Delete, DeleteIf, Put, PutIf, Unmatched


class _Place(NamedTuple):
    """Where in the log a request was carried out: the revision before it, and what it left."""

    revision: int
    leaves: dict[str, Value]


def _earliest_places(operations: Iterable[Operation]) -> dict[int, int]:
    """Return, for each operation, the place in the log after all that had been answered when it began."""
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
    """Return how much doubt there is where in the log a write is: deletions look all alike, a value is written once."""
    if isinstance(operation.reply, Applied):
        return 0
    return 2 if all(isinstance(each, Delete | DeleteIf) for each in getattr(operation.request, "commands", ())) else 1


class Hints:
    """The revisions at which writes took effect: by the whole ``log`` if it is given, else by what was read."""

    def __init__(self, operations: Sequence[Operation], log: Iterable[Carried] = ()) -> None:
        self._log = list(log)
        self._read = {} if self._log else positions.revisions(operations)
        self._places: dict[int, _Place] = {}
        """By the number of the operation; what is not there was not done."""
        if self._log:
            self._find_places(operations)

    def hint(self, operation: Operation, way: Way) -> float:
        """Return the revision before an operation that went this way, ``inf`` if it seems that it never did."""
        if isinstance(operation.reply, Applied):
            return positions.before(operation)
        if not self._log:
            return min(self._read.get(fact, inf) for fact in way.leaves) - 1
        place = self._places.get(operation.number)
        return place.revision if place is not None and place.leaves == dict(way.leaves) else inf

    def _find_places(self, operations: Iterable[Operation]) -> None:
        where: dict[Command, list[int]] = defaultdict(list)
        for number, carried in enumerate(self._log):
            where[carried.command].append(number)
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
        carried = self._log[first : first + len(operation.request.commands)]
        place = carried[0].place
        if place != operation.reply.index if isinstance(operation.reply, Applied) else place < earliest:
            return False
        return tuple([each.command for each in carried]) == operation.request.commands and carried[-1].place == place

    def _place(self, first: int, count: int) -> _Place:
        leaves: dict[str, Value] = {}
        for _, _, command, result in self._log[first : first + count]:
            if isinstance(command, Put | Delete) or not isinstance(result, Unmatched):
                leaves[command.key] = command.value if isinstance(command, Put | PutIf) else None
        return _Place(self._log[first].revision, leaves)
