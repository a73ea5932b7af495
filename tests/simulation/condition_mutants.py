"""Mistakes with conditional writes: each works as long as nobody else writes the same key, or nothing is lost."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from raftkv.actors.gateway import Gateway
from raftkv.actors.messages.node import Start
from raftkv.actors.messages.requests import (
    PendingRequest,
    Propose,
    Refused,
)
from raftkv.actors.roles.leader import Leader
from raftkv.actors.store import Store
from raftkv.raft.entry import Entry, Kind
from raftkv.store.commands import NOT_THERE, Command, Delete, DeleteIf, Put, PutIf, Result, Unmatched, decode_commands
from raftkv.store.keyspace import Keyspace

ONCE_MORE_S = 0.04
"""As long as whoever asked waits for an answer that comes late."""


def held(keyspace: Keyspace, *commands: Command) -> list[bool]:
    """Return which of these commands have a condition that would hold, were they applied now, one after the other."""
    copy = Keyspace()
    items = {key: item for key in {command.key for command in commands} if (item := keyspace.get(key))}
    for key, item in sorted(items.items(), key=lambda each: each[1].modify_revision):
        copy.revision = item.modify_revision - 1
        copy.apply(Put(key, item.value))
    copy.revision = keyspace.revision
    results = [copy.apply(command) for command in commands]
    return [
        isinstance(command, PutIf | DeleteIf) and not isinstance(result, Unmatched)
        for command, result in zip(commands, results, strict=True)
    ]


def unconditional(command: Command) -> Command:
    """Return a command without its condition."""
    return Put(command.key, command.value) if isinstance(command, Put | PutIf) else Delete(command.key)


class Decisions:
    """Which conditions the leaders of one cluster have found to hold; it goes with the life of the cluster."""

    scheduler: Any = None
    made: set[Command]
    keyspaces: dict[str, Keyspace]

    @classmethod
    def of(cls, start: Start) -> type[Decisions]:
        """Return those of the cluster to which a node belongs."""
        scheduler = start.environment.clock._scheduler  # type: ignore[attr-defined]
        if cls.scheduler is not scheduler:
            cls.scheduler, cls.made, cls.keyspaces = scheduler, set(), {}
        return cls


class LooksWhenItAppends(Leader):
    """What the leader has found to hold when it appended a command counts when that is applied."""

    def propose(self, asked: PendingRequest, request: Propose) -> None:
        decisions = Decisions.of(self.start)
        keyspace = decisions.keyspaces[self.start.node_id]
        decided = zip(request.commands, held(keyspace, *request.commands), strict=True)
        decisions.made |= {command for command, holds in decided if holds}
        super().propose(asked, request)


class TakesThatForDecided(Store):
    """Looks only at the conditions that did not hold then."""

    def on_Start(self, message: Start) -> None:
        super().on_Start(message)
        Decisions.of(message).keyspaces[message.node_id] = self.keyspace

    def apply_entry(self, entry: Entry) -> tuple[Result, ...]:
        if entry.kind != Kind.COMMANDS:
            return ()
        made = Decisions.of(self.start).made
        commands = [unconditional(each) if each in made else each for each in decode_commands(entry.data)]
        return tuple(self.keyspace.apply(command) for command in commands)


class LooksOncePerEntry(Store):
    """All conditions of an entry are looked at before any of its commands is applied."""

    def apply_entry(self, entry: Entry) -> tuple[Result, ...]:
        if entry.kind != Kind.COMMANDS:
            return ()
        commands = [
            unconditional(each) if held(self.keyspace, each)[0] else each for each in decode_commands(entry.data)
        ]
        return tuple(self.keyspace.apply(command) for command in commands)


class CountsWhatDidNotMatch(Keyspace):
    """A command whose condition does not hold uses up a revision."""

    def apply(self, command: Command) -> Result:
        result = super().apply(command)
        if isinstance(result, Unmatched):
            self.revision += 1
            result = Unmatched(self.revision, result.modify_revision)
        return result


class ComparesWithTheWholeKeyspace(Keyspace):
    """A condition holds as long as nothing at all has changed since that revision."""

    def apply(self, command: Command) -> Result:
        item = self.get(command.key)
        if item and isinstance(command, PutIf | DeleteIf) and 0 < command.revision != self.revision:
            return Unmatched(self.revision, item.modify_revision)
        return super().apply(command)


class TakesNotThereForThere(Keyspace):
    """What is to be created may be there already."""

    def apply(self, command: Command) -> Result:
        if isinstance(command, PutIf) and command.revision == NOT_THERE:
            command = Put(command.key, command.value)
        return super().apply(command)


class TriesAgainWhatIsUnknown(Gateway):
    """The front end sends a conditional write once more though it may have been done: twice it can't be done."""

    async def _carry(self, batch: Any, message: Callable[[float], object], retried: frozenset[str]) -> object:
        reply = await super()._carry(batch, message, retried)
        asked = message(0.0)
        conditional = isinstance(asked, Propose) and all(isinstance(each, PutIf | DeleteIf) for each in asked.commands)
        if conditional and isinstance(reply, Refused) and reply.code == "unknown":
            batch.deadline_s = self._running_loop().time() + ONCE_MORE_S
            reply = await super()._carry(batch, message, retried)
        return reply


ALL: tuple[tuple[type, ...], ...] = (
    (LooksWhenItAppends, TakesThatForDecided),
    (LooksOncePerEntry,),
    (CountsWhatDidNotMatch,),
    (ComparesWithTheWholeKeyspace,),
    (TakesNotThereForThere,),
    (TriesAgainWhatIsUnknown,),
)
