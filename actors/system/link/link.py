"""The link between nodes: one connection to each peer for our messages, one from each peer for its messages.

Sending: each peer has a control lane, which goes first, and a bulk lane, both bounded. A bulk message that does not
fit, or whose peer is not connected, is refused at once; control messages may be lost; no message is ever sent twice. So
a stopped peer costs bounded memory and delays no other peer. Receiving: no message is accepted before the handshake,
which proves the peer's identity, and afterwards only messages that the peer sends in its own name.
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
    """All connections of one node. Used on the thread of the loop on which ``start`` runs.

    ``peers`` are addresses (``host:port``) by node id. ``receive(peer, target, source, message)`` is called for each
    message of an authenticated peer. ``on_up(peer)`` and ``on_down(peer, reason)`` take turns: in between, messages are
    carried; after ``on_down``, any message not yet received may be lost. ``on_refused(peer, target, source, message,
    reason)`` gives back a bulk message of which nothing has left this node. None of the callbacks may raise.
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
        self._inbound = InboundConnections(self._context, self._peers.__contains__, self._peer_connected)
        self._listener = Listener(self._inbound.accept, self._context.log)
        self._started = False
        self._timer: asyncio.TimerHandle | None = None
        self.port = settings.listen_port
        for peer, address in peers.items():
            self.add_peer(peer, address)

    @property
    def stats(self) -> Stats:
        """The counts since the start."""
        return self._context.stats

    async def start(self) -> None:
        """Listen on ``port``, which is set then, and dial every peer; raises ``OSError`` if the port is in use."""
        settings = self._context.settings
        self.port = await self._listener.start(settings.listen_host, settings.listen_port)
        self._started = True
        for peer, address in self._addresses.items():
            self._dial(peer, address)
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
        """Return how many bytes are queued for ``peer``."""
        known = self._peers.get(peer)
        return 0 if known is None else known.waiting

    def connected(self, peer: str) -> bool:
        """Whether messages to ``peer`` are carried now."""
        known = self._peers.get(peer)
        return known is not None and known.up

    def peer_refusals(self) -> dict[str, str]:
        """Return, for each peer that is not connected, the reason in plain words."""
        return {peer.id: peer.refusal for peer in self._peers.values() if not peer.up}

    def identity(self, peer: str) -> PeerIdentity | None:
        """Return the identity that ``peer`` proved when it connected to us; None while it is not connected."""
        return self._inbound.identity(peer)

    def add_peer(self, peer: str, address: str) -> None:
        """Dial ``peer`` and accept its connections, or give a known peer a new address. Raises ``ValueError``."""
        if peer == self._context.settings.node_id or not 0 < len(peer.encode()) <= ID_BYTES:
            raise ValueError(f"not the id of a peer: {peer!r}")
        split_address(address)
        self._addresses[peer] = address
        if self._started:
            self._dial(peer, address)

    def pause_receiving(self) -> None:
        """Read nothing from peers until ``resume_receiving``; messages already read may still be received.

        This is backpressure: the peers' own lanes fill up. After their ``silence_ms`` they give us up.
        """
        self._inbound.pause(True)

    def resume_receiving(self) -> None:
        """Read from peers again."""
        self._inbound.pause(False)

    async def close(self) -> None:
        """Send what is queued, for at most ``close_ms``, then end all connections."""
        if self._timer is not None:
            self._timer.cancel()
        await self._listener.close()
        grace_s = self._context.settings.close_ms / 1000
        peers = list(self._peers.values())
        await asyncio.gather(*(peer.close("closing", grace_s) for peer in peers))
        self._peers.clear()
        await self._inbound.close()

    def _dial(self, peer: str, address: str) -> None:
        known = self._peers.get(peer)
        if known is None:
            known = self._peers[peer] = OutboundPeer(self._context, peer, address)
            known.start()
        else:
            known.set_address(address)

    def _peer_connected(self, peer: str) -> None:
        self._peers[peer].skip_backoff()

    def _tick(self) -> None:
        for peer in self._peers.values():
            peer.tick()
        self._inbound.tick()
        delay = self._context.settings.ping_ms / 1000
        self._timer = asyncio.get_running_loop().call_later(delay, self._tick)
