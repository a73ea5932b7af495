"""The host: what actors, and the guardian above them, may ask of their actor system.

``ActorHost`` is the seam in the middle of this package, and the reason why its imports have no cycle: actor cells and
the guardian know the host; ``EventLoopBase`` implements it and knows the cells.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any

from raftkv.actors.system.base.actor_spec import ActorSpec
from raftkv.actors.system.base.addressable import Addressable
from raftkv.actors.system.base.addresses import NodeAddress
from raftkv.actors.system.base.convention import Convention
from raftkv.actors.system.base.router import Router
from raftkv.actors.system.base.sources import Sources


class ActorHost(Router, ABC):
    """A router that also creates actors and ends them.

    ``address`` is the system's own. ``threads`` are those of actors with ``own_thread``. ``closing`` is set once the
    shutdown has begun.
    """

    address: NodeAddress
    capabilities: dict[str, Any]
    closing: bool
    convention: Convention
    sources: Sources
    threads: set[threading.Thread]

    @abstractmethod
    def start_actor(self, address: NodeAddress, spec: ActorSpec, parent: Addressable) -> NodeAddress:
        """Create an actor; returns its address, or that of the actor that has its global name. From any thread.

        Raises what is wrong with the class, and what its ``__init__`` raises if that runs on this thread.
        """

    @abstractmethod
    def request_exit(self, address: NodeAddress) -> None:
        """Ask an actor and all below it to exit."""

    @abstractmethod
    def adopt(self, children: Iterable[NodeAddress]) -> None:
        """Make the guardian the parent of actors whose own parent has ended without them. From any thread."""

    @abstractmethod
    def forget(self, address: NodeAddress, spec: ActorSpec) -> None:
        """Remove an actor that has ended from all registers. From any thread."""

    @abstractmethod
    def set_capability(self, name: str, value: Any) -> None:
        """Set a capability or remove it (None), and end the actors that required it. On the loop's thread."""

    @abstractmethod
    def loadActorSource(self, source: Any) -> str:
        """Have the source authority validate a zip file (a path or a file object); returns its hash at once."""

    @abstractmethod
    def unloadActorSource(self, source_hash: str) -> None:
        """Unload a source."""

    @abstractmethod
    def begin_shutdown(self) -> None:
        """Begin to shut the system down. From any thread."""

    @abstractmethod
    def finish(self) -> None:
        """Finish the shutdown, after the end of all actors."""
