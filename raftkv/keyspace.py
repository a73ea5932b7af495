"""The replicated state machine: sorted keys, each with its value and revisions."""

from __future__ import annotations

from sortedcontainers import SortedDict

from raftkv.commands import Command, Delete, DeleteDone, Put, PutDone, Record, Result


class Keyspace:
    """Keys in the order of their code points. ``revision`` counts the commands that changed anything.

    Applying is deterministic and total: the same commands in the same order give the same keyspace on every node.
    """

    __slots__ = ("_records", "revision")

    def __init__(self) -> None:
        self._records: SortedDict[str, Record] = SortedDict()
        self.revision = 0

    def __len__(self) -> int:
        return len(self._records)

    def get(self, key: str) -> Record | None:
        """Return what is under ``key``, if anything."""
        record: Record | None = self._records.get(key)
        return record

    def items(self) -> list[tuple[str, Record]]:
        """Return everything, in order of the keys."""
        return list(self._records.items())

    def apply(self, command: Command) -> Result:
        """Carry out one command and say what came of it."""
        if isinstance(command, Put):
            return self._put(command)
        return self._delete(command)

    def _put(self, command: Put) -> PutDone:
        self.revision += 1
        old: Record | None = self._records.get(command.key)
        if old is None:
            self._records[command.key] = Record(command.value, self.revision, self.revision, 1)
        else:
            self._records[command.key] = Record(command.value, old.create_revision, self.revision, old.version + 1)
        return PutDone(self.revision)

    def _delete(self, command: Delete) -> DeleteDone:
        if self._records.pop(command.key, None) is None:
            return DeleteDone(self.revision, False)
        self.revision += 1
        return DeleteDone(self.revision, True)
