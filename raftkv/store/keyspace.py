"""The state machine: sorted keys, each with a value, the revisions that created and last changed it, and a version."""

from __future__ import annotations

import hashlib
import struct
from typing import Self

from sortedcontainers import SortedDict

from raftkv.store.commands import Command, Item, Query, Result
from raftkv.store.state_machine import Capture, StateMachine

_DIGEST_PREFIX = b"raftkv keyspace 1\n"
_REVISION = struct.Struct("<Q")
_LENGTHS_AND_REVISIONS = struct.Struct("<IIQQQ")


class Keyspace(StateMachine):
    """Keys in the order of their code points. ``revision`` counts the commands that changed something."""

    __slots__ = ("_items", "revision")

    def __init__(self) -> None:
        self._items: SortedDict[str, Item] = SortedDict()
        self.revision = 0

    def __len__(self) -> int:
        return len(self._items)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Keyspace):
            return NotImplemented
        return self.revision == other.revision and bool(self._items == other._items)

    def get(self, key: str) -> Item | None:
        """Return the item under ``key``, or None."""
        item: Item | None = self._items.get(key)
        return item

    def items(self) -> list[tuple[str, Item]]:
        """Return everything, in the order of the keys."""
        return list(self._items.items())

    def apply(self, command: Command) -> Result:
        """Carry out one command and return its result."""
        return command.execute(self)

    def query(self, query: Query) -> Item | None:
        """Answer a query; changes nothing."""
        return query.execute(self)

    # --- how commands change it (see ``commands.Items``)

    def put(self, key: str, value: bytes) -> int:
        """Set ``key`` to ``value``; return the new revision."""
        self.revision = revision = self.revision + 1
        old: Item | None = self._items.get(key)
        if old is None:
            self._items[key] = Item(value, revision, revision, 1)
        else:
            self._items[key] = Item(value, old.create_revision, revision, old.version + 1)
        return revision

    def remove(self, key: str) -> bool:
        """Remove ``key``; return whether it existed. Only then is there a new revision."""
        if self._items.pop(key, None) is None:
            return False
        self.revision += 1
        return True

    # --- the whole state at once; time and memory grow with the number of keys

    def capture(self) -> Capture:
        """Return everything held now. Commands applied later do not show in it, even while it is being read.

        Copies the list of items, not the values.
        """
        return Capture(self.revision, iter(self.items()))

    @classmethod
    def restore(cls, capture: Capture) -> Self:
        """Return a keyspace equal to the captured one; raises ``ValueError`` if no keyspace can have it."""
        items = list(capture.items)
        before = None
        for key, item in items:
            if before is not None and key <= before:
                raise ValueError(f"key {key!r} follows key {before!r}")
            changes = item.modify_revision - item.create_revision
            if not 1 <= item.create_revision <= item.modify_revision <= capture.revision:
                raise ValueError(f"the revisions of key {key!r} do not fit a keyspace at revision {capture.revision}")
            if not 1 <= item.version <= changes + 1:
                raise ValueError(f"key {key!r} has version {item.version} after at most {changes + 1} changes")
            before = key
        keyspace = cls()
        keyspace.revision = capture.revision
        keyspace._items = SortedDict(items)
        return keyspace

    def digest(self) -> bytes:
        """Return the SHA-256 of a canonical form of the whole state: equal on two keyspaces if and only if they are.

        The form is ``raftkv keyspace 1`` and a line feed; the revision (u64); then for each key, ascending: the length
        of the key in UTF-8 (u32), the length of the value (u32), create revision, modify revision and version (u64
        each), the key and the value. All numbers are little-endian. The 1 is the version of the form.
        """
        digest = hashlib.sha256(_DIGEST_PREFIX)
        digest.update(_REVISION.pack(self.revision))
        for key, item in self._items.items():
            name = key.encode()
            digest.update(
                _LENGTHS_AND_REVISIONS.pack(
                    len(name), len(item.value), item.create_revision, item.modify_revision, item.version
                )
            )
            digest.update(name)
            digest.update(item.value)
        return digest.digest()
