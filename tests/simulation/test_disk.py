"""The simulated disk keeps what is synced, loses what may be lost, and fails when a fault is planned."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Callable
from random import Random

import pytest

from raftkv.environment import File
from raftkv.journal.format import Record
from raftkv.journal.recovery import DamagedJournal
from raftkv.simulation.cluster.disk import SECTOR, DiskEvent, PowerCut, SimulatedDisk
from tests.journal.wal_tools import DIRECTORY, RECORDS, entry, open_wal, recovered, states

FIRST = f"{DIRECTORY}/0000000000000001.wal"


def disk_with(content: bytes = bytes(4 * SECTOR), path: str = "/d/file") -> tuple[SimulatedDisk, File]:
    """Return a disk with one durable file, and the file open."""
    disk = SimulatedDisk()
    disk.put(path, content)
    return disk, disk.open(path)


def test_a_crash_loses_unsynced_data() -> None:
    """Piece by piece: sectors, sizes, names."""
    disk = SimulatedDisk()
    disk.make_directory("/d")
    file = disk.open("/d/file", create=True)
    file.write(0, b"a" * 512)
    file.sync()
    disk.sync_directory("/d")
    file.write(256, b"b" * 1280)
    disk.rename("/d/file", "/d/new")
    assert disk.pending() == [
        ("name", "/d", 0),
        ("sector", "/d/new", 0),
        ("sector", "/d/new", 1),
        ("sector", "/d/new", 2),
        ("size", "/d/new", 1536),
    ]
    expected = {
        (): {"/d/file": b"a" * 512},
        (0,): {"/d/new": b"a" * 512},
        (1,): {"/d/file": b"a" * 256 + b"b" * 256},
        (3,): {"/d/file": b"a" * 512 + bytes(512) + b"b" * 512},
        (4,): {"/d/file": b"a" * 512 + bytes(1024)},
        (0, 1, 2, 3): {"/d/new": b"a" * 256 + b"b" * 1280},
    }
    pieces = disk.pending()
    for kept, files in expected.items():
        after = disk.clone()
        after.crash({pieces[number] for number in kept}.__contains__)
        assert after.files() == files
        assert after.pending() == []
    disk.kill()
    assert disk.files() == {"/d/new": b"a" * 256 + b"b" * 1280}
    assert len(disk.pending()) == 5
    with pytest.raises(OSError, match="Bad file descriptor"):
        file.sync()


def test_a_power_cut_comes_ahead_of_the_operation_asked_for_and_ends_all() -> None:
    """What was done before it is pending; whatever is tried after it does not return, until the power is back."""
    disk, file = disk_with()
    disk.cut_after(3)
    file.write(0, b"a" * SECTOR)
    file.sync()
    with pytest.raises(PowerCut):
        file.write(SECTOR, b"b" * SECTOR)
    attempts: list[Callable[[], object]] = [file.sync, file.size, lambda: disk.list("/d"), lambda: disk.free("/d")]
    for attempt in attempts:
        with pytest.raises(PowerCut):
            attempt()
    assert disk.events == [DiskEvent("cut", "/d/file", "before write")]
    disk.crash()
    assert disk.files() == {"/d/file": b"a" * SECTOR + bytes(3 * SECTOR)}
    assert disk.list("/d") == ["file"]


def test_no_code_of_the_program_learns_of_a_power_cut() -> None:
    """It is no error that one could handle."""
    assert not issubclass(PowerCut, Exception)


def test_an_operation_fails_once_after_as_many_as_were_asked_for() -> None:
    """Here the second write; of its bytes a part is written all the same."""
    disk, file = disk_with()
    disk.fail("write", errno.EIO, after=1, written=1)
    file.write(0, b"a" * SECTOR)
    with pytest.raises(OSError, match="/d/file") as caught:
        file.write(SECTOR, b"b" * 2 * SECTOR)
    assert caught.value.errno == errno.EIO
    file.write(3 * SECTOR, b"c" * SECTOR)
    assert file.read(0, 4 * SECTOR) == b"a" * SECTOR + b"b" * SECTOR + bytes(SECTOR) + b"c" * SECTOR
    assert disk.events == [DiskEvent("failed", "/d/file", "write: Input/output error")]


@pytest.mark.parametrize("operation", ["read", "size", "open", "create", "rename", "remove", "list", "sync_directory"])
def test_any_operation_can_fail(operation: str) -> None:
    """And nothing is done then; the next time it is."""
    disk, file = disk_with()

    attempts: dict[str, Callable[[], object]] = {
        "read": lambda: file.read(0, 1),
        "size": file.size,
        "open": lambda: disk.open("/d/file"),
        "create": lambda: disk.open("/d/new", create=True),
        "rename": lambda: disk.rename("/d/file", "/d/new"),
        "remove": lambda: disk.remove("/d/file"),
        "list": lambda: disk.list("/d"),
        "sync_directory": lambda: disk.sync_directory("/d"),
    }

    disk.fail(operation, errno.EACCES)
    with pytest.raises(PermissionError):
        attempts[operation]()
    assert (list(disk.files()), disk.pending()) == (["/d/file"], [])
    attempts[operation]()
    assert [happened.kind for happened in disk.events] == ["failed"]


def test_the_data_of_a_failed_sync_can_be_read_until_the_file_is_opened_again() -> None:
    """Linux marks the pages as clean: a second sync succeeds and saves nothing."""
    disk, file = disk_with(b"old".ljust(SECTOR, b"."))
    disk.fail("sync")
    file.write(0, b"new")
    with pytest.raises(OSError, match="Input/output"):
        file.sync()
    file.sync()
    assert file.read(0, 3) == b"new"
    assert disk.pending() == []
    assert disk.open("/d/file").read(0, 3) == b"old"


def test_data_written_again_after_a_failed_sync_can_be_synced() -> None:
    """Only those sectors that were not written again are lost."""
    disk, file = disk_with()
    disk.fail("sync")
    file.write(0, b"a" * 2 * SECTOR)
    with pytest.raises(OSError, match="Input/output"):
        file.sync()
    file.write(0, b"b" * SECTOR)
    file.sync()
    disk.crash()
    assert disk.files() == {"/d/file": b"b" * SECTOR + bytes(3 * SECTOR)}


def test_the_used_space_is_that_of_its_files() -> None:
    """After any operations, the same as counted from scratch; a crash frees what was not synced."""
    random = Random(1)
    disk = SimulatedDisk(capacity=24 * SECTOR)
    disk.make_directory("/d")
    full = 0
    for number in range(400):
        path = f"/d/{random.randrange(6)}"
        exists = path in disk.files()
        action = random.randrange(6)
        if action == 0 and not exists:
            disk.open(path, create=True)
        elif action < 3 and exists:
            try:
                disk.open(path).write(random.randrange(9 * SECTOR), bytes([1]) * random.randrange(9 * SECTOR))
            except OSError:
                full += 1
        elif action == 3 and exists:
            disk.rename(path, f"/d/{random.randrange(6)}")
        elif action == 4 and exists:
            disk.remove(path)
        elif number % 20 == 0:
            disk.crash_at_random(random)
        counted = sum(-(-len(data) // SECTOR) * SECTOR for data in disk.files().values())
        assert (disk.used(), disk.free("/d")) == (counted, disk.capacity - counted), number
    assert full == sum(happened.kind == "full" for happened in disk.events) > 5


def test_a_random_crash_may_lose_any_part_of_what_was_pending() -> None:
    """Each subset of four pieces occurs, and the lost pieces are reported."""
    disk, file = disk_with(bytes(SECTOR))
    file.write(0, b"a" * 2 * SECTOR)
    disk.rename("/d/file", "/d/new")
    pieces = disk.pending()
    assert [piece.kind for piece in pieces] == ["name", "sector", "sector", "size"]
    seen = set()
    for seed in range(400):
        after = disk.clone()
        after.crash_at_random(Random(seed))
        seen.add(tuple(sorted(after.files().items())))
        assert all(happened.kind == "lost" for happened in after.events)
        assert (after.files() == disk.files()) or after.events
    every = set()
    for number in range(16):
        after = disk.clone()
        kept = {piece for i, piece in enumerate(pieces) if number & 1 << i}
        after.crash(kept.__contains__)
        every.add(tuple(sorted(after.files().items())))
    # The size alone says nothing more where the second sector is kept.
    assert len(every) == 12
    assert seen == every


def test_a_flipped_bit_is_one_bit_on_disk() -> None:
    """Somewhere in the content; a second one waits until the first is no more."""
    flipped = set()
    for seed in range(60):
        content = b"x" * 3 * SECTOR + bytes(3 * SECTOR)
        disk, file = disk_with(content, FIRST)
        disk.put("/d/other", b"x" * 99)
        happened = disk.flip_bit(Random(seed))
        assert [happened] == disk.events
        found = disk.files()[FIRST]
        ((at, mask),) = [(at, a ^ b) for at, (a, b) in enumerate(zip(content, found, strict=True)) if a != b]
        assert mask.bit_count() == 1
        assert at < 3 * SECTOR
        assert happened == DiskEvent("flipped", FIRST, f"{mask:#04x} of byte {at}")
        flipped.add(at // SECTOR)
        assert disk.is_damaged()
        assert disk.flip_bit(Random(seed)) is None
        file.write(at // SECTOR * SECTOR, b"x" * SECTOR)
        assert disk.is_damaged()
        file.sync()
        assert not disk.is_damaged()
        assert disk.flip_bit(Random(seed)) == happened
    assert flipped == {0, 1, 2}


def test_without_content_no_bit_is_flipped() -> None:
    """A file of zeros holds nothing that one could miss, and an empty one has no bits."""
    disk, _ = disk_with(bytes(SECTOR), FIRST)
    disk.put("/d/other", b"x")
    assert disk.flip_bit(Random(1)) is None
    assert disk.flip_bit(Random(1), files="") == DiskEvent("flipped", "/d/other", "0x10 of byte 0")


def test_a_misdirected_write_goes_unnoticed_until_the_files_are_read_from_disk() -> None:
    """Where it was to go stands what was there before; another place has the data."""
    content = b"".join(bytes([i + 1]) * SECTOR for i in range(4))
    for seed in range(20):
        disk, file = disk_with(content, FIRST)
        disk.put("/d/other", b"o" * SECTOR)
        disk.misdirect_next_write(Random(seed))
        disk.open("/d/other").write(0, b"p" * SECTOR)
        file.write(SECTOR, bytes(SECTOR))
        assert disk.events == []
        file.write(SECTOR, b"new".ljust(SECTOR, b"!"))
        file.sync()
        assert file.read(SECTOR, 3) == b"new"
        (happened,) = disk.events
        assert disk.is_damaged()
        place = int(happened.detail.split("to sector ")[1].split()[0])
        assert place != 1
        assert happened.detail == f"1 sectors from sector 1 to sector {place} of {FIRST}"
        expected = bytearray(content)
        expected[place * SECTOR : (place + 1) * SECTOR] = b"new".ljust(SECTOR, b"!")
        assert disk.open(FIRST).read(0, 4 * SECTOR) == expected


def test_a_full_disk_takes_a_part() -> None:
    """A write that does not fit leaves the part that does."""
    disk = SimulatedDisk(capacity=1024)
    disk.make_directory("/d")
    file = disk.open("/d/file", create=True)
    file.write(0, b"x" * 600)
    with pytest.raises(OSError, match="No space left") as caught:
        file.write(600, b"y" * 600)
    assert caught.value.errno == errno.ENOSPC
    assert disk.files() == {"/d/file": b"x" * 600 + b"y" * 424}
    file.write(0, b"z" * 1024)
    assert disk.free("/d") == 0


def test_of_a_misdirected_write_that_a_crash_cuts_short_a_part_is_elsewhere() -> None:
    """The pieces that were kept went where the disk puts them, and nothing is damaged if none was."""
    for kept in ({0}, {1}, {0, 1}, set()):
        disk, file = disk_with(b"x" * 2 * SECTOR, "/d/1.wal")
        disk.put("/d/2.wal", b"y" * 2 * SECTOR)
        random = Random(next(seed for seed in range(99) if lands_on("/d/2.wal", 0, seed)))
        disk.misdirect_next_write(random)
        file.write(0, b"a" * SECTOR + b"b" * SECTOR)
        disk.crash(lambda piece: piece.number in kept)  # noqa: B023
        parts = [b"a" if 0 in kept else b"y", b"b" if 1 in kept else b"y"]
        assert disk.files() == {"/d/1.wal": b"x" * 2 * SECTOR, "/d/2.wal": b"".join(p * SECTOR for p in parts)}
        assert disk.is_damaged() == bool(kept)
        assert [happened.kind for happened in disk.events] == ["misdirected"] * bool(kept)


def lands_on(path: str, sector: int, seed: int) -> bool:
    """Whether the write of the test above goes there with this seed."""
    disk, file = disk_with(b"x" * 2 * SECTOR, "/d/1.wal")
    disk.put("/d/2.wal", b"y" * 2 * SECTOR)
    disk.misdirect_next_write(Random(seed))
    file.write(0, b"a" * SECTOR + b"b" * SECTOR)
    file.sync()
    return disk.events[0].detail.endswith(f"to sector {sector} of {path}")


def test_an_empty_disk_takes_its_place() -> None:
    """Nothing is there any more, and what was open is closed."""
    disk, file = disk_with()
    disk.cut_after(5)
    disk.wipe()
    assert (disk.files(), disk.list("/"), disk.used(), disk.open_files()) == ({}, [], 0, [])
    with pytest.raises(OSError, match="Bad file descriptor"):
        file.sync()


class Run:
    """A journal on a disk that does everything wrong it may, from a seed; ``ended_by`` is what was found at last."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.disk = SimulatedDisk()
        self.certain: list[Record] = []
        self.doubtful: list[Record] = []
        self.ended_by = "age"
        for _ in range(8):
            try:
                self.run()
            except PowerCut:
                self.disk.crash_at_random(self.random)
            except OSError:
                self.disk.kill()
            except DamagedJournal:
                self.ended_by = "damage"
                return

    def run(self) -> None:
        """Live from a start to a crash."""
        random, disk = self.random, self.disk
        disk.cut_after(random.randrange(1, 120))
        if random.random() < 0.2:
            disk.fail(random.choice(["read", "write", "sync"]), after=random.randrange(30), written=random.randrange(5))
        wal, found = open_wal(disk, segment_bytes=8 * SECTOR)
        assert found in (states(self.certain)[-1], states(self.certain + self.doubtful)[-1])
        if found != states(self.certain)[-1]:
            self.certain += self.doubtful
        while True:
            harm = random.random()
            if harm < 0.01:
                disk.flip_bit(random)
            elif harm < 0.03:
                disk.misdirect_next_write(random)
            if wal.spare_wanted:
                wal.prepare_spare()
            self.doubtful = [record_after(self.certain, random)]
            wal.append(self.doubtful[0])
            self.certain, self.doubtful = self.certain + self.doubtful, []


def record_after(records: list[Record], random: Random) -> Record:
    """Return a record that may follow ``records``."""
    log, term = states(records)[-1][2], len(records) + 1
    first = random.randint(max(1, len(log) - 2), len(log) + 1)
    sizes = random.choices([0, 30, 600, 3000], k=random.randrange(3))
    return Record(term, f"n{term}", tuple(entry(first + i, term, random.randbytes(n)) for i, n in enumerate(sizes)))


def test_whatever_the_disk_does_no_loss_goes_unnoticed() -> None:
    """After every start all that was acknowledged is there, or the journal is damaged, which has a reason."""
    runs = [Run(seed) for seed in range(150)]
    kinds = [{event.kind for event in run.disk.events} for run in runs]
    for run, events in zip(runs, kinds, strict=True):
        assert run.ended_by == "age" or events & {"flipped", "misdirected"}
    for kind in ("cut", "lost", "failed", "flipped", "misdirected"):
        assert sum(kind in happened for happened in kinds) > 15, kind
    assert sum(run.ended_by == "damage" for run in runs) > 40


def test_a_misdirected_last_batch_is_noticed_wherever_it_went() -> None:
    """Nothing follows it: it is known by where it landed."""
    for length in range(1, len(RECORDS) + 1):
        places = set()
        for seed in range(60):
            disk = SimulatedDisk()
            wal, _ = open_wal(disk, segment_bytes=8 * SECTOR)
            for each in RECORDS[: length - 1]:
                wal.append(each)
            disk.misdirect_next_write(Random(seed))
            wal.append(RECORDS[length - 1])
            disk.crash()
            if disk.events:
                places.add(disk.events[0].detail)
                with pytest.raises(DamagedJournal):
                    open_wal(disk, segment_bytes=8 * SECTOR)
            else:
                assert recovered(disk, segment_bytes=8 * SECTOR) == states(RECORDS[:length])[-1]
        assert len(places) >= (length > 1) * 5, length


def test_the_last_batch_lost_to_a_place_that_is_not_read_is_not_noticed() -> None:
    """Why a misdirected write goes to places of a certain kind only: this one the journal can't tell from none."""
    disk = SimulatedDisk()
    wal, _ = open_wal(disk, segment_bytes=8 * SECTOR)
    wal.append(RECORDS[0])
    whole = disk.files()[FIRST]
    wal.append(RECORDS[1])
    disk.put(FIRST, whole)
    assert recovered(disk, segment_bytes=8 * SECTOR) == states(RECORDS[:1])[-1]


def test_the_same_seed_is_the_same_life_in_every_process() -> None:
    """Nothing depends on how Python orders its sets."""
    program = (
        "import hashlib, tests.simulation.test_disk as t\n"
        "runs = [t.Run(seed) for seed in range(12)]\n"
        "text = repr([(run.disk.files(), run.disk.events, run.ended_by) for run in runs])\n"
        "print(hashlib.sha256(text.encode()).hexdigest())"
    )
    printed = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": os.getcwd()},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(printed) == 1
