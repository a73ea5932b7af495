"""What happened in a simulation, in words: the last of it when something goes wrong, or all of it."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
from thespian.actors import ActorAddress, WakeupMessage

from raftkv.actors.messages.node import (
    Assume,
    Boot,
    RoleChanged,
    Start,
)
from raftkv.actors.messages.requests import ReplyTo
from raftkv.actors.system.base.actor_cell import ActorCell
from raftkv.raft.entry import Entry
from raftkv.simulation.checks.operation import condition
from raftkv.simulation.cluster.cluster import Machine, SimulatedCluster, SimulatedNode
from raftkv.store.commands import Delete, DeleteIf, Get, Put, PutIf

KEPT = 4000
"""How many of the last happenings are kept, of all machines together."""

SHOWN = 30
"""How many of the last happenings of each machine are told."""

LONGEST = 40
"""Characters of a text, or bytes of a value, that are told."""


class Trace:
    """Writes down what actors handle, what machines send, and what befalls them.

    Messages are frozen, so they are put into words only when somebody wants to read them.
    """

    def __init__(self, cluster: SimulatedCluster, write: Callable[[str], None] | None = None) -> None:
        """Give each line to ``write`` at once, if that is given."""
        self._cluster = cluster
        self._write = write
        self._kept: deque[tuple[float, str, str, Any]] = deque(maxlen=KEPT)
        cluster.handled.append(self._handled)
        cluster.ended.append(self._ended)
        cluster.power_lost.append(lambda machine: self.note(machine.name, "its power fails"))

    def note(self, name: str, text: str) -> None:
        """Write down something that befalls a machine; with the name "", all of them."""
        self._add(name, "!", text)

    def last(self, shown: int = SHOWN) -> str:
        """Return the last happenings of each machine, one after the other."""
        lines = []
        for name in self._cluster.names:
            of_it = [item for item in self._kept if item[1] in (name, "")]
            lines += [f"--- {name}, the last {min(shown, len(of_it))} of {len(of_it)}", *map(_line, of_it[-shown:])]
        return "\n".join(lines)

    def _handled(self, node: SimulatedNode, cell: ActorCell, message: Any, sender: Any) -> None:
        self._add(node.machine.name, type(cell.instance).__name__, message)

    def _ended(self, machine: Machine, status: int, line: str) -> None:
        self.note(machine.name, f"the process ends itself with status {status}: {line}")

    def _add(self, name: str, what: str, message: Any) -> None:
        item = (self._cluster.now_ms, name, what, message)
        self._kept.append(item)
        if self._write is not None:
            self._write(_line(item))


class Digest:
    """A hash of lines, for those who want to know whether two traces are the same."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()
        self.lines = 0

    def __call__(self, line: str) -> None:
        """Add a line."""
        self.lines += 1
        self._hash.update(line.encode() + b"\n")

    def value(self) -> str:
        """Return the hash."""
        return self._hash.hexdigest()


def _line(item: tuple[float, str, str, Any]) -> str:
    at_ms, name, what, message = item
    told = message if isinstance(message, str) else describe(message)
    return f"{at_ms:12.3f} {name or '*':4} {what:10} {told}"


def describe(message: Any) -> str:
    """Return a message for people: the same text in every run, so without numbers of actors."""
    if isinstance(message, Assume):
        return f"Assume({message.role}: {message.reason})"
    if isinstance(message, Boot | Start):
        return f"{type(message).__name__}({message.node_id})"
    if isinstance(message, RoleChanged):
        return f"RoleChanged({message.role}, term {message.term}, leader {message.leader}: {message.reason})"
    if isinstance(message, WakeupMessage):
        return f"WakeupMessage({message.payload})"
    return _tell(message)


def _tell(value: Any) -> str:
    if isinstance(value, Put | PutIf):
        return f"{value.key[:LONGEST]}={_tell(value.value)}{condition(value)}"
    if isinstance(value, Delete | DeleteIf):
        return f"Delete {value.key[:LONGEST]}{condition(value)}"
    if isinstance(value, Get):
        return f"Get {value.key[:LONGEST]}"
    if isinstance(value, ReplyTo):
        return "asker" if value.forward is None else f"asker{value.forward}"
    if isinstance(value, msgspec.Struct):
        fields = msgspec.structs.fields(value)
        told = [f"{field.name}={_tell(getattr(value, field.name))}" for field in fields if _matters(value, field)]
        return f"{type(value).__name__}({', '.join(told)})"
    if isinstance(value, tuple | list):
        return _tell_all(value)
    if isinstance(value, bytes):
        return repr(value[:LONGEST])[2:-1] + ("…" if len(value) > LONGEST else "")
    if isinstance(value, float):
        return f"{value:.3f}"
    if isinstance(value, str | int | None):
        return str(value)
    if isinstance(value, ActorAddress):
        return "actor"
    return type(value).__name__


def _tell_all(values: Sequence[Any]) -> str:
    if values and all(isinstance(value, Entry) for value in values):
        return "[" + " ".join(f"{entry.index}:{entry.term}" for entry in values) + "]"
    return "[" + ", ".join(map(_tell, values)) + "]"


def _matters(value: Any, field: Any) -> bool:
    return bool(getattr(value, field.name) != field.default)
