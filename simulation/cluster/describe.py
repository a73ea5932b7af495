"""Messages, commands and entries in words, the same text in every process: for traces, violations and reports."""

from __future__ import annotations

from collections.abc import Sequence
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
from raftkv.environment import Environment
from raftkv.raft.entry import Entry, Kind
from raftkv.store.commands import NOT_THERE, THERE, Command, Delete, DeleteIf, Get, Put, PutIf, decode_commands

SHOWN = 40
"""Characters of a text, or bytes of a value, that are shown."""


def describe(message: Any) -> str:
    """Return a message in words; without the numbers of actors, which differ between processes."""
    if isinstance(message, Assume):
        return f"Assume({message.role}: {message.reason})"
    if isinstance(message, Boot | Start):
        return f"{type(message).__name__}({message.node_id})"
    if isinstance(message, RoleChanged):
        return f"RoleChanged({message.role}, term {message.term}, leader {message.leader}: {message.reason})"
    if isinstance(message, WakeupMessage):
        return f"WakeupMessage({message.payload})"
    return _value(message)


def describe_entry(entry: Entry | None) -> str:
    """Return an entry in words; None is an entry that does not exist."""
    if entry is None:
        return "nothing"
    content = Kind(entry.kind).name.lower()
    if entry.kind == Kind.COMMANDS:
        content = describe(decode_commands(entry.data))
    return f"entry {entry.index} of term {entry.term} ({content})"


def condition(command: Command) -> str:
    """Return the condition of a command, to follow the command's text; "" for a command without one."""
    if not isinstance(command, PutIf | DeleteIf):
        return ""
    places = {NOT_THERE: "not there", THERE: "there"}
    return f" if {places.get(command.revision, f'at {command.revision}')}"


def counted(number: int, noun: str) -> str:
    """Return a number of things: "1 node", "3,000 nodes"."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def _value(value: Any) -> str:
    if isinstance(value, Put | PutIf):
        return f"{value.key[:SHOWN]}={_value(value.value)}{condition(value)}"
    if isinstance(value, Delete | DeleteIf):
        return f"Delete {value.key[:SHOWN]}{condition(value)}"
    if isinstance(value, Get):
        return f"Get {value.key[:SHOWN]}"
    if isinstance(value, ReplyTo):
        return "client" if value.forward is None else f"client{value.forward}"
    if isinstance(value, msgspec.Struct):
        fields = msgspec.structs.fields(value)
        shown = [f"{field.name}={_value(getattr(value, field.name))}" for field in fields if _is_set(value, field)]
        return f"{type(value).__name__}({', '.join(shown)})"
    if isinstance(value, tuple | list):
        return _values(value)
    if isinstance(value, bytes):
        return repr(value[:SHOWN])[2:-1] + ("…" if len(value) > SHOWN else "")
    if isinstance(value, float):
        return f"{value:.3f}"
    if isinstance(value, str | int | None):
        return str(value)
    if isinstance(value, ActorAddress):
        return "actor"
    return type(value).__name__


def _values(values: Sequence[Any]) -> str:
    if values and all(isinstance(value, Entry) for value in values):
        return "[" + " ".join(f"{entry.index}:{entry.term}" for entry in values) + "]"
    return "[" + ", ".join(map(_value, values)) + "]"


def _is_set(value: Any, field: Any) -> bool:
    shown = getattr(value, field.name)
    # Every first message has the environment, which says nothing about the message.
    return bool(shown != field.default) and not isinstance(shown, Environment)
