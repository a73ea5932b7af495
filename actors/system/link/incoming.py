"""The connections that peers have opened to us: they carry their messages."""

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
    """One such connection. ``peer`` is who has proved to be at the other end."""

    def __init__(self, context: Context, reception: InboundConnections) -> None:
        super().__init__(context)
        self.peer: PeerIdentity | None = None
        self._counted = False
        self._inbound = reception
        self._acceptor = Acceptor(context.identity(), context.settings.secret, reception.known)
        self._assembler = Assembler(context.settings.message_bytes)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Wait in the reception for the handshake."""
        super().connection_made(transport)
        self._inbound.entered(self)

    def got_record(self, record: HandshakeRecord) -> None:
        """Take the next step of the handshake."""
        answer = self._acceptor.gets(record)
        self.write(answer)
        if self._acceptor.peer is not None:
            self.peer = self._acceptor.peer
            self.expect_frames(FrameReader(self.context.settings.frame_bytes, FROM_DIALLER))
            self._inbound.admitted(self, self.peer)

    def got_frames(self, reader: FrameReader, received: int) -> None:
        """Hand on the messages that have arrived."""
        assert self.peer is not None
        peer, stats, codec, receive = self.peer.node_id, self.context.stats, self.context.codec, self.context.receive
        pending = False
        for flags, body in reader.frames(received):
            stats.frames_received += 1
            if flags == KEEPALIVE:
                self.heard(bytes(body))
                pending = True
                continue
            whole = self._assembler.add(flags, body)
            if whole is None:
                continue
            try:
                target, source, payload = _decode_body(whole)
                message = codec.decode(payload)
                sender = codec.sender(message)
            except Exception as error:
                # Whatever a decoder raises, it is the bytes' fault: nesting too deep, numbers out of range.
                raise BadFrame("undecodable message") from error
            if sender != peer:
                raise BadFrame("message of another sender")
            receive(peer, target, source, message)
            if self.over:
                return
        # Who asks without reading the answers gets none, rather than the use of our memory, and who asks without
        # waiting for the answers gets one for many, rather than the use of our time.
        if pending and not self.paused:
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
        """Note that time has passed: a peer that is there sends keepalives at least."""
        self._silent += 1
        if self._silent > silent_ticks:
            self.fail("nothing heard")

    def ended(self) -> None:
        """Leave the reception."""
        if self.peer is None and not self._counted:
            self.context.stats.refused_handshakes[Reason.ENDED] += 1
        if self.peer is not None:
            logger.info("the connection from %s has ended: %s", self.peer.node_id, self.reason)
        self._inbound.left(self)


class InboundConnections:
    """Who is connected to us: strangers, in the order in which they came, and one connection for each peer."""

    def __init__(self, context: Context, known: Callable[[str], bool], admitted: Callable[[str], None]) -> None:
        self.known = known
        self._context = context
        self._on_admitted = admitted
        self._strangers: dict[Incoming, asyncio.TimerHandle] = {}
        self._peers: dict[str, Incoming] = {}
        self._paused = False
        self._closed = False

    def accept(self) -> Incoming:
        """Return the protocol for a new connection."""
        return Incoming(self._context, self)

    def entered(self, connection: Incoming) -> None:
        """Give a new connection its time for the handshake, at the cost of the oldest stranger if there are many.

        Not at the cost of the new one: a peer's handshake takes milliseconds, so it is done before a flood of
        strangers has pushed it out, but it would never begin if the strangers could hold their places.
        """
        if self._closed:
            connection.fail("closing")
            return
        if len(self._strangers) >= self._context.settings.handshakes:
            oldest = next(iter(self._strangers))
            self._dismiss(oldest, Reason.CROWDED)
        loop = asyncio.get_running_loop()
        deadline = self._context.settings.handshake_ms / 1000
        self._strangers[connection] = loop.call_later(deadline, self._dismiss, connection, Reason.DEADLINE)

    def admitted(self, connection: Incoming, peer: PeerIdentity) -> None:
        """Let a proven peer in, in place of its previous connection."""
        self._strangers.pop(connection).cancel()
        previous = self._peers.get(peer.node_id)
        if previous is not None:
            self._context.stats.replaced += 1
            previous.fail("replaced by a newer connection")
        self._peers[peer.node_id] = connection
        if self._paused and connection.transport is not None:
            connection.transport.pause_reading()
        self._on_admitted(peer.node_id)

    def left(self, connection: Incoming) -> None:
        """Forget a connection that is over."""
        timer = self._strangers.pop(connection, None)
        if timer is not None:
            timer.cancel()
        if connection.peer is not None and self._peers.get(connection.peer.node_id) is connection:
            del self._peers[connection.peer.node_id]

    def identity(self, peer: str) -> PeerIdentity | None:
        """Return what a connected peer has proved to be."""
        connection = self._peers.get(peer)
        return None if connection is None else connection.peer

    def tick(self) -> None:
        """Look for peers that have fallen silent; while we do not listen, silence says nothing."""
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
        """End all connections, and those still to come."""
        self._closed = True
        everyone = [*self._strangers, *self._peers.values()]
        for connection in everyone:
            connection.fail("closing")
        await asyncio.gather(*(connection.closed for connection in everyone))

    def _dismiss(self, connection: Incoming, reason: Reason) -> None:
        connection.refused(Refusal(reason))
        connection.fail(str(reason))
        self.left(connection)
