"""The connections that peers have opened to us: they carry the peers' messages.

A message is handed on only if it names as its sender the node that proved its identity on this connection. Connections
without a finished handshake are bounded in number and in time, and a flood of them keeps no peer out.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import msgspec

from raftkv.actors.system.link.connection import Connection
from raftkv.actors.system.link.frames import FROM_DIALLER, KEEPALIVE, Assembler, BadFrame, FrameReader, frame
from raftkv.actors.system.link.handshake import Acceptor, HandshakeRecord, PeerIdentity, Reason, Refusal
from raftkv.actors.system.link.settings import Context, logger

_decode_body = msgspec.msgpack.Decoder(tuple[str, str, memoryview]).decode


class Incoming(Connection):
    """A connection from a peer. ``peer`` is the identity that the other end has proved."""

    def __init__(self, context: Context, inbound: InboundConnections) -> None:
        super().__init__(context)
        self.peer: PeerIdentity | None = None
        self._counted = False
        self._inbound = inbound
        self._acceptor = Acceptor(context.identity(), context.settings.secret, inbound.known)
        self._assembler = Assembler(context.settings.message_bytes)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Register for the handshake."""
        super().connection_made(transport)
        self._inbound.opened(self)

    def got_record(self, record: HandshakeRecord) -> None:
        """Take the next step of the handshake."""
        answer = self._acceptor.gets(record)
        self.write(answer)
        if self._acceptor.peer is not None:
            self.peer = self._acceptor.peer
            self.expect_frames(FrameReader(self.context.settings.frame_bytes, FROM_DIALLER))
            self._inbound.authenticated(self, self.peer)

    def got_frames(self, reader: FrameReader, received: int) -> None:
        """Hand on the messages that have arrived, and answer keepalives."""
        assert self.peer is not None
        peer, stats, codec, receive = self.peer.node_id, self.context.stats, self.context.codec, self.context.receive
        answer_keepalive = False
        for flags, body in reader.frames(received):
            stats.frames_received += 1
            if flags == KEEPALIVE:
                self.got_keepalive(bytes(body))
                answer_keepalive = True
                continue
            whole = self._assembler.add(flags, body)
            if whole is None:
                continue
            try:
                target, source, payload = _decode_body(whole)
                message = codec.decode(payload)
                sender = codec.sender(message)
            except Exception as error:
                # Any exception of a decoder is caused by the bytes: nesting too deep, numbers out of range.
                raise BadFrame("undecodable message") from error
            if sender != peer:
                raise BadFrame("message of another sender")
            receive(peer, target, source, message)
            if self.over:
                return
        # No answer while writes are paused: a peer that never reads must not grow our memory. And one answer for all
        # keepalives of a read: a peer that does not wait for answers must not take our time.
        if answer_keepalive and not self.paused:
            self.write(frame(KEEPALIVE, self.keepalive()))

    def refused(self, refusal: Refusal) -> None:
        """Count and log it, once."""
        if self._counted:
            return
        self._counted = True
        self.context.stats.refused_handshakes[refusal.reason] += 1
        address = self.transport.get_extra_info("peername") if self.transport is not None else None
        self.context.log.warning(refusal.reason, "refused a connection from %s: %s", address, refusal)

    def tick(self, silent_ticks: int) -> None:
        """Count a tick without data: a live peer sends at least keepalives."""
        self._silent_ticks += 1
        if self._silent_ticks > silent_ticks:
            self.fail("nothing heard")

    def ended(self) -> None:
        """Unregister."""
        if self.peer is None and not self._counted:
            self.context.stats.refused_handshakes[Reason.ENDED] += 1
        if self.peer is not None:
            logger.info("the connection from %s has ended: %s", self.peer.node_id, self.reason)
        self._inbound.ended(self)


class InboundConnections:
    """The connections to us: those in their handshake, in the order of arrival, and one for each authenticated peer."""

    def __init__(self, context: Context, known: Callable[[str], bool], on_authenticated: Callable[[str], None]) -> None:
        self.known = known
        self._context = context
        self._on_authenticated = on_authenticated
        self._handshaking: dict[Incoming, asyncio.TimerHandle] = {}
        self._peers: dict[str, Incoming] = {}
        self._paused = False
        self._closed = False

    def accept(self) -> Incoming:
        """Return the protocol for a new connection."""
        return Incoming(self._context, self)

    def opened(self, connection: Incoming) -> None:
        """Give a new connection its time for the handshake; if there are too many, end the oldest one.

        Ending the oldest lets peers in during a flood of other connections: a peer's handshake takes milliseconds, so
        it is done before it has become the oldest. If the new one were ended instead, it would never begin.
        """
        if self._closed:
            connection.fail("closing")
            return
        if len(self._handshaking) >= self._context.settings.handshakes:
            oldest = next(iter(self._handshaking))
            self._refuse(oldest, Reason.CROWDED)
        loop = asyncio.get_running_loop()
        deadline = self._context.settings.handshake_ms / 1000
        self._handshaking[connection] = loop.call_later(deadline, self._refuse, connection, Reason.DEADLINE)

    def authenticated(self, connection: Incoming, peer: PeerIdentity) -> None:
        """Make this the connection of a peer that has proved its identity, in place of its previous one."""
        self._handshaking.pop(connection).cancel()
        previous = self._peers.get(peer.node_id)
        if previous is not None:
            self._context.stats.replaced += 1
            previous.fail("replaced by a newer connection")
        self._peers[peer.node_id] = connection
        if self._paused and connection.transport is not None:
            connection.transport.pause_reading()
        self._on_authenticated(peer.node_id)

    def ended(self, connection: Incoming) -> None:
        """Forget a connection that has ended."""
        timer = self._handshaking.pop(connection, None)
        if timer is not None:
            timer.cancel()
        if connection.peer is not None and self._peers.get(connection.peer.node_id) is connection:
            del self._peers[connection.peer.node_id]

    def identity(self, peer: str) -> PeerIdentity | None:
        """Return the identity that a connected peer has proved; None if it is not connected."""
        connection = self._peers.get(peer)
        return None if connection is None else connection.peer

    def tick(self) -> None:
        """Close connections of silent peers. While reading is paused, silence means nothing."""
        if not self._paused:
            for connection in list(self._peers.values()):
                connection.tick(self._context.settings.silent_ticks)

    def pause(self, paused: bool) -> None:
        """Stop or start reading from all peers."""
        if paused is self._paused:
            return
        self._paused = paused
        for connection in self._peers.values():
            transport = connection.transport
            if transport is not None and not connection.over:
                transport.pause_reading() if paused else transport.resume_reading()

    async def close(self) -> None:
        """End all connections, and any that are still accepted."""
        self._closed = True
        connections = [*self._handshaking, *self._peers.values()]
        for connection in connections:
            connection.fail("closing")
        await asyncio.gather(*(connection.closed for connection in connections))

    def _refuse(self, connection: Incoming, reason: Reason) -> None:
        connection.refused(Refusal(reason))
        connection.fail(str(reason))
        self.ended(connection)
