"""Reading the journal: all records in order, and at the end the decision between torn and damaged.

A batch that does not decode is either *torn* or *damaged*. A torn batch is what a crash leaves of an unfinished write:
it was never acknowledged, and is cut off. A damaged batch was complete once and may have been acknowledged: if the node
went on without it, it would break its vote or lose entries that it helped to commit. So a batch counts as torn only if
a crash can have left it so, which takes all of this:

- It is in the last segment, and no valid batch of the same or a later sequence number follows it: the next batch is
  written only after the sync of this one.
- At least one of its sectors is missing, that is, all zeros: a disk writes a sector whole or not at all, and sectors
  that are all there are a complete batch. If the first sector is there, its header must be valid and continue the
  batch before, since it was written whole.

Everything else is damage, including a bad segment header, a file of another size, a missing segment, and a segment of
another owner or history. A segment gets its name only when it is on disk with its header and full size, so no crash
leaves these. Reading changes nothing on disk.
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
    """The journal is in a state that no crash leaves behind: acknowledged records may be lost.

    ``file`` is the path of the segment, ``offset`` the byte where the damage begins.
    """

    def __init__(self, file: str, offset: int, why: str) -> None:
        super().__init__(f"the journal is damaged: {file}, byte {offset}: {why}")
        self.file = file
        self.offset = offset
        self.why = why


class Tail(msgspec.Struct):
    """Where writing continues: at ``end`` of segment ``number`` (0: there is no segment yet), ``size`` bytes long.

    The bytes from ``end`` to ``content_end`` are the remains of a torn batch. ``sequence`` and ``previous_crc`` are
    those of the next batch.
    """

    number: int = 0
    path: str = ""
    size: int = 0
    end: int = 0
    content_end: int = 0
    sequence: int = 1
    previous_crc: int = 0


def segment_name(number: int) -> str:
    """Return the file name of a segment; numbers start at 1."""
    return f"{number:016d}.wal"


def read_journal(disk: Disk, directory: str, owner: bytes) -> tuple[Replay, Tail]:
    """Read all segments in ``directory``; raises ``DamagedJournal`` or ``OSError``.

    All segments must belong to ``owner`` (see ``owner_of``).
    """
    replay, tail = Replay(), Tail()
    numbers = _segment_numbers(disk, directory)
    for number in numbers:
        path = os.path.join(directory, segment_name(number))
        _Segment(disk, path, number, owner, tail).read_into(replay, tail, last=number == numbers[-1])
    return replay, tail


def _segment_numbers(disk: Disk, directory: str) -> list[int]:
    """Return the numbers of all segments; they must be 1, 2, 3 and so on."""
    numbers = []
    for name in disk.list(directory):
        if match := _SEGMENT_NAME.fullmatch(name):
            numbers.append(int(match[1]))
        elif name.endswith(".wal"):
            raise DamagedJournal(os.path.join(directory, name), 0, "this is not the name of a segment")
    for expected, number in enumerate(numbers, 1):
        if number != expected:
            raise DamagedJournal(os.path.join(directory, segment_name(expected)), 0, "this segment is missing")
    return numbers


class _Segment:
    """One segment, read into memory whole."""

    def __init__(self, disk: Disk, path: str, number: int, owner: bytes, before: Tail) -> None:
        file = disk.open(path)
        try:
            self.raw = file.read(0, file.size())
        finally:
            file.close()
        self.path = path
        self.header = self._checked_header(number, owner, before)
        # A segment has its full size on disk before it gets its name, so no crash shortens it, and the missing part
        # may have been acknowledged.
        if len(self.raw) != self.header.size:
            why = f"the file has {len(self.raw)} bytes, but was created with {self.header.size}"
            raise DamagedJournal(path, min(len(self.raw), self.header.size), why)
        self.content_end = len(self.raw.rstrip(b"\0"))

    def _checked_header(self, number: int, owner: bytes, before: Tail) -> SegmentHeader:
        # A segment gets its name only after its header is on disk, so no crash leaves a header incomplete.
        try:
            header = decode_segment_header(self.raw[:SECTOR])
        except BadFormat as error:
            raise DamagedJournal(self.path, 0, str(error)) from error
        if header.number != number:
            raise DamagedJournal(self.path, 0, f"this is segment {header.number} under the name of another segment")
        if header.owner != owner:
            raise DamagedJournal(self.path, 0, "this segment was written by another node or incarnation")
        if header.first_sequence > before.sequence:
            why = f"batch {before.sequence} is missing; the next segment begins with batch {header.first_sequence}"
            raise DamagedJournal(before.path, before.end, why)
        if (header.first_sequence, header.previous_crc) != (before.sequence, before.previous_crc):
            raise DamagedJournal(self.path, 0, "this segment does not continue the previous one")
        return header

    def read_into(self, replay: Replay, tail: Tail, last: bool) -> None:
        """Fold every record into ``replay`` and move ``tail`` to the end of the last one."""
        at, sequence, previous_crc = SECTOR, tail.sequence, tail.previous_crc
        while at < self.content_end:
            try:
                header = decode_batch_header(self.raw, at)
                if header.sequence != sequence or header.previous_crc != previous_crc:
                    raise BadFormat(f"batch {header.sequence} does not continue batch {sequence - 1}")
                replay.add(decode_record(decode_payload(header, self.raw, at)))
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
        """Whether a crash can have left the bad batch at ``at``; the module docstring gives the rules."""
        if self._has_successor(at, sequence):
            return False
        if self.raw[at : at + SECTOR] == _ZEROS:
            return True
        try:
            header = decode_batch_header(self.raw, at)
        except BadFormat:
            # A sector is written whole or not at all: this one was written, and has changed since.
            return False
        if header.sequence != sequence or header.previous_crc != previous_crc:
            return False
        end = at + header.size
        return end <= len(self.raw) and any(
            self.raw[sector : sector + SECTOR] == _ZEROS for sector in range(at, end, SECTOR)
        )

    def _has_successor(self, at: int, sequence: int) -> bool:
        """Whether a batch with sequence number ``sequence`` or later begins after the sector at ``at``."""
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
