"""Mistakes with the disk: journals that treat it as many do. Each works as long as no power fails and no disk does."""

from __future__ import annotations

import contextlib
from typing import Any

import msgspec

from raftkv.actors.journal import Journal
from raftkv.actors.messages.node import Start
from raftkv.environment import File


class CarelessDisk:
    """A disk of which some calls are not made as they should be."""

    def __init__(self, disk: Any, file_class: type) -> None:
        self._disk = disk
        self._file_class = file_class

    def open(self, path: str, *, create: bool = False) -> Any:
        """Open a file."""
        return self._file_class(self._disk.open(path, create=create))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._disk, name)


class CarelessFile:
    """A file of which some calls are not made as they should be."""

    def __init__(self, file: File) -> None:
        self._file = file

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


class UnsyncedFile(CarelessFile):
    """One that is never synced."""

    def sync(self) -> None:
        """Do nothing."""


class TriedAgainFile(CarelessFile):
    """One whose sync is done once more when it fails: by then the system has forgotten what was to be written."""

    def sync(self) -> None:
        """Sync, and sync again."""
        try:
            self._file.sync()
        except OSError:
            with contextlib.suppress(OSError):
                self._file.sync()


class UnsyncedDirectories(CarelessDisk):
    """One whose directories are never synced."""

    def sync_directory(self, path: str) -> None:
        """Do nothing."""


class CarelessJournal(Journal):
    """A journal on such a disk."""

    disk_class: type = CarelessDisk
    file_class: type = CarelessFile

    def receiveMessage(self, message: Any, sender: Any) -> None:
        """Handle a message, the first one with another disk."""
        if isinstance(message, Start):
            careless = self.disk_class(message.environment.disk, self.file_class)
            environment = msgspec.structs.replace(message.environment, disk=careless)
            message = msgspec.structs.replace(message, environment=environment)
        super().receiveMessage(message, sender)


class NeverSyncs(CarelessJournal):
    """Says that it has saved what is in the system's memory (pitfall 3)."""

    file_class = UnsyncedFile


class SyncsNoDirectory(CarelessJournal):
    """Makes files durable, but not their names (pitfall 4)."""

    disk_class = UnsyncedDirectories


class TriesSyncsAgain(CarelessJournal):
    """Takes the second sync, which succeeds, for the first, which failed (pitfall 9)."""

    file_class = TriedAgainFile


ALL = (NeverSyncs, SyncsNoDirectory, TriesSyncsAgain)
