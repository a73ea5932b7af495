"""One request of a client and what came of it, as the client knows it."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import zip_longest
from math import inf
from typing import Literal, NamedTuple

from raftkv.actors.messages.requests import (
    Applied,
    Propose,
    Read,
    ReadResult,
    Refused,
)
from raftkv.store.commands import NOT_THERE, THERE, Command, DeleteDone, DeleteIf, Put, PutIf, Result, Unmatched

NOT_TOLD = -1
"""An index, a term, a revision or a version that the client did not get to know."""

SHOWN_BYTES = 40
"""As much of a value as is told of it."""

Completion = Literal["ok", "failed", "unknown"]


class Moment(NamedTuple):
    """A time, and how much the history had recorded before: that orders what happens within one millisecond."""

    ms: float
    number: int


NEVER = Moment(inf, 0)


@dataclass(slots=True)
class Operation:
    """A request, and its reply if there was one.

    ``failed`` was certainly not done. ``unknown`` may have been done since ``began``, or may yet be, or never will;
    that is also what it is until there is an answer. ``ended`` is when the client stopped to wait for it.
    """

    number: int
    """Its place in the history."""
    client: str
    node: str
    """Which was asked."""
    request: Propose | Read
    began: Moment
    ended: Moment = NEVER
    outcome: Completion = "unknown"
    reply: Applied | ReadResult | Refused | None = None
    answer: str = ""
    """What the client was told, in a word or two, or why nothing."""

    @property
    def invoked_ms(self) -> float:
        """When the client asked."""
        return self.began.ms

    @property
    def answered_ms(self) -> float:
        """When the client stopped to wait, with an answer or without; ``inf`` if it never did."""
        return self.ended.ms

    @property
    def kind(self) -> Literal["write", "read", "stale read"]:
        """What it is for the history: stale reads are not part of what must be linearizable."""
        if isinstance(self.request, Propose):
            return "write"
        return "stale read" if self.request.level == "stale" else "read"

    @property
    def keys(self) -> tuple[str, ...]:
        """The keys that it is about, each once."""
        request = self.request
        parts = request.commands if isinstance(request, Propose) else request.queries
        return tuple(dict.fromkeys(part.key for part in parts))

    @property
    def puts(self) -> tuple[Put | PutIf, ...]:
        """Its commands that left a value, or may have: not those that were told that their condition did not hold."""
        if not isinstance(self.request, Propose):
            return ()
        results = self.reply.results if isinstance(self.reply, Applied) else ()
        pairs = zip_longest(self.request.commands, results[: len(self.request.commands)])
        return tuple(
            [
                command
                for command, result in pairs
                if isinstance(command, Put | PutIf) and not isinstance(result, Unmatched)
            ]
        )

    def told(self) -> str:
        """Return what it did, or saw, in words."""
        if isinstance(self.request, Propose):
            results = self.reply.results if isinstance(self.reply, Applied) else ()
            parts = [_command(command) for command in self.request.commands]
            parts = [part + _result(result) for part, result in zip(parts, results, strict=False)] or parts
            return ", ".join(parts)
        if not isinstance(self.reply, ReadResult):
            return ", ".join(f"get {query.key}" for query in self.request.queries)
        items = self.reply.items
        return ", ".join(
            f"{query.key} is {shown(None if item is None else item.value)}"
            for query, item in zip(self.request.queries, items, strict=False)
        )

    def __str__(self) -> str:
        """Return it as one line."""
        end = f"{self.answered_ms:.3f}" if self.answered_ms < inf else "never"
        place = ""
        if isinstance(self.reply, Applied | ReadResult) and self.reply.revision != NOT_TOLD:
            index = "" if self.reply.index == NOT_TOLD else f"index {self.reply.index}, "
            place = f" at {index}revision {self.reply.revision}"
        why = f" ({self.answer})" if self.answer else ""
        return (
            f"#{self.number} {self.invoked_ms:.3f} to {end} ms, {self.client} at {self.node}: "
            f"{self.kind} {self.told()}: {self.outcome}{place}{why}"
        )


def shown(value: bytes | None) -> str:
    """Return a value, or its beginning, for people."""
    if value is None:
        return "nothing"
    try:
        text = value.decode()
    except UnicodeDecodeError:
        text = repr(value)
    return text if len(text) <= SHOWN_BYTES else text[:SHOWN_BYTES] + "…"


def condition(command: Command) -> str:
    """Return on which condition a command is done, to be said behind it; nothing where there is none."""
    if not isinstance(command, PutIf | DeleteIf):
        return ""
    places = {NOT_THERE: "not there", THERE: "there"}
    return f" if {places.get(command.revision, f'at {command.revision}')}"


def _command(command: Command) -> str:
    what = (
        f"put {command.key} = {shown(command.value)}" if isinstance(command, Put | PutIf) else f"delete {command.key}"
    )
    return what + condition(command)


def _result(result: Result) -> str:
    if isinstance(result, Unmatched):
        return " (was not there)" if result.modify_revision == NOT_THERE else f" (was at {result.modify_revision})"
    return " (was not there)" if isinstance(result, DeleteDone) and not result.existed else ""


class Anomaly(NamedTuple):
    """A promise that was broken, in words, and by which operations; ``order`` explains all before, if anything does."""

    text: str
    operations: tuple[Operation, ...]
    order: tuple[Operation, ...] = ()
