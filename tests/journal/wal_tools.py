"""Shared by the tests of the write-ahead log: a small journal, and an independent model of its content."""

from __future__ import annotations

from collections.abc import Iterable

from raftkv.environment import Disk
from raftkv.journal.format import Record, owner_of
from raftkv.journal.replay import Replay
from raftkv.journal.wal import Wal
from raftkv.raft.entry import Entry, Kind, NodeId

DIRECTORY = "/data/journal"
OWNER = owner_of("n1", "first")
SECTOR = 512
SEGMENT = 4 * SECTOR

State = tuple[int, NodeId | None, tuple[Entry, ...]]


def open_wal(disk: Disk, *, segment_bytes: int = SEGMENT, owner: bytes = OWNER) -> tuple[Wal, State]:
    """Open the journal in ``DIRECTORY``; return it and its content."""
    wal, replay = Wal.open(disk, DIRECTORY, segment_bytes=segment_bytes, owner=owner)
    return wal, state_of(replay)


def recovered(disk: Disk, *, segment_bytes: int = SEGMENT) -> State:
    """Return the state that a node recovers from this disk."""
    wal, state = open_wal(disk, segment_bytes=segment_bytes)
    wal.close()
    return state


def state_of(replay: Replay) -> State:
    """Return a replay as one value."""
    return replay.current_term, replay.voted_for, tuple(replay.entries)


def entry(index: int, term: int = 1, data: bytes = b"") -> Entry:
    """Return an entry whose ``data`` rarely matters."""
    return Entry(index, term, Kind.COMMANDS, data)


def record(term: int, *entries: Entry, vote: NodeId | None = None) -> Record:
    """Return a record."""
    return Record(term, vote, entries)


def states(records: Iterable[Record]) -> list[State]:
    """Return the states after none, one, two … of ``records``, computed independently of ``Replay``."""
    log: dict[int, Entry] = {}
    found: list[State] = [(0, None, ())]
    for each in records:
        for added in each.entries:
            log = {index: kept for index, kept in log.items() if index < added.index}
            log[added.index] = added
        found.append((each.current_term, each.voted_for, tuple(log[index] for index in sorted(log))))
    return found


# Small, but with every case: a vote alone, a batch of several sectors, a full segment, a cut, a batch larger than a
# segment.
RECORDS = (
    record(1, vote="n1"),
    record(1, entry(1), entry(2, data=b"\xff" * 700), vote="n1"),
    record(2, vote="n2"),
    record(2, entry(2, 2, b"cut"), entry(3, 2), vote="n2"),
    record(3, entry(4, 3, b"large" * 500), vote=None),
    record(3, entry(3, 3), vote="n3"),
)
