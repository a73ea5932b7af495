"""Data directories of every version stay readable. The folders in ``tests/fixtures`` are never regenerated.

A new format gets a new folder; ``python -m tests.journal.test_fixtures FOLDER`` creates it.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from raftkv.journal.data_directory import Identity, journal_directory, open_data_directory
from raftkv.journal.format import owner_of
from raftkv.journal.os_disk import OsDisk
from raftkv.journal.wal import Wal
from raftkv.raft.entry import Entry, Kind
from tests.journal.wal_tools import SEGMENT, State, record, state_of, states

FIXTURES = Path(__file__).parents[1] / "fixtures"
IDENTITY = Identity("n1", "0123456789abcdef", 1)
OWNER = owner_of(IDENTITY.node_id, IDENTITY.incarnation)

# Every kind of entry, a cut, a new term that clears the vote, and a batch of each size class.
RECORDS_1 = (
    record(1, vote="n1"),
    record(1, Entry(1, 1, Kind.CONFIGURATION, b"not looked into here"), Entry(2, 1, Kind.NOOP, b""), vote="n1"),
    record(1, Entry(3, 1, Kind.COMMANDS, bytes(range(256)) * 4), Entry(4, 1, Kind.COMMANDS, b"cut off"), vote="n1"),
    record(2),
    record(2, Entry(4, 2, Kind.NOOP, b""), vote="n2"),
    record(3, Entry(5, 3, Kind.COMMANDS, "größer als ein Segment ".encode() * 150), vote="n3"),
    record(300, Entry(6, 300, Kind.COMMANDS, b"\xff" * 20), vote="a-node-with-a-longer-name"),
)


def write_fixture(path: Path) -> None:
    """Write a data directory as this version does."""
    data = open_data_directory(OsDisk(), str(path), IDENTITY.node_id, new_incarnation=lambda: IDENTITY.incarnation)
    wal, _ = Wal.open(OsDisk(), journal_directory(str(path)), segment_bytes=SEGMENT, owner=OWNER)
    for each in RECORDS_1:
        wal.append(each)
    wal.close()
    data.close()
    (path / "lock").unlink()


def read_fixture(path: Path) -> tuple[Identity, State]:
    """Return the identity and the state in a data directory."""
    data = open_data_directory(OsDisk(), str(path), IDENTITY.node_id, new_incarnation=lambda: "new")
    wal, replay = Wal.open(OsDisk(), journal_directory(str(path)), segment_bytes=SEGMENT, owner=OWNER)
    wal.close()
    data.close()
    return data.identity, state_of(replay)


def test_reads_what_version_1_wrote(tmp_path: Path) -> None:
    """The fixture holds the bytes that the first version wrote."""
    shutil.copytree(FIXTURES / "data-directory-1", tmp_path / "data")
    assert read_fixture(tmp_path / "data") == (IDENTITY, states(RECORDS_1)[-1])


def test_writes_what_version_1_wrote(tmp_path: Path) -> None:
    """The format cannot change by accident: a change needs a new version and a new fixture."""

    def files(path: Path) -> dict[str, bytes]:
        return {str(file.relative_to(path)): file.read_bytes() for file in path.rglob("*") if file.is_file()}

    write_fixture(tmp_path / "data")
    assert files(tmp_path / "data") == files(FIXTURES / "data-directory-1")


if __name__ == "__main__":
    write_fixture(FIXTURES / sys.argv[1])
