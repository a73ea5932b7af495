"""The journal on a disk that loses unsynced writes and fails, compared with everything acknowledged."""

from __future__ import annotations

import errno
from collections.abc import Callable

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from raftkv.journal.format import Record
from raftkv.journal.wal import Wal, WalFailed
from raftkv.raft.entry import Entry
from raftkv.simulation.cluster.disk import SECTOR, Piece, PowerCut, SimulatedDisk
from tests.journal.wal_tools import DIRECTORY, State, entry, open_wal, record

SEGMENTS = st.sampled_from([4 * SECTOR, 6 * SECTOR, 16 * SECTOR])
SIZES = st.lists(st.sampled_from([0, 1, 400, 440, 508, 1500, 4000]), max_size=3)
PLENTY = 1 << 40
KEEP = st.none() | st.lists(st.booleans(), min_size=1, max_size=9)
"""Which unsynced pieces a crash keeps, repeated in a cycle; None: only the process is killed."""

is_running = precondition(lambda self: self.wal is not None and not self.failed)
is_stopped = precondition(lambda self: self.wal is None)


def keeping(kept: list[bool]) -> Callable[[Piece], bool]:
    """Return the predicate that ``SimulatedDisk.crash`` calls for each piece."""
    count = 0

    def keep(piece: Piece) -> bool:
        nonlocal count
        count += 1
        return kept[(count - 1) % len(kept)]

    return keep


def after(state: State, saved: Record) -> State:
    """Return the state after ``saved``: the log is cut off at its first entry."""
    log = state[2]
    if saved.entries:
        log = log[: saved.entries[0].index - 1] + saved.entries
    return saved.current_term, saved.voted_for, log


class JournalBesideWhatWasAcknowledged(RuleBasedStateMachine):
    """Starts, saves and crashes. Each start recovers everything acknowledged, and nothing that was never saved.

    ``certain`` is the acknowledged state, ``doubtful`` the same with the save that was in progress.
    """

    def __init__(self) -> None:
        super().__init__()
        self.disk = SimulatedDisk(PLENTY)
        self.wal: Wal | None = None
        self.failed = False
        self.certain: State = (0, None, ())
        self.doubtful: State = self.certain

    @is_stopped
    @rule(segment=SEGMENTS)
    def start(self, segment: int) -> None:
        """The recovered state counts as acknowledged from now on: the node acts on it."""
        wal, found = open_wal(self.disk, segment_bytes=segment)
        assert found in (self.certain, self.doubtful)
        self.wal, self.failed = wal, False
        self.certain = self.doubtful = found

    @is_stopped
    @rule(segment=SEGMENTS, moment=st.integers(1, 25), kept=KEEP)
    def lose_power_while_starting(self, segment: int, moment: int, kept: list[bool] | None) -> None:
        """The node has not acted on the recovered state, so both states are still possible."""
        self.disk.cut_after(moment)
        try:
            wal, found = open_wal(self.disk, segment_bytes=segment)
            assert found in (self.certain, self.doubtful)
            wal.close()
        except PowerCut:
            pass
        self._end(kept)

    @is_running
    @rule(cut=st.integers(0, 3), sizes=SIZES, rise=st.integers(0, 2))
    def save(self, cut: int, sizes: list[int], rise: int) -> None:
        """A save within the free bytes succeeds."""
        assert self.wal is not None
        new = self._next(cut, sizes, rise)
        if sum(each.size for each in new.entries) > self.wal.free_bytes():
            return
        if not new.entries and self.disk.capacity != PLENTY:
            return
        self.wal.append(new)
        self.certain = self.doubtful = after(self.certain, new)

    @is_running
    @rule(parts=st.integers(1, 3))
    def save_all_free_bytes(self, parts: int) -> None:
        """Saves that fill the reported free bytes succeed."""
        assert self.wal is not None
        free_bytes = self.wal.free_bytes()
        if 32 * parts <= free_bytes < 1 << 16:
            for _ in range(parts):
                new = self._next(0, [free_bytes // parts - 32], 0)
                self.wal.append(new)
                self.certain = self.doubtful = after(self.certain, new)

    @is_running
    @rule(cut=st.integers(0, 3), sizes=SIZES, rise=st.integers(0, 2), moment=st.integers(1, 14), kept=KEEP)
    def lose_power_while_saving(
        self, cut: int, sizes: list[int], rise: int, moment: int, kept: list[bool] | None
    ) -> None:
        """The next start finds the save in progress whole or not at all, and everything acknowledged."""
        self.disk.cut_after(moment)
        self._save_in_trouble(self._next(cut, sizes, rise), PowerCut)
        self._end(kept)

    @is_running
    @rule(
        cut=st.integers(0, 3),
        sizes=SIZES,
        operation=st.sampled_from(["write", "sync", "open", "create", "rename", "sync_directory", "free"]),
        number=st.sampled_from([errno.EIO, errno.ENOSPC]),
        calls=st.integers(0, 2),
        sectors=st.integers(0, 3),
    )
    def fail_while_saving(
        self, cut: int, sizes: list[int], operation: str, number: int, calls: int, sectors: int
    ) -> None:
        """After a failure the journal refuses everything."""
        self.disk.fail(operation, number, after=calls, written=sectors)
        self._save_in_trouble(self._next(cut, sizes, 1), OSError)
        self.disk.disarm()
        if self.failed:
            assert self.wal is not None
            with pytest.raises(WalFailed):
                self.wal.append(record(99))
            with pytest.raises(WalFailed):
                self.wal.free_bytes()

    @is_running
    @rule(most=st.integers(1, 9))
    def prepare_the_spare(self, most: int) -> None:
        """In slices, between saves."""
        assert self.wal is not None
        while most and self.wal.spare_wanted:
            self.wal.prepare_spare()
            most -= 1

    @is_running
    @rule(moment=st.integers(1, 4), kept=KEEP)
    def lose_power_while_preparing_the_spare(self, moment: int, kept: list[bool] | None) -> None:
        """An incomplete spare does no harm."""
        assert self.wal is not None
        self.disk.cut_after(moment)
        try:
            while self.wal.spare_wanted:
                self.wal.prepare_spare()
        except PowerCut:
            pass
        self._end(kept)

    @rule(sectors=st.integers(0, 40))
    def fill_the_disk(self, sectors: int) -> None:
        """Other files take the space."""
        self.disk.capacity = self.disk.used() + sectors * SECTOR

    @rule()
    def make_room(self) -> None:
        """The other files are removed."""
        self.disk.capacity = PLENTY

    @precondition(lambda self: self.wal is not None)
    @rule(kept=KEEP)
    def lose_power(self, kept: list[bool] | None) -> None:
        """Between saves, or after the journal has failed."""
        self._end(kept)

    @precondition(lambda self: self.wal is not None)
    @rule()
    def stop_gracefully(self) -> None:
        """Nothing stays open, unless the journal failed and the process ends."""
        assert self.wal is not None
        self.wal.close()
        assert self.failed or self.disk.open_files() == []
        self._end(None)

    def teardown(self) -> None:
        """The final state survives the worst crash."""
        self.disk.capacity = PLENTY
        self.disk.crash()
        _, found = open_wal(self.disk)
        assert found in (self.certain, self.doubtful)
        assert all(path.startswith(DIRECTORY) for path in self.disk.files())

    def _next(self, cut: int, sizes: list[int], rise: int) -> Record:
        """Return a record that a follower might save next."""
        term, _, log = self.certain
        first, term = max(1, len(log) - cut + 1), term + rise
        entries: tuple[Entry, ...] = tuple(
            entry(first + i, term, bytes([1 + i]) * size) for i, size in enumerate(sizes)
        )
        return record(term, *entries, vote=f"n{term}")

    def _save_in_trouble(self, new: Record, trouble: type[BaseException]) -> None:
        assert self.wal is not None
        self.doubtful = after(self.certain, new)
        try:
            self.wal.append(new)
            self.certain = self.doubtful
        except trouble:
            self.failed = True
        except OSError as error:
            # This save did not check the free bytes first.
            assert (error.errno, self.disk.capacity != PLENTY) == (errno.ENOSPC, True)  # noqa: PT017
            self.failed = True

    def _end(self, kept: list[bool] | None) -> None:
        if kept is None:
            self.disk.kill()
        else:
            self.disk.crash(keeping(kept))
        self.wal, self.failed = None, False


TestJournalBesideWhatWasAcknowledged = JournalBesideWhatWasAcknowledged.TestCase
