"""The Raft log in memory: what the journal keeps on disk, for those who compare, send and apply it."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from operator import attrgetter

from raftkv.raft.configuration import Configuration, decode_configuration
from raftkv.raft.entry import Entry, Kind

_term = attrgetter("term")


class Log:
    """Entries from index 1 on, without gaps, their terms never falling.

    The configuration in force is that of the latest configuration entry, committed or not (dissertation, 4.1).
    """

    __slots__ = ("_configurations", "_entries")

    def __init__(self, entries: Iterable[Entry] = ()) -> None:
        self._entries: list[Entry] = []
        self._configurations: list[tuple[int, Configuration]] = [(0, Configuration())]
        self.append(tuple(entries))

    @property
    def last_index(self) -> int:
        """The index of the last entry; 0 when there is none."""
        return len(self._entries)

    @property
    def last_term(self) -> int:
        """The term of the last entry; 0 when there is none."""
        return self._entries[-1].term if self._entries else 0

    @property
    def configuration(self) -> Configuration:
        """The configuration in force."""
        return self._configurations[-1][1]

    def term(self, index: int) -> int:
        """Return the term of the entry at ``index``; 0 for index 0. The index must not be beyond the end."""
        assert 0 <= index <= self.last_index, f"no entry {index} in a log that ends at {self.last_index}"
        return self._entries[index - 1].term if index else 0

    def entry(self, index: int) -> Entry:
        """Return the entry at ``index``, which must be there."""
        assert 1 <= index <= self.last_index, f"no entry {index} in a log that ends at {self.last_index}"
        return self._entries[index - 1]

    def matches(self, index: int, term: int) -> bool:
        """Whether the entry at ``index`` is there and has ``term`` (AppendEntries' consistency check, 3.5)."""
        return index <= self.last_index and self.term(index) == term

    def is_up_to_date(self, last_log_index: int, last_log_term: int) -> bool:
        """Whether a log that ends so is at least as up to date as this one: the term decides first (3.6.1)."""
        return (last_log_term, last_log_index) >= (self.last_term, self.last_index)

    def append(self, entries: Sequence[Entry]) -> None:
        """Add entries that follow the last one."""
        for entry in entries:
            assert entry.index == len(self._entries) + 1, f"entry {entry.index} after {len(self._entries)}"
            assert entry.term >= self.last_term, f"term {entry.term} after {self.last_term} at {entry.index}"
            self._entries.append(entry)
            if entry.kind == Kind.CONFIGURATION:
                self._configurations.append((entry.index, decode_configuration(entry.data)))

    def truncate(self, index: int) -> None:
        """Remove the entry at ``index`` and all after it."""
        del self._entries[index - 1 :]
        while self._configurations[-1][0] >= index:
            self._configurations.pop()

    def between(self, first: int, last: int, limit_bytes: int) -> tuple[Entry, ...]:
        """Return the entries from ``first`` to ``last``, as many as ``limit_bytes`` allow and at least one."""
        end = first - 1
        size = 0
        while end < last:
            size += self._entries[end].size
            if size > limit_bytes and end >= first:
                break
            end += 1
        return tuple(self._entries[first - 1 : end])

    def span(self, first: int, last: int) -> list[Entry]:
        """Return the entries from ``first`` to ``last``."""
        return self._entries[first - 1 : last]

    def first_of_term(self, index: int) -> int:
        """Return the first index whose entry has the same term as the one at ``index``."""
        return bisect_left(self._entries, self.term(index), key=_term) + 1

    def last_of_term(self, term: int, before: int) -> int:
        """Return the last index below ``before`` whose entry has ``term``; 0 when there is none."""
        index = min(before - 1, bisect_right(self._entries, term, key=_term))
        return index if index > 0 and self.term(index) == term else 0

    def bytes_after(self, index: int) -> int:
        """Return the size of all entries after ``index``."""
        return sum(entry.size for entry in self._entries[index:])
