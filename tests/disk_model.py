"""A disk in memory that forgets as real ones do: what was not synced is lost in part, in whatever part one chooses.

What has been written but not synced is a list of pieces (``DiskModel.pending``): sectors of 512 bytes, sizes of
files, names in directories. ``crash`` keeps the pieces it is told to keep and loses the rest; ``kill`` ends the
process alone, whose writes the system still holds in memory. Faults come from ``before``: it is called ahead of
every operation and may raise, an ``OSError`` or anything that ends the test's process there.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Sequence
from posixpath import basename, dirname
from typing import NamedTuple

from raftkv.disk import File

SECTOR = 512


class Piece(NamedTuple):
    """Something that may be lost: ``kind`` is ``sector``, ``size`` or ``name``, ``number`` tells several apart."""

    kind: str
    path: str
    number: int


class PowerCut(BaseException):
    """Raised by ``before`` where a test wants the machine to stop: no code of the program's may catch it."""


def fails_with(number: int, path: str) -> OSError:
    """Return the ``OSError`` of this number as the system would make it."""
    return OSError(number, os.strerror(number), path)


class _Inode:
    """A file's content: as a reader sees it, and as it is on disk."""

    def __init__(self) -> None:
        self.cached = bytearray()
        self.durable = bytearray()
        self.dirty: set[int] = set()
        self.stale: set[int] = set()  # Lost by a failed sync: in memory as if synced, but not on disk.

    def copy(self) -> _Inode:
        other = _Inode()
        other.cached, other.durable = self.cached[:], self.durable[:]
        other.dirty, other.stale = set(self.dirty), set(self.stale)
        return other

    def write(self, offset: int, data: bytes) -> None:
        if not data:
            return
        end = offset + len(data)
        self.cached.extend(bytes(max(0, end - len(self.cached))))
        self.cached[offset:end] = data
        touched = range(offset // SECTOR, -(-end // SECTOR))
        self.dirty.update(touched)
        self.stale.difference_update(touched)

    def keep_size(self) -> None:
        self.durable.extend(bytes(len(self.cached) - len(self.durable)))

    def keep_sector(self, sector: int) -> None:
        start, end = sector * SECTOR, min((sector + 1) * SECTOR, len(self.cached))
        self.durable.extend(bytes(max(0, end - len(self.durable))))
        self.durable[start:end] = self.cached[start:end]

    def sync(self) -> None:
        for sector in self.dirty:
            self.keep_sector(sector)
        self.keep_size()
        self.dirty.clear()

    def fail_sync(self) -> None:
        self.stale |= self.dirty
        self.dirty.clear()

    def forget_cache(self) -> None:
        """See what is on disk, where nothing else waits to get there."""
        for sector in self.stale:
            start, end = sector * SECTOR, min((sector + 1) * SECTOR, len(self.cached))
            self.cached[start:end] = self.durable[start:end].ljust(end - start, b"\0")
        self.stale.clear()

    def crash(self) -> None:
        self.cached = self.durable[:]
        self.dirty.clear()
        self.stale.clear()


class _Directory:
    """The names in a directory, and those changes of them that are in memory only."""

    def __init__(self) -> None:
        self.live: dict[str, _Inode] = {}
        self.durable: dict[str, _Inode] = {}
        self.pending: list[dict[str, _Inode | None]] = []

    def change(self, names: dict[str, _Inode | None]) -> None:
        _apply(self.live, names)
        self.pending.append(names)

    def sync(self) -> None:
        self.durable = dict(self.live)
        self.pending.clear()

    def crash(self) -> None:
        self.live = dict(self.durable)
        self.pending.clear()


def _apply(names: dict[str, _Inode], change: dict[str, _Inode | None]) -> None:
    for name, inode in change.items():
        if inode is None:
            names.pop(name, None)
        else:
            names[name] = inode


class DiskModel:
    """A ``Disk`` in memory. ``capacity`` is in bytes and may be changed at any time."""

    def __init__(self, capacity: int = 1 << 40) -> None:
        self.capacity = capacity
        self.before: Callable[[str, str], None] = lambda operation, path: None
        self._directories: dict[str, _Directory] = {"/": _Directory()}
        self._locks: set[str] = set()
        self._open: list[_ModelFile] = []

    # --- What a program may do with it.

    def open(self, path: str, *, create: bool = False) -> File:
        """Open a file; one that exists is seen as it is on disk, but for what has yet to be synced."""
        self.before("create" if create else "open", path)
        directory = self._directory_of(path)
        if path in self._directories:
            raise fails_with(errno.EISDIR, path)
        inode = directory.live.get(basename(path))
        if create:
            if inode is not None:
                raise fails_with(errno.EEXIST, path)
            inode = _Inode()
            directory.change({basename(path): inode})
        elif inode is None:
            raise fails_with(errno.ENOENT, path)
        else:
            inode.forget_cache()
        return _ModelFile(self, inode, path)

    def rename(self, old: str, new: str) -> None:
        """Rename, replacing ``new``."""
        self.before("rename", new)
        directory = self._directory_of(old)
        assert dirname(old) == dirname(new), "the model renames within a directory only"
        directory.change({basename(old): None, basename(new): self._inode(old)})

    def remove(self, path: str) -> None:
        """Remove a file."""
        self.before("remove", path)
        self._inode(path)
        self._directory_of(path).change({basename(path): None})

    def list(self, directory: str) -> list[str]:
        """Return the names in a directory, in order."""
        self.before("list", directory)
        names = set(self._directory(directory).live)
        names.update(basename(path) for path in self._directories if path != "/" and dirname(path) == directory)
        return sorted(names)

    def make_directory(self, path: str) -> None:
        """Make a directory and its parents, durably."""
        self.before("make_directory", path)
        if path in self._directories:
            return
        parent = dirname(path)
        if parent not in self._directories:
            self.make_directory(parent)
        if basename(path) in self._directories[parent].live:
            raise fails_with(errno.EEXIST, path)
        self._directories[path] = _Directory()

    def sync_directory(self, path: str) -> None:
        """Return when the names in a directory are on disk."""
        self.before("sync_directory", path)
        self._directory(path).sync()

    def free(self, path: str) -> int:
        """Return how many bytes may still be written."""
        self.before("free", path)
        return max(0, self.capacity - self.used())

    def lock(self, path: str) -> File:
        """Lock a file, made if missing."""
        self.before("lock", path)
        directory = self._directory_of(path)
        if path in self._locks:
            raise fails_with(errno.EAGAIN, path)
        if basename(path) not in directory.live:
            directory.change({basename(path): _Inode()})
        self._locks.add(path)
        return _ModelFile(self, directory.live[basename(path)], path, is_lock=True)

    # --- What a test may do with it.

    def used(self) -> int:
        """Return the bytes that files take, in whole sectors."""
        return sum(
            -(-len(inode.cached) // SECTOR) * SECTOR
            for directory in self._directories.values()
            for inode in directory.live.values()
        )

    def pending(self) -> Sequence[Piece]:
        """Return everything that a crash may lose, in an order that depends on nothing but what was done."""
        pieces = []
        for path, directory in self._directories.items():
            pieces += [Piece("name", path, number) for number in range(len(directory.pending))]
            for name, inode in directory.live.items():
                file = f"{path.rstrip('/')}/{name}"
                pieces += [Piece("sector", file, sector) for sector in sorted(inode.dirty)]
                if len(inode.cached) > len(inode.durable):
                    pieces.append(Piece("size", file, len(inode.cached)))
        return pieces

    def crash(self, keep: Callable[[Piece], bool] = lambda piece: False) -> None:
        """Lose power: of what was pending only what ``keep`` answers true to is there afterwards."""
        kept = {piece for piece in self.pending() if keep(piece)}
        for path, directory in self._directories.items():
            for name, inode in directory.live.items():
                file = f"{path.rstrip('/')}/{name}"
                for sector in sorted(inode.dirty):
                    if ("sector", file, sector) in kept:
                        inode.keep_sector(sector)
                if ("size", file, len(inode.cached)) in kept:
                    inode.keep_size()
            for number, change in enumerate(directory.pending):
                if ("name", path, number) in kept:
                    _apply(directory.durable, change)
        for directory in self._directories.values():
            for inode in (*directory.live.values(), *directory.durable.values()):
                inode.crash()
            directory.crash()
        self.kill()

    def kill(self) -> None:
        """End the process: its files are closed and its locks gone, its writes stay where they are."""
        self._locks.clear()
        self._open.clear()
        self.before = lambda operation, path: None

    def clone(self) -> DiskModel:
        """Return a disk in the same state for another process; no fault is set on it."""
        copies: dict[int, _Inode] = {}

        def copy(inode: _Inode) -> _Inode:
            if id(inode) not in copies:
                copies[id(inode)] = inode.copy()
            return copies[id(inode)]

        other = DiskModel(self.capacity)
        for path, directory in self._directories.items():
            twin = other._directories[path] = _Directory()
            twin.live = {name: copy(inode) for name, inode in directory.live.items()}
            twin.durable = {name: copy(inode) for name, inode in directory.durable.items()}
            twin.pending = [
                {name: inode and copy(inode) for name, inode in change.items()} for change in directory.pending
            ]
        return other

    def open_files(self) -> Sequence[str]:
        """Return the paths of the files that the process has open, locks among them."""
        return sorted(file.path for file in self._open)

    def files(self) -> dict[str, bytes]:
        """Return the content of every file by path, as a reader sees it."""
        return {
            f"{path.rstrip('/')}/{name}": bytes(inode.cached)
            for path, directory in self._directories.items()
            for name, inode in directory.live.items()
        }

    def put(self, path: str, data: bytes) -> None:
        """Make a file have this content, durably, however it came to that: for damage of all sorts."""
        self.make_directory(dirname(path))
        inode = _Inode()
        inode.cached, inode.durable = bytearray(data), bytearray(data)
        directory = self._directories[dirname(path)]
        directory.live[basename(path)] = directory.durable[basename(path)] = inode

    def flip(self, path: str, offset: int, mask: int = 0xFF) -> None:
        """Change the bits of ``mask`` in a byte, on disk."""
        inode = self._inode(path)
        inode.cached[offset] ^= mask
        if offset < len(inode.durable):
            inode.durable[offset] ^= mask

    # --- Inside.

    def _directory(self, path: str) -> _Directory:
        if path in self._directories:
            return self._directories[path]
        parent = self._directories.get(dirname(path))
        number = errno.ENOTDIR if parent is not None and basename(path) in parent.live else errno.ENOENT
        raise fails_with(number, path)

    def _directory_of(self, path: str) -> _Directory:
        return self._directory(dirname(path))

    def _inode(self, path: str) -> _Inode:
        inode = self._directory_of(path).live.get(basename(path))
        if inode is None:
            raise fails_with(errno.ENOENT, path)
        return inode


class _ModelFile:
    """An open file of a ``DiskModel``; of no use after its process has ended."""

    def __init__(self, disk: DiskModel, inode: _Inode, path: str, *, is_lock: bool = False) -> None:
        self._disk = disk
        self._inode = inode
        self.path = path
        self._is_lock = is_lock
        disk._open.append(self)

    def read(self, offset: int, size: int) -> bytes:
        """Return up to ``size`` bytes at ``offset``; fewer at the end of the file."""
        self._call("read")
        return bytes(self._inode.cached[offset : offset + size])

    def write(self, offset: int, data: bytes) -> None:
        """Write; where the disk gets full, a part of it."""
        self._call("write")
        size = len(self._inode.cached)
        limit = -(-size // SECTOR) * SECTOR + max(0, self._disk.capacity - self._disk.used()) // SECTOR * SECTOR
        self._inode.write(offset, data[: max(0, limit - offset)])
        if offset + len(data) > limit:
            raise fails_with(errno.ENOSPC, self.path)

    def sync(self) -> None:
        """Return when content and size are on disk; where that fails, what was to be synced never will be."""
        try:
            self._call("sync")
        except OSError:
            self._inode.fail_sync()
            raise
        self._inode.sync()

    def size(self) -> int:
        """Return the file's size."""
        self._call("size")
        return len(self._inode.cached)

    def close(self) -> None:
        """Close the file; a second time does nothing."""
        if self in self._disk._open:
            self._disk._open.remove(self)
            if self._is_lock:
                self._disk._locks.discard(self.path)

    def _call(self, operation: str) -> None:
        if self not in self._disk._open:
            raise fails_with(errno.EBADF, self.path)
        self._disk.before(operation, self.path)
