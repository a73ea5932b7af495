"""The Raft log in memory: a copy of what the journal has on disk, to compare, send and apply entries from.

A log begins behind a snapshot, which stands for all entries up to ``snapshot_index``; a node that never made one has
``snapshot_index`` 0. Indexes are positions in the whole history, so they do not change when a log is shortened.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from operator import attrgetter

from raftkv.raft.configuration import Configuration, decode_configuration
from raftkv.raft.entry import Entry, Kind

_term = attrgetter("term")


class Log:
    """Entries from ``snapshot_index`` + 1 on, without gaps, their terms never falling.

    The configuration in force is that of the latest configuration entry, committed or not (dissertation, 4.1), or the
    snapshot's.
    """

    __slots__ = ("_configurations", "_entries", "snapshot_index", "snapshot_term")

    def __init__(
        self,
        entries: Iterable[Entry] = (),
        *,
        snapshot_index: int = 0,
        snapshot_term: int = 0,
        configuration: Configuration | None = None,
    ) -> None:
        """Begin behind a snapshot whose last entry had this index and term, with the configuration in it."""
        self.snapshot_index = snapshot_index
        self.snapshot_term = snapshot_term
        self._entries: list[Entry] = []
        self._configurations: list[tuple[int, Configuration]] = [(snapshot_index, configuration or Configuration())]
        self.append(tuple(entries))

    @property
    def last_index(self) -> int:
        """The index of the last entry, or of the snapshot's; 0 when there is neither."""
        return self.snapshot_index + len(self._entries)

    @property
    def last_term(self) -> int:
        """The term of the last entry, or of the snapshot's; 0 when there is neither."""
        return self._entries[-1].term if self._entries else self.snapshot_term

    @property
    def configuration(self) -> Configuration:
        """The configuration in force."""
        return self._configurations[-1][1]

    def term(self, index: int) -> int:
        """Return the term of the entry at ``index``, which must be in the log or be the snapshot's last."""
        place = index - self.snapshot_index - 1
        if place == -1:
            return self.snapshot_term
        assert 0 <= place < len(self._entries), f"no entry {index} in {self!r}"
        return self._entries[place].term

    def entry(self, index: int) -> Entry:
        """Return the entry at ``index``, which must be in the log."""
        place = index - self.snapshot_index - 1
        assert 0 <= place < len(self._entries), f"no entry {index} in {self!r}"
        return self._entries[place]

    def matches(self, index: int, term: int) -> bool:
        """Whether the entry at ``index`` has ``term`` here too (AppendEntries' consistency check, 3.5).

        What the snapshot stands for is committed, so every leader has the same there.
        """
        place = index - self.snapshot_index - 1
        if place < 0:
            return place < -1 or term == self.snapshot_term
        return place < len(self._entries) and self._entries[place].term == term

    def is_up_to_date(self, last_log_index: int, last_log_term: int) -> bool:
        """Whether a log that ends so is at least as up to date as this one: the term decides first (3.6.1)."""
        return (last_log_term, last_log_index) >= (self.last_term, self.last_index)

    def append(self, entries: Sequence[Entry]) -> None:
        """Add entries that follow the last one."""
        next_index, term = self.last_index + 1, self.last_term
        for entry in entries:
            assert entry.index == next_index, f"entry {entry.index} after {next_index - 1}"
            assert entry.term >= term, f"term {entry.term} after {term} at {entry.index}"
            next_index, term = next_index + 1, entry.term
            self._entries.append(entry)
            if entry.kind == Kind.CONFIGURATION:
                self._configurations.append((entry.index, decode_configuration(entry.data)))

    def truncate(self, index: int) -> None:
        """Remove the entry at ``index`` and all after it; what a snapshot stands for can't be removed."""
        assert index > self.snapshot_index, f"cutting off {index} of {self!r}"
        del self._entries[index - self.snapshot_index - 1 :]
        while self._configurations[-1][0] >= index:
            self._configurations.pop()

    def between(self, first: int, last: int, limit_bytes: int) -> tuple[Entry, ...]:
        """Return the entries from ``first`` to ``last``, as many as ``limit_bytes`` allow and at least one."""
        entries = self._entries
        begin = end = first - self.snapshot_index - 1
        assert begin >= 0, f"no entry {first} in {self!r}"
        stop = last - self.snapshot_index
        size = 0
        while end < stop:
            size += entries[end].size
            if size > limit_bytes and end > begin:
                break
            end += 1
        return tuple(entries[begin:end])

    def span(self, first: int, last: int) -> list[Entry]:
        """Return the entries from ``first`` to ``last``."""
        assert first > self.snapshot_index, f"no entry {first} in {self!r}"
        return self._entries[first - self.snapshot_index - 1 : last - self.snapshot_index]

    def first_of_term(self, index: int) -> int:
        """Return the first index in the log whose entry has the same term as the one at ``index``, which is in it."""
        return self.snapshot_index + bisect_left(self._entries, self.entry(index).term, key=_term) + 1

    def last_of_term(self, term: int, before: int) -> int:
        """Return the last index below ``before`` whose entry has ``term``; 0 when there is none."""
        index = min(before - 1, self.snapshot_index + bisect_right(self._entries, term, key=_term))
        return index if index > self.snapshot_index and self.term(index) == term else 0

    def bytes_after(self, index: int) -> int:
        """Return the size of all entries after ``index``."""
        assert index >= self.snapshot_index, f"no entries after {index} in {self!r}"
        return sum(entry.size for entry in self._entries[index - self.snapshot_index :])

    def __repr__(self) -> str:
        return f"Log({self.snapshot_index}..{self.last_index}]"
