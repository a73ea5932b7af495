"""What both ends of a connection between nodes have in common: a handshake, then frames."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import cast

from raftkv.actors.system.link.frames import BadFrame, FrameReader
from raftkv.actors.system.link.handshake import HandshakeRecord, RecordReader, Refusal, clusters_differ, printable
from raftkv.actors.system.link.settings import Context, logger

UNSENT_BYTES = 128 << 10
"""How much the kernel may hold that it has not sent: what is in there, a control message can't overtake."""


class Connection(asyncio.BufferedProtocol):
    """One connection; subclasses say what a record or a frame means. ``reason`` says why it ended.

    Whatever arrives, nothing is raised out of here: the connection ends and is counted.
    """

    def __init__(self, context: Context) -> None:
        self.context = context
        self.transport: asyncio.Transport | None = None
        self.reason = ""
        self.paused = False
        self.over = False
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        # None until the handshake is done: a stranger gets a kilobyte of memory, no more.
        self._frames: FrameReader | None = None
        self._records = RecordReader()
        self._silent = 0

    # --- For subclasses.

    def got_record(self, record: HandshakeRecord) -> None:
        """Handle a handshake record; may raise ``Refusal``."""
        raise NotImplementedError

    def got_frames(self, reader: FrameReader, received: int) -> None:
        """Handle ``received`` bytes that arrived in ``reader``; may raise ``BadFrame``."""
        raise NotImplementedError

    def refused(self, refusal: Refusal) -> None:
        """Count a handshake that failed."""
        raise NotImplementedError

    def ended(self) -> None:
        """Clean up after the connection, once."""
        raise NotImplementedError

    # --- What the subclasses use.

    def expect_frames(self, reader: FrameReader) -> None:
        """Read frames from now on."""
        self._frames = reader

    def write(self, data: bytes) -> None:
        """Give ``data`` to the transport, unless the connection is over."""
        if self.transport is not None and not self.over:
            self.context.stats.bytes_sent += len(data)
            self.transport.write(data)

    def fail(self, reason: str) -> None:
        """End the connection at once; the first reason given stays."""
        self.over = True
        self.reason = self.reason or reason
        if self.transport is not None:
            self.transport.abort()

    def refuse(self, refusal: Refusal) -> None:
        """End the handshake, telling the other side where that is safe."""
        self.refused(refusal)
        if refusal.tell:
            self.write(refusal.record())
        self.over = True
        self.reason = self.reason or str(refusal)
        if self.transport is not None:
            self.transport.close()

    def heard(self, cluster_id: bytes) -> None:
        """Handle a keepalive, which tells the other side's cluster id: it may have found one since the handshake."""
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
        """Keep the transport's own buffer as good as empty, so that what waits stays in our lanes."""
        self.transport = cast(asyncio.Transport, transport)
        self.transport.set_write_buffer_limits(high=0)
        sock = self.transport.get_extra_info("socket")
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if hasattr(socket, "TCP_NOTSENT_LOWAT"):
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT_BYTES)

    def get_buffer(self, sizehint: int) -> memoryview:
        """Return where the next bytes belong."""
        return self._records.room() if self._frames is None else self._frames.room()

    def buffer_updated(self, nbytes: int) -> None:
        """Handle what was read."""
        self._silent = 0
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
            self.context.log.warning(
                str(error), "a connection is closed, because its peer broke the protocol: %s", text
            )
            self.fail(str(error))
        except Refusal as refusal:
            self.refuse(refusal)
        except Exception:
            # A bug of ours or of who receives: it must cost this connection, not the loop.
            logger.exception("a connection is closed, because handling what it brought has failed")
            self.fail("internal error")

    def eof_received(self) -> None:
        """The other side has nothing more to say: asyncio closes the transport."""
        self.reason = self.reason or "closed by the peer"

    def pause_writing(self) -> None:
        """The transport could not get rid of everything."""
        self.paused = True

    def resume_writing(self) -> None:
        """The transport's buffer is empty again."""
        self.paused = False

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is over; nothing comes after this."""
        self.over = True
        self.reason = self.reason or (f"connection lost: {exc}" if exc else "connection ended")
        if not self.closed.done():
            self.closed.set_result(None)
        self.ended()
