"""The data directory: a node's identity, its journal, and the lock that keeps a second process out.

A data directory belongs to one *incarnation* of one node. If the directory is wiped and created again, it gets another
incarnation: the node has lost its votes and its log, and the cluster must not take it for the member that had them.
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
    """The data directory cannot be used; the message is one line for the operator."""


class Identity(msgspec.Struct, frozen=True):
    """The node and incarnation that own the directory; ``format`` is the version of its layout."""

    node_id: NodeId
    incarnation: str
    format: int = FORMAT


class DataDirectory(msgspec.Struct, frozen=True):
    """An open data directory, locked for this process until ``close``."""

    path: str
    identity: Identity
    lock: File

    def close(self) -> None:
        """Release the lock."""
        self.lock.close()


class _IdentityFile(msgspec.Struct, frozen=True):
    format: int
    node_id: str = ""
    incarnation: str = ""
    checksum: str = ""


def journal_directory(path: str) -> str:
    """Return the directory of the journal in the data directory ``path``."""
    return os.path.join(path, _JOURNAL)


def open_data_directory(disk: Disk, path: str, node_id: NodeId, *, new_incarnation: Callable[[], str]) -> DataDirectory:
    """Lock the data directory ``path`` of node ``node_id``, creating it if missing; raises ``DataDirectoryError``.

    A new directory gets the incarnation that ``new_incarnation`` returns, for good.
    """
    try:
        disk.make_directory(path)
        lock = _lock(disk, path)
        try:
            identity = read_identity(disk, path) or _make_identity(disk, path, node_id, new_incarnation)
            if identity.node_id != node_id:
                raise DataDirectoryError(f"data directory {path} belongs to node {identity.node_id}, not to {node_id}")
            # After a crash right after the rename, the name of the identity file may be in memory only.
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
    """Return the identity of the data directory ``path``, or None if it has none.

    Raises ``DataDirectoryError`` if the identity is damaged or too new, ``OSError`` if the disk fails.
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
            f"data directory {path} has format {found.format}; this version of raftkv reads formats up to {FORMAT}"
        )
    identity = Identity(found.node_id, found.incarnation, found.format)
    if data != _encode_identity(identity):
        raise DataDirectoryError(f"data directory {path}: {name} is damaged: wrong checksum")
    return identity


def _lock(disk: Disk, path: str) -> File:
    try:
        return disk.lock(os.path.join(path, _LOCK))
    except BlockingIOError as error:
        raise DataDirectoryError(f"data directory {path} is in use by another process") from error


def _make_identity(disk: Disk, path: str, node_id: NodeId, new_incarnation: Callable[[], str]) -> Identity:
    """Write the identity of a new directory; a crash leaves all of it or nothing."""
    names = disk.list(path)
    if _JOURNAL in names and disk.list(journal_directory(path)):
        raise DataDirectoryError(
            f"data directory {path} has a journal but no file {_IDENTITY}, so the owner of the journal is unknown"
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
    """Return the content of the identity file: a line of JSON with a CRC32C of the other members."""
    plain = _IdentityFile(identity.format, identity.node_id, identity.incarnation)
    checksum = f"{crc32c(msgspec.json.encode(plain)):08x}"
    return msgspec.json.encode(msgspec.structs.replace(plain, checksum=checksum)) + b"\n"
