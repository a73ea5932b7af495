"""What the checks raise, and how a violation is shortened to its first line or to its kind."""

from __future__ import annotations

import re

from raftkv.raft.entry import Entry


class Violation(AssertionError):
    """Something happened that a correct cluster does not do; the text says what in one sentence."""


def first_line(violation: str) -> str:
    """Return what is wrong in one line, without the events that led to it."""
    first, *rest = violation.split("\n", 3)
    return " ".join([first, *(line.strip() for line in rest[:2])]) if first.endswith(":") else first


def kind_of(violation: str) -> str:
    """Return the kind of a violation: its first words, with nodes and numbers replaced."""
    words = re.split(r"[:(,]", first_line(violation), maxsplit=1)[0]
    words = re.sub(r"\bn\d+\b", "a node", words)
    # The exit status of a process tells two kinds apart: 1 is a bad disk, 70 is a bug.
    return re.sub(r"(?<!status )\b\d+\b", "#", words).strip()


def same(one: Entry | None, other: Entry | None) -> bool:
    """Whether two entries are equal; mostly they are one object, which is quicker to see."""
    return one is other or one == other


def at(log: list[Entry], index: int) -> Entry | None:
    """Return the entry at ``index`` of a log that starts at 1, or None."""
    return log[index - 1] if 0 < index <= len(log) else None
