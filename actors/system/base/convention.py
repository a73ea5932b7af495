"""Thespian's convention updates: which peers are connected, and which actors asked to be notified."""

from __future__ import annotations

from thespian.actors import ActorSystemConventionUpdate

from raftkv.actors.system.base.addresses import NodeAddress, remote_address
from raftkv.actors.system.base.router import Router


class Convention:
    """The connected peers, and the actors that get an ``ActorSystemConventionUpdate``. On the loop's thread."""

    def __init__(self, router: Router, sender: NodeAddress) -> None:
        """Send updates through ``router``, from the address ``sender``."""
        self._router = router
        self._sender = sender
        self._peers: set[str] = set()
        self._listeners: dict[int, NodeAddress] = {}

    def register(self, address: NodeAddress, enable: bool) -> None:
        """Add or remove a listener; a new one is sent an update for each peer that is connected already."""
        self._listeners.pop(address.number, None)
        if enable:
            self._listeners[address.number] = address
            for peer in sorted(self._peers):
                self._notify(address, peer, True)

    def unregister(self, number: int) -> None:
        """Remove a listener that has ended. From any thread."""
        self._listeners.pop(number, None)

    def listeners(self) -> list[NodeAddress]:
        """Return the addresses of the listeners."""
        return list(self._listeners.values())

    def peer_changed(self, peer: str, up: bool) -> None:
        """Notify the listeners that ``peer`` is connected or no longer, if that is a change."""
        if (peer in self._peers) == up:
            return
        (self._peers.add if up else self._peers.discard)(peer)
        for address in self.listeners():
            self._notify(address, peer, up)

    def _notify(self, address: NodeAddress, peer: str, up: bool) -> None:
        update = ActorSystemConventionUpdate(remote_address(peer, ""), {"Node": peer}, up)
        self._router.send(address, update, self._sender)
