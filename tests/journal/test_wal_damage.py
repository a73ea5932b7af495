"""Damage is reported with file and offset, and never recovered as a shorter or different log."""

from __future__ import annotations

import contextlib
import struct

import pytest
from google_crc32c import value as crc32c
from hypothesis import given, settings
from hypothesis import strategies as st

from raftkv.journal.format import (
    BadFormat,
    SegmentHeader,
    decode_batch_header,
    decode_segment_header,
    encode_batch,
    encode_record,
    encode_segment_header,
    owner_of,
)
from raftkv.journal.recovery import DamagedJournal
from raftkv.simulation.cluster.disk import SimulatedDisk
from tests.journal.wal_tools import (
    DIRECTORY,
    OWNER,
    RECORDS,
    SECTOR,
    SEGMENT,
    entry,
    open_wal,
    record,
    recovered,
    states,
)

FIRST, SECOND, THIRD = (f"{DIRECTORY}/{number:016d}.wal" for number in (1, 2, 3))


def journal() -> dict[str, bytes]:
    """Return the files of a small journal of ``RECORDS``."""
    disk = SimulatedDisk()
    wal, _ = open_wal(disk)
    for each in RECORDS:
        wal.append(each)
    wal.close()
    return disk.files()


def disk_with(files: dict[str, bytes]) -> SimulatedDisk:
    """Return a disk that holds ``files``."""
    disk = SimulatedDisk()
    for path, data in files.items():
        disk.put(path, data)
    return disk


def batches(data: bytes) -> list[tuple[int, int]]:
    """Return the start and end offsets of the batches of a segment."""
    found, at = [], SECTOR
    while data[at:].strip(b"\0"):
        end = at + decode_batch_header(data, at).size
        found.append((at, end))
        at = end
    return found


def damage(disk: SimulatedDisk) -> tuple[str, int]:
    """Return the reported file and offset; checks that reading changed nothing on disk."""
    before = disk.files()
    with pytest.raises(DamagedJournal) as caught:
        open_wal(disk)
    assert disk.files() == before
    assert disk.pending() == []
    assert caught.value.file in str(caught.value)
    assert f"byte {caught.value.offset}" in str(caught.value)
    return caught.value.file, caught.value.offset


FILES = journal()


@pytest.mark.parametrize("mask", [0xFF, 0x01, 0x80])
@pytest.mark.parametrize("path", FILES)
def test_no_flipped_byte_changes_the_log(path: str, mask: int) -> None:
    """A flip inside the header or a batch is damage at its start; a flip elsewhere has no effect."""
    starts = [(0, SECTOR), *batches(FILES[path])]
    disk = disk_with(FILES)
    for offset in range(len(FILES[path])):
        inside = [start for start, end in starts if start <= offset < end]
        disk.put(path, FILES[path])
        disk.flip(path, offset, mask)
        if inside or offset < starts[-1][1] + SECTOR or path != max(FILES):
            assert damage(disk) == (path, inside[0] if inside else starts[-1][1])
        else:
            assert recovered(disk) == states(RECORDS)[-1]
            assert disk.files() == FILES


def test_a_flipped_bit_in_a_sparse_sector_is_no_torn_write() -> None:
    """Users may store zeros: if its only set bit flips, a sector must not look as if it had never been written."""

    def segment_with(value: bytes) -> bytes:
        disk = SimulatedDisk()
        wal, _ = open_wal(disk, segment_bytes=8 * SECTOR)
        wal.append(record(1, entry(1, 1, value)))
        return disk.files()[FIRST]

    zeros = segment_with(bytes(1500))
    for offset in range(0, 1500, 19):
        data = segment_with(bytes(offset) + b"\1" + bytes(1500 - offset - 1))
        (at,) = (at for at in range(SECTOR + 36, len(data)) if data[at] != zeros[at])
        disk = disk_with({FIRST: data})
        disk.flip(FIRST, at, 1)
        assert damage(disk) == (FIRST, SECTOR)


def test_a_value_that_looks_like_a_batch_is_not_taken_for_one() -> None:
    """Users may store a journal as a value: it must not turn a torn batch into damage."""
    fake, _ = encode_batch(99, 0, b"")
    value = b"".join(fake[:508] + bytes(shift) for shift in range(8)) * 2
    disk = SimulatedDisk()
    wal, _ = open_wal(disk, segment_bytes=64 * SECTOR)
    wal.append(RECORDS[0])
    wal.append(record(1, *(entry(i + 1, 1, bytes(i) + value) for i in range(3))))
    torn = bytearray(disk.files()[FIRST])
    torn[3 * SECTOR : 4 * SECTOR] = bytes(SECTOR)
    disk.put(FIRST, bytes(torn))
    assert recovered(disk, segment_bytes=64 * SECTOR) == states(RECORDS[:1])[-1]


def test_a_segment_cut_short_anywhere_is_damage() -> None:
    """It had its full size before its name, so no crash shortens it; the missing part may have been acknowledged."""
    for path, data in FILES.items():
        for size in range(len(data)):
            disk = disk_with({**FILES, path: data[:size]})
            file, offset = damage(disk)
            assert (file, offset) == (path, size if size >= SECTOR else 0)
            assert disk.files()[path] == data[:size]


def test_a_torn_last_batch_loses_only_itself() -> None:
    """However many of its last sectors are missing, everything before it stays, and writing continues there."""
    disk = SimulatedDisk()
    records = [RECORDS[0], record(1, entry(1, 1, b"\xff" * 600)), record(2, entry(2, 2, b"\xff" * 1500), vote="n2")]
    wal, _ = open_wal(disk, segment_bytes=16 * SECTOR)
    for each in records:
        wal.append(each)
    whole = disk.files()[FIRST]
    start, end = batches(whole)[-1]
    for torn_at in range(start, end, SECTOR):
        disk = disk_with({FIRST: whole[:torn_at] + bytes(len(whole) - torn_at)})
        wal, found = open_wal(disk, segment_bytes=16 * SECTOR)
        assert found == states(records)[2]
        wal.append(record(7, vote="n7"))
        assert recovered(disk, segment_bytes=16 * SECTOR) == states([*records[:2], record(7, vote="n7")])[-1]


def test_a_batch_gone_from_the_middle_is_damage() -> None:
    """Zeros in place of a whole batch look like the end of the journal, unless something follows."""
    for path in FILES:
        for start, end in batches(FILES[path]):
            gone = FILES[path][:start] + bytes(end - start) + FILES[path][end:]
            disk = disk_with({**FILES, path: gone})
            if path == max(FILES):
                # The last batch: as if it had never been written.
                assert recovered(disk) == states(RECORDS)[-2]
            else:
                assert damage(disk) == (path, start)


def test_a_sector_of_zeros_is_damage_unless_it_is_in_the_last_batch() -> None:
    """The last batch looks torn then: this loss cannot be distinguished from a crash (docs/journal.md)."""
    disk = SimulatedDisk()
    records = [record(1, entry(1, 1, b"a" * 1200)), record(1, entry(2, 1, b"b" * 1200))]
    wal, _ = open_wal(disk, segment_bytes=16 * SECTOR)
    for each in records:
        wal.append(each)
    whole = disk.files()[FIRST]
    first, last = batches(whole)
    for start, end in (first, last):
        for sector in range(start, end, SECTOR):
            disk = disk_with({FIRST: whole[:sector] + bytes(SECTOR) + whole[sector + SECTOR :]})
            if start == first[0]:
                assert damage(disk) == (FIRST, start)
            else:
                assert recovered(disk, segment_bytes=16 * SECTOR) == states(records)[1]


def test_a_missing_segment_is_damage() -> None:
    """Any but the last one, whose absence cannot be detected."""
    names = sorted(FILES)
    for path in names[:-1]:
        disk = disk_with({other: data for other, data in FILES.items() if other != path})
        assert damage(disk) == (path, 0)


def test_segments_in_each_others_place_are_damage() -> None:
    """Even if both are intact."""
    assert damage(disk_with({**FILES, FIRST: FILES[SECOND], SECOND: FILES[FIRST]})) == (FIRST, 0)
    assert damage(disk_with({**FILES, f"{DIRECTORY}/2.wal": b""}))[0] == f"{DIRECTORY}/2.wal"


def test_a_segment_of_another_journal_is_damage() -> None:
    """Another node's, or this node's from before its disk was wiped."""
    with pytest.raises(DamagedJournal, match="another node or incarnation") as caught:
        open_wal(disk_with(FILES), owner=owner_of("n1", "second"))
    assert (caught.value.file, caught.value.offset) == (FIRST, 0)


def test_a_segment_of_another_history_is_damage() -> None:
    """Same owner and numbers, but a different history before it."""
    disk = SimulatedDisk()
    wal, _ = open_wal(disk)
    for each in (record(9), *RECORDS[1:]):
        wal.append(each)
    assert damage(disk_with({**disk.files(), FIRST: FILES[FIRST]})) == (SECOND, 0)


def test_a_batch_of_another_history_is_damage() -> None:
    """Intact and in its place, but from a different history; torn or not, it is not ours."""
    data = FILES[FIRST]
    (first, start), _ = batches(data)
    before = decode_batch_header(data, first)
    for sequence, previous_crc in ((2, before.crc ^ 1), (1, before.crc), (3, before.crc)):
        batch, _ = encode_batch(sequence, previous_crc, encode_record(record(1, entry(1, 1, b"x" * 600))))
        for end in (len(batch), SECTOR):
            assert damage(disk_with({FIRST: (data[:start] + batch[:end]).ljust(SEGMENT, b"\0")})) == (FIRST, start)


@settings(deadline=None, max_examples=300)
@given(start=st.integers(0, SEGMENT - 1), noise=st.binary(min_size=1, max_size=SEGMENT), path=st.sampled_from([*FILES]))
def test_noise_never_crashes_the_reader(start: int, noise: bytes, path: str) -> None:
    """Whatever overwrites part of a segment, the result is damage, a torn end, or the same log."""
    data = FILES[path]
    disk = disk_with({**FILES, path: (data[:start] + noise + data[start + len(noise) :])[: len(data)]})
    allowed = states(RECORDS)[-2:] if path == max(FILES) else states(RECORDS)[-1:]
    with contextlib.suppress(DamagedJournal):
        assert recovered(disk) in allowed


def test_a_batch_moved_within_its_segment_is_damage() -> None:
    """A misdirected write: intact, with valid checksums, in the wrong place."""
    data = FILES[FIRST]
    start, end = batches(data)[0]
    assert damage(disk_with({FIRST: data[:end] + data[start:end] + bytes(SEGMENT - 2 * end + start)})) == (FIRST, end)
    assert damage(disk_with({FIRST: data[:start] + bytes(end - start) + data[start:end] + data[end + SECTOR :]})) == (
        FIRST,
        start,
    )


def test_a_file_longer_than_it_was_created_is_damage() -> None:
    """A segment never grows."""
    assert damage(disk_with({**FILES, THIRD: FILES[THIRD] + b"\0"})) == (THIRD, len(FILES[THIRD]))


def test_a_valid_batch_with_invalid_content_is_damage() -> None:
    """Its checksums are valid, so it is what was written; going on would be guessing."""
    for payload, why in ((b"\xc1", "not a record"), (b"\x93\x01\xc0\x91\x94\x05\x01\x00\xc4\x00", None)):
        disk = SimulatedDisk()
        wal, _ = open_wal(disk)
        wal.append(record(1, entry(1)))
        data = bytearray(disk.files()[FIRST])
        batch, _ = encode_batch(2, decode_batch_header(bytes(data), SECTOR).crc, payload)
        data[2 * SECTOR : 2 * SECTOR + len(batch)] = batch
        disk.put(FIRST, bytes(data))
        with pytest.raises(DamagedJournal, match=why or "entry 5 follows entry 1"):
            open_wal(disk)
        assert damage(disk) == (FIRST, 2 * SECTOR)


def test_a_newer_format_is_refused_by_name() -> None:
    """After a downgrade the message names the formats instead of reporting damage."""
    sector = bytearray(encode_segment_header(SegmentHeader(1, 1, SEGMENT, 0, OWNER)))
    struct.pack_into("<H", sector, 4, 2)
    sector[-4:] = struct.pack("<I", crc32c(bytes(sector[:-4])))
    with pytest.raises(BadFormat, match="this is format 2; this version of raftkv reads format 1"):
        decode_segment_header(bytes(sector))
