"""What an actor may touch besides messages: time and files, each as a small interface that a simulation implements too.

Offsets and sizes are bytes, times milliseconds. Every method of ``File`` and ``Disk`` may raise ``OSError``.
"""

from __future__ import annotations

from typing import Protocol


class Clock(Protocol):
    """A clock that never goes back."""

    def now_ms(self) -> float:
        """Return milliseconds since some moment in the past."""


class File(Protocol):
    """An open file."""

    def read(self, offset: int, size: int) -> bytes:
        """Return up to ``size`` bytes at ``offset``; fewer at the end of the file."""

    def write(self, offset: int, data: bytes) -> None:
        """Write all of ``data`` at ``offset``; durable only after ``sync``."""

    def sync(self) -> None:
        """Return when everything written to this file, and its size, is on disk."""

    def size(self) -> int:
        """Return the file's size."""

    def close(self) -> None:
        """Close the file without syncing it."""


class Disk(Protocol):
    """The file system, as much of it as a node needs. Paths are plain strings."""

    def open(self, path: str, *, create: bool = False) -> File:
        """Open a file for reading and writing; ``create`` demands that it does not exist yet."""

    def rename(self, old: str, new: str) -> None:
        """Rename, replacing ``new``; durable only after ``sync_directory``."""

    def remove(self, path: str) -> None:
        """Remove a file; durable only after ``sync_directory``."""

    def list(self, directory: str) -> list[str]:
        """Return the names in a directory, in order."""

    def make_directory(self, path: str) -> None:
        """Make a directory and its parents where they are missing, durably."""

    def sync_directory(self, path: str) -> None:
        """Return when the entries of a directory are on disk."""

    def free(self, path: str) -> int:
        """Return how many bytes may still be written on the file system that holds ``path``."""

    def lock(self, path: str) -> File:
        """Lock a file, made if missing, for this process until closed; raises ``BlockingIOError`` if another has it."""
