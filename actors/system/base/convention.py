"""Who wants to know when peers come and go: Thespian's convention updates."""

from __future__ import annotations

from typing import TYPE_CHECKING

from thespian.actors import ActorSystemConventionUpdate

from raftkv.actors.system.base.addresses import NodeAddress, remote_address

if TYPE_CHECKING:
    from raftkv.actors.system.base.base import EventLoopBase


class Convention:
    """The peers that are connected, and the actors that asked for ``ActorSystemConventionUpdate``."""

    def __init__(self, base: EventLoopBase) -> None:
        self._base = base
        self._peers: set[str] = set()
        self._listeners: dict[int, NodeAddress] = {}

    def register(self, address: NodeAddress, enable: bool) -> None:
        """Add or remove a listener; a new one is told of the peers that are there already."""
        self._listeners.pop(address.number, None)
        if enable:
            self._listeners[address.number] = address
            for peer in sorted(self._peers):
                self._tell(address, peer, True)

    def unregister(self, number: int) -> None:
        """Remove a listener that has ended. From any thread."""
        self._listeners.pop(number, None)

    def listeners(self) -> list[NodeAddress]:
        """Return who is listening."""
        return list(self._listeners.values())

    def peer_changed(self, peer: str, up: bool) -> None:
        """Tell the listeners that ``peer`` has come or gone, unless they know."""
        if (peer in self._peers) == up:
            return
        (self._peers.add if up else self._peers.discard)(peer)
        for address in self.listeners():
            self._tell(address, peer, up)

    def _tell(self, address: NodeAddress, peer: str, up: bool) -> None:
        update = ActorSystemConventionUpdate(remote_address(peer, ""), {"Node": peer}, up)
        self._base.send(address, update, self._base.address)
