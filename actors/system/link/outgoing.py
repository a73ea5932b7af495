"""A connection that we have opened to a peer: it carries our messages to that peer, and keepalives both ways.

Messages wait in ``lanes`` and go to the transport in portions, so a control message can overtake bulk messages that the
transport does not have yet. A peer that leaves a keepalive unanswered for ``silence_ms`` is given up.
"""

from __future__ import annotations

import asyncio
from typing import Protocol

from raftkv.actors.system.link.connection import Connection
from raftkv.actors.system.link.frames import FROM_ACCEPTOR, BadFrame, FrameReader
from raftkv.actors.system.link.handshake import Dialler, HandshakeRecord, PeerIdentity, Reason, Refusal
from raftkv.actors.system.link.lanes import Lanes
from raftkv.actors.system.link.settings import Context

KEEPALIVE_BYTES = 256


class ConnectionOwner(Protocol):
    """Gets the events of a connection."""

    def established(self, connection: Outgoing) -> None:
        """The handshake is done."""

    def drained(self, connection: Outgoing) -> None:
        """The lanes, which had been full, have room again."""

    def lost(self, connection: Outgoing) -> None:
        """An established connection has ended; ``lanes`` holds what was not sent."""


class Outgoing(Connection):
    """A connection to ``target``. ``handshaken`` is done after the handshake, or raises ``Refusal``."""

    def __init__(self, context: Context, target: str, owner: ConnectionOwner) -> None:
        super().__init__(context)
        settings = context.settings
        self.lanes = Lanes(
            frame_bytes=settings.frame_bytes,
            bulk_bytes=settings.bulk_bytes,
            control_messages=settings.control_messages,
            control_bytes=settings.control_bytes,
        )
        self.peer: PeerIdentity | None = None
        self.overflowed = False
        self.handshaken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        # If it fails when no task awaits it any more, asyncio would report an exception that was never retrieved.
        self.handshaken.add_done_callback(lambda handshaken: handshaken.cancelled() or handshaken.exception())
        self._owner = owner
        self._dialler = Dialler(context.identity(), target, settings.secret)
        self._flushing = False
        self._finishing = False
        self._awaits_keepalive = False

    # --- Handshake.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin the handshake."""
        super().connection_made(transport)
        self.write(self._dialler.hello())

    def got_record(self, record: HandshakeRecord) -> None:
        """Take the next step of the handshake."""
        self.write(self._dialler.gets(record))
        if self._dialler.peer is not None:
            self.peer = self._dialler.peer
            self.expect_frames(FrameReader(KEEPALIVE_BYTES, FROM_ACCEPTOR))
            self._owner.established(self)
            if not self.handshaken.done():
                self.handshaken.set_result(None)

    def refused(self, refusal: Refusal) -> None:
        """Fail ``handshaken``."""
        if not self.handshaken.done():
            self.handshaken.set_exception(refusal)

    def ended(self) -> None:
        """Notify the owner, and fail ``handshaken`` if it is pending."""
        self.refused(Refusal(Reason.ENDED))
        if self.peer is not None:
            self._owner.lost(self)

    # --- Frames.

    def got_frames(self, reader: FrameReader, received: int) -> None:
        """Handle the answer to a keepalive; the acceptor sends nothing else."""
        for _, body in reader.frames(received):
            self.context.stats.frames_received += 1
            if not self._awaits_keepalive:
                raise BadFrame("unexpected keepalive")
            self._awaits_keepalive = False
            self.got_keepalive(bytes(body))

    @property
    def waiting(self) -> int:
        """The bytes queued in our lanes and in the transport."""
        ahead = 0 if self.transport is None else self.transport.get_write_buffer_size()
        return self.lanes.control_bytes + self.lanes.bulk_bytes + ahead

    def tick(self, silent_ticks: int) -> None:
        """Send a keepalive, or count one more tick without an answer to the last one.

        Counts ticks, not time: after a stall of our own loop, the answers that arrived meanwhile are read first.
        """
        if not self._awaits_keepalive:
            self._awaits_keepalive = True
            self._silent_ticks = 0
            self.lanes.put_keepalive(self.keepalive())
            self.schedule_flush()
            return
        self._silent_ticks += 1
        if self._silent_ticks >= silent_ticks:
            self.fail(f"no answer for {self.context.settings.silence_ms} ms")

    def schedule_flush(self) -> None:
        """Send queued messages at the end of this turn of the loop, together with those that this turn still adds."""
        if not self._flushing and not self.paused:
            self._flushing = True
            asyncio.get_running_loop().call_soon(self._flush_later)

    def _flush_later(self) -> None:
        self._flushing = False
        self.flush()

    def flush(self) -> None:
        """Give the transport one portion of the queued messages."""
        if self.paused or self.over:
            return
        if self.lanes:
            pieces, frames = self.lanes.take(self.context.settings.ahead_bytes)
            self.context.stats.frames_sent += frames
            # Not writelines: in some versions of Python it never calls pause_writing.
            self.write(b"".join(pieces))
            if self.lanes:
                # The rest waits for the next turn, or for resume_writing: other peers go first.
                self.schedule_flush()
        if self.overflowed and self.lanes.is_half_empty():
            self.overflowed = False
            self._owner.drained(self)
        if self._finishing and not self.lanes and not self.paused:
            self._write_eof()

    def resume_writing(self) -> None:
        """Continue in a later turn."""
        super().resume_writing()
        if self.lanes or self._finishing:
            self.schedule_flush()

    def finish(self, reason: str) -> None:
        """Send what is queued, then close our side; ``closed`` is done when the peer has read everything."""
        self.reason = self.reason or reason
        self._finishing = True
        self.schedule_flush()

    def _write_eof(self) -> None:
        if self.transport is not None and not self.transport.is_closing():
            self.transport.write_eof()
