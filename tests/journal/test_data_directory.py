"""A data directory belongs to one node, one incarnation and one process at a time."""

from __future__ import annotations

import errno
import itertools
import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from raftkv.environment import Disk, File
from raftkv.journal.data_directory import (
    DataDirectory,
    DataDirectoryError,
    Identity,
    journal_directory,
    open_data_directory,
    read_identity,
)
from raftkv.journal.os_disk import OsDisk
from raftkv.simulation.cluster.disk import PowerCut, SimulatedDisk, fails_with

PATH = "/var/raftkv"


def opened(disk: Disk, path: str = PATH, node_id: str = "n1", incarnation: str = "first") -> DataDirectory:
    """Open a data directory; a new one gets ``incarnation``."""
    return open_data_directory(disk, path, node_id, new_incarnation=lambda: incarnation)


def refusal(disk: Disk, path: str = PATH, node_id: str = "n1") -> str:
    """Return the line with which opening a data directory is refused."""
    with pytest.raises(DataDirectoryError) as caught:
        opened(disk, path, node_id)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_new_directory_gets_an_incarnation_and_keeps_it() -> None:
    """The incarnation is drawn once; later starts keep it."""
    disk = SimulatedDisk()
    assert read_identity(disk, "/") is None
    first = opened(disk, incarnation="first")
    assert first.identity == Identity("n1", "first", 1)
    first.close()
    again = opened(disk, incarnation="second")
    assert again.identity == Identity("n1", "first", 1)
    assert again.path == PATH
    assert read_identity(disk, PATH) == Identity("n1", "first", 1)


def test_a_wiped_directory_gets_another_incarnation() -> None:
    """So the cluster can distinguish it from the member that cast its votes."""
    identities = [opened(SimulatedDisk(), incarnation=incarnation).identity for incarnation in ("first", "second")]
    assert identities == [Identity("n1", "first"), Identity("n1", "second")]


def test_one_process_at_a_time() -> None:
    """A second process is refused at once, and gets the directory when the first has closed it or is gone."""
    disk = SimulatedDisk()
    held = opened(disk)
    assert refusal(disk) == f"data directory {PATH} is in use by another process"
    held.close()
    opened(disk)
    disk.kill()
    opened(disk)


def test_a_refused_directory_is_not_locked() -> None:
    """A refused start must not lock out the next one."""
    disk = SimulatedDisk()
    opened(disk).close()
    refusal(disk, node_id="n2")
    opened(disk).close()


def test_another_nodes_directory_is_refused() -> None:
    """Its votes and its log belong to another node."""
    disk = SimulatedDisk()
    opened(disk, node_id="n2").close()
    assert refusal(disk, node_id="n1") == f"data directory {PATH} belongs to node n2, not to n1"


def test_no_changed_byte_changes_the_identity() -> None:
    """If any byte of the file is changed, or the file is cut short, the directory is refused."""
    disk = SimulatedDisk()
    opened(disk).close()
    whole = disk.files()[f"{PATH}/identity"]
    for offset, mask in itertools.product(range(len(whole)), (0x01, 0x02, 0x04, 0x80, 0xFF)):
        disk.put(f"{PATH}/identity", whole)
        disk.flip(f"{PATH}/identity", offset, mask)
        assert refusal(disk).startswith(f"data directory {PATH}")
        disk.put(f"{PATH}/identity", whole[:offset])
        assert refusal(disk).startswith(f"data directory {PATH}: {PATH}/identity is damaged: ")
    disk.put(f"{PATH}/identity", whole)
    assert opened(disk).identity == Identity("n1", "first")


def test_a_newer_format_is_refused() -> None:
    """As after a downgrade."""
    disk = SimulatedDisk()
    disk.put(f"{PATH}/identity", b'{"format":2,"what":"ever"}')
    assert refusal(disk) == f"data directory {PATH} has format 2; this version of raftkv reads formats up to 1"


def test_a_journal_without_an_identity_is_refused() -> None:
    """It holds votes of an unknown node."""
    disk = SimulatedDisk()
    disk.put(f"{journal_directory(PATH)}/0000000000000001.wal", b"")
    message = f"data directory {PATH} has a journal but no file identity, so the owner of the journal is unknown"
    assert refusal(disk) == message
    assert read_identity(disk, PATH) is None


def test_a_crash_during_creation_leaves_a_whole_identity_or_none() -> None:
    """At any moment, of the process or of the machine; an identity that was returned once survives."""
    rng = random.Random(0)
    for number in itertools.count():
        disk = SimulatedDisk()
        disk.before = _at(itertools.count(), number, PowerCut())
        try:
            opened(disk)
        except PowerCut:
            seen = False
        else:
            seen = True
        for attempt in range(20):
            after = disk.clone()
            if attempt:
                after.crash(lambda piece: rng.random() < 0.5)
            found = opened(after, incarnation="second").identity
            assert found.incarnation == "first" or not seen
            after.crash()
            assert opened(after, incarnation="third").identity == found
        if seen:
            break
    assert number > 8


def _at(calls: Iterator[int], number: int, fault: BaseException) -> Callable[[str, str], None]:
    """Return a hook that raises ``fault`` before operation ``number``, counted from 0."""

    def before(operation: str, path: str) -> None:
        if next(calls) == number:
            raise fault

    return before


def test_a_failing_disk_is_reported_in_one_line() -> None:
    """Whichever call fails; afterwards nothing is locked or half created."""
    calls = itertools.count()
    disk = SimulatedDisk()
    disk.before = _at(calls, -1, PowerCut())
    opened(disk)
    for number in range(next(calls)):
        disk = SimulatedDisk()
        disk.before = _at(itertools.count(), number, fails_with(errno.EIO, PATH))
        assert refusal(disk) == f"data directory {PATH}: Input/output error"
        assert disk.open_files() == []
        disk.before = lambda operation, path: None
        opened(disk)


def test_a_file_is_no_directory(tmp_path: Path) -> None:
    """At the end of the path or in the middle of it."""
    (tmp_path / "file").write_text("")
    for path in (f"{tmp_path}/file", f"{tmp_path}/file/below"):
        assert refusal(OsDisk(), path) == f"data directory {path} is not a directory"


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser is denied nothing")
def test_permission_denied_names_the_file(tmp_path: Path) -> None:
    """The most common error: another user created the directory."""
    tmp_path.chmod(0o500)
    expected = f"data directory {tmp_path}: permission denied: {tmp_path}/lock"
    assert refusal(OsDisk(), str(tmp_path)) == expected


class DeniedDisk(SimulatedDisk):
    """A disk on which another user owns everything."""

    def lock(self, path: str) -> File:
        """Raise the error of the operating system."""
        raise fails_with(errno.EACCES, path)


def test_permission_denied_is_reported() -> None:
    """The same on a simulated disk, which also works for the superuser."""
    assert refusal(DeniedDisk()) == f"data directory {PATH}: permission denied: {PATH}/lock"


def test_works_on_a_real_disk(tmp_path: Path) -> None:
    """With a real lock, held by an open file."""
    path = f"{tmp_path}/a/b"
    held = opened(OsDisk(), path)
    assert refusal(OsDisk(), path) == f"data directory {path} is in use by another process"
    held.close()
    held = opened(OsDisk(), path, incarnation="second")
    assert held.identity == Identity("n1", "first")
    assert sorted(os.listdir(path)) == ["identity", "lock"]
    held.close()
