"""Folding a sequence of records into one: the last term and vote, and the log after every cut.

Recovery folds all records of the journal into the state of the node; group commit folds the saves that wait into the
record of one batch. Both follow one rule: a record replaces term and vote, and its entries replace the log from the
index of the first one on.
"""

from __future__ import annotations

from raftkv.journal.format import Record
from raftkv.raft.entry import Entry, NodeId


class Replay:
    """The records added so far, folded into one."""

    __slots__ = ("current_term", "entries", "voted_for")

    def __init__(self) -> None:
        self.current_term = 0
        self.voted_for: NodeId | None = None
        self.entries: list[Entry] = []

    def add(self, record: Record) -> None:
        """Fold in the next record; raises ``ValueError`` if its entries leave a gap."""
        self.current_term, self.voted_for = record.current_term, record.voted_for
        if not record.entries:
            return
        log, first = self.entries, record.entries[0].index
        if record.entries[-1].index - first != len(record.entries) - 1:
            raise ValueError(f"the entries from {first} to {record.entries[-1].index} are not consecutive")
        if log and first != log[-1].index + 1:
            if first > log[-1].index + 1:
                raise ValueError(f"entry {first} follows entry {log[-1].index}")
            # An index before the first entry here removes everything here. This happens only when saves are folded
            # into a batch; the batch then begins at that index and cuts the log before it in the same place.
            del log[max(0, first - log[0].index) :]
        log.extend(record.entries)

    def record(self) -> Record:
        """Return the one record that has the same effect as all those added."""
        return Record(self.current_term, self.voted_for, tuple(self.entries))
