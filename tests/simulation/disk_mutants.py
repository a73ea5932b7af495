"""Mistakes with the disk that many programs make. Each goes unnoticed as long as neither power nor a disk fails."""

from __future__ import annotations

import contextlib
from typing import Any

import msgspec

from raftkv.actors.journal import Journal
from raftkv.actors.messages.node import Start
from raftkv.environment import File


class CarelessDisk:
    """A disk that passes every call on; subclasses get some wrong."""

    def __init__(self, disk: Any, file_class: type) -> None:
        self._disk = disk
        self._file_class = file_class

    def open(self, path: str, *, create: bool = False) -> Any:
        """Open a file."""
        return self._file_class(self._disk.open(path, create=create))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._disk, name)


class CarelessFile:
    """A file that passes every call on; subclasses get some wrong."""

    def __init__(self, file: File) -> None:
        self._file = file

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


class UnsyncedFile(CarelessFile):
    """A file that is never synced."""

    def sync(self) -> None:
        """Do nothing."""


class RepeatedSyncFile(CarelessFile):
    """A file whose sync is repeated if it fails: by then the system has dropped the data, so that it succeeds."""

    def sync(self) -> None:
        """Sync; if that fails, sync again."""
        try:
            self._file.sync()
        except OSError:
            with contextlib.suppress(OSError):
                self._file.sync()


class UnsyncedDirectories(CarelessDisk):
    """A disk whose directories are never synced."""

    def sync_directory(self, path: str) -> None:
        """Do nothing."""


class CarelessJournal(Journal):
    """A journal on a careless disk."""

    disk_class: type = CarelessDisk
    file_class: type = CarelessFile

    def receiveMessage(self, message: Any, sender: Any) -> None:
        """Handle a message; replace the disk in ``Start``."""
        if isinstance(message, Start):
            careless = self.disk_class(message.environment.disk, self.file_class)
            environment = msgspec.structs.replace(message.environment, disk=careless)
            message = msgspec.structs.replace(message, environment=environment)
        super().receiveMessage(message, sender)


class NeverSyncs(CarelessJournal):
    """Confirms saves that are only in the page cache (pitfall 3)."""

    file_class = UnsyncedFile


class SyncsNoDirectory(CarelessJournal):
    """Syncs files, but not their names in directories (pitfall 4)."""

    disk_class = UnsyncedDirectories


class TriesSyncsAgain(CarelessJournal):
    """Repeats a failed sync, and relies on the second one, which succeeds (pitfall 9)."""

    file_class = RepeatedSyncFile


ALL = (NeverSyncs, SyncsNoDirectory, TriesSyncsAgain)
