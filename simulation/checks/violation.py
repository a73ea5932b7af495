"""What is raised when something happened that cannot be, and how it tells of entries."""

from __future__ import annotations

from raftkv.raft.entry import Entry, Kind
from raftkv.simulation.report.trace import describe
from raftkv.store.commands import decode_commands


class Violation(AssertionError):
    """Something happened that a correct cluster does not do; the text says what, in one sentence."""


def told(entry: Entry | None) -> str:
    """Return an entry for people; None is one that is not there."""
    if entry is None:
        return "nothing"
    what = Kind(entry.kind).name.lower()
    if entry.kind == Kind.COMMANDS:
        what = describe(decode_commands(entry.data))
    return f"entry {entry.index} of term {entry.term} ({what})"


def same(one: Entry | None, other: Entry | None) -> bool:
    """Whether these are one entry: mostly they are one object, which is quicker to see."""
    return one is other or one == other


def at(log: list[Entry], index: int) -> Entry | None:
    """Return the entry at ``index`` of a log that begins at 1, or None."""
    return log[index - 1] if 0 < index <= len(log) else None
