"""The replicated state machine: sorted keys, each with its value and revisions."""

from __future__ import annotations

from sortedcontainers import SortedDict

from raftkv.store.commands import (
    NOT_THERE,
    THERE,
    Command,
    Delete,
    DeleteDone,
    Item,
    Put,
    PutDone,
    PutIf,
    Result,
    Unmatched,
)


class Keyspace:
    """Keys in the order of their code points. ``revision`` counts the commands that changed anything.

    Applying is deterministic and total: the same commands in the same order give the same keyspace on every node.
    """

    __slots__ = ("_items", "revision")

    def __init__(self) -> None:
        self._items: SortedDict[str, Item] = SortedDict()
        self.revision = 0

    def __len__(self) -> int:
        return len(self._items)

    def get(self, key: str) -> Item | None:
        """Return what is under ``key``, if anything."""
        item: Item | None = self._items.get(key)
        return item

    def items(self) -> list[tuple[str, Item]]:
        """Return everything, in order of the keys."""
        return list(self._items.items())

    def apply(self, command: Command) -> Result:
        """Carry out one command and say what came of it."""
        if isinstance(command, Put):
            return self._put(command.key, command.value)
        if isinstance(command, Delete):
            return self._delete(command.key)
        found: Item | None = self._items.get(command.key)
        modified = NOT_THERE if found is None else found.modify_revision
        if command.revision != modified and (command.revision != THERE or found is None):
            return Unmatched(self.revision, modified)
        if isinstance(command, PutIf):
            return self._put(command.key, command.value)
        return self._delete(command.key)

    def _put(self, key: str, value: bytes) -> PutDone:
        self.revision += 1
        old: Item | None = self._items.get(key)
        if old is None:
            self._items[key] = Item(value, self.revision, self.revision, 1)
        else:
            self._items[key] = Item(value, old.create_revision, self.revision, old.version + 1)
        return PutDone(self.revision)

    def _delete(self, key: str) -> DeleteDone:
        if self._items.pop(key, None) is None:
            return DeleteDone(self.revision, False)
        self.revision += 1
        return DeleteDone(self.revision, True)
