"""What both ends of a connection between nodes have in common: a handshake, then frames.

No error that arrives from the network leaves this class: the connection ends, and the reason is counted. Until the
handshake is done, a connection gets a kilobyte of buffer and no more.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import cast

from raftkv.actors.system.link.frames import BadFrame, FrameReader
from raftkv.actors.system.link.handshake import HandshakeRecord, RecordReader, Refusal, clusters_differ, printable
from raftkv.actors.system.link.settings import Context, logger

UNSENT_BYTES = 128 << 10
"""The most unsent data that the kernel may hold: a control message can't overtake what is in there."""


class Connection(asyncio.BufferedProtocol):
    """One connection; subclasses handle its records and frames.

    ``over`` is set when it ends, ``reason`` then says why; ``closed`` is done after its last callback. ``paused`` is
    set while the transport's buffer is full.
    """

    def __init__(self, context: Context) -> None:
        self.context = context
        self.transport: asyncio.Transport | None = None
        self.reason = ""
        self.paused = False
        self.over = False
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        # None until the handshake is done.
        self._frames: FrameReader | None = None
        self._records = RecordReader()
        self._silent_ticks = 0

    # --- For subclasses.

    def got_record(self, record: HandshakeRecord) -> None:
        """Handle a handshake record; may raise ``Refusal``."""
        raise NotImplementedError

    def got_frames(self, reader: FrameReader, received: int) -> None:
        """Handle ``received`` bytes that were read into ``reader``; may raise ``BadFrame``."""
        raise NotImplementedError

    def refused(self, refusal: Refusal) -> None:
        """Count a handshake that failed."""
        raise NotImplementedError

    def ended(self) -> None:
        """Clean up after the connection, once."""
        raise NotImplementedError

    # --- What the subclasses use.

    def expect_frames(self, reader: FrameReader) -> None:
        """Read frames from now on: the handshake is done."""
        self._frames = reader

    def write(self, data: bytes) -> None:
        """Write ``data`` to the transport, unless the connection is over."""
        if self.transport is not None and not self.over:
            self.context.stats.bytes_sent += len(data)
            self.transport.write(data)

    def fail(self, reason: str) -> None:
        """End the connection at once; the first reason is kept."""
        self.over = True
        self.reason = self.reason or reason
        if self.transport is not None:
            self.transport.abort()

    def refuse(self, refusal: Refusal) -> None:
        """End the handshake; send the reason where that is safe."""
        self.refused(refusal)
        if refusal.tell_peer:
            self.write(refusal.record())
        self.over = True
        self.reason = self.reason or str(refusal)
        if self.transport is not None:
            self.transport.close()

    def got_keepalive(self, cluster_id: bytes) -> None:
        """Check the peer's cluster id in a keepalive: the peer may have joined a cluster since the handshake."""
        try:
            theirs = cluster_id.decode()
        except UnicodeDecodeError:
            raise BadFrame("malformed keepalive") from None
        if clusters_differ(self.context.identity().cluster_id, theirs):
            raise BadFrame("wrong cluster id")

    def keepalive(self) -> bytes:
        """Return the body of a keepalive."""
        return self.context.identity().cluster_id.encode()

    # --- What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport's own buffer nearly empty, so that queued messages stay in our lanes."""
        self.transport = cast(asyncio.Transport, transport)
        self.transport.set_write_buffer_limits(high=0)
        sock = self.transport.get_extra_info("socket")
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if hasattr(socket, "TCP_NOTSENT_LOWAT"):
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT_BYTES)

    def get_buffer(self, sizehint: int) -> memoryview:
        """Return the buffer for the next bytes."""
        return self._records.room() if self._frames is None else self._frames.room()

    def buffer_updated(self, nbytes: int) -> None:
        """Handle ``nbytes`` that were read."""
        self._silent_ticks = 0
        if self.over:
            return
        try:
            if self._frames is not None:
                self.got_frames(self._frames, nbytes)
            elif (record := self._records.record(nbytes)) is not None:
                self.got_record(record)
        except BadFrame as error:
            self.context.stats.bad_frames[str(error)] += 1
            text = printable(f"{error} ({error.__cause__})" if error.__cause__ else str(error))
            self.context.log.warning(str(error), "closed a connection whose peer broke the protocol: %s", text)
            self.fail(str(error))
        except Refusal as refusal:
            self.refuse(refusal)
        except Exception:
            # A bug of ours, or of the receiver of a message: it ends this connection, not the loop.
            logger.exception("closed a connection, because handling its data failed")
            self.fail("internal error")

    def eof_received(self) -> None:
        """Note that the peer has closed its side; asyncio then closes the transport."""
        self.reason = self.reason or "closed by the peer"

    def pause_writing(self) -> None:
        """Stop writing: the transport could not send everything."""
        self.paused = True

    def resume_writing(self) -> None:
        """Write again: the transport's buffer is empty."""
        self.paused = False

    def connection_lost(self, exc: Exception | None) -> None:
        """Clean up; no callback follows this one."""
        self.over = True
        self.reason = self.reason or (f"connection lost: {exc}" if exc else "connection ended")
        if not self.closed.done():
            self.closed.set_result(None)
        self.ended()
