"""On a disk without faults, the write-ahead log returns exactly what was appended."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raftkv.journal.format import Record
from raftkv.journal.os_disk import OsDisk
from raftkv.journal.replay import Replay
from raftkv.journal.wal import Wal, WalFailed
from raftkv.simulation.cluster.disk import SimulatedDisk
from tests.journal.wal_tools import (
    DIRECTORY,
    OWNER,
    RECORDS,
    SECTOR,
    SEGMENT,
    State,
    entry,
    open_wal,
    record,
    recovered,
    state_of,
    states,
)

Step = tuple[int, int, int, int, bool]

steps = st.lists(
    st.tuples(
        st.integers(0, 3),  # how many entries are cut off
        st.integers(0, 3),  # how many are added
        st.sampled_from([0, 1, 440, 476, 508, 3000]),  # bytes of each
        st.integers(0, 2),  # by how much the term rises
        st.booleans(),  # whether the spare is prepared before
    ),
    max_size=12,
)


def records_of(script: list[Step]) -> list[Record]:
    """Return the records that a follower going through ``script`` would save."""
    records, last, term = [], 0, 0
    for cut, added, size, rise, _ in script:
        first = max(1, last - cut + 1)
        term += rise
        entries = tuple(entry(first + i, term, bytes([i + 1]) * size) for i in range(added))
        last = first + added - 1 if added else last
        records.append(Record(term, f"n{term % 3}" if term % 3 else None, entries))
    return records


@settings(deadline=None, max_examples=150)
@given(script=steps, restarts=st.sets(st.integers(0, 11)))
def test_recovers_exactly_what_was_saved(script: list[Step], restarts: set[int]) -> None:
    """With appends, cuts and votes of any size, and restarts in between."""
    records = records_of(script)
    expected = states(records)
    disk = SimulatedDisk()
    wal, found = open_wal(disk)
    for number, each in enumerate(records):
        if script[number][4]:
            while wal.spare_wanted:
                wal.prepare_spare()
        if number in restarts:
            wal.close()
            wal, found = open_wal(disk)
            assert found == expected[number]
        wal.append(each)
    assert recovered(disk) == expected[-1]


@settings(deadline=None, max_examples=150)
@given(script=steps)
def test_records_folded_into_one_have_the_same_effect(script: list[Step]) -> None:
    """A batch can replace any sequence of saves: it leaves the same log as they would."""
    records = records_of(script)
    for split in range(len(records) + 1):
        whole, batch = Replay(), Replay()
        for each in records[:split]:
            whole.add(each)
        for each in records[split:]:
            batch.add(each)
        if split < len(records):
            whole.add(batch.record())
        assert state_of(whole) == states(records)[-1]


def test_entries_that_leave_a_gap_are_refused() -> None:
    """The log has no gaps, and no batch may make one."""
    replay = Replay()
    replay.add(record(1, entry(1), entry(2)))
    with pytest.raises(ValueError, match="entry 4 follows entry 2"):
        replay.add(record(1, entry(4)))
    with pytest.raises(ValueError, match="not consecutive"):
        replay.add(record(1, entry(3), entry(5)))


def test_a_batch_is_one_write_and_one_sync() -> None:
    """The sync takes most of the time of a save, so there is only one."""
    disk = SimulatedDisk()
    wal, _ = open_wal(disk)
    wal.append(RECORDS[0])
    calls: list[tuple[str, str]] = []
    disk.before = lambda operation, path: calls.append((operation, path))
    wal.append(RECORDS[1])
    segment = f"{DIRECTORY}/0000000000000001.wal"
    assert calls == [("write", segment), ("sync", segment)]


def test_a_batch_touches_no_sector_that_holds_an_acknowledged_one() -> None:
    """So a torn write can only lose itself."""
    disk = SimulatedDisk()
    wal, _ = open_wal(disk)
    taken: set[tuple[str, int]] = set()
    for each in RECORDS:
        wal.append(each)
        written = {
            (path, sector)
            for path, data in disk.files().items()
            for sector in range(len(data) // SECTOR)
            if data[sector * SECTOR : (sector + 1) * SECTOR].strip(b"\0")
        }
        written = {(path, sector) for path, sector in written if sector}
        before = disk.files()
        assert taken <= written
        taken = written
        assert {path: data for path, data in disk.files().items() if path in before} == before


def test_segments_are_full_of_zeros_before_they_are_used() -> None:
    """So syncing a batch changes no size and no block map, and a missing sector is recognised."""
    disk = SimulatedDisk()
    wal, _ = open_wal(disk)
    assert wal.spare_wanted
    wal.prepare_spare()
    assert not wal.spare_wanted
    assert disk.files() == {f"{DIRECTORY}/spare.tmp": bytes(SEGMENT)}
    assert [piece.kind for piece in disk.pending()] == ["name"]
    wal.append(record(1))
    (path,) = disk.files()
    assert path == f"{DIRECTORY}/0000000000000001.wal"
    assert len(disk.files()[path]) == SEGMENT
    assert disk.files()[path][2 * SECTOR :] == bytes(SEGMENT - 2 * SECTOR)


def test_a_batch_larger_than_a_segment_gets_one_of_its_own() -> None:
    """An entry may be larger than a segment."""
    disk = SimulatedDisk()
    wal, _ = open_wal(disk)
    large = record(1, entry(1, 1, b"x" * 10 * SEGMENT), entry(2))
    wal.append(record(1))
    wal.append(large)
    wal.append(record(2, vote="n2"))
    sizes = {path[-5]: len(data) for path, data in disk.files().items()}
    assert sizes == {"1": SEGMENT, "2": 42 * SECTOR, "3": SEGMENT}
    assert recovered(disk) == (2, "n2", large.entries)


def test_a_spare_that_was_made_is_used_after_a_restart() -> None:
    """After a restart on a full disk the spare is still available."""
    disk = SimulatedDisk()
    wal, _ = open_wal(disk)
    wal.prepare_spare()
    wal.close()
    wal, _ = open_wal(disk)
    assert not wal.spare_wanted
    disk.capacity = disk.used()
    wal.append(RECORDS[0])
    assert recovered(disk) == states(RECORDS[:1])[-1]


@pytest.mark.parametrize("content", [b"", bytes(SEGMENT - 1), bytes(SEGMENT - 1) + b"x", bytes(SEGMENT + SECTOR)])
def test_an_incomplete_spare_is_replaced(content: bytes) -> None:
    """A spare that is incomplete, not empty or of another size cannot be used."""
    disk = SimulatedDisk()
    disk.put(f"{DIRECTORY}/spare.tmp", content)
    wal, found = open_wal(disk)
    assert found == (0, None, ())
    assert disk.files() == {}
    assert wal.spare_wanted


def test_another_segment_size_applies_to_new_segments() -> None:
    """The setting may change between starts; existing segments keep their size."""
    disk = SimulatedDisk()
    for number, each in enumerate(RECORDS):
        wal, found = open_wal(disk, segment_bytes=(SEGMENT, 3000, SECTOR)[number % 3])
        assert found == states(RECORDS)[number]
        wal.append(each)
        wal.close()
    assert recovered(disk) == states(RECORDS)[-1]


def test_a_closed_log_refuses_appends() -> None:
    """Appending to a closed log is a bug of the caller, and must not be acknowledged."""
    wal, _ = open_wal(SimulatedDisk())
    wal.close()
    with pytest.raises(WalFailed):
        wal.append(RECORDS[0])


def test_works_on_a_real_disk(tmp_path: Path) -> None:
    """The other tests here use a simulated disk; this one uses a real one."""

    def found() -> State:
        wal, replay = Wal.open(OsDisk(), str(tmp_path / "journal"), segment_bytes=SEGMENT, owner=OWNER)
        wal.close()
        return state_of(replay)

    wal, _ = Wal.open(OsDisk(), str(tmp_path / "journal"), segment_bytes=SEGMENT, owner=OWNER)
    for each, expected in zip(RECORDS, states(RECORDS)[1:], strict=True):
        while wal.spare_wanted:
            wal.prepare_spare()
        wal.append(each)
        assert found() == expected
    assert wal.free_bytes() > 0
    wal.close()
