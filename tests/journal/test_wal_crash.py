"""Everything acknowledged survives a crash at any moment, whatever part of the rest had reached the disk."""

from __future__ import annotations

import errno
import itertools
import random
from collections.abc import Callable, Iterator, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raftkv.journal.format import Record
from raftkv.journal.wal import Wal, WalFailed
from raftkv.simulation.cluster.disk import Piece, PowerCut, SimulatedDisk, fails_with
from tests.journal.wal_tools import (
    DIRECTORY,
    RECORDS,
    SECTOR,
    SEGMENT,
    State,
    entry,
    open_wal,
    record,
    recovered,
    states,
)

Fault = Callable[[], BaseException]
EVERY_SUBSET_UP_TO = 9


def at_call(number: int, fault: Fault) -> Callable[[str, str], None]:
    """Return a hook that raises ``fault`` before operation ``number``, counted from 0."""
    calls = itertools.count()

    def before(operation: str, path: str) -> None:
        if next(calls) == number:
            raise fault()

    return before


def counting(calls: Iterator[int]) -> Callable[[str, str], None]:
    """Return a hook that takes one of ``calls`` before every operation."""

    def before(operation: str, path: str) -> None:
        next(calls)

    return before


class Run:
    """Opens a journal and saves ``records``; keeps how many were acknowledged and the error that ended it."""

    def __init__(self, disk: SimulatedDisk, records: Sequence[Record], spares: bool) -> None:
        self.acknowledged = 0
        self.stopped_by: BaseException | None = None
        self.wal: Wal | None = None
        try:
            self.wal, self.found = open_wal(disk)
            for each in records:
                while spares and self.wal.spare_wanted:
                    self.wal.prepare_spare()
                self.wal.append(each)
                self.acknowledged += 1
        except (PowerCut, OSError) as stop:
            self.stopped_by = stop


def calls_of(records: Sequence[Record], spares: bool) -> int:
    """Return how many disk operations an undisturbed run takes."""
    disk, calls = SimulatedDisk(), itertools.count()
    disk.before = counting(calls)
    assert Run(disk, records, spares).stopped_by is None
    return next(calls)


def outcomes(disk: SimulatedDisk, rng: random.Random) -> Iterator[tuple[SimulatedDisk, frozenset[Piece]]]:
    """Yield the disk as it may be after a power cut now: all subsets of pending writes, or a sample of many."""
    pieces = disk.pending()
    if len(pieces) <= EVERY_SUBSET_UP_TO:
        choices = [
            frozenset(kept) for count in range(len(pieces) + 1) for kept in itertools.combinations(pieces, count)
        ]
    else:
        singles = [frozenset([piece]) for piece in pieces]
        choices = [frozenset(), frozenset(pieces), *singles, *(frozenset(pieces) - single for single in singles)]
        choices += [frozenset(piece for piece in pieces if rng.random() < 0.5) for _ in range(40)]
    for kept in choices:
        after = disk.clone()
        after.crash(kept.__contains__)
        yield after, kept


def assert_goes_on(disk: SimulatedDisk, allowed: Sequence[State], why: object) -> None:
    """Start on ``disk``, recover one of the ``allowed`` states, and save another record."""
    wal, found = open_wal(disk)
    assert found in allowed, why
    # The node relies on what it recovered from now on, so the next crash must not lose it.
    again = disk.clone()
    again.crash()
    assert recovered(again) == found, why
    first = len(found[2]) + 1
    more = record(found[0] + 1, entry(first, found[0] + 1, b"more" * 200), vote="n9")
    wal.append(more)
    disk.crash()
    assert recovered(disk) == (more.current_term, "n9", (*found[2], *more.entries)), why


@pytest.mark.parametrize("spares", [False, True])
def test_a_crash_between_any_two_calls_loses_nothing_acknowledged(spares: bool) -> None:
    """At every moment and for every subset of unsynced writes: all acknowledged records are there, and no others."""
    rng = random.Random(0)
    expected = states(RECORDS)
    moments = crashes = 0
    for number in range(calls_of(RECORDS, spares) + 1):
        disk = SimulatedDisk()
        disk.before = at_call(number, PowerCut)
        run = Run(disk, RECORDS, spares)
        moments += 1
        for after, kept in outcomes(disk, rng):
            crashes += 1
            allowed = expected[run.acknowledged : run.acknowledged + 2]
            assert_goes_on(after, allowed, (number, run.acknowledged, kept))
    assert moments > 40
    assert crashes > 300


def test_a_crash_during_recovery_loses_nothing_acknowledged() -> None:
    """Power fails again, at every moment, while a torn batch is being cut off."""
    rng = random.Random(0)
    records = [record(1, vote="n1"), record(2, entry(1, 2, b"x" * 600), vote="n2")]
    expected = states(records)
    disk = SimulatedDisk()
    wal, _ = open_wal(disk)
    wal.append(records[0])
    disk.before = lambda operation, path: cut_at_sync(operation)
    with pytest.raises(PowerCut):
        wal.append(records[1])
    assert len(disk.pending()) == 2
    seen = 0
    for first, _ in outcomes(disk, rng):
        calls = itertools.count()
        probe = first.clone()
        probe.before = counting(calls)
        recovered(probe)
        for number in range(next(calls)):
            second = first.clone()
            second.before = at_call(number, PowerCut)
            with pytest.raises(PowerCut):
                recovered(second)
            for after, kept in outcomes(second, rng):
                seen += 1
                assert_goes_on(after, expected[1:], (number, kept))
    assert seen > 40


def cut_at_sync(operation: str) -> None:
    """Cut the power before a sync."""
    if operation == "sync":
        raise PowerCut


@settings(deadline=None, max_examples=100)
@given(seed=st.integers(0, 2**32), restarts=st.integers(1, 6))
def test_many_crashes_in_a_row_lose_nothing_acknowledged(seed: int, restarts: int) -> None:
    """Many starts on one disk, each ended by a power cut or a kill at a random moment."""
    rng = random.Random(seed)
    disk = SimulatedDisk()
    certain: list[Record] = []
    for _ in range(restarts):
        disk.before = at_call(rng.randrange(60), PowerCut)
        doubtful: list[Record] = []
        try:
            wal, found = open_wal(disk)
            assert found == states(certain)[-1]
            for _ in range(rng.randrange(10)):
                if rng.random() < 0.5 and wal.spare_wanted:
                    wal.prepare_spare()
                log = states(certain)[-1][2]
                first = rng.randint(max(1, len(log) - 2), len(log) + 1)
                term = len(certain) + 1
                entries = (
                    entry(first + i, term, rng.randbytes(rng.choice([0, 30, 600, 4000])))
                    for i in range(rng.randrange(3))
                )
                doubtful = [Record(term, f"n{term}", tuple(entries))]
                wal.append(doubtful[0])
                certain, doubtful = certain + doubtful, []
        except PowerCut:
            pass
        if rng.random() < 0.3:
            disk.kill()
        else:
            disk.crash(lambda piece: rng.random() < 0.5)
        found = recovered(disk)
        assert found in (states(certain)[-1], states(certain + doubtful)[-1])
        if found != states(certain)[-1]:
            certain += doubtful


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC])
@pytest.mark.parametrize("spares", [False, True])
def test_an_error_at_any_call_stops_the_log_or_does_no_harm(number: int, spares: bool) -> None:
    """A failed save is not acknowledged and never retried; everything acknowledged before is there."""
    expected = states(RECORDS)
    survived = 0
    for call in range(calls_of(RECORDS, spares)):
        disk = SimulatedDisk()
        disk.before = at_call(call, lambda: fails_with(number, "somewhere"))
        run = Run(disk, RECORDS, spares)
        if run.stopped_by is None:
            # Only a disk too full for a spare is no reason to stop.
            assert number == errno.ENOSPC, call
            survived += 1
        elif run.wal is not None:
            assert_refuses_everything(run.wal, disk)
        allowed = expected[run.acknowledged : run.acknowledged + 2]
        for end in (disk.kill, disk.crash):
            after = disk.clone()
            getattr(after, end.__name__)()
            assert_goes_on(after, allowed, (call, run.stopped_by))
    assert (survived > 0) == (number == errno.ENOSPC)


def assert_refuses_everything(wal: Wal, disk: SimulatedDisk) -> None:
    """Check that a failed log refuses every call without touching the disk."""
    calls: list[str] = []
    disk.before = lambda operation, path: calls.append(operation)
    for use in (lambda: wal.append(record(9)), wal.free_bytes, wal.prepare_spare, lambda: wal.spare_wanted):
        with pytest.raises(WalFailed):
            use()
    assert calls == []


def test_a_failed_sync_is_not_healed_by_a_restart() -> None:
    """The unsynced bytes can still be read from memory but are not on disk: a restart must not rely on them."""
    disk = SimulatedDisk()
    wal, _ = open_wal(disk)
    wal.append(RECORDS[0])

    def fail_sync(operation: str, path: str) -> None:
        if operation == "sync":
            raise fails_with(errno.EIO, path)

    disk.before = fail_sync
    with pytest.raises(OSError, match="error"):
        wal.append(RECORDS[1])
    disk.kill()
    found = recovered(disk)
    disk.crash()
    assert recovered(disk) == found == states(RECORDS[:1])[-1]


def test_a_killed_process_finds_its_last_batch_and_makes_it_durable() -> None:
    """The batch is in memory only but can be read: recovery relies on it, so it syncs it first."""
    disk = SimulatedDisk()
    wal, _ = open_wal(disk)
    wal.append(RECORDS[0])
    disk.before = lambda operation, path: cut_at_sync(operation)
    with pytest.raises(PowerCut):
        wal.append(RECORDS[1])
    disk.kill()
    found = recovered(disk)
    disk.crash()
    assert recovered(disk) == found == states(RECORDS[:2])[-1]


class ForgetfulNames(SimulatedDisk):
    """A disk whose ``sync_directory`` does nothing, as if the program never called it."""

    def sync_directory(self, path: str) -> None:
        """Do nothing."""


def test_names_are_on_disk_before_anything_is_acknowledged() -> None:
    """The same saves on a disk that keeps names once they are synced, and on one that never syncs them."""
    for disk, expected in ((SimulatedDisk(), states(RECORDS)[-1]), (ForgetfulNames(), (0, None, ()))):
        run = Run(disk, RECORDS, spares=True)
        assert run.acknowledged == len(RECORDS)
        disk.crash()
        assert recovered(disk) == expected


def test_a_full_disk_leaves_less_room_and_no_half_made_spare() -> None:
    """Without space for a spare, saves continue in the space that is left."""
    disk = SimulatedDisk(capacity=SEGMENT + SEGMENT // 2)
    wal, _ = open_wal(disk)
    wal.append(record(1, vote="n1"))
    assert not wal.spare_wanted
    assert wal.free_bytes() == 0
    disk.before = full_at(f"{DIRECTORY}/spare.tmp")
    disk.capacity += SEGMENT
    assert wal.spare_wanted
    wal.prepare_spare()
    assert sorted(disk.files()) == [f"{DIRECTORY}/0000000000000001.wal"]
    # The file system reports space that does not exist (a quota): no second try until there is more of it.
    assert not wal.spare_wanted
    wal.append(record(2, vote="n2"))
    disk.before = lambda operation, path: None
    disk.capacity += SECTOR
    assert wal.spare_wanted
    assert recovered(disk) == (2, "n2", ())


def full_at(full: str) -> Callable[[str, str], None]:
    """Return a hook that makes writes to one file fail with ENOSPC."""

    def before(operation: str, path: str) -> None:
        if operation == "write" and path == full:
            raise fails_with(errno.ENOSPC, path)

    return before


def test_a_disk_that_fills_up_during_a_save_stops_the_log() -> None:
    """There should have been room, so what is on disk is now unknown."""
    disk = SimulatedDisk(capacity=SEGMENT)
    wal, _ = open_wal(disk)
    wal.append(record(1))
    with pytest.raises(OSError, match="No space left") as caught:
        wal.append(record(1, entry(1, 1, b"x" * SEGMENT)))
    assert caught.value.errno == errno.ENOSPC
    assert_refuses_everything(wal, disk)
    disk.kill()
    assert recovered(disk) == (1, None, ())


@settings(deadline=None, max_examples=200)
@given(
    capacity=st.integers(50, 600).map(lambda sectors: sectors * SECTOR),
    shares=st.lists(st.tuples(st.integers(1, 3), st.floats(0, 1)), min_size=1, max_size=30),
    spares=st.booleans(),
)
def test_all_free_bytes_can_be_saved(capacity: int, shares: list[tuple[int, float]], spares: bool) -> None:
    """One to three saves fill the promised bytes; afterwards term and vote can still be saved many times."""
    segment = 48 * SECTOR
    disk = SimulatedDisk(capacity)
    wal, _ = open_wal(disk, segment_bytes=segment)
    index, records = 0, []
    for count, share in shares:
        while spares and wal.spare_wanted:
            wal.prepare_spare()
        size = int(wal.free_bytes() * share) // count
        for _ in range(count):
            if size < 32:
                break
            index += 1
            records.append(record(1, entry(index, 1, b"x" * (size - 32)), vote="n1"))
            wal.append(records[-1])
    while index and (free_bytes := wal.free_bytes()) >= 32:
        index += 1
        records.append(record(1, entry(index, 1, b"x" * (free_bytes - 32)), vote="n1"))
        wal.append(records[-1])
    for term in range(2, 10):
        records.append(record(term))
        wal.append(records[-1])
    assert recovered(disk, segment_bytes=segment) == states(records)[-1]


def test_all_free_bytes_can_be_saved_in_a_segment_larger_than_the_setting() -> None:
    """The setting was lowered and the disk is full: the last of three saves does not fit, and the spare is small."""
    disk = SimulatedDisk()
    wal, _ = open_wal(disk, segment_bytes=16 * SECTOR)
    wal.append(record(1))
    wal.close()
    wal, _ = open_wal(disk)
    while wal.spare_wanted:
        wal.prepare_spare()
    disk.capacity = disk.used()
    third = wal.free_bytes() // 3
    records = [record(1), *(record(1, entry(index, 1, b"x" * (third - 32))) for index in (1, 2, 3))]
    for each in records[1:]:
        wal.append(each)
    assert recovered(disk) == states(records)[-1]
