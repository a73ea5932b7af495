"""The committed entries of a cluster, and a model of the keyspace as it must be after each of them."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from typing import Any, NamedTuple

from raftkv.raft.entry import Entry, Kind
from raftkv.store.commands import Command, Result, decode_commands
from raftkv.store.keyspace import Keyspace


class AppliedCommand(NamedTuple):
    """A command of the committed entry at ``entry_index``, its result, and the revision before it."""

    entry_index: int
    revision: int
    command: Command
    result: Result


class Committed:
    """Committed entries, and a model: a keyspace that applies them and remembers all its states."""

    __slots__ = ("_keys", "_keyspace", "_results", "_revisions", "_versions", "entries", "terms")

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.terms: list[int] = []
        """For each entry, the term of the node that committed it first."""
        self._keyspace = Keyspace()
        self._versions: dict[str, tuple[list[int], list[Any]]] = {}
        self._revisions = [0]
        self._results: list[tuple[Result, ...]] = [()]
        self._keys: list[tuple[str, ...]] = [()]

    def __len__(self) -> int:
        return len(self.entries)

    def add(self, entry: Entry, term: int) -> None:
        """Add the next entry, which a node in ``term`` has committed."""
        assert entry.index == len(self.entries) + 1, (entry.index, len(self.entries))
        self.entries.append(entry)
        self.terms.append(term)

    def before(self, term: int) -> int:
        """Return the index up to which entries were committed before ``term``: its leader must have all of them."""
        return bisect_left(self.terms, term)

    # --- the model: ``index`` is the index of a committed entry, or 0

    def item(self, key: str, index: int) -> Any:
        """Return the item under ``key`` after ``index`` was applied, or None."""
        self._apply_up_to(index)
        versions = self._versions.get(key)
        if versions is None:
            return None
        place = bisect_right(versions[0], index)
        return versions[1][place - 1] if place else None

    def items(self, index: int) -> list[tuple[str, Any]]:
        """Return the whole keyspace after ``index`` was applied, in order of the keys."""
        self._apply_up_to(index)
        items = ((key, self.item(key, index)) for key in sorted(self._versions))
        return [(key, item) for key, item in items if item is not None]

    def revision(self, index: int) -> int:
        """Return the keyspace's revision after ``index`` was applied."""
        self._apply_up_to(index)
        return self._revisions[index]

    def results(self, index: int) -> tuple[Result, ...]:
        """Return the results of the commands of the entry at ``index``."""
        self._apply_up_to(index)
        return self._results[index]

    def keys(self, index: int) -> tuple[str, ...]:
        """Return the keys of the commands of the entry at ``index``."""
        self._apply_up_to(index)
        return self._keys[index]

    def applied_commands(self) -> Iterator[AppliedCommand]:
        """Yield each command of the committed entries, in order."""
        keyspace = Keyspace()
        for entry in self.entries:
            for command in decode_commands(entry.data) if entry.kind == Kind.COMMANDS else ():
                yield AppliedCommand(entry.index, keyspace.revision, command, keyspace.apply(command))

    def _apply_up_to(self, index: int) -> None:
        while len(self._keys) <= index:
            entry = self.entries[len(self._keys) - 1]
            commands = decode_commands(entry.data) if entry.kind == Kind.COMMANDS else ()
            self._results.append(tuple([self._keyspace.apply(command) for command in commands]))
            self._keys.append(tuple(dict.fromkeys([command.key for command in commands])))
            self._revisions.append(self._keyspace.revision)
            for key in self._keys[-1]:
                indexes, items = self._versions.setdefault(key, ([], []))
                indexes.append(entry.index)
                items.append(self._keyspace.get(key))
