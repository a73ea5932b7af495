"""The replicated state machine: sorted keys, each with its value and revisions."""

from __future__ import annotations

from sortedcontainers import SortedDict

from raftkv.commands import Command, Delete, DeleteDone, Item, Put, PutDone, Result


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
            return self._put(command)
        return self._delete(command)

    def _put(self, command: Put) -> PutDone:
        self.revision += 1
        old: Item | None = self._items.get(command.key)
        if old is None:
            self._items[command.key] = Item(command.value, self.revision, self.revision, 1)
        else:
            self._items[command.key] = Item(command.value, old.create_revision, self.revision, old.version + 1)
        return PutDone(self.revision)

    def _delete(self, command: Delete) -> DeleteDone:
        if self._items.pop(command.key, None) is None:
            return DeleteDone(self.revision, False)
        self.revision += 1
        return DeleteDone(self.revision, True)
