"""The directory that makes a node itself: its identity, the lock that keeps a second process out, its journal.

A data directory belongs to one incarnation of one node. A directory that was wiped gets another incarnation when it
is made again, so that the cluster can tell it from the member that had promised its votes.
"""

from __future__ import annotations

import os
from collections.abc import Callable

import msgspec
from google_crc32c import value as crc32c

from raftkv.environment import Disk, File
from raftkv.raft.entry import NodeId

FORMAT = 1
_IDENTITY = "identity"
_TEMPORARY = "identity.tmp"
_LOCK = "lock"
_JOURNAL = "journal"


class DataDirectoryError(Exception):
    """The data directory cannot be used; the message is one line for people."""


class Identity(msgspec.Struct, frozen=True):
    """Whose directory it is. ``format`` is the version in which the directory is laid out."""

    node_id: NodeId
    incarnation: str
    format: int = FORMAT


class DataDirectory(msgspec.Struct, frozen=True):
    """An open data directory; it is ours until ``close``."""

    path: str
    identity: Identity
    lock: File

    def close(self) -> None:
        """Let another process have the directory."""
        self.lock.close()


class _IdentityFile(msgspec.Struct, frozen=True):
    format: int
    node_id: str = ""
    incarnation: str = ""
    checksum: str = ""


def journal_directory(path: str) -> str:
    """Return where in the data directory ``path`` the journal is."""
    return os.path.join(path, _JOURNAL)


def open_data_directory(disk: Disk, path: str, node_id: NodeId, *, new_incarnation: Callable[[], str]) -> DataDirectory:
    """Take the data directory ``path`` of node ``node_id``, made if missing; raises ``DataDirectoryError``.

    ``new_incarnation`` is called when the directory is new and its answer kept there for good.
    """
    try:
        disk.make_directory(path)
        lock = _lock(disk, path)
        try:
            identity = read_identity(disk, path) or _make_identity(disk, path, node_id, new_incarnation)
            if identity.node_id != node_id:
                raise DataDirectoryError(f"data directory {path} belongs to node {identity.node_id}, not to {node_id}")
            # The name may be in memory only, after a crash between making the identity and this.
            disk.sync_directory(path)
        except BaseException:
            lock.close()
            raise
    except PermissionError as error:
        raise DataDirectoryError(f"data directory {path}: permission denied: {error.filename or path}") from error
    except (FileExistsError, NotADirectoryError) as error:
        raise DataDirectoryError(f"data directory {path} is not a directory") from error
    except OSError as error:
        raise DataDirectoryError(f"data directory {path}: {error.strerror or error}") from error
    return DataDirectory(path, identity, lock)


def read_identity(disk: Disk, path: str) -> Identity | None:
    """Return whose data directory ``path`` is, or None when that was never written there.

    Raises ``DataDirectoryError`` where it was written and cannot be read, ``OSError`` where the disk fails.
    """
    if _IDENTITY not in disk.list(path):
        return None
    file = disk.open(os.path.join(path, _IDENTITY))
    try:
        data = file.read(0, file.size())
    finally:
        file.close()
    name = os.path.join(path, _IDENTITY)
    try:
        found = msgspec.json.decode(data, type=_IdentityFile)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise DataDirectoryError(f"data directory {path}: {name} is damaged: {error}") from error
    if found.format > FORMAT:
        raise DataDirectoryError(
            f"data directory {path} has format {found.format}; this version of raftkv knows formats up to {FORMAT}"
        )
    identity = Identity(found.node_id, found.incarnation, found.format)
    if data != _encode_identity(identity):
        raise DataDirectoryError(f"data directory {path}: {name} is damaged: it does not have its checksum")
    return identity


def _lock(disk: Disk, path: str) -> File:
    try:
        return disk.lock(os.path.join(path, _LOCK))
    except BlockingIOError as error:
        raise DataDirectoryError(f"data directory {path} is held by another process") from error


def _make_identity(disk: Disk, path: str, node_id: NodeId, new_incarnation: Callable[[], str]) -> Identity:
    """Give a new directory its identity; a crash leaves all of it or nothing."""
    names = disk.list(path)
    if _JOURNAL in names and disk.list(journal_directory(path)):
        raise DataDirectoryError(
            f"data directory {path} has a journal but no file {_IDENTITY}: it is not known whose journal it is"
        )
    temporary = os.path.join(path, _TEMPORARY)
    if _TEMPORARY in names:
        disk.remove(temporary)
    identity = Identity(node_id, new_incarnation())
    file = disk.open(temporary, create=True)
    try:
        file.write(0, _encode_identity(identity))
        file.sync()
    finally:
        file.close()
    disk.rename(temporary, os.path.join(path, _IDENTITY))
    disk.sync_directory(path)
    return identity


def _encode_identity(identity: Identity) -> bytes:
    """Return the identity file: a line of JSON with a CRC32C of the other fields."""
    plain = _IdentityFile(identity.format, identity.node_id, identity.incarnation)
    checksum = f"{crc32c(msgspec.json.encode(plain)):08x}"
    return msgspec.json.encode(msgspec.structs.replace(plain, checksum=checksum)) + b"\n"
