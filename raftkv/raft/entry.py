"""The entries of the Raft log."""

from __future__ import annotations

from enum import IntEnum

import msgspec

NodeId = str


class Kind(IntEnum):
    """What an entry carries; the numbers are on disk and on the wire and are never used again."""

    NOOP = 0
    CONFIGURATION = 1
    COMMANDS = 2


class Entry(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One entry of the Raft log (dissertation, 3.3).

    ``data`` is empty for a no-op, the MessagePack form of a ``Configuration`` for a configuration, and of a list of
    commands for commands. An entry carries *all* commands that arrived at one node in one turn of its loop: the
    costs of an entry (its place in messages, in the journal and in the hands of the store) are shared among them.
    """

    index: int
    term: int
    kind: int
    data: bytes

    @property
    def size(self) -> int:
        """Bytes that this entry counts for where bytes are bounded (its data and about what surrounds them)."""
        return len(self.data) + ENTRY_OVERHEAD


ENTRY_OVERHEAD = 32
