"""The connection that we have opened to a peer: it carries our messages."""

from __future__ import annotations

import asyncio
from typing import Protocol

from raftkv.actors.system.link.connection import Connection
from raftkv.actors.system.link.frames import FROM_ACCEPTOR, BadFrame, FrameReader
from raftkv.actors.system.link.handshake import Dialler, HandshakeRecord, PeerIdentity, Reason, Refusal
from raftkv.actors.system.link.lanes import Lanes
from raftkv.actors.system.link.settings import Context

KEEPALIVE_BYTES = 256


class Owner(Protocol):
    """Who is told what becomes of the connection."""

    def established(self, connection: Outgoing) -> None:
        """The handshake is done."""

    def relieved(self, connection: Outgoing) -> None:
        """After ``Lanes`` were full: there is room again."""

    def lost(self, connection: Outgoing) -> None:
        """An established connection is over; ``lanes`` holds what was not sent."""


class Outgoing(Connection):
    """One such connection, to ``target``. ``shaken`` is done when the handshake is; it may raise ``Refusal``."""

    def __init__(self, context: Context, target: str, owner: Owner) -> None:
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
        self.shaken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        # Nobody may be waiting any more when it fails, which asyncio would report as a mistake.
        self.shaken.add_done_callback(lambda shaken: shaken.cancelled() or shaken.exception())
        self._owner = owner
        self._dialler = Dialler(context.identity(), target, settings.secret)
        self._flushing = False
        self._finishing = False
        self._asked = False

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
            if not self.shaken.done():
                self.shaken.set_result(None)

    def refused(self, refusal: Refusal) -> None:
        """Tell who waits for the handshake."""
        if not self.shaken.done():
            self.shaken.set_exception(refusal)

    def ended(self) -> None:
        """Tell the owner, and who waits for the handshake."""
        self.refused(Refusal(Reason.ENDED))
        if self.peer is not None:
            self._owner.lost(self)

    # --- Frames.

    def got_frames(self, reader: FrameReader, received: int) -> None:
        """Handle the answer to a keepalive: nothing else comes this way."""
        for _, body in reader.frames(received):
            self.context.stats.frames_received += 1
            if not self._asked:
                raise BadFrame("keepalive that nobody asked for")
            self._asked = False
            self.heard(bytes(body))

    @property
    def waiting(self) -> int:
        """Bytes that wait in our lanes and in the transport."""
        ahead = 0 if self.transport is None else self.transport.get_write_buffer_size()
        return self.lanes.control_bytes + self.lanes.bulk_bytes + ahead

    def tick(self, silent_ticks: int) -> None:
        """Ask whether the peer is there, or note that it has not answered yet.

        Ticks are counted instead of time: after a stall of our own loop, answers that came meanwhile are read first.
        """
        if not self._asked:
            self._asked = True
            self._silent = 0
            self.lanes.put_keepalive(self.keepalive())
            self.wake()
            return
        self._silent += 1
        if self._silent >= silent_ticks:
            self.fail(f"no answer for {self.context.settings.silence_ms} ms")

    def wake(self) -> None:
        """Send what waits at the end of this turn of the loop, together with what else this turn brings."""
        if not self._flushing and not self.paused:
            self._flushing = True
            asyncio.get_running_loop().call_soon(self._flush_later)

    def _flush_later(self) -> None:
        self._flushing = False
        self.flush()

    def flush(self) -> None:
        """Give the transport as much as it may have ahead."""
        if self.paused or self.over:
            return
        if self.lanes:
            pieces, frames = self.lanes.take(self.context.settings.ahead_bytes)
            self.context.stats.frames_sent += frames
            # Not writelines: in some versions of Python it never calls pause_writing.
            self.write(b"".join(pieces))
            if self.lanes:
                # The rest waits for the next turn, or for resume_writing: other peers have their turn first.
                self.wake()
        if self.overflowed and self.lanes.relieved():
            self.overflowed = False
            self._owner.relieved(self)
        if self._finishing and not self.lanes and not self.paused:
            self._write_eof()

    def resume_writing(self) -> None:
        """Go on, in a later turn."""
        super().resume_writing()
        if self.lanes or self._finishing:
            self.wake()

    def finish(self, reason: str) -> None:
        """Send what waits, then say that nothing more comes; ``closed`` is done when the peer has read it all."""
        self.reason = self.reason or reason
        self._finishing = True
        self.wake()

    def _write_eof(self) -> None:
        if self.transport is not None and not self.transport.is_closing():
            self.transport.write_eof()
