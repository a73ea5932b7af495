"""One request of a client and its completion, as far as the client knows it."""

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
from raftkv.simulation.cluster.describe import condition
from raftkv.store.commands import (
    NOT_THERE,
    Command,
    Delete,
    DeleteDone,
    DeleteIf,
    Put,
    PutIf,
    Result,
    Unmatched,
)

NOT_REPORTED = -1
"""Stands for an index, term, revision or version that the answer did not contain."""

SHOWN_BYTES = 40
"""How many characters of a value are shown."""

Completion = Literal["ok", "failed", "unknown"]

JUDGED: frozenset[type[Command]] = frozenset({Put, Delete, PutIf, DeleteIf})
"""The commands whose effects and sights the checks of a history know; others must not pass unjudged."""


class Moment(NamedTuple):
    """A time, and the number of events recorded before: the order of events at the same millisecond."""

    ms: float
    number: int


NEVER = Moment(inf, 0)


@dataclass(slots=True)
class Operation:
    """A request, and its reply if there was one.

    A ``failed`` request certainly had no effect. An ``unknown`` one may have had an effect since ``began``, may have
    one later, or never; so does one without an answer yet. ``ended`` is when the client stopped waiting.
    """

    number: int
    """Its position in the history."""
    client: str
    node: str
    """The node that the client asked."""
    request: Propose | Read
    began: Moment
    ended: Moment = NEVER
    outcome: Completion = "unknown"
    reply: Applied | ReadResult | Refused | None = None
    answer: str = ""
    """The answer in a few words, or why there was none."""

    @property
    def invoked_ms(self) -> float:
        """When the client sent the request, in ms."""
        return self.began.ms

    @property
    def answered_ms(self) -> float:
        """When the client stopped waiting, with an answer or without, in ms; ``inf`` if it never did."""
        return self.ended.ms

    @property
    def kind(self) -> Literal["write", "read", "stale read"]:
        """Its kind: stale reads need not be linearizable."""
        if isinstance(self.request, Propose):
            return "write"
        return "stale read" if self.request.level == "stale" else "read"

    @property
    def keys(self) -> tuple[str, ...]:
        """Its keys, each once."""
        request = self.request
        parts = request.commands if isinstance(request, Propose) else request.queries
        return tuple(dict.fromkeys(part.key for part in parts))

    @property
    def puts(self) -> tuple[Put | PutIf, ...]:
        """Its commands that left a value, or may have: all puts but those whose condition did not hold."""
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

    def describe(self) -> str:
        """Return what it wrote or read, in words."""
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
        """Return the operation in one line."""
        end = f"{self.answered_ms:.3f}" if self.answered_ms < inf else "never"
        place = ""
        if isinstance(self.reply, Applied | ReadResult) and self.reply.revision != NOT_REPORTED:
            index = "" if self.reply.index == NOT_REPORTED else f"index {self.reply.index}, "
            place = f" at {index}revision {self.reply.revision}"
        why = f" ({self.answer})" if self.answer else ""
        return (
            f"#{self.number} {self.invoked_ms:.3f} to {end} ms, {self.client} at {self.node}: "
            f"{self.kind} {self.describe()}: {self.outcome}{place}{why}"
        )


def shown(value: bytes | None) -> str:
    """Return a value, or its beginning, as text."""
    if value is None:
        return "nothing"
    try:
        text = value.decode()
    except UnicodeDecodeError:
        text = repr(value)
    return text if len(text) <= SHOWN_BYTES else text[:SHOWN_BYTES] + "…"


def _command(command: Command) -> str:
    if isinstance(command, Put | PutIf):
        return f"put {command.key} = {shown(command.value)}{condition(command)}"
    return f"delete {command.key}{condition(command)}"


def _result(result: Result) -> str:
    if isinstance(result, Unmatched):
        return " (was not there)" if result.modify_revision == NOT_THERE else f" (was at {result.modify_revision})"
    return " (was not there)" if isinstance(result, DeleteDone) and not result.existed else ""


class Anomaly(NamedTuple):
    """A broken promise in words, and the operations that break it; ``order`` explains those before, if one does."""

    text: str
    operations: tuple[Operation, ...]
    order: tuple[Operation, ...] = ()
