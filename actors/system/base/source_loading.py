"""Source loading, as Thespian has it: actors from zip files that a source authority has approved.

Off unless the system has the capability ``Allow Actor Sources``: loading patches ``sys.meta_path`` and
``builtins.__import__`` for the whole process, and runs code that somebody handed in. Thespian's ``sourceLoader`` does
the work; this module keeps the books.
"""

from __future__ import annotations

import builtins
import functools
import hashlib
import logging
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from thespian.actors import (
    InvalidActorSourceHash,
    LoadedSource,
    UnloadedSource,
    ValidatedSource,
    ValidateSource,
)
from thespian.system.sourceLoader import SourceHashFinder, loadModuleFromHashSource

from raftkv.actors.system.base.actor_cell import ActorCell
from raftkv.actors.system.base.addresses import NodeAddress

if TYPE_CHECKING:
    from raftkv.actors.system.base.base import EventLoopBase

log = logging.getLogger("raftkv.system")

# Every module of a loaded source puts a function of its own into this place, for the whole process.
_original_import = builtins.__import__

ALLOWED = "Allow Actor Sources"


@dataclass(frozen=True, slots=True)
class Source:
    """A source that has been validated; the names are those that ``sourceLoader`` and status answers look for."""

    zipsrc: bytes
    srcInfo: str
    source_valid: bool = True


class Sources:
    """The loaded sources, their authority, and the actors that want to know of them. On the loop's thread."""

    def __init__(self, base: EventLoopBase) -> None:
        self._base = base
        self.loaded: dict[str, Source] = {}
        self._requested: set[str] = set()
        self._unloaded: set[str] = set()
        self.authority: NodeAddress | None = None
        self._listeners: dict[int, NodeAddress] = {}

    def loader(self, source_hash: Any) -> Callable[[str, str], Any] | None:
        """Return what finds a class in the source ``source_hash``, or None without one. From any thread."""
        if not source_hash:
            return None
        if source_hash not in self.loaded:
            raise InvalidActorSourceHash(source_hash)
        return functools.partial(loadModuleFromHashSource, source_hash, self.loaded)

    def register_authority(self, address: NodeAddress) -> None:
        """Let the actor at ``address`` decide on sources, if this system loads any."""
        if self._base.capabilities.get(ALLOWED):
            self.authority = address
        else:
            log.warning("%s wants to be source authority, but this system loads no sources", address)

    def register_listener(self, address: NodeAddress, enable: bool) -> None:
        """Add or remove a listener; a new one is told of the sources that are there already."""
        self._listeners.pop(address.number, None)
        if enable:
            self._listeners[address.number] = address
            for source_hash, source in self.loaded.items():
                self._base.send(address, LoadedSource(source_hash, source.srcInfo), self._base.address)

    def unregister(self, cell: ActorCell) -> None:
        """Remove an actor that has ended. From any thread."""
        number = cell.address.number
        self._listeners.pop(number, None)
        if self.authority is not None and self.authority.number == number:
            self.authority = None
        source_hash = cell.spec.source_hash
        if source_hash in self._unloaded:
            self._base.message_loop.call(lambda: self._forget_modules(source_hash))

    def request(self, data: bytes, info: str) -> str:
        """Have a source validated; returns its hash at once. From any thread."""
        # Thespian's name for a source, no protection: approving it is the authority's affair.
        source_hash = hashlib.md5(data, usedforsecurity=False).hexdigest()
        self._base.message_loop.call(lambda: self._ask_authority(source_hash, data, info))
        return source_hash

    def _ask_authority(self, source_hash: str, data: bytes, info: str) -> None:
        if source_hash in self.loaded:
            log.info("source %s is loaded already", source_hash)
        elif self.authority is None:
            log.warning("no source authority to validate source %s", source_hash)
        else:
            self._requested.add(source_hash)
            self._base.send(self.authority, ValidateSource(source_hash, data, info), self._base.address)

    def validated(self, answer: ValidatedSource, sender: Any) -> None:
        """Take the authority's answer."""
        if self.authority is None or sender != self.authority or answer.sourceHash not in self._requested:
            log.warning("%s validates source %s, which nobody asked of it", sender, answer.sourceHash)
            return
        self._requested.discard(answer.sourceHash)
        if not answer.sourceZip:
            log.warning("source %s rejected by the source authority", answer.sourceHash)
            return
        try:
            SourceHashFinder(answer.sourceHash, lambda data: data, answer.sourceZip).getZipNames()
        except Exception:
            log.exception("source %s is damaged", answer.sourceHash)
            return
        info = str(answer.sourceInfo)
        self.loaded[answer.sourceHash] = Source(answer.sourceZip, info)
        self._unloaded.discard(answer.sourceHash)
        self._tell(LoadedSource(answer.sourceHash, info))

    def unload(self, source_hash: str) -> None:
        """Forget a source. Its actors live on, and its modules with them, as they may import more of it."""
        self._requested.discard(source_hash)
        source = self.loaded.pop(source_hash, None)
        if source is not None:
            self._unloaded.add(source_hash)
            self._forget_modules(source_hash)
            self._tell(UnloadedSource(source_hash, source.srcInfo))

    def unload_all(self) -> None:
        """Forget every source, once all actors have ended, and give Python its ``import`` back."""
        if self.loaded or self._unloaded:
            for source_hash in list(self.loaded):
                self.unload(source_hash)
            builtins.__import__ = _original_import

    def _forget_modules(self, source_hash: str) -> None:
        """Take the modules of an unloaded source out of Python, unless there are still actors made from it."""
        cells = list(self._base.receivers.values())
        if source_hash in self.loaded or any(
            isinstance(cell, ActorCell) and cell.spec.source_hash == source_hash for cell in cells
        ):
            return
        for finder in [finder for finder in sys.meta_path if getattr(finder, "srcHash", None) == source_hash]:
            sys.meta_path.remove(finder)
            guardian = finder.hashRoot()  # type: ignore[attr-defined]
            for module in [name for name in sys.modules if name.startswith(guardian)]:
                del sys.modules[module]

    def _tell(self, message: LoadedSource | UnloadedSource) -> None:
        for address in list(self._listeners.values()):
            self._base.send(address, message, self._base.address)
