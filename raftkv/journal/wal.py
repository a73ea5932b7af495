"""The write-ahead log: records appended to segments, each durable when ``append`` returns.

A batch is one write and one sync, and the next batch is written only after that. A write covers whole sectors, and none
that an acknowledged batch occupies. The theory is in ``raftkv/journal/__init__.py``, the format in ``format``, reading
in ``recovery``.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager

from raftkv.environment import Disk, File
from raftkv.journal.format import (
    SECTOR,
    Record,
    SegmentHeader,
    encode_batch,
    encode_record,
    encode_segment_header,
    payload_room,
)
from raftkv.journal.recovery import Tail, read_journal, segment_name
from raftkv.journal.replay import Replay
from raftkv.journal.spare_segment import SPARE_NAME, SpareSegment

_OWN_NAME = "own.tmp"
_SMALL_SEGMENT = 64 << 10

_log = logging.getLogger("raftkv.journal")


class WalFailed(Exception):
    """The log is closed, or the disk failed earlier. Only a restart can find out what is on disk."""


class Wal:
    """The journal of one node, open for appending. Not thread-safe."""

    def __init__(self, disk: Disk, directory: str, segment_bytes: int, owner: bytes, tail: Tail) -> None:
        self._disk = disk
        self._directory = directory
        self._segment_bytes = segment_bytes
        self._owner = owner
        self._spare = SpareSegment(disk, directory, segment_bytes)
        self._tail = tail
        self._file: File | None = None
        self._failed = False

    @classmethod
    def open(cls, disk: Disk, directory: str, *, segment_bytes: int, owner: bytes) -> tuple[Wal, Replay]:
        """Read the journal in ``directory``, which is created if missing, and prepare to append to it.

        ``segment_bytes`` is the size of new segments, rounded up to whole sectors; ``owner`` identifies the node and
        its incarnation (see ``owner_of``). Raises ``DamagedJournal``, with nothing changed on disk, and ``OSError``.
        """
        segment_bytes = -(-segment_bytes // SECTOR) * SECTOR
        disk.make_directory(directory)
        replay, tail = read_journal(disk, directory, owner)
        wal = cls(disk, directory, segment_bytes, owner, tail)
        wal._settle()
        return wal, replay

    def append(self, record: Record) -> None:
        """Return when ``record`` is on disk.

        Raises ``OSError`` if it may not be. After that every call raises ``WalFailed``: Linux drops the bytes of a
        failed sync, so a second sync that succeeds would not mean that they are on disk.
        """
        batch, crc = encode_batch(self._tail.sequence, self._tail.previous_crc, encode_record(record))
        with self._disk_work():
            if self._tail.end + len(batch) <= self._tail.size or self._start_segment(len(batch)):
                assert self._file is not None
                self._file.write(self._tail.end, batch)
                self._file.sync()
            else:
                self._write_own_segment(batch)
        self._tail.end += len(batch)
        self._tail.sequence += 1
        self._tail.previous_crc = crc

    def free_bytes(self) -> int:
        """Return how many bytes of entries (by ``Entry.size``) can certainly still be saved.

        The size of one segment is left out: it pays for rounding up to sectors, and keeps a place for term and vote
        when entries have taken the rest.
        """
        with self._disk_work():
            free = self._disk.free(self._directory)
        whole_segment = self._segment_bytes - SECTOR
        # A segment made before the setting was lowered may have more room than the spare, but the last of several
        # batches may not fit into it, so it counts for no more than a spare.
        here = min(self._tail.size - self._tail.end, whole_segment)
        beyond = self._spare.prepared + free - self._segment_bytes
        # A batch that does not fit here goes to the next segment and the rest of this one is wasted, so the two do
        # not add up. Nor do later segments: batches that fit badly leave up to half of each unused.
        elsewhere = beyond if beyond <= whole_segment else max(whole_segment, beyond // 2)
        return payload_room(max(here + min(beyond, 0), elsewhere))

    @property
    def spare_wanted(self) -> bool:
        """Whether ``prepare_spare`` has something to do."""
        with self._disk_work():
            return self._spare.wanted()

    def prepare_spare(self) -> None:
        """Make one slice of the spare. A full disk is no error; it only means less room."""
        with self._disk_work():
            self._spare.work()

    def close(self) -> None:
        """Close all files. Everything appended is already on disk."""
        self._failed = True
        if self._file is not None:
            self._file.close()
        self._spare.close()

    def _settle(self) -> None:
        """Remove what a crash left behind, and make everything that was read durable."""
        for name in self._disk.list(self._directory):
            if name == SPARE_NAME:
                self._spare.adopt()
            elif name == _OWN_NAME:
                self._disk.remove(os.path.join(self._directory, name))
        if self._tail.number:
            self._file = self._disk.open(self._tail.path)
            self._cut_off_torn_batch(self._file)
            # If the last process was killed, its last batch and the name of its segment may be in memory only. They
            # were read, so the node will rely on them: they must be on disk first.
            self._file.sync()
        self._disk.sync_directory(self._directory)

    def _cut_off_torn_batch(self, file: File) -> None:
        """Overwrite the torn batch with zeros, so that no part of it follows the batch written in its place."""
        tail = self._tail
        if tail.content_end > tail.end:
            _log.warning(
                "%s: cutting off an unfinished batch at byte %d; it was never acknowledged", tail.path, tail.end
            )
            file.write(tail.end, bytes(tail.content_end - tail.end))

    def _start_segment(self, needed: int) -> bool:
        """Put the spare to use; return false if a batch of ``needed`` bytes needs a segment of its own."""
        if needed > self._segment_bytes - SECTOR or not self._spare.finish():
            return False
        header = self._next_header(self._segment_bytes)
        path = os.path.join(self._directory, segment_name(header.number))
        self._enter(self._spare.become(path, encode_segment_header(header)), path, header)
        return True

    def _write_own_segment(self, batch: bytes) -> None:
        """Write a batch that does not fit anywhere into a segment made for it.

        This segment need not be zeros first: the file gets its name only when header and batch are on disk.
        """
        # If this is a term and vote on a nearly full disk, leave space for the next ones.
        most = min(_SMALL_SEGMENT, self._segment_bytes, self._disk.free(self._directory) // 2)
        size = max(SECTOR + len(batch), most // SECTOR * SECTOR)
        header = self._next_header(size)
        path = os.path.join(self._directory, segment_name(header.number))
        temporary = os.path.join(self._directory, _OWN_NAME)
        file = self._disk.open(temporary, create=True)
        file.write(0, (encode_segment_header(header) + batch).ljust(size, b"\0"))
        file.sync()
        file.close()
        self._disk.rename(temporary, path)
        self._disk.sync_directory(self._directory)
        self._enter(self._disk.open(path), path, header)

    def _next_header(self, size: int) -> SegmentHeader:
        tail = self._tail
        return SegmentHeader(tail.number + 1, tail.sequence, size, tail.previous_crc, self._owner)

    def _enter(self, file: File, path: str, header: SegmentHeader) -> None:
        """Continue in another segment."""
        if self._file is not None:
            self._file.close()
        self._file = file
        self._tail.number, self._tail.path, self._tail.size = header.number, path, header.size
        self._tail.end = SECTOR

    @contextmanager
    def _disk_work(self) -> Iterator[None]:
        """Refuse all work after the first failure."""
        if self._failed:
            raise WalFailed("the journal is closed, or the disk failed earlier")
        try:
            yield
        except BaseException:
            self._failed = True
            raise
