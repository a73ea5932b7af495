"""Everything that an actor may touch besides messages: time, chance, files, settings, and a way to stop the process.

Actors and the data structures that they use call nothing of the operating system. They get an ``Environment`` in their
first message; a simulation passes another one, with virtual time, seeded chance and a disk that fails on demand.
Offsets and sizes are bytes, times milliseconds. Every method of ``File`` and ``Disk`` may raise ``OSError``.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Protocol

import msgspec

from raftkv.config.settings import Limits, Timing


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
    """The part of a file system that a node needs. Paths are plain strings."""

    def open(self, path: str, *, create: bool = False) -> File:
        """Open a file for reading and writing; with ``create`` it must not exist yet."""

    def rename(self, old: str, new: str) -> None:
        """Rename, replacing ``new``; durable only after ``sync_directory``."""

    def remove(self, path: str) -> None:
        """Remove a file; durable only after ``sync_directory``."""

    def list(self, directory: str) -> list[str]:
        """Return the names in a directory, sorted."""

    def make_directory(self, path: str) -> None:
        """Make a directory and its missing parents, durably."""

    def sync_directory(self, path: str) -> None:
        """Return when the entries of a directory are on disk."""

    def free(self, path: str) -> int:
        """Return how many bytes may still be written on the file system that holds ``path``."""

    def lock(self, path: str) -> File:
        """Lock a file for this process until it is closed, making it if missing.

        Raises ``BlockingIOError`` if another process holds the lock.
        """


class Environment(msgspec.Struct, frozen=True):
    """What the actors of one node share.

    ``directory`` is the data directory. ``fail(status, line)`` stops the process with that exit status: neither a bug
    nor a failed disk may be survived.
    """

    directory: str
    disk: Disk
    clock: Clock
    rng: Random
    timing: Timing
    limits: Limits
    fail: Callable[[int, str], None]
