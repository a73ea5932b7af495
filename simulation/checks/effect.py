"""The effect of a conditional write in terms of values: what it saw of the store, and what it left.

The search for an order knows values, not revisions. A revision stands for the value that came with it, as the client
that wrote it or a client that read it knows. So a write whose condition held has seen that value; one whose condition
did not hold has seen another value, namely that of the revision in the answer.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from raftkv.actors.messages.requests import (
    Applied,
    Propose,
    Read,
    ReadResult,
)
from raftkv.simulation.checks.linearizability import SOMETHING, Not, Seen, Value, fits
from raftkv.simulation.checks.operation import NOT_REPORTED, Operation
from raftkv.store.commands import (
    NOT_THERE,
    THERE,
    Command,
    Delete,
    DeleteDone,
    DeleteIf,
    Put,
    PutDone,
    PutIf,
    Result,
    Unmatched,
)

Facts = tuple[tuple[str, Seen], ...]


class Effect(NamedTuple):
    """One possible effect of a request: the values it saw before it changed any, and the values it left."""

    sees: Facts = ()
    leaves: tuple[tuple[str, Value], ...] = ()


class Effects:
    """The effects of the writes of a history, from all that its clients know of revisions."""

    def __init__(self, operations: Sequence[Operation]) -> None:
        self._values = dict(_values(operations))
        """The value of a (key, revision)."""
        puts = (put for operation in operations if operation.outcome != "failed" for put in operation.puts)
        self._sources = Counter((put.key, put.value) for put in puts)
        """How many commands have left a value under a key, or may have."""

    def possible(self, request: Propose, applied: Applied | None) -> list[Effect]:
        """Return the effect of a request, or without a reply all effects that would have changed something."""
        if applied is None:
            possible = [Effect()]
            for command in request.commands:
                possible = [after for effect in possible for after in self._may_follow(effect, command)]
            return list(dict.fromkeys(effect for effect in possible if effect.leaves and _can_be(effect)))
        effect = Effect()
        for command, result in zip(request.commands, applied.results, strict=False):
            effect = self._follows(effect, command, result)
        return [effect]

    def _may_follow(self, effect: Effect, command: Command) -> Iterator[Effect]:
        if isinstance(command, Put | Delete):
            yield _and_leaves(effect, command)
            return
        held = _and_saw(effect, ((command.key, self._held(command)),))
        if held is not None:
            yield _and_leaves(held, command)
        missed = _and_saw(effect, self._missed(command))
        if missed is not None:
            yield missed

    def _follows(self, effect: Effect, command: Command, result: Result) -> Effect:
        changes = not isinstance(result, Unmatched)
        saw: Facts = ()
        if isinstance(result, Unmatched):
            saw = self._missed(command) if isinstance(command, PutIf | DeleteIf) else ()
            if result.modify_revision != NOT_REPORTED:
                saw += ((command.key, self._at(command.key, result.modify_revision)),)
        elif isinstance(command, PutIf | DeleteIf):
            saw = ((command.key, self._held(command)),)
        elif isinstance(result, DeleteDone):
            saw = ((command.key, SOMETHING if result.existed else None),)
            # Deleting an absent key is a read.
            changes = result.existed
        known = _and_saw(effect, saw)
        if known is None:
            # The answer contradicts the request's own earlier commands: make it impossible to place.
            known = effect._replace(sees=(*effect.sees, (command.key, None), (command.key, SOMETHING)))
        return _and_leaves(known, command) if changes else known

    def _held(self, command: PutIf | DeleteIf) -> Seen:
        """Return what the command saw if its condition held."""
        return SOMETHING if command.revision == THERE else self._at(command.key, command.revision)

    def _at(self, key: str, revision: int) -> Seen:
        """Return the value of a key at this modify revision; it may be unknown."""
        return None if revision == NOT_THERE else self._values.get((key, revision), SOMETHING)

    def _missed(self, command: PutIf | DeleteIf) -> Facts:
        """Return what is known of the key if the condition did not hold."""
        key, revision = command.key, command.revision
        if revision in (NOT_THERE, THERE):
            return ((key, SOMETHING if revision == NOT_THERE else None),)
        value = self._values.get((key, revision))
        # A value that was written twice may be there again, at another revision.
        return () if value is None or self._sources[key, value] > 1 else ((key, Not(value)),)


def _values(operations: Iterable[Operation]) -> Iterator[tuple[tuple[str, int], bytes]]:
    """Yield the value of each (key, revision) that a write or a read reported."""
    for operation in operations:
        request, reply = operation.request, operation.reply
        if isinstance(request, Read) and isinstance(reply, ReadResult):
            for query, item in zip(request.queries, reply.items, strict=False):
                if item is not None and item.modify_revision != NOT_REPORTED:
                    yield (query.key, item.modify_revision), item.value
        elif isinstance(request, Propose) and isinstance(reply, Applied):
            for command, result in zip(request.commands, reply.results, strict=False):
                if isinstance(command, Put | PutIf) and isinstance(result, PutDone) and result.revision != NOT_REPORTED:
                    yield (command.key, result.revision), command.value


def _and_saw(effect: Effect, facts: Facts) -> Effect | None:
    """Add what a request saw; None if its own earlier commands contradict that."""
    left = dict(effect.leaves)
    if not all(fits(seen, left[key]) for key, seen in facts if key in left):
        return None
    news = [(key, seen) for key, seen in facts if key not in left]
    return effect._replace(sees=tuple(dict.fromkeys((*effect.sees, *news))))


def _can_be(effect: Effect) -> bool:
    """Whether a store can hold all that was seen; only effects without a reply need to be asked."""
    held = {key: seen for key, seen in effect.sees if not isinstance(seen, Not)}
    return all(fits(seen, held[key]) for key, seen in effect.sees if key in held)


def _and_leaves(effect: Effect, command: Command) -> Effect:
    value = command.value if isinstance(command, Put | PutIf) else None
    return effect._replace(leaves=tuple({**dict(effect.leaves), command.key: value}.items()))
