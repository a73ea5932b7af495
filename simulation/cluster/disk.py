"""A disk in memory that forgets and fails as real ones do: what was not synced is lost in part, in any part.

What has been written but not synced is a list of pieces (``SimulatedDisk.pending``): sectors of 512 bytes, sizes of
files, names in directories. ``crash`` keeps the pieces it is told to keep and loses the rest; ``kill`` ends the
process alone, whose writes the system still holds in memory.

Faults are asked for, and chance is the caller's ``random.Random``; ``happened`` tells which came to pass. The disk
has no clock: how long a sync takes is up to whoever waits for it. This is what a disk may do here, and no more:

- Lose power ahead of any operation (``cut_after``), and keep any part of what was pending (``crash_at_random``).
  A sector is written whole or not at all, so a torn write is one that misses sectors. The journal stands on that
  (``raftkv/journal/format.py``), and so there are no half sectors.
- Fail an operation (``fail``), and be full (``capacity``). What a failed sync was to save is lost, while memory
  shows it until the file is opened again.
- Damage what it holds: ``flip_bit``, and ``misdirect_next_write``, whose data goes elsewhere while all seems well.
  One at a time: while anything is damaged (``is_damaged``) both decline, because two can hide each other.
- Say that a sync is done when it is not: never. Nothing that relies on its own disk can survive that.

**What no journal can notice is not done.** Nothing points at what was written last, so if that batch goes astray to
where nobody looks for batches it is as if it had never been, and the node goes on without what it acknowledged.
Hence a write that is misdirected has content (zeros would wipe another) and lands in a file of the same kind, at
a sector's start: the reader comes upon it there. Such a file must stay as long as the gap that the data left.
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
    """Something that may be lost: ``kind`` is ``sector``, ``size`` or ``name``, ``number`` tells several apart."""

    kind: str
    path: str
    number: int


class Happened(NamedTuple):
    """A fault that came to pass.

    ``kind`` is ``cut``, ``lost`` (pieces of it, at a crash), ``failed``, ``full``, ``flipped`` or ``misdirected``;
    ``detail`` is for people.
    """

    kind: str
    path: str
    detail: str


class PowerCut(BaseException):
    """Raised where the machine stops, and by whatever is tried after: no code of the program's may catch it."""


def fails_with(number: int, path: str) -> OSError:
    """Return the ``OSError`` of this number as the system would make it."""
    return OSError(number, os.strerror(number), path)


class _Inode:
    """A file's content: as a reader sees it, and as it is on disk."""

    def __init__(self, content: bytes = b"") -> None:
        self.cached = bytearray(content)
        self.durable = bytearray(content)
        self.unsynced: list[range] = []
        """The sectors of each write since the last sync."""
        self.astray: dict[int, tuple[_Inode, int, Happened]] = {}
        """Unsynced sectors that will get to disk in another place: where, and how that is told."""
        self.stale: set[int] = set()
        """Sectors that memory shows in another way than the disk does, though nothing waits to be written."""
        self.damaged: set[int] = set()
        """Sectors that hold on disk what was never to be there."""

    @property
    def dirty(self) -> list[int]:
        """The sectors that wait to be written, in order."""
        return sorted({sector for run in self.unsynced for sector in run})

    def write(self, offset: int, data: bytes) -> None:
        """Change what a reader sees."""
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
        """Get the size to disk."""
        missing = len(self.cached) - len(self.durable)
        if missing > 0:
            self.durable.extend(bytes(missing))

    def keep_sector(self, sector: int) -> Happened | None:
        """Get one sector to disk, or to where the disk puts it; then say so."""
        start, end = sector * SECTOR, min((sector + 1) * SECTOR, len(self.cached))
        if sector in self.astray:
            other, place, happened = self.astray[sector]
            self.stale.add(sector)
            self.damaged.add(sector)
            # What goes beyond the end of the other file lands where nobody has anything.
            if (place + 1) * SECTOR <= len(other.durable):
                other.durable[place * SECTOR : (place + 1) * SECTOR] = self.cached[start:end]
                other.stale.add(place)
                other.damaged.add(place)
            return happened
        self.durable.extend(bytes(max(0, end - len(self.durable))))
        self.durable[start:end] = self.cached[start:end]
        self.damaged.discard(sector)
        return None

    def sync(self) -> list[Happened]:
        """Get everything to disk; return what went wrong unnoticed."""
        self.keep_size()
        if self.astray:
            told = [happened for sector in self.dirty if (happened := self.keep_sector(sector))]
            self.forget_unsynced()
            return list(dict.fromkeys(told))
        for run in self.unsynced:
            start, end = run.start * SECTOR, run.stop * SECTOR
            self.durable[start:end] = self.cached[start:end]
            if self.damaged:
                self.damaged.difference_update(run)
        self.unsynced.clear()
        return []

    def fail_sync(self) -> None:
        """Give up what was to be synced, as Linux does: it still reads well."""
        self.stale.update(self.dirty)
        self.forget_unsynced()

    def forget_unsynced(self) -> None:
        """Have nothing that waits to be written."""
        self.unsynced.clear()
        self.astray.clear()

    def forget_cache(self) -> None:
        """See what is on disk, where nothing else waits to get there."""
        for sector in self.stale:
            start, end = sector * SECTOR, min((sector + 1) * SECTOR, len(self.cached))
            self.cached[start:end] = self.durable[start:end].ljust(end - start, b"\0")
        self.stale.clear()

    def crash(self) -> None:
        """Have nothing but what is on disk."""
        if self.cached != self.durable:
            self.cached[:] = self.durable
        self.forget_unsynced()
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


class _Failure(NamedTuple):
    after: int
    number: int
    written: int


def _nothing(operation: str, path: str) -> None:
    """Let an operation be done."""


class SimulatedDisk:
    """A ``Disk`` in memory. ``capacity`` is in bytes and may be changed at any time.

    ``before`` is called ahead of every operation and may raise: an ``OSError``, or what ends the process there.
    """

    def __init__(self, capacity: int = 1 << 40) -> None:
        self.capacity = capacity
        self.before: Callable[[str, str], None] = _nothing
        self.happened: list[Happened] = []
        self._directories: dict[str, _Directory] = {"/": _Directory()}
        self._locks: set[str] = set()
        self._open: list[_OpenFile] = []
        # What ``used`` counted last, until a file grows or a name changes.
        self._used: int | None = 0
        self._misdirect: tuple[Random, str] | None = None
        self._failures: dict[str, _Failure] = {}
        self.disarm()

    # --- What a program may do with it.

    def open(self, path: str, *, create: bool = False) -> File:
        """Open a file; one that exists is seen as it is on disk, but for what has yet to be synced."""
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
        """Rename, replacing ``new``."""
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
        """Return when the names in a directory are on disk."""
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

    # --- What may happen to it.

    def cut_after(self, operations: int) -> None:
        """Let the power fail ahead of the operation of this number from now, the next being 1.

        It raises ``PowerCut``, as does everything after it, until ``crash`` says what was on disk by then.
        """
        assert operations >= 1, operations
        self._cut_in = operations
        self._armed = True

    @property
    def is_cut(self) -> bool:
        """Whether the power is about to fail, or has failed."""
        return bool(self._cut_in) or self._is_off

    def fail(self, operation: str, number: int = errno.EIO, *, after: int = 0, written: int = 0) -> None:
        """Let ``operation`` fail once with this error, when it has succeeded ``after`` times more.

        It is the name of a method of ``Disk`` or ``File``, ``create`` when ``open`` is told to. Of a write, the
        first ``written`` sectors get to the file all the same.
        """
        self._failures[operation] = _Failure(after, number, written)
        self._armed = True

    def crash(self, keep: Callable[[Piece], bool] = lambda piece: False) -> None:
        """Lose power: of what was pending only what ``keep`` answers true to is there afterwards."""
        kept = {piece for piece in self.pending() if keep(piece)}
        for path, directory in self._directories.items():
            for name, inode in directory.live.items():
                file = f"{path.rstrip('/')}/{name}"
                told = [inode.keep_sector(sector) for sector in inode.dirty if ("sector", file, sector) in kept]
                self.happened += dict.fromkeys(filter(None, told))
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
        """Lose power, and of what was pending any part: often nothing, everything, or everything but one piece."""
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
            self.happened.append(Happened("lost", path, f"{len(numbers)} of {of} unsynced pieces, {numbers[0]} first"))
        self.crash(lambda piece: piece not in lost)

    def kill(self) -> None:
        """End the process: its files are closed and its locks gone, its writes stay where they are."""
        self._locks.clear()
        for file in self._open:
            file.is_open = False
        self._open.clear()
        self.before = _nothing
        self.disarm()

    def disarm(self) -> None:
        """Have no fault to come; the power is on."""
        self._armed = False
        self._is_off = False
        self._cut_in = 0
        self._failures.clear()
        self._misdirect = None

    def wipe(self) -> None:
        """Put an empty disk of the same capacity in its place."""
        self.kill()
        self._directories = {"/": _Directory()}
        self._used = 0

    def flip_bit(self, random: Random, files: str = ".wal") -> Happened | None:
        """Change a bit on disk, between the start and the last byte of content of a file whose name ends so.

        Returns None, with nothing changed, when there is no such bit or something is damaged already.
        """
        choices = [(path, size) for path, inode in self._files(files) if (size := len(inode.durable.rstrip(b"\0")))]
        if self.is_damaged() or not choices:
            return None
        path, size = random.choice(choices)
        offset, mask = random.randrange(size), 1 << random.randrange(8)
        self.flip(path, offset, mask)
        self.happened.append(Happened("flipped", path, f"{mask:#04x} of byte {offset}"))
        return self.happened[-1]

    def misdirect_next_write(self, random: Random, files: str = ".wal") -> None:
        """Let the next write go to another place: in its own file, or in another whose name ends alike.

        That is a write of whole sectors, the first not all zeros, to a file whose name ends in ``files``. The
        program sees nothing of it before it opens the files again. Nothing comes of it while anything is damaged.
        """
        self._misdirect = (random, files)

    # --- What may be asked about it.

    def used(self) -> int:
        """Return the bytes that files take, in whole sectors."""
        if self._used is None:
            self._used = sum(_whole_sectors(len(inode.cached)) for _, inode in self._files())
        return self._used

    def pending(self) -> Sequence[Piece]:
        """Return everything that a crash may lose, in an order that depends on nothing but what was done."""
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
        """Whether the disk holds anything wrong, or will after the next sync, that was not written anew since."""
        inodes = [inode for directory in self._directories.values() for inode in directory.live.values()]
        return any(inode.damaged or inode.astray for inode in inodes)

    def open_files(self) -> Sequence[str]:
        """Return the paths of the files that the process has open, locks among them."""
        return sorted(file.path for file in self._open)

    def files(self) -> dict[str, bytes]:
        """Return the content of every file by path, as a reader sees it."""
        return {path: bytes(inode.cached) for path, inode in self._files()}

    def clone(self) -> SimulatedDisk:
        """Return a disk in the same state for another process; no fault is to come to it."""
        copies: dict[int, _Inode] = {}

        def copy(inode: _Inode) -> _Inode:
            if id(inode) not in copies:
                twin = copies[id(inode)] = _Inode()
                twin.cached, twin.durable = inode.cached[:], inode.durable[:]
                twin.unsynced, twin.stale, twin.damaged = inode.unsynced[:], set(inode.stale), set(inode.damaged)
                twin.astray = {at: (copy(other), to, told) for at, (other, to, told) in inode.astray.items()}
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

    # --- What may be put there, for damage of all sorts.

    def put(self, path: str, data: bytes) -> None:
        """Make a file have this content, durably, however it came to that."""
        self.make_directory(dirname(path))
        directory = self._directories[dirname(path)]
        directory.live[basename(path)] = directory.durable[basename(path)] = _Inode(data)
        self._used = None

    def flip(self, path: str, offset: int, mask: int = 0xFF) -> None:
        """Change the bits of ``mask`` in a byte, on disk."""
        inode = self._inode(path)
        inode.cached[offset] ^= mask
        if offset < len(inode.durable):
            inode.durable[offset] ^= mask
            inode.damaged.add(offset // SECTOR)

    # --- Inside.

    def _operation(self, operation: str, path: str) -> None:
        """Stand ahead of every operation: where one fails."""
        self.before(operation, path)
        if not self._armed:
            return
        if self._cut_in:
            self._cut_in -= 1
            if not self._cut_in:
                self._is_off = True
                self.happened.append(Happened("cut", path, f"ahead of {operation}"))
        if self._is_off:
            raise PowerCut
        failure = self._failures.get(operation)
        if failure is not None and failure.after:
            self._failures[operation] = failure._replace(after=failure.after - 1)
        elif failure is not None:
            # Whoever writes takes it away: it has to know how much of the data is there all the same.
            if operation != "write":
                del self._failures[operation]
            self.happened.append(Happened("failed", path, f"{operation}: {os.strerror(failure.number)}"))
            raise fails_with(failure.number, path)

    def _written_all_the_same(self) -> int:
        """Return how many bytes a write has written that failed just now."""
        failure = self._failures.pop("write", None)
        return failure.written * SECTOR if failure else 0

    def _astray(self, inode: _Inode, path: str, offset: int, data: bytes) -> None:
        """Send a write that has been done to another place, if there is one where it will show."""
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
        happened = Happened("misdirected", path, detail)
        inode.astray = {own + i: (other, place + i, happened) for i in range(count)}

    def _files(self, ending: str = "") -> Iterator[tuple[str, _Inode]]:
        """Give all files whose names end so."""
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
    """An open file of a ``SimulatedDisk``; of no use after its process has ended."""

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
        """Write; where the disk gets full, a part of it."""
        disk, inode = self._disk, self._inode
        try:
            self._operation("write")
        except OSError:
            self._write_in_room(offset, data[: disk._written_all_the_same()])
            raise
        if offset + len(data) <= len(inode.cached):
            inode.write(offset, data)
        elif not self._write_in_room(offset, data):
            disk.happened.append(Happened("full", self.path, f"a write of {len(data)} bytes at {offset}"))
            raise fails_with(errno.ENOSPC, self.path)
        if disk._misdirect is not None:
            disk._astray(inode, self.path, offset, data)

    def sync(self) -> None:
        """Return when content and size are on disk; where that fails, what was to be synced never will be."""
        try:
            self._operation("sync")
        except OSError:
            self._inode.fail_sync()
            raise
        self._disk.happened += self._inode.sync()

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
        """Write as much as there is room for; return whether that is all."""
        disk, inode = self._disk, self._inode
        free_bytes = max(0, disk.capacity - disk.used()) // SECTOR * SECTOR
        limit = _whole_sectors(len(inode.cached)) + free_bytes
        inode.write(offset, data[: max(0, limit - offset)])
        disk._used = None
        return offset + len(data) <= limit

    def _operation(self, operation: str) -> None:
        if not self.is_open:
            # A process that has no power does not learn that its files are closed.
            raise PowerCut if self._disk._is_off else fails_with(errno.EBADF, self.path)
        self._disk._operation(operation, self.path)


def _whole_sectors(size: int) -> int:
    return -(-size // SECTOR) * SECTOR
