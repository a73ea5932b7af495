"""The journal as an actor: messages in, messages out, on Thespian's own simple system base."""

from __future__ import annotations

import errno
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from thespian.actors import Actor, ActorAddress, ActorExitRequest, ActorSystem

from raftkv.actors.journal import Journal
from raftkv.actors.messages.node import (
    AskFreeBytes,
    FreeBytes,
    Recovered,
    Save,
    Saved,
    Start,
)
from raftkv.config.settings import Limits, Timing
from raftkv.environment import Disk, Environment, File
from raftkv.journal.data_directory import journal_directory, open_data_directory
from raftkv.journal.os_disk import OsDisk
from raftkv.journal.wal import Wal
from raftkv.process.clock import SystemClock
from raftkv.raft.entry import Entry
from raftkv.simulation.cluster.disk import SimulatedDisk, fails_with
from tests.journal.wal_tools import entry, state_of

DIRECTORY = "/data"
FIRST_SEGMENT = "/data/journal/0000000000000001.wal"
SEGMENT = 1 << 20


class Node(Actor):
    """Stands in for a node: sends the journal several messages in one turn and keeps what comes back."""

    def __init__(self) -> None:
        self.got: list[Any] = []
        self.then: Callable[[Any], list[Any]] = lambda message: []

    def receiveMessage(self, message: Any, sender: ActorAddress) -> None:
        """Follow the instructions of the test; keep everything that the journal sends."""
        match message:
            case ("begin", begin):
                self.journal = self.createActor(Journal)
                self.send(self.journal, begin(self.myAddress, self.journal))
            case ("then", then):
                self.then = then
            case ("send", messages):
                for each in messages:
                    self.send(self.journal, each)
            case "got":
                self.send(sender, self.got)
                self.got = []
            case _ if sender == self.journal:
                self.got.append(message)
                for each in self.then(message):
                    self.send(self.journal, each)


class Stage:
    """A journal on a disk, with a node that talks to it."""

    def __init__(self, system: ActorSystem, disk: Disk, directory: str = DIRECTORY, segment: int = SEGMENT) -> None:
        self.system = system
        self.failures: list[tuple[int, str]] = []
        self.node = system.createActor(Node)

        def begin(node: ActorAddress, journal: ActorAddress) -> Start:
            return Start(
                node_id="n1",
                node=node,
                journal=journal,
                store=node,
                peer_address=ActorAddress,
                initial_cluster=(),
                initial_cluster_hash="",
                environment=Environment(
                    directory=directory,
                    disk=disk,
                    clock=SystemClock(),
                    rng=random.Random(0),
                    timing=Timing(),
                    limits=Limits(segment_bytes=segment),
                    fail=lambda status, line: self.failures.append((status, line)),
                ),
            )

        system.tell(self.node, ("begin", begin))

    def tell(self, *messages: Any) -> list[Any]:
        """Send the journal these in one turn; return everything it has sent since the last call."""
        self.system.tell(self.node, ("send", messages))
        got: list[Any] = self.system.ask(self.node, "got")
        return got

    def then(self, then: Callable[[Any], list[Any]]) -> None:
        """Let the node answer each message from the journal with those that ``then`` returns."""
        self.system.tell(self.node, ("then", then))


@pytest.fixture
def system() -> Iterator[ActorSystem]:
    """An actor system on Thespian's own base."""
    system = ActorSystem("simpleSystemBase", transientUnique=True, logDefs=False)
    yield system
    system.shutdown()


@pytest.fixture
def disk() -> SimulatedDisk:
    """An empty disk with a data directory on it."""
    disk = SimulatedDisk()
    disk.make_directory(DIRECTORY)
    return disk


def save(number: int, term: int, *entries: Entry, vote: str | None = None) -> Save:
    """Return a save."""
    return Save(number, term, vote, entries)


def without_room(messages: list[Any]) -> list[Any]:
    """Return messages with ``free_bytes`` set to 0, for tests about something else."""
    assert all(message.free_bytes > 0 for message in messages)
    return [
        Saved(message.number, 0)
        if isinstance(message, Saved)
        else Recovered(message.current_term, message.voted_for, message.entries, 0)
        for message in messages
    ]


def recorder(calls: list[tuple[str, str]]) -> Callable[[str, str], None]:
    """Return a hook that records writes and syncs."""

    def before(operation: str, path: str) -> None:
        if operation in ("write", "sync"):
            calls.append((operation, path.rpartition("/")[2]))

    return before


def fail_at(operation: str, path: str, number: int) -> Callable[[str, str], None]:
    """Return a hook that fails every call of one operation on one file."""

    def before(called: str, on: str) -> None:
        if (called, on) == (operation, path):
            raise fails_with(number, path)

    return before


def test_an_empty_disk_is_an_empty_log(system: ActorSystem, disk: SimulatedDisk) -> None:
    """Term 0, no vote, no entries."""
    stage = Stage(system, disk)
    assert without_room(stage.tell()) == [Recovered(0, None, (), 0)]
    assert stage.failures == []


def test_a_save_is_on_disk_when_it_is_answered(system: ActorSystem, disk: SimulatedDisk) -> None:
    """A power cut right after the answer loses nothing of it."""
    stage = Stage(system, disk)
    stage.tell()
    for number in range(1, 5):
        saved = save(number, number, entry(number, number), vote=f"n{number}")
        assert without_room(stage.tell(saved)) == [Saved(number, 0)]
        after = disk.clone()
        after.crash()
        _, replay = Wal.open(after, journal_directory(DIRECTORY), segment_bytes=SEGMENT, owner=bytes(16))
        entries = tuple(entry(index, index) for index in range(1, number + 1))
        assert state_of(replay) == (number, f"n{number}", entries)


def test_a_hundred_saves_that_wait_share_one_write_and_one_sync(system: ActorSystem, disk: SimulatedDisk) -> None:
    """Group commit: one answer confirms that all of them are on disk."""
    stage = Stage(system, disk)
    stage.tell(save(1, 1))
    calls: list[tuple[str, str]] = []
    disk.before = recorder(calls)
    saves = [save(number, 1, entry(number - 1, 1)) for number in range(2, 102)]
    assert without_room(stage.tell(*saves)) == [Saved(101, 0)]
    assert calls == [("write", "0000000000000001.wal"), ("sync", "0000000000000001.wal")]
    stage = Stage(system, disk.clone())
    assert without_room(stage.tell()) == [Recovered(1, None, tuple(entry(i, 1) for i in range(1, 101)), 0)]


def test_free_bytes_are_reported_on_request(system: ActorSystem, disk: SimulatedDisk) -> None:
    """A node whose disk is full saves nothing, and could not learn otherwise that there is space again."""
    stage = Stage(system, disk)
    (recovered,) = stage.tell()
    assert stage.tell(AskFreeBytes()) == [FreeBytes(recovered.free_bytes)]

    disk.capacity = disk.used()
    (full,) = stage.tell(AskFreeBytes())
    disk.capacity = 1 << 40

    assert full.free_bytes < recovered.free_bytes
    assert stage.tell(AskFreeBytes()) == [FreeBytes(recovered.free_bytes)]


def test_a_later_save_cuts_off_entries_of_an_earlier_one_in_the_same_batch(
    system: ActorSystem, disk: SimulatedDisk
) -> None:
    """The batch leaves the same state as the saves one by one, with the latest term and vote."""
    stage = Stage(system, disk)
    stage.tell(save(1, 1, entry(1, 1), entry(2, 1)))
    stage.tell(
        save(2, 1, entry(3, 1), entry(4, 1), entry(5, 1), vote="n1"),
        save(3, 2, vote="n2"),
        save(4, 2, entry(4, 2)),
        save(5, 3, entry(2, 3), entry(3, 3), vote="n3"),
    )
    stage = Stage(system, disk.clone())
    expected = Recovered(3, "n3", (entry(1, 1), entry(2, 3), entry(3, 3)), 0)
    assert without_room(stage.tell()) == [expected]


def test_the_spare_is_made_in_slices_with_saves_in_between(system: ActorSystem, disk: SimulatedDisk) -> None:
    """A save that arrives meanwhile waits for at most two slices of 256 KiB, not for the whole spare."""
    calls: list[tuple[str, str]] = []
    stage = Stage(system, disk)
    stage.tell(save(1, 1))
    stage.then(lambda message: [save(message.number + 1, 1)] if message.number < 5 else [])
    disk.before = recorder(calls)
    stage.tell(save(2, 1, entry(1, 1, b"x" * SEGMENT)))
    writes = [path.removeprefix("0" * 15) for operation, path in calls if operation == "write"]
    # Save 2 gets a segment of its own and save 3 uses the spare; then slices of the next spare alternate with saves.
    assert writes == [
        *("own.tmp", "spare.tmp", "3.wal"),
        *("spare.tmp", "spare.tmp", "3.wal"),
        *("spare.tmp", "spare.tmp", "3.wal"),
    ]
    assert disk.files()["/data/journal/spare.tmp"] == bytes(SEGMENT)


def test_damage_keeps_the_node_out_and_says_where(system: ActorSystem, disk: SimulatedDisk) -> None:
    """With file and offset; nothing is recovered."""
    Stage(system, disk).tell(save(1, 1), save(2, 1, entry(1, 1)))
    broken = disk.clone()
    broken.flip(FIRST_SEGMENT, 600)
    stage = Stage(system, broken)
    assert stage.tell(save(1, 1)) == []
    why = "the batch has a wrong checksum"
    assert stage.failures == [(1, f"the journal is damaged: {FIRST_SEGMENT}, byte 512: {why}")]


def test_a_journal_of_another_incarnation_is_refused(system: ActorSystem) -> None:
    """The owner in the segments must match the identity file."""
    ours, theirs = SimulatedDisk(), SimulatedDisk()
    incarnations = iter(["first", "second"])
    for disk in (ours, theirs):
        open_data_directory(disk, DIRECTORY, "n1", new_incarnation=lambda: next(incarnations))
        stage = Stage(system, disk)
        assert without_room(stage.tell(save(1, 1))) == [Recovered(0, None, (), 0), Saved(1, 0)]
    ours.put(FIRST_SEGMENT, theirs.files()[FIRST_SEGMENT])
    stage = Stage(system, ours)
    assert stage.tell() == []
    why = "this segment was written by another node or incarnation"
    assert stage.failures == [(1, f"the journal is damaged: {FIRST_SEGMENT}, byte 0: {why}")]


def test_a_damaged_identity_is_refused(system: ActorSystem) -> None:
    """Without it the owner of the journal is unknown."""
    disk = SimulatedDisk()
    open_data_directory(disk, DIRECTORY, "n1", new_incarnation=lambda: "first")
    disk.flip(f"{DIRECTORY}/identity", 30)
    stage = Stage(system, disk)
    assert stage.tell() == []
    ((status, line),) = stage.failures
    assert status == 1
    assert line.startswith(f"data directory {DIRECTORY}: {DIRECTORY}/identity is damaged: ")


@pytest.mark.parametrize("operation", ["write", "sync"])
@pytest.mark.parametrize(("number", "text"), [(errno.EIO, "Input/output error"), (errno.ENOSPC, "No space left")])
def test_a_failed_save_stops_the_node_and_is_never_retried(
    system: ActorSystem, disk: SimulatedDisk, operation: str, number: int, text: str
) -> None:
    """Neither this save nor a later one is answered."""
    stage = Stage(system, disk)
    stage.tell(save(1, 1))
    disk.before = fail_at(operation, FIRST_SEGMENT, number)
    assert stage.tell(save(2, 2)) == []
    ((status, line),) = stage.failures
    assert status == 70
    assert line.startswith(f"the journal stops after {text}")
    assert line.endswith(f": {FIRST_SEGMENT}")
    calls: list[tuple[str, str]] = []
    disk.before = recorder(calls)
    assert stage.tell(save(3, 3), save(4, 4)) == []
    assert calls == []
    assert len(stage.failures) == 1
    assert disk.open_files() == []


def test_a_disk_that_cannot_be_read_stops_the_node(system: ActorSystem, disk: SimulatedDisk) -> None:
    """Nothing is recovered."""
    Stage(system, disk).tell(save(1, 1))
    broken = disk.clone()
    broken.before = fail_at("read", FIRST_SEGMENT, errno.EIO)
    stage = Stage(system, broken)
    assert stage.tell() == []
    assert stage.failures == [(70, f"the journal stops after Input/output error: {FIRST_SEGMENT}")]


class Uncloseable:
    """A file that fails when it is synced and closed, once its disk has failed; as on a network file system."""

    def __init__(self, file: File, disk: FailingDisk) -> None:
        self._file = file
        self._disk = disk

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def sync(self) -> None:
        self._disk.check()
        self._file.sync()

    def close(self) -> None:
        self._file.close()
        self._disk.check()


class FailingDisk:
    """A disk of such files."""

    def __init__(self, disk: SimulatedDisk) -> None:
        self._disk = disk
        self.has_failed = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._disk, name)

    def open(self, path: str, *, create: bool = False) -> Any:
        return Uncloseable(self._disk.open(path, create=create), self)

    def check(self) -> None:
        if self.has_failed:
            raise OSError(errno.EIO, "Input/output error")


def test_a_failed_disk_whose_files_cannot_be_closed_stops_the_node_all_the_same(
    system: ActorSystem, disk: SimulatedDisk
) -> None:
    """The report comes before the clean-up: a node whose journal ended in silence would live on without a disk."""
    failing = FailingDisk(disk)
    stage = Stage(system, failing)
    stage.tell(save(1, 1))
    failing.has_failed = True

    assert stage.tell(save(2, 2)) == []
    assert stage.failures == [(70, "the journal stops after Input/output error")]


def test_a_bug_stops_the_node(system: ActorSystem, disk: SimulatedDisk) -> None:
    """A missing save breaks the promise that ``Saved`` makes about all saves before it."""
    stage = Stage(system, disk)
    stage.tell(save(1, 1))
    assert stage.tell(save(3, 1)) == []
    ((status, line),) = stage.failures
    assert status == 70
    first, *trace = line.splitlines()
    assert first == "bug in journal: AssertionError('save 3 came after 1') on Save"
    assert trace[0] == "Traceback (most recent call last):"


def test_unknown_messages_are_ignored(system: ActorSystem, disk: SimulatedDisk) -> None:
    """Such as messages of the actor system."""
    stage = Stage(system, disk)
    stage.tell()
    assert without_room(stage.tell("?", save(1, 1), object())) == [Saved(1, 0)]
    assert stage.failures == []


def test_closes_its_files_on_exit(system: ActorSystem, disk: SimulatedDisk) -> None:
    """No file stays open, so the next start can use them."""
    stage = Stage(system, disk)
    stage.tell(save(1, 1))
    assert len(disk.open_files()) == 2
    stage.tell(ActorExitRequest())
    assert disk.open_files() == []
    assert stage.failures == []


def test_works_on_a_real_disk(system: ActorSystem, tmp_path: Path) -> None:
    """Over a restart, with an identity."""
    held = open_data_directory(OsDisk(), str(tmp_path), "n1", new_incarnation=lambda: "first")
    stage = Stage(system, OsDisk(), str(tmp_path))
    assert without_room(stage.tell(save(1, 1, entry(1, 1, b"x" * SEGMENT)), save(2, 2, vote="n2"))) == [
        Recovered(0, None, (), 0),
        Saved(2, 0),
    ]
    stage.tell(ActorExitRequest())
    stage = Stage(system, OsDisk(), str(tmp_path))
    assert without_room(stage.tell()) == [Recovered(2, "n2", (entry(1, 1, b"x" * SEGMENT),), 0)]
    stage.tell(ActorExitRequest())
    assert stage.failures == []
    held.close()
