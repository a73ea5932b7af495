"""Mistakes with conditional writes: each needs another writer of the key, or a lost reply, to show."""

from __future__ import annotations

from typing import Any

import msgspec

from raftkv.actors.gateway import ANSWER_GRACE_S, Ask, Gateway
from raftkv.actors.messages.node import Start
from raftkv.actors.messages.requests import (
    PendingRequest,
    Propose,
    Refused,
)
from raftkv.actors.roles.leader import Leader
from raftkv.actors.store import Store
from raftkv.raft.entry import Entry, Kind
from raftkv.simulation.cluster.cluster import Machine, SimulatedCluster
from raftkv.store.commands import NOT_THERE, Command, Delete, DeleteIf, Put, PutIf, Result, Unmatched, decode_commands
from raftkv.store.keyspace import Keyspace

RETRY_S = 0.04
"""How long the second attempt of ``TriesAgainWhatIsUnknown`` may take: the client still waits then."""


def held(keyspace: Keyspace, *commands: Command) -> list[bool]:
    """Return, for each command, whether it has a condition that would hold if all were applied now, in order."""
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
    """The conditions that the leaders of the present cluster have found to hold, and the keyspaces of its nodes."""

    cluster: SimulatedCluster | None = None
    made: set[Command]
    keyspaces: dict[str, Keyspace]

    @classmethod
    def of(cls, start: Start) -> type[Decisions]:
        """Return this class, emptied if the node belongs to another cluster than the last one."""
        fail: Any = start.environment.fail
        machine: Machine = fail.__self__
        if cls.cluster is not machine.cluster:
            cls.cluster, cls.made, cls.keyspaces = machine.cluster, set(), {}
        return cls


class LooksWhenItAppends(Leader):
    """Conditions are decided when the leader appends a command, not when it is applied."""

    def propose(self, asked: PendingRequest, request: Propose) -> None:
        decisions = Decisions.of(self.start)
        keyspace = decisions.keyspaces[self.start.node_id]
        decided = zip(request.commands, held(keyspace, *request.commands), strict=True)
        decisions.made |= {command for command, holds in decided if holds}
        super().propose(asked, request)


class TakesThatForDecided(Store):
    """Looks again only at the conditions that did not hold when the leader appended them."""

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
    """All conditions of an entry are decided before any of its commands is applied."""

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
    """A condition holds only if no key at all has changed since that revision."""

    def apply(self, command: Command) -> Result:
        item = self.get(command.key)
        if item and isinstance(command, PutIf | DeleteIf) and 0 < command.revision != self.revision:
            return Unmatched(self.revision, item.modify_revision)
        return super().apply(command)


class TakesNotThereForThere(Keyspace):
    """A condition that a key is absent holds even if the key is present."""

    def apply(self, command: Command) -> Result:
        if isinstance(command, PutIf) and command.revision == NOT_THERE:
            command = Put(command.key, command.value)
        return super().apply(command)


class TriesAgainWhatIsUnknown(Gateway):
    """The front end repeats a conditional write that may have been applied: the second attempt sees the first."""

    def __init__(self, ask: Ask, **options: Any) -> None:
        async def ask_again(message: object, timeout_s: float) -> object | None:
            reply = await ask(message, timeout_s)
            if (
                isinstance(message, Propose)
                and all(isinstance(each, PutIf | DeleteIf) for each in message.commands)
                and (reply is None or (isinstance(reply, Refused) and reply.code == "unknown"))
            ):
                reply = await ask(msgspec.structs.replace(message, timeout_ms=RETRY_S * 1000), RETRY_S + ANSWER_GRACE_S)
            return reply

        super().__init__(ask_again, **options)


ALL: tuple[tuple[type, ...], ...] = (
    (LooksWhenItAppends, TakesThatForDecided),
    (LooksOncePerEntry,),
    (CountsWhatDidNotMatch,),
    (ComparesWithTheWholeKeyspace,),
    (TakesNotThereForThere,),
    (TriesAgainWhatIsUnknown,),
)
