"""The link between nodes: one connection to each peer for our messages, one from each peer for its messages.

A control lane goes before a bulk lane; what waits is bounded, bulk messages that do not fit or whose peer is not
connected are refused at once, and nothing is ever sent twice. Whoever is at the other end, nothing that arrives is
trusted before the handshake, nor believed to come from another node after it.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Any

from raftkv.actors.system.link.dialling import OutboundPeer
from raftkv.actors.system.link.handshake import ID_BYTES, PeerIdentity
from raftkv.actors.system.link.incoming import InboundConnections
from raftkv.actors.system.link.listener import Listener
from raftkv.actors.system.link.resolver import split_address
from raftkv.actors.system.link.settings import Codec, Context, LinkSettings, Stats

__all__ = ["Codec", "Link", "LinkSettings", "Stats"]


class Link:
    """All connections of one node. To be used on the thread of the loop that ``start`` runs on.

    ``peers`` are addresses (``host:port``) by node id. ``receive(peer, target, source, message)`` is called for each
    message of a proven peer. ``on_up(peer)`` and ``on_down(peer, reason)`` take turns: in between, messages are
    carried; after ``on_down``, any not yet received may be lost. ``on_refused(peer, target, source, message, reason)``
    gives back a bulk message of which nothing has left this node. None of them may raise.
    """

    def __init__(
        self,
        settings: LinkSettings,
        peers: dict[str, str],
        codec: Codec,
        *,
        receive: Callable[[str, str, str, Any], None],
        on_up: Callable[[str], None],
        on_down: Callable[[str, str], None],
        on_refused: Callable[[str, str, str, Any, str], None],
        cluster_id: Callable[[], str | None],
        rng: random.Random,
    ) -> None:
        self._context = Context(settings, codec, receive, on_up, on_down, on_refused, cluster_id, rng)
        self._addresses: dict[str, str] = {}
        self._peers: dict[str, OutboundPeer] = {}
        self._inbound = InboundConnections(self._context, self._peers.__contains__, self._met)
        self._listener = Listener(self._inbound.accept, self._context.log)
        self._started = False
        self._timer: asyncio.TimerHandle | None = None
        self.port = settings.listen_port
        for peer, address in peers.items():
            self.add_peer(peer, address)

    @property
    def stats(self) -> Stats:
        """What was counted since the start."""
        return self._context.stats

    async def start(self) -> None:
        """Listen (``port`` says where) and begin to dial every peer; raises ``OSError`` where the port is in use."""
        settings = self._context.settings
        self.port = await self._listener.start(settings.listen_host, settings.listen_port)
        self._started = True
        for peer, address in self._addresses.items():
            self._begin(peer, address)
        self._tick()

    def send(self, peer: str, target: str, source: str, message: Any) -> None:
        """Send ``message`` of actor ``source`` to actor ``target`` on ``peer``; never blocks."""
        known = self._peers.get(peer)
        if known is not None:
            known.send(target, source, message)
        elif not self._context.codec.is_control(message):
            self.stats.bulk_refused += 1
            loop = asyncio.get_running_loop()
            loop.call_soon(self._context.on_refused, peer, target, source, message, "not a peer")
        else:
            self.stats.control_dropped += 1

    def waiting(self, peer: str) -> int:
        """Return how many bytes wait to be sent to ``peer``."""
        known = self._peers.get(peer)
        return 0 if known is None else known.waiting

    def connected(self, peer: str) -> bool:
        """Whether messages to ``peer`` are carried now."""
        known = self._peers.get(peer)
        return known is not None and known.up

    def peer_refusals(self) -> dict[str, str]:
        """Return why each peer that is not connected is not, for people."""
        return {peer.id: peer.refusal for peer in self._peers.values() if not peer.up}

    def identity(self, peer: str) -> PeerIdentity | None:
        """Return who ``peer`` proved to be when it connected to us, or None while it is not."""
        return self._inbound.identity(peer)

    def add_peer(self, peer: str, address: str) -> None:
        """Dial ``peer`` and let it in; a known one has a new address. Raises ``ValueError`` for what can't be one."""
        if peer == self._context.settings.node_id or not 0 < len(peer.encode()) <= ID_BYTES:
            raise ValueError(f"not the id of a peer: {peer!r}")
        split_address(address)
        self._addresses[peer] = address
        if self._started:
            self._begin(peer, address)

    def pause_receiving(self) -> None:
        """Read nothing from peers until ``resume_receiving``; what has been read already may still be received.

        For who can't keep up: peers then feel it in their own lanes. After their ``silence_ms`` they give us up.
        """
        self._inbound.pause(True)

    def resume_receiving(self) -> None:
        """Read from peers again."""
        self._inbound.pause(False)

    async def close(self) -> None:
        """Send what waits, for ``close_ms`` at most, then end everything."""
        if self._timer is not None:
            self._timer.cancel()
        await self._listener.close()
        grace_s = self._context.settings.close_ms / 1000
        peers = list(self._peers.values())
        await asyncio.gather(*(peer.close("closing", grace_s) for peer in peers))
        self._peers.clear()
        await self._inbound.close()

    def _begin(self, peer: str, address: str) -> None:
        known = self._peers.get(peer)
        if known is None:
            known = self._peers[peer] = OutboundPeer(self._context, peer, address)
            known.start()
        else:
            known.move(address)

    def _met(self, peer: str) -> None:
        self._peers[peer].hurry()

    def _tick(self) -> None:
        for peer in self._peers.values():
            peer.tick()
        self._inbound.tick()
        delay = self._context.settings.ping_ms / 1000
        self._timer = asyncio.get_running_loop().call_later(delay, self._tick)
