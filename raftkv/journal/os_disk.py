"""The ``Disk`` of the operating system: plain blocking calls. Every ``OSError`` names the file it concerns."""

from __future__ import annotations

import errno
import fcntl
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from raftkv.environment import File

FILE_MODE = 0o600
DIRECTORY_MODE = 0o700


class OsFile:
    """A file of the operating system."""

    def __init__(self, fd: int, path: str) -> None:
        self._fd = fd
        self._path = path

    def read(self, offset: int, size: int) -> bytes:
        """Return up to ``size`` bytes at ``offset``; fewer at the end of the file."""
        parts: list[bytes] = []
        with _naming(self._path):
            # One call reads 2 GiB at most and may be interrupted sooner.
            while size > 0 and (part := os.pread(self._fd, size, offset)):
                parts.append(part)
                offset += len(part)
                size -= len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def write(self, offset: int, data: bytes) -> None:
        """Write all of ``data`` at ``offset``; durable only after ``sync``."""
        with _naming(self._path):
            written = os.pwrite(self._fd, data, offset)
            rest = memoryview(data)
            # A short write means a full disk, which the next call reports, or the limit of 2 GiB per call.
            while written < len(rest):
                rest, offset = rest[written:], offset + written
                written = os.pwrite(self._fd, rest, offset)
                if not written:
                    raise OSError(errno.EIO, "the disk accepts no more bytes")

    def sync(self) -> None:
        """Return when everything written to this file, and its size, is on disk."""
        with _naming(self._path):
            _sync(self._fd)

    def size(self) -> int:
        """Return the file's size."""
        with _naming(self._path):
            return os.fstat(self._fd).st_size

    def close(self) -> None:
        """Close the file without syncing it. Closing it again does nothing."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


class OsDisk:
    """The file system of this machine. New files and directories are accessible to this user only."""

    def open(self, path: str, *, create: bool = False) -> File:
        """Open a file for reading and writing; ``create`` demands that it does not exist yet."""
        flags = os.O_RDWR | os.O_CLOEXEC | (os.O_CREAT | os.O_EXCL if create else 0)
        fd = os.open(path, flags, FILE_MODE)
        if not create:
            try:
                with _naming(path):
                    _forget_cache(fd)
            except OSError:
                os.close(fd)
                raise
        return OsFile(fd, path)

    def rename(self, old: str, new: str) -> None:
        """Rename, replacing ``new``; durable only after ``sync_directory``."""
        os.replace(old, new)

    def remove(self, path: str) -> None:
        """Remove a file; durable only after ``sync_directory``."""
        os.unlink(path)

    def list(self, directory: str) -> list[str]:
        """Return the names in a directory, in order."""
        return sorted(os.listdir(directory))

    def make_directory(self, path: str) -> None:
        """Make a directory and its parents where they are missing, durably."""
        path = os.path.abspath(path)
        parent = os.path.dirname(path)
        if not os.path.isdir(path):
            if parent != path:
                self.make_directory(parent)
            os.mkdir(path, DIRECTORY_MODE)
            self.sync_directory(parent)

    def sync_directory(self, path: str) -> None:
        """Return when the entries of a directory are on disk."""
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            with _naming(path):
                os.fsync(fd)
        finally:
            os.close(fd)

    def free(self, path: str) -> int:
        """Return how many bytes may still be written on the file system that holds ``path``."""
        with _naming(path):
            status = os.statvfs(path)
        return status.f_bavail * status.f_frsize

    def lock(self, path: str) -> File:
        """Lock a file, made if missing, for this process until closed; raises ``BlockingIOError`` if another has it."""
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, FILE_MODE)
        try:
            with _naming(path):
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(fd)
            raise
        return OsFile(fd, path)


def _sync(fd: int) -> None:
    """Flush a file to the disk itself."""
    if sys.platform == "darwin":
        # On macOS, fsync only reaches the cache of the drive.
        fcntl.fcntl(fd, fcntl.F_FULLFSYNC)
    else:
        os.fdatasync(fd)


def _forget_cache(fd: int) -> None:
    """Make the next read come from the disk.

    After a failed fsync, Linux keeps the pages that were not written and marks them clean (Rebello et al., *Can
    Applications Recover from fsync Failures?*, 2020). A restarted node would read them from memory and rely on bytes
    that the next power cut takes away. So the file is synced and dropped from the cache before it is read.
    """
    _sync(fd)
    if hasattr(os, "posix_fadvise"):
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)


@contextmanager
def _naming(path: str) -> Iterator[None]:
    """Add the path to errors of calls that only have a file descriptor."""
    try:
        yield
    except OSError as error:
        if error.filename is not None:
            raise
        raise OSError(error.errno, error.strerror or str(error), path) from error
