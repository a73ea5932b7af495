"""Reading the journal: its records in order, and at its end the one distinction that everything hangs on.

A batch that is bad at the very end was either torn by a crash, so that nobody was ever told of it and it is cut
off; or it was complete once, has been acknowledged, and was damaged since: then this node must not go on as if it
had never been. Reading changes nothing on disk.
"""

from __future__ import annotations

import os
import re

import msgspec

from raftkv.environment import Disk
from raftkv.journal.format import (
    BATCH_MARK,
    SECTOR,
    BadFormat,
    SegmentHeader,
    decode_batch_header,
    decode_payload,
    decode_record,
    decode_segment_header,
)
from raftkv.journal.replay import Replay

_SEGMENT_NAME = re.compile(r"(\d{16})\.wal")
_ZEROS = bytes(SECTOR)


class DamagedJournal(Exception):
    """The journal holds something that no crash leaves behind: what was acknowledged may be lost.

    ``file`` is the path of the segment, ``offset`` the byte where the trouble begins.
    """

    def __init__(self, file: str, offset: int, why: str) -> None:
        super().__init__(f"the journal is damaged: {file}, byte {offset}: {why}")
        self.file = file
        self.offset = offset
        self.why = why


class Tail(msgspec.Struct):
    """Where writing goes on: at ``end`` of segment ``number`` (0: there is none yet).

    From ``end`` to ``content_end`` stand the remains of a torn batch; ``size`` is the file's.
    """

    number: int = 0
    path: str = ""
    size: int = 0
    end: int = 0
    content_end: int = 0
    sequence: int = 1
    previous_crc: int = 0


def segment_name(number: int) -> str:
    """Return the file name of a segment; segments count from 1."""
    return f"{number:016d}.wal"


def read_journal(disk: Disk, directory: str, owner: bytes) -> tuple[Replay, Tail]:
    """Read all segments in ``directory``; raises ``DamagedJournal`` or ``OSError``.

    ``owner`` is the one whose segments these must be (see ``owner_of``).
    """
    history, tail = Replay(), Tail()
    numbers = _segment_numbers(disk, directory)
    for number in numbers:
        path = os.path.join(directory, segment_name(number))
        _Segment(disk, path, number, owner, tail).read_into(history, tail, last=number == numbers[-1])
    return history, tail


def _segment_numbers(disk: Disk, directory: str) -> list[int]:
    """Return the numbers of all segments, which must be 1, 2, 3 and so on."""
    numbers = []
    for name in disk.list(directory):
        if match := _SEGMENT_NAME.fullmatch(name):
            numbers.append(int(match[1]))
        elif name.endswith(".wal"):
            raise DamagedJournal(os.path.join(directory, name), 0, "no segment has such a name")
    for expected, number in enumerate(numbers, 1):
        if number != expected:
            raise DamagedJournal(os.path.join(directory, segment_name(expected)), 0, "this segment is missing")
    return numbers


class _Segment:
    """One segment in memory, read from its first batch to its last."""

    def __init__(self, disk: Disk, path: str, number: int, owner: bytes, before: Tail) -> None:
        file = disk.open(path)
        try:
            self.raw = file.read(0, file.size())
        finally:
            file.close()
        self.path = path
        self.header = self._checked_header(number, owner, before)
        # A segment has its full size on disk before it gets its name: no crash makes it shorter, and what is
        # missing may have been acknowledged.
        if len(self.raw) != self.header.size:
            why = f"the file has {len(self.raw)} bytes, and was made with {self.header.size}"
            raise DamagedJournal(path, min(len(self.raw), self.header.size), why)
        self.content_end = len(self.raw.rstrip(b"\0"))

    def _checked_header(self, number: int, owner: bytes, before: Tail) -> SegmentHeader:
        # A segment gets its name after its header is on disk: no crash leaves one here that is not whole.
        try:
            header = decode_segment_header(self.raw[:SECTOR])
        except BadFormat as error:
            raise DamagedJournal(self.path, 0, str(error)) from error
        if header.number != number:
            raise DamagedJournal(self.path, 0, f"this is segment {header.number} under the name of another")
        if header.owner != owner:
            raise DamagedJournal(self.path, 0, "this segment was written by another node or incarnation")
        if header.first_sequence > before.sequence:
            why = f"the journal goes on with batch {header.first_sequence}, but batch {before.sequence} is not here"
            raise DamagedJournal(before.path, before.end, why)
        if (header.first_sequence, header.previous_crc) != (before.sequence, before.previous_crc):
            raise DamagedJournal(self.path, 0, "this segment does not continue the one before it")
        return header

    def read_into(self, history: Replay, tail: Tail, last: bool) -> None:
        """Fold every record into ``history`` and move ``tail`` behind the last one."""
        at, sequence, previous_crc = SECTOR, tail.sequence, tail.previous_crc
        while at < self.content_end:
            try:
                header = decode_batch_header(self.raw, at)
                if header.sequence != sequence or header.previous_crc != previous_crc:
                    raise BadFormat(f"batch {header.sequence} does not continue batch {sequence - 1}")
                history.add(decode_record(decode_payload(header, self.raw, at)))
            except ValueError as error:
                if last and self._is_torn(at, sequence, previous_crc):
                    break
                raise DamagedJournal(self.path, at, str(error)) from error
            at += header.size
            sequence, previous_crc = sequence + 1, header.crc
        tail.number, tail.path, tail.size = self.header.number, self.path, self.header.size
        tail.end, tail.content_end = at, self.content_end
        tail.sequence, tail.previous_crc = sequence, previous_crc

    def _is_torn(self, at: int, sequence: int, previous_crc: int) -> bool:
        """Whether the bad batch at ``at`` is one that a crash kept from getting to disk whole.

        Only then does it miss a sector. And only then does nothing follow it, because the next batch is written
        after this one is on disk.
        """
        if self._has_successor(at, sequence):
            return False
        if self.raw[at : at + SECTOR] == _ZEROS:
            return True
        try:
            header = decode_batch_header(self.raw, at)
        except BadFormat:
            # The disk writes a sector whole or not at all: this one was written, and wrong since.
            return False
        if header.sequence != sequence or header.previous_crc != previous_crc:
            return False
        end = at + header.size
        return end <= len(self.raw) and any(
            self.raw[sector : sector + SECTOR] == _ZEROS for sector in range(at, end, SECTOR)
        )

    def _has_successor(self, at: int, sequence: int) -> bool:
        """Whether a batch that is not older than ``sequence`` begins after the sector at ``at``."""
        found = self.raw.find(BATCH_MARK, at + SECTOR)
        while found >= 0:
            if found % SECTOR == 0:
                try:
                    if decode_batch_header(self.raw, found).sequence >= sequence:
                        return True
                except BadFormat:
                    pass
            found = self.raw.find(BATCH_MARK, found + 1)
        return False
