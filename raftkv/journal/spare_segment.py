"""The segment in reserve: a file of zeros, made in slices before it is needed.

Its blocks are allocated and on disk by the time a batch is written into it, so that syncing the batch changes
nothing but the batch's own sectors, and term and vote find a place even on a disk that is full.
"""

from __future__ import annotations

import errno
import logging
import os

from raftkv.environment import Disk, File
from raftkv.journal.format import SECTOR

SLICE = 256 << 10
SPARE_NAME = "spare.tmp"
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)

_log = logging.getLogger("raftkv.journal")


class SpareSegment:
    """Makes the next segment, ``size`` bytes of zeros under a temporary name, and gives it away when it is needed."""

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
        """Whether all of it is on disk."""
        return self.prepared == self._size

    def wanted(self) -> bool:
        """Whether there is something left to do, and the room to do it."""
        if self.complete:
            return False
        free = self._disk.free(self._directory)
        if self._gave_up_at is not None and free <= self._gave_up_at:
            return False
        return free >= self._size - self.prepared

    def adopt(self) -> None:
        """Take over what an earlier run left, if it is whole, or remove it."""
        file = self._disk.open(self._path)
        # The first sector may have got its header before the crash; it is written again when the segment is used.
        if file.size() == self._size and not file.read(0, self._size)[SECTOR:].strip(b"\0"):
            self._file, self.prepared = file, self._size
        else:
            file.close()
            self._disk.remove(self._path)

    def work(self, limit: int = SLICE) -> bool:
        """Make ``limit`` more bytes of it durable; return false when the disk is too full for it.

        What there is of it is given back then: a part of a spare is of no use. Any other error is raised.
        """
        count = min(limit, self._size - self.prepared)
        try:
            if self._file is None:
                self._file = self._disk.open(self._path, create=True)
            self._file.write(self.prepared, bytes(count))
            self._file.sync()
        except OSError as error:
            if error.errno not in _NO_ROOM:
                raise
            _log.warning("no room for a journal segment in reserve: %s", error)
            self._give_up()
            return False
        self.prepared += count
        self._gave_up_at = None
        return True

    def finish(self) -> bool:
        """Make all that is missing at once; return false when the disk is too full for it."""
        if self.complete:
            return True
        if self._disk.free(self._directory) < self._size - self.prepared:
            self._give_up()
            return False
        return self.work(self._size)

    def become(self, path: str, header: bytes) -> File:
        """Write the segment's header and give the file, under its real name, durably, to the caller."""
        assert self.complete, f"a spare of {self.prepared} bytes was put into use"
        assert self._file is not None
        file, self._file, self.prepared = self._file, None, 0
        file.write(0, header)
        file.sync()
        file.close()
        self._disk.rename(self._path, path)
        self._disk.sync_directory(self._directory)
        return self._disk.open(path)

    def close(self) -> None:
        """Close the file; what there is of it stays for the next start."""
        if self._file is not None:
            self._file.close()

    def _give_up(self) -> None:
        if self._file is not None:
            self._file.close()
            self._disk.remove(self._path)
        self._file, self.prepared = None, 0
        self._gave_up_at = self._disk.free(self._directory)
