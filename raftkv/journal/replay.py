"""What a run of records amounts to: the last term and vote, and the log after every cut."""

from __future__ import annotations

from raftkv.journal.format import Record
from raftkv.raft.entry import Entry, NodeId


class Replay:
    """Records folded into one, in the order in which they were saved."""

    __slots__ = ("current_term", "entries", "voted_for")

    def __init__(self) -> None:
        self.current_term = 0
        self.voted_for: NodeId | None = None
        self.entries: list[Entry] = []

    def add(self, record: Record) -> None:
        """Fold in the next record; raises ``ValueError`` where its entries leave a gap after those before them."""
        self.current_term, self.voted_for = record.current_term, record.voted_for
        if not record.entries:
            return
        log, first = self.entries, record.entries[0].index
        if record.entries[-1].index - first != len(record.entries) - 1:
            raise ValueError(f"the entries from {first} to {record.entries[-1].index} are not one run")
        if log and first != log[-1].index + 1:
            if first > log[-1].index + 1:
                raise ValueError(f"entry {first} follows entry {log[-1].index}")
            # An entry that cuts before everything here takes it all away; that happens within one batch only,
            # whose first entries then cut off the same of the log before it.
            del log[max(0, first - log[0].index) :]
        log.extend(record.entries)

    def record(self) -> Record:
        """Return the one record that says the same as all that were added."""
        return Record(self.current_term, self.voted_for, tuple(self.entries))
