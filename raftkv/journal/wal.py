"""The write-ahead log: records appended to segments, each durable when ``append`` returns.

A batch is one write and one sync, and the next is written after that only; what has been acknowledged is never
written to again. Format: ``raftkv/journal/format.py``. Reading: ``raftkv/journal/recovery.py``.
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
    """The disk failed this write-ahead log before; what is on disk is known again only after a new start."""


class Wal:
    """The journal of one node, open for appending. Not for use by two threads at once."""

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
        """Read the journal in ``directory``, made if missing, and make ready to go on with it.

        Raises ``DamagedJournal``, with nothing changed on disk, and ``OSError``. ``segment_bytes`` is the size of
        new segments, rounded up to whole sectors; ``owner`` marks whose they are (see ``owner_of``).
        """
        segment_bytes = -(-segment_bytes // SECTOR) * SECTOR
        disk.make_directory(directory)
        history, tail = read_journal(disk, directory, owner)
        wal = cls(disk, directory, segment_bytes, owner, tail)
        wal._settle()
        return wal, history

    def append(self, record: Record) -> None:
        """Return when ``record`` is on disk.

        Raises ``OSError`` when it may not be; after that every call raises ``WalFailed``, because a second try
        that succeeds would not mean that the first one's bytes are there (Linux drops them).
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
        """Return how many bytes of entries (by ``Entry.size``) can surely still be saved.

        One segment's worth of disk stays out of the count: what rounding up to sectors costs comes from there, and
        a place for term and vote when entries have taken the rest.
        """
        with self._disk_work():
            free = self._disk.free(self._directory)
        whole_segment = self._segment_bytes - SECTOR
        # A segment from before the setting was lowered may have room for more than the spare would take, but of
        # several batches the last may not fit here.
        here = min(self._tail.size - self._tail.end, whole_segment)
        beyond = self._spare.prepared + free - self._segment_bytes
        # What does not fit here any more goes to the next segment, and what is left here is wasted: the two do not
        # add up. Nor do later segments: batches that fit badly leave up to half of each unused.
        elsewhere = beyond if beyond <= whole_segment else max(whole_segment, beyond // 2)
        return payload_room(max(here + min(beyond, 0), elsewhere))

    @property
    def spare_wanted(self) -> bool:
        """Whether ``prepare_spare`` has something to do."""
        with self._disk_work():
            return self._spare.wanted()

    def prepare_spare(self) -> None:
        """Do a slice of the work on the next segment; a disk too full for it is no error, only less room."""
        with self._disk_work():
            self._spare.work()

    def close(self) -> None:
        """Close all files. Everything appended is on disk already."""
        self._failed = True
        if self._file is not None:
            self._file.close()
        self._spare.close()

    def _settle(self) -> None:
        """Clear away what a crash left, and make durable whatever has been read."""
        for name in self._disk.list(self._directory):
            if name == SPARE_NAME:
                self._spare.adopt()
            elif name == _OWN_NAME:
                self._disk.remove(os.path.join(self._directory, name))
        if self._tail.number:
            self._file = self._disk.open(self._tail.path)
            self._cut_off_torn_batch(self._file)
            # The last batch and its segment's name may have been read from memory, where a process that was killed
            # left them: they must be on disk before anyone relies on them.
            self._file.sync()
        self._disk.sync_directory(self._directory)

    def _cut_off_torn_batch(self, file: File) -> None:
        """Put zeros over it, so that no remains of it ever follow a batch that is written in its place."""
        tail = self._tail
        if tail.content_end > tail.end:
            _log.warning("%s: an unfinished batch at byte %d is cut off", tail.path, tail.end)
            file.write(tail.end, bytes(tail.content_end - tail.end))

    def _start_segment(self, needed: int) -> bool:
        """Put the spare into use; return false where a batch of ``needed`` bytes must bring its own segment."""
        if needed > self._segment_bytes - SECTOR or not self._spare.finish():
            return False
        header = self._next_header(self._segment_bytes)
        path = os.path.join(self._directory, segment_name(header.number))
        self._enter(self._spare.become(path, encode_segment_header(header)), path, header)
        return True

    def _write_own_segment(self, batch: bytes) -> None:
        """Write a batch that fits nowhere into a segment made for it.

        It needs no zeros before it: the file gets its name only when header and batch are on disk.
        """
        # Term and vote on a disk that is nearly full: let the next ones find a place here as well.
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
        """Go on in another segment."""
        if self._file is not None:
            self._file.close()
        self._file = file
        self._tail.number, self._tail.path, self._tail.size = header.number, path, header.size
        self._tail.end = SECTOR

    @contextmanager
    def _disk_work(self) -> Iterator[None]:
        """Refuse all work after the first that failed."""
        if self._failed:
            raise WalFailed("the journal is closed, or the disk failed it")
        try:
            yield
        except BaseException:
            self._failed = True
            raise
