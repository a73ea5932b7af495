"""Actor sources, as Thespian has them: zip files of actor classes that a source authority has validated.

This module keeps the books: which sources are loaded, which actor is the source authority, which actors listen. The
part that patches Python's import machinery, ``source_loading``, is imported with the first validated source, so a
process that loads no sources never imports it. Sources can be validated only on a system with the capability
``Allow Actor Sources``.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from thespian.actors import (
    InvalidActorSourceHash,
    LoadedSource,
    UnloadedSource,
    ValidatedSource,
    ValidateSource,
)

from raftkv.actors.system.base.addresses import NodeAddress
from raftkv.actors.system.base.router import Router

log = logging.getLogger("raftkv.system")

ALLOWED = "Allow Actor Sources"


@dataclass(frozen=True, slots=True)
class Source:
    """A validated source; the field names are those that Thespian's loader and status answers expect."""

    zipsrc: bytes
    srcInfo: str
    source_valid: bool = True


class Sources:
    """The loaded sources, their authority and their listeners. On the loop's thread, unless noted."""

    def __init__(
        self, router: Router, sender: NodeAddress, capabilities: Mapping[str, Any], in_use: Callable[[str], bool]
    ) -> None:
        """Send through ``router`` from ``sender``; ``in_use`` says whether an actor was made from a source's hash."""
        self.loaded: dict[str, Source] = {}
        self.authority: NodeAddress | None = None
        self._router = router
        self._sender = sender
        self._capabilities = capabilities
        self._in_use = in_use
        self._requested: set[str] = set()
        self._unloaded: set[str] = set()
        self._listeners: dict[int, NodeAddress] = {}

    def loader(self, source_hash: Any) -> Callable[[str, str], Any] | None:
        """Return what finds a class in the source ``source_hash``, or None without one. From any thread.

        Raises ``InvalidActorSourceHash``.
        """
        if not source_hash:
            return None
        if source_hash not in self.loaded:
            raise InvalidActorSourceHash(source_hash)
        from raftkv.actors.system.base import source_loading

        return source_loading.class_loader(source_hash, self.loaded)

    def register_authority(self, address: NodeAddress) -> None:
        """Make the actor at ``address`` the source authority, if this system loads sources."""
        if self._capabilities.get(ALLOWED):
            self.authority = address
        else:
            log.warning("%s can't be the source authority: this system loads no sources", address)

    def register_listener(self, address: NodeAddress, enable: bool) -> None:
        """Add or remove a listener; a new one is notified of the sources that are loaded already."""
        self._listeners.pop(address.number, None)
        if enable:
            self._listeners[address.number] = address
            for source_hash, source in self.loaded.items():
                self._router.send(address, LoadedSource(source_hash, source.srcInfo), self._sender)

    def unregister(self, address: NodeAddress, source_hash: Any) -> None:
        """Remove the actor at ``address``, made from the source ``source_hash``, after its end. From any thread."""
        self._listeners.pop(address.number, None)
        if self.authority is not None and self.authority.number == address.number:
            self.authority = None
        if source_hash in self._unloaded:
            self._router.message_loop.call(lambda: self._forget_modules(source_hash))

    def request(self, data: bytes, info: str) -> str:
        """Have the authority validate a source; returns the source's hash at once. From any thread."""
        # Thespian names sources by this hash. It protects nothing: the authority decides which sources are loaded.
        source_hash = hashlib.md5(data, usedforsecurity=False).hexdigest()
        self._router.message_loop.call(lambda: self._ask_authority(source_hash, data, info))
        return source_hash

    def _ask_authority(self, source_hash: str, data: bytes, info: str) -> None:
        if source_hash in self.loaded:
            log.info("source %s is loaded already", source_hash)
        elif self.authority is None:
            log.warning("no source authority to validate source %s", source_hash)
        else:
            self._requested.add(source_hash)
            self._router.send(self.authority, ValidateSource(source_hash, data, info), self._sender)

    def validated(self, answer: ValidatedSource, sender: Any) -> None:
        """Handle the authority's answer."""
        if self.authority is None or sender != self.authority or answer.sourceHash not in self._requested:
            log.warning("%s validates source %s, which was not requested from it", sender, answer.sourceHash)
            return
        self._requested.discard(answer.sourceHash)
        if not answer.sourceZip:
            log.warning("source %s was rejected by the source authority", answer.sourceHash)
            return
        from raftkv.actors.system.base import source_loading

        try:
            source_loading.check_archive(answer.sourceHash, answer.sourceZip)
        except Exception:
            log.exception("source %s is damaged", answer.sourceHash)
            return
        info = str(answer.sourceInfo)
        self.loaded[answer.sourceHash] = Source(answer.sourceZip, info)
        self._unloaded.discard(answer.sourceHash)
        self._notify(LoadedSource(answer.sourceHash, info))

    def unload(self, source_hash: str) -> None:
        """Unload a source. Actors made from it keep running; its modules stay until they end, for further imports."""
        self._requested.discard(source_hash)
        source = self.loaded.pop(source_hash, None)
        if source is not None:
            self._unloaded.add(source_hash)
            self._forget_modules(source_hash)
            self._notify(UnloadedSource(source_hash, source.srcInfo))

    def unload_all(self) -> None:
        """Unload every source after the end of all actors, and restore Python's own ``import``."""
        if self.loaded or self._unloaded:
            from raftkv.actors.system.base import source_loading

            for source_hash in list(self.loaded):
                self.unload(source_hash)
            source_loading.restore_import()

    def _forget_modules(self, source_hash: str) -> None:
        if source_hash not in self.loaded and not self._in_use(source_hash):
            from raftkv.actors.system.base import source_loading

            source_loading.forget_modules(source_hash)

    def _notify(self, message: LoadedSource | UnloadedSource) -> None:
        for address in list(self._listeners.values()):
            self._router.send(address, message, self._sender)
