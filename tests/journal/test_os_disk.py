"""The real disk and the simulated disk agree in everything that a node relies on."""

from __future__ import annotations

import errno
import os
import re
import resource
from collections.abc import Callable
from pathlib import Path

import pytest

from raftkv.environment import Disk
from raftkv.journal.os_disk import OsDisk, OsFile
from raftkv.simulation.cluster.disk import SimulatedDisk

MakeDisk = Callable[[], Disk]


@pytest.fixture(params=[OsDisk, SimulatedDisk])
def disk(request: pytest.FixtureRequest) -> Disk:
    """Each of the two disks."""
    made: Disk = request.param()
    return made


@pytest.fixture
def root(disk: Disk, tmp_path: Path) -> str:
    """A directory on that disk."""
    disk.make_directory(f"{tmp_path}/data")
    return f"{tmp_path}/data"


def test_reads_what_was_written(disk: Disk, root: str) -> None:
    """At any offset; reads stop at the end of the file, and a hole reads as zeros."""
    file = disk.open(f"{root}/file", create=True)
    file.write(0, b"one")
    file.write(1000, b"two")
    file.write(1, b"NE")
    file.sync()
    assert file.size() == 1003
    assert file.read(0, 5) == b"oNE\0\0"
    assert file.read(998, 100) == b"\0\0two"
    assert file.read(2000, 10) == b""
    file.close()
    assert disk.open(f"{root}/file").read(0, 2000) == b"oNE" + bytes(997) + b"two"


def test_names_appear_move_and_vanish(disk: Disk, root: str) -> None:
    """Listed in order, directories included."""
    for name in ("b", "a", "c"):
        disk.open(f"{root}/{name}", create=True).write(0, name.encode())
    disk.make_directory(f"{root}/d/e")
    disk.make_directory(f"{root}/d/e")
    disk.rename(f"{root}/a", f"{root}/b")
    disk.remove(f"{root}/c")
    disk.sync_directory(root)
    assert disk.list(root) == ["b", "d"]
    assert disk.open(f"{root}/b").read(0, 10) == b"a"


@pytest.mark.parametrize(
    ("number", "use"),
    [
        (errno.ENOENT, lambda disk, root: disk.open(f"{root}/none")),
        (errno.ENOENT, lambda disk, root: disk.open(f"{root}/none/file", create=True)),
        (errno.ENOENT, lambda disk, root: disk.list(f"{root}/none")),
        (errno.ENOENT, lambda disk, root: disk.remove(f"{root}/none")),
        (errno.ENOENT, lambda disk, root: disk.sync_directory(f"{root}/none")),
        (errno.EEXIST, lambda disk, root: disk.open(f"{root}/file", create=True)),
        (errno.EISDIR, lambda disk, root: disk.open(f"{root}/directory")),
        (errno.ENOTDIR, lambda disk, root: disk.list(f"{root}/file")),
        (errno.EEXIST, lambda disk, root: disk.make_directory(f"{root}/file")),
        (errno.EAGAIN, lambda disk, root: (disk.lock(f"{root}/lock"), disk.lock(f"{root}/lock"))),
    ],
)
def test_errors_are_the_systems_and_name_the_file(
    disk: Disk, root: str, number: int, use: Callable[[Disk, str], object]
) -> None:
    """An error message needs the file name."""
    disk.open(f"{root}/file", create=True)
    disk.make_directory(f"{root}/directory")
    with pytest.raises(OSError, match=root) as caught:
        use(disk, root)
    assert caught.value.errno == number
    assert str(caught.value.filename).startswith(root)


def test_errors_of_an_open_file_name_it() -> None:
    """Although the system call only gets a descriptor."""
    reading, writing = os.pipe()
    file = OsFile(reading, "/the/file")
    for use in (file.sync, lambda: file.read(0, 1), lambda: file.write(0, b"x")):
        with pytest.raises(OSError, match="/the/file") as caught:
            use()
        assert caught.value.filename == "/the/file"
    file.close()
    file.close()
    os.close(writing)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no device that is always full")
def test_a_full_disk_is_reported() -> None:
    """And is not treated as a short write."""
    file = OsFile(os.open("/dev/full", os.O_RDWR), "/dev/full")
    with pytest.raises(OSError, match="/dev/full") as caught:
        file.write(0, b"x")
    assert caught.value.errno == errno.ENOSPC
    file.close()


def test_free_is_what_a_user_may_still_write(disk: Disk, root: str) -> None:
    """In bytes; it shrinks as files grow."""
    assert disk.free(root) > 0
    if isinstance(disk, SimulatedDisk):
        before = disk.free(root)
        disk.open(f"{root}/file", create=True).write(0, b"x" * 513)
        assert before - disk.free(root) == 1024


def test_new_files_are_accessible_to_their_user_only(tmp_path: Path) -> None:
    """They hold user data."""
    disk = OsDisk()
    disk.make_directory(f"{tmp_path}/made/below")
    disk.open(f"{tmp_path}/made/file", create=True).close()
    disk.lock(f"{tmp_path}/made/lock").close()
    modes = [oct(os.stat(f"{tmp_path}/made{name}").st_mode & 0o777) for name in ("", "/below", "/file", "/lock")]
    assert modes == ["0o700", "0o700", "0o600", "0o600"]


def test_a_short_write_is_continued_and_fails_when_there_is_no_room(tmp_path: Path) -> None:
    """As on a full disk: the first call writes what fits, the next one reports the error."""
    size, fits = 1 << 20, 1000
    file = OsDisk().open(f"{tmp_path}/file", create=True)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + fits, before[1]))
    try:
        with pytest.raises(OSError, match=re.escape(f"{tmp_path}/file")) as error:
            file.write(size, b"x" * 4096)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)

    assert error.value.errno == errno.EFBIG
    assert file.size() == size + fits
    file.write(size, b"y" * 4096)
    assert file.read(size, 5000) == b"y" * 4096
    file.close()
