"""A disk in memory that loses and fails as real disks do: a crash loses any part of what was not synced.

Writes that are not synced are a list of pieces (``SimulatedDisk.pending``): sectors of 512 bytes, sizes of files, names
in directories. ``crash`` keeps the pieces that its argument selects and loses the rest; ``kill`` ends only the process,
whose writes stay in the page cache.

The caller requests faults, and passes a ``random.Random``; ``events`` lists those that took effect. The disk has no
clock: its user decides how long a sync takes. These are all the faults:

- Power fails before any operation (``cut_after``), and any part of what was pending remains (``crash_at_random``). A
  sector is written whole or not at all, so a torn write lacks sectors. The journal relies on that
  (``raftkv/journal/format.py``).
- An operation fails (``fail``), or the disk is full (``capacity``). The data of a failed sync is lost, but the page
  cache shows it until the file is opened again, as on Linux.
- Data is damaged: ``flip_bit``, and ``misdirect_next_write``, whose data goes to another place without an error. While
  anything is damaged (``is_damaged``), both do nothing, because two damages can hide each other.
- A sync that succeeds without syncing is not simulated: nothing that relies on its own disk can survive it.

**Damage that no journal can detect is not simulated.** Nothing points to the last batch, so if it went to a place where
no batch is read, it would be lost without a trace, although the node acknowledged it. So a misdirected write has
content (zeros would wipe another batch) and lands in a file of the same kind, at the start of a sector, where the
reader finds it. That file must stay as long as the gap that the data left.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator, Sequence
from posixpath import basename, dirname
from random import Random
from typing import NamedTuple

from raftkv.environment import File

SECTOR = 512


class Piece(NamedTuple):
    """Something that a crash may lose: ``kind`` is ``sector``, ``size`` or ``name``, ``number`` counts them."""

    kind: str
    path: str
    number: int


class DiskEvent(NamedTuple):
    """A fault that took effect.

    ``kind`` is ``cut``, ``lost`` (pieces of it, at a crash), ``failed``, ``full``, ``flipped`` or ``misdirected``;
    ``detail`` is text for people.
    """

    kind: str
    path: str
    detail: str


class PowerCut(BaseException):
    """Raised when the power fails, and by every operation after that; no code of a node may catch it."""


def fails_with(number: int, path: str) -> OSError:
    """Return the ``OSError`` of this number as the operating system raises it."""
    return OSError(number, os.strerror(number), path)


class _Inode:
    """The content of a file: as a reader sees it, and as it is on disk."""

    def __init__(self, content: bytes = b"") -> None:
        self.cached = bytearray(content)
        self.durable = bytearray(content)
        self.unsynced: list[range] = []
        """The sectors of each write since the last sync."""
        self.astray: dict[int, tuple[_Inode, int, DiskEvent]] = {}
        """Unsynced sectors that will be written to another place: the place, and the event to report."""
        self.stale: set[int] = set()
        """Sectors whose page cache differs from the disk although nothing waits to be written."""
        self.damaged: set[int] = set()
        """Sectors that hold wrong data on disk."""

    @property
    def dirty(self) -> list[int]:
        """The sectors that wait to be written, in order."""
        return sorted({sector for run in self.unsynced for sector in run})

    def write(self, offset: int, data: bytes) -> None:
        """Change the content that a reader sees."""
        if not data:
            return
        end = offset + len(data)
        if end > len(self.cached):
            self.cached.extend(bytes(end - len(self.cached)))
        self.cached[offset:end] = data
        touched = range(offset // SECTOR, -(-end // SECTOR))
        self.unsynced.append(touched)
        if self.stale:
            self.stale.difference_update(touched)
        if self.astray:
            self.astray = {sector: place for sector, place in self.astray.items() if sector not in touched}

    def keep_size(self) -> None:
        """Write the size to disk."""
        missing = len(self.cached) - len(self.durable)
        if missing > 0:
            self.durable.extend(bytes(missing))

    def keep_sector(self, sector: int) -> DiskEvent | None:
        """Write one sector to disk, or to another place; return the event of the latter."""
        start, end = sector * SECTOR, min((sector + 1) * SECTOR, len(self.cached))
        if sector in self.astray:
            other, place, event = self.astray[sector]
            self.stale.add(sector)
            self.damaged.add(sector)
            # A sector beyond the end of the other file has no effect.
            if (place + 1) * SECTOR <= len(other.durable):
                other.durable[place * SECTOR : (place + 1) * SECTOR] = self.cached[start:end]
                other.stale.add(place)
                other.damaged.add(place)
            return event
        self.durable.extend(bytes(max(0, end - len(self.durable))))
        self.durable[start:end] = self.cached[start:end]
        self.damaged.discard(sector)
        return None

    def sync(self) -> list[DiskEvent]:
        """Write everything to disk; return the events of misdirected writes."""
        self.keep_size()
        if self.astray:
            failed = [event for sector in self.dirty if (event := self.keep_sector(sector))]
            self.forget_unsynced()
            return list(dict.fromkeys(failed))
        for run in self.unsynced:
            start, end = run.start * SECTOR, run.stop * SECTOR
            self.durable[start:end] = self.cached[start:end]
            if self.damaged:
                self.damaged.difference_update(run)
        self.unsynced.clear()
        return []

    def fail_sync(self) -> None:
        """Drop the unsynced data, as Linux does; a reader still sees it."""
        self.stale.update(self.dirty)
        self.forget_unsynced()

    def forget_unsynced(self) -> None:
        """Drop all waiting writes."""
        self.unsynced.clear()
        self.astray.clear()

    def forget_cache(self) -> None:
        """Read the stale sectors from disk again."""
        for sector in self.stale:
            start, end = sector * SECTOR, min((sector + 1) * SECTOR, len(self.cached))
            self.cached[start:end] = self.durable[start:end].ljust(end - start, b"\0")
        self.stale.clear()

    def crash(self) -> None:
        """Lose everything that is not on disk."""
        if self.cached != self.durable:
            self.cached[:] = self.durable
        self.forget_unsynced()
        self.stale.clear()


class _Directory:
    """The names in a directory, and the changes that are not synced."""

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


class _Failure(NamedTuple):
    after: int
    number: int
    written: int


def _nothing(operation: str, path: str) -> None:
    """Allow every operation."""


class SimulatedDisk:
    """A ``Disk`` in memory. ``capacity`` is in bytes and may change at any time.

    ``before`` is called before every operation and may raise an ``OSError``, or ``PowerCut``.
    """

    def __init__(self, capacity: int = 1 << 40) -> None:
        self.capacity = capacity
        self.before: Callable[[str, str], None] = _nothing
        self.events: list[DiskEvent] = []
        self._directories: dict[str, _Directory] = {"/": _Directory()}
        self._locks: set[str] = set()
        self._open: list[_OpenFile] = []
        # The last result of ``used``, until a file grows or a name changes.
        self._used: int | None = 0
        self._misdirect: tuple[Random, str] | None = None
        self._failures: dict[str, _Failure] = {}
        self.disarm()

    # --- the Disk protocol

    def open(self, path: str, *, create: bool = False) -> File:
        """Open a file; its content is what is on disk, and what waits for a sync."""
        self._operation("create" if create else "open", path)
        directory = self._directory_of(path)
        if path in self._directories:
            raise fails_with(errno.EISDIR, path)
        inode = directory.live.get(basename(path))
        if create:
            if inode is not None:
                raise fails_with(errno.EEXIST, path)
            inode = _Inode()
            self._change(directory, {basename(path): inode})
        elif inode is None:
            raise fails_with(errno.ENOENT, path)
        else:
            inode.forget_cache()
        return _OpenFile(self, inode, path)

    def rename(self, old: str, new: str) -> None:
        """Rename within a directory, replacing ``new``."""
        self._operation("rename", new)
        assert dirname(old) == dirname(new), "renaming is within a directory only"
        self._change(self._directory_of(old), {basename(old): None, basename(new): self._inode(old)})

    def remove(self, path: str) -> None:
        """Remove a file."""
        self._operation("remove", path)
        self._inode(path)
        self._change(self._directory_of(path), {basename(path): None})

    def list(self, directory: str) -> list[str]:
        """Return the names in a directory, in order."""
        self._operation("list", directory)
        names = set(self._directory(directory).live)
        names.update(basename(path) for path in self._directories if path != "/" and dirname(path) == directory)
        return sorted(names)

    def make_directory(self, path: str) -> None:
        """Make a directory and its parents, durably."""
        self._operation("make_directory", path)
        if path in self._directories:
            return
        parent = dirname(path)
        if parent not in self._directories:
            self.make_directory(parent)
        if basename(path) in self._directories[parent].live:
            raise fails_with(errno.EEXIST, path)
        self._directories[path] = _Directory()

    def sync_directory(self, path: str) -> None:
        """Sync the names in a directory."""
        self._operation("sync_directory", path)
        self._directory(path).sync()

    def free(self, path: str) -> int:
        """Return how many bytes may still be written."""
        self._operation("free", path)
        return max(0, self.capacity - self.used())

    def lock(self, path: str) -> File:
        """Lock a file, made if missing."""
        self._operation("lock", path)
        directory = self._directory_of(path)
        if path in self._locks:
            raise fails_with(errno.EAGAIN, path)
        if basename(path) not in directory.live:
            self._change(directory, {basename(path): _Inode()})
        self._locks.add(path)
        return _OpenFile(self, directory.live[basename(path)], path, is_lock=True)

    # --- faults

    def cut_after(self, operations: int) -> None:
        """Make the power fail before the operation with this number from now on; the next one is 1.

        That operation and all later ones raise ``PowerCut`` until ``crash`` decides what is on disk.
        """
        assert operations >= 1, operations
        self._cut_in = operations
        self._armed = True

    @property
    def is_cut(self) -> bool:
        """Whether the power is about to fail, or has failed."""
        return bool(self._cut_in) or self._is_off

    def fail(self, operation: str, number: int = errno.EIO, *, after: int = 0, written: int = 0) -> None:
        """Make ``operation`` fail once with this error, after it has succeeded ``after`` more times.

        It is the name of a method of ``Disk`` or ``File``, or ``create`` for ``open(create=True)``. A write that fails
        still writes its first ``written`` sectors.
        """
        self._failures[operation] = _Failure(after, number, written)
        self._armed = True

    def crash(self, keep: Callable[[Piece], bool] = lambda piece: False) -> None:
        """Lose power: of the pending pieces, only those for which ``keep`` returns true remain."""
        kept = {piece for piece in self.pending() if keep(piece)}
        for path, directory in self._directories.items():
            for name, inode in directory.live.items():
                file = f"{path.rstrip('/')}/{name}"
                events = [inode.keep_sector(sector) for sector in inode.dirty if ("sector", file, sector) in kept]
                self.events += dict.fromkeys(filter(None, events))
                if ("size", file, len(inode.cached)) in kept:
                    inode.keep_size()
            for number, change in enumerate(directory.pending):
                if ("name", path, number) in kept:
                    _apply(directory.durable, change)
        for directory in self._directories.values():
            for inode in (*directory.live.values(), *directory.durable.values()):
                inode.crash()
            directory.crash()
        self._used = None
        self.kill()

    def crash_at_random(self, random: Random) -> None:
        """Lose power and any part of the pending pieces: often none, all, or a single one."""
        pieces = self.pending()
        way = random.randrange(4)
        if way == 0 or not pieces:
            lost = set(pieces)
        elif way == 1:
            lost = set()
        elif way == 2:
            lost = {random.choice(pieces)}
        else:
            share = random.random()
            lost = {piece for piece in pieces if random.random() < share}
        for path in dict.fromkeys(piece.path for piece in pieces if piece in lost):
            numbers = [f"{piece.kind} {piece.number}" for piece in pieces if piece in lost and piece.path == path]
            of = sum(piece.path == path for piece in pieces)
            self.events.append(DiskEvent("lost", path, f"{len(numbers)} of {of} unsynced pieces, {numbers[0]} first"))
        self.crash(lambda piece: piece not in lost)

    def kill(self) -> None:
        """End the process: its files are closed and its locks released; its writes stay in the page cache."""
        self._locks.clear()
        for file in self._open:
            file.is_open = False
        self._open.clear()
        self.before = _nothing
        self.disarm()

    def disarm(self) -> None:
        """Cancel all planned faults; the power is on."""
        self._armed = False
        self._is_off = False
        self._cut_in = 0
        self._failures.clear()
        self._misdirect = None

    def wipe(self) -> None:
        """Become an empty disk of the same capacity."""
        self.kill()
        self._directories = {"/": _Directory()}
        self._used = 0

    def flip_bit(self, random: Random, files: str = ".wal") -> DiskEvent | None:
        """Flip a random bit on disk, in a file whose name ends in ``files``, before its trailing zeros.

        Returns None and changes nothing if there is no such bit, or if something is damaged already.
        """
        choices = [(path, size) for path, inode in self._files(files) if (size := len(inode.durable.rstrip(b"\0")))]
        if self.is_damaged() or not choices:
            return None
        path, size = random.choice(choices)
        offset, mask = random.randrange(size), 1 << random.randrange(8)
        self.flip(path, offset, mask)
        self.events.append(DiskEvent("flipped", path, f"{mask:#04x} of byte {offset}"))
        return self.events[-1]

    def misdirect_next_write(self, random: Random, files: str = ".wal") -> None:
        """Send the next write to another place in its own file, or in another one with the same ending.

        This affects the next write of whole sectors, the first not all zeros, to a file whose name ends in ``files``.
        The program sees it only after it opens the files again. It has no effect while anything is damaged.
        """
        self._misdirect = (random, files)

    # --- the state of the disk

    def used(self) -> int:
        """Return the bytes that files occupy, in whole sectors."""
        if self._used is None:
            self._used = sum(_whole_sectors(len(inode.cached)) for _, inode in self._files())
        return self._used

    def pending(self) -> Sequence[Piece]:
        """Return everything that a crash may lose, in a deterministic order."""
        pieces = []
        for path, directory in self._directories.items():
            pieces += [Piece("name", path, number) for number in range(len(directory.pending))]
            for name, inode in directory.live.items():
                file = f"{path.rstrip('/')}/{name}"
                pieces += [Piece("sector", file, sector) for sector in inode.dirty]
                if len(inode.cached) > len(inode.durable):
                    pieces.append(Piece("size", file, len(inode.cached)))
        return pieces

    def is_damaged(self) -> bool:
        """Whether the disk holds wrong data that was not overwritten since, or will after the next sync."""
        inodes = [inode for directory in self._directories.values() for inode in directory.live.values()]
        return any(inode.damaged or inode.astray for inode in inodes)

    def open_files(self) -> Sequence[str]:
        """Return the paths of the open files, including locks."""
        return sorted(file.path for file in self._open)

    def files(self) -> dict[str, bytes]:
        """Return the content of every file as a reader sees it, by path."""
        return {path: bytes(inode.cached) for path, inode in self._files()}

    def clone(self) -> SimulatedDisk:
        """Return a copy of this disk for another process, without planned faults."""
        copies: dict[int, _Inode] = {}

        def copy(inode: _Inode) -> _Inode:
            if id(inode) not in copies:
                twin = copies[id(inode)] = _Inode()
                twin.cached, twin.durable = inode.cached[:], inode.durable[:]
                twin.unsynced, twin.stale, twin.damaged = inode.unsynced[:], set(inode.stale), set(inode.damaged)
                twin.astray = {at: (copy(other), to, event) for at, (other, to, event) in inode.astray.items()}
            return copies[id(inode)]

        other = SimulatedDisk(self.capacity)
        other._used = None
        for path, directory in self._directories.items():
            twin = other._directories[path] = _Directory()
            twin.live = {name: copy(inode) for name, inode in directory.live.items()}
            twin.durable = {name: copy(inode) for name, inode in directory.durable.items()}
            twin.pending = [
                {name: inode and copy(inode) for name, inode in change.items()} for change in directory.pending
            ]
        return other

    # --- direct changes, for tests

    def put(self, path: str, data: bytes) -> None:
        """Create or replace a file with this content, durably."""
        self.make_directory(dirname(path))
        directory = self._directories[dirname(path)]
        directory.live[basename(path)] = directory.durable[basename(path)] = _Inode(data)
        self._used = None

    def flip(self, path: str, offset: int, mask: int = 0xFF) -> None:
        """Flip the bits of ``mask`` in a byte, on disk."""
        inode = self._inode(path)
        inode.cached[offset] ^= mask
        if offset < len(inode.durable):
            inode.durable[offset] ^= mask
            inode.damaged.add(offset // SECTOR)

    # --- internals

    def _operation(self, operation: str, path: str) -> None:
        """Raise the planned fault of this operation, if there is one."""
        self.before(operation, path)
        if not self._armed:
            return
        if self._cut_in:
            self._cut_in -= 1
            if not self._cut_in:
                self._is_off = True
                self.events.append(DiskEvent("cut", path, f"before {operation}"))
        if self._is_off:
            raise PowerCut
        failure = self._failures.get(operation)
        if failure is not None and failure.after:
            self._failures[operation] = failure._replace(after=failure.after - 1)
        elif failure is not None:
            # A write removes its failure itself, because it has to know how much is written anyway.
            if operation != "write":
                del self._failures[operation]
            self.events.append(DiskEvent("failed", path, f"{operation}: {os.strerror(failure.number)}"))
            raise fails_with(failure.number, path)

    def _written_by_failed_write(self) -> int:
        """Return how many bytes the write that has just failed wrote anyway."""
        failure = self._failures.pop("write", None)
        return failure.written * SECTOR if failure else 0

    def _astray(self, inode: _Inode, path: str, offset: int, data: bytes) -> None:
        """Send a finished write to another place, if there is one where a reader can find it."""
        assert self._misdirect is not None
        random, files = self._misdirect
        aligned = offset % SECTOR == 0 and len(data) % SECTOR == 0
        if not path.endswith(files) or not aligned or not data[:SECTOR].strip(b"\0"):
            return
        self._misdirect = None
        own = offset // SECTOR
        choices = [
            (name, other, places)
            for name, other in self._files(files)
            if (places := len(other.durable) // SECTOR - (other is inode and own < len(other.durable) // SECTOR)) > 0
        ]
        if self.is_damaged() or not choices:
            return
        name, other, places = random.choice(choices)
        place = random.randrange(places)
        if other is inode and place >= own:
            place += 1
        count = len(data) // SECTOR
        detail = f"{count} sectors from sector {own} to sector {place} of {name}"
        event = DiskEvent("misdirected", path, detail)
        inode.astray = {own + i: (other, place + i, event) for i in range(count)}

    def _files(self, ending: str = "") -> Iterator[tuple[str, _Inode]]:
        """Yield all files whose names have this ending."""
        for path, directory in self._directories.items():
            prefix = path.rstrip("/")
            for name, inode in directory.live.items():
                if name.endswith(ending):
                    yield f"{prefix}/{name}", inode

    def _change(self, directory: _Directory, names: dict[str, _Inode | None]) -> None:
        directory.change(names)
        self._used = None

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


class _OpenFile:
    """An open file of a ``SimulatedDisk``; it fails after its process has ended."""

    def __init__(self, disk: SimulatedDisk, inode: _Inode, path: str, *, is_lock: bool = False) -> None:
        self._disk = disk
        self._inode = inode
        self.path = path
        self.is_open = True
        self._is_lock = is_lock
        disk._open.append(self)

    def read(self, offset: int, size: int) -> bytes:
        """Return up to ``size`` bytes at ``offset``; fewer at the end of the file."""
        self._operation("read")
        return bytes(memoryview(self._inode.cached)[offset : offset + size])

    def write(self, offset: int, data: bytes) -> None:
        """Write; if the disk becomes full, only a part."""
        disk, inode = self._disk, self._inode
        try:
            self._operation("write")
        except OSError:
            self._write_in_room(offset, data[: disk._written_by_failed_write()])
            raise
        if offset + len(data) <= len(inode.cached):
            inode.write(offset, data)
        elif not self._write_in_room(offset, data):
            disk.events.append(DiskEvent("full", self.path, f"a write of {len(data)} bytes at {offset}"))
            raise fails_with(errno.ENOSPC, self.path)
        if disk._misdirect is not None:
            disk._astray(inode, self.path, offset, data)

    def sync(self) -> None:
        """Sync content and size; if that fails, the unsynced data is lost."""
        try:
            self._operation("sync")
        except OSError:
            self._inode.fail_sync()
            raise
        self._disk.events += self._inode.sync()

    def size(self) -> int:
        """Return the file's size."""
        self._operation("size")
        return len(self._inode.cached)

    def close(self) -> None:
        """Close the file; a second time does nothing."""
        if self.is_open:
            self.is_open = False
            self._disk._open.remove(self)
            if self._is_lock:
                self._disk._locks.discard(self.path)

    def _write_in_room(self, offset: int, data: bytes) -> bool:
        """Write as much as fits; return whether that is everything."""
        disk, inode = self._disk, self._inode
        free_bytes = max(0, disk.capacity - disk.used()) // SECTOR * SECTOR
        limit = _whole_sectors(len(inode.cached)) + free_bytes
        inode.write(offset, data[: max(0, limit - offset)])
        disk._used = None
        return offset + len(data) <= limit

    def _operation(self, operation: str) -> None:
        if not self.is_open:
            # Without power, a process must not see its files as closed.
            raise PowerCut if self._disk._is_off else fails_with(errno.EBADF, self.path)
        self._disk._operation(operation, self.path)


def _whole_sectors(size: int) -> int:
    return -(-size // SECTOR) * SECTOR
