"""The spare segment: a file of zeros, made in slices before it is needed.

Its blocks are allocated and on disk before a batch is written into it. So syncing a batch writes the sectors of the
batch and no metadata of the file system, and a term and vote can be saved even when the disk is full.
"""

from __future__ import annotations

import errno
import logging
import os

from raftkv.environment import Disk, File
from raftkv.journal.format import SECTOR

SLICE = 256 << 10
SPARE_NAME = "spare.tmp"
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)

_log = logging.getLogger("raftkv.journal")


class SpareSegment:
    """Prepares the next segment, ``size`` bytes of zeros under a temporary name, until it is put to use."""

    def __init__(self, disk: Disk, directory: str, size: int) -> None:
        self._disk = disk
        self._directory = directory
        self._path = os.path.join(directory, SPARE_NAME)
        self._size = size
        self._file: File | None = None
        self._gave_up_at: int | None = None
        self.prepared = 0

    @property
    def complete(self) -> bool:
        """Whether the whole spare is on disk."""
        return self.prepared == self._size

    def wanted(self) -> bool:
        """Whether there is work left and enough free space for it."""
        if self.complete:
            return False
        free = self._disk.free(self._directory)
        if self._gave_up_at is not None and free <= self._gave_up_at:
            return False
        return free >= self._size - self.prepared

    def adopt(self) -> None:
        """Take over the spare of an earlier start if it is complete, or remove it."""
        file = self._disk.open(self._path)
        # The first sector may hold a header already, if the crash came before the rename; it is overwritten on use.
        if file.size() == self._size and not file.read(0, self._size)[SECTOR:].strip(b"\0"):
            self._file, self.prepared = file, self._size
        else:
            file.close()
            self._disk.remove(self._path)

    def work(self, limit: int = SLICE) -> bool:
        """Make ``limit`` more bytes durable; return false if the disk is full.

        An incomplete spare is of no use, so a full disk gets its bytes back. Raises any other ``OSError``.
        """
        count = min(limit, self._size - self.prepared)
        try:
            if self._file is None:
                self._file = self._disk.open(self._path, create=True)
            self._file.write(self.prepared, bytes(count))
            self._file.sync()
        except OSError as error:
            if error.errno not in _DISK_FULL:
                raise
            _log.warning("no space for a spare journal segment: %s", error)
            self._give_up()
            return False
        self.prepared += count
        self._gave_up_at = None
        return True

    def finish(self) -> bool:
        """Make all missing bytes at once; return false if the disk is too full."""
        if self.complete:
            return True
        if self._disk.free(self._directory) < self._size - self.prepared:
            self._give_up()
            return False
        return self.work(self._size)

    def become(self, path: str, header: bytes) -> File:
        """Write the segment header and return the file, durably renamed to ``path``."""
        assert self.complete, f"the spare has {self.prepared} of {self._size} bytes"
        assert self._file is not None
        file, self._file, self.prepared = self._file, None, 0
        file.write(0, header)
        file.sync()
        file.close()
        self._disk.rename(self._path, path)
        self._disk.sync_directory(self._directory)
        return self._disk.open(path)

    def close(self) -> None:
        """Close the file; the next start adopts it if it is complete."""
        if self._file is not None:
            self._file.close()

    def _give_up(self) -> None:
        if self._file is not None:
            self._file.close()
            self._disk.remove(self._path)
        self._file, self.prepared = None, 0
        self._gave_up_at = self._disk.free(self._directory)
