"""The frames that nodes exchange after their handshake: a length, a byte of flags, and a body.

A message that fits into one frame is one frame. A larger one is split into fragments, which are sent in the bulk lane
one after the other; frames of the control lane may come between them. A reader holds at most one incomplete frame and
one incomplete message, both bounded, so a peer cannot make it use more memory. The dialler sends messages and
keepalives, the acceptor only keepalives. A message is the MessagePack array (target actor, source actor, encoded
message); the body of a keepalive is the cluster's id.
"""

from __future__ import annotations

from collections.abc import Iterator
from struct import Struct

HEADER = Struct(">IB")
"""Length of the body in bytes, then flags; big-endian."""

BULK = 1
LAST = 2
KEEPALIVE = 4

CONTROL_MESSAGE = LAST
BULK_FRAGMENT = BULK
BULK_LAST = BULK | LAST

FROM_DIALLER = frozenset((CONTROL_MESSAGE, BULK_FRAGMENT, BULK_LAST, KEEPALIVE))
FROM_ACCEPTOR = frozenset((KEEPALIVE,))

READ_BYTES = 64 << 10
"""The most that is read in one turn of the loop: more small messages than this would make the loop's timers late."""


class BadFrame(Exception):
    """A peer broke the protocol; the text is one of a fixed set, since it names a counter."""


def frame(flags: int, body: bytes) -> bytes:
    """Return a complete frame."""
    return HEADER.pack(len(body), flags) + body


class FrameReader:
    """Splits a stream of bytes into frames; holds at most one incomplete frame and one read.

    Read bytes into ``room()``, then call ``frames`` with their number.
    """

    def __init__(self, frame_bytes: int, allowed: frozenset[int]) -> None:
        self._frame_bytes = frame_bytes
        self._allowed = allowed
        # The remainder is always less than a whole frame, so there is always room for a read behind it.
        self._view = memoryview(bytearray(HEADER.size + frame_bytes + READ_BYTES))
        self._filled = 0

    def room(self) -> memoryview:
        """Return the part of the buffer for the next bytes; never empty."""
        return self._view[self._filled : self._filled + READ_BYTES]

    def frames(self, received: int) -> Iterator[tuple[int, memoryview]]:
        """Yield (flags, body) of every frame that ``received`` more bytes complete; raises ``BadFrame``.

        A body is valid until the next one is requested. Exhaust the iterator before the next read.
        """
        view, allowed, frame_bytes = self._view, self._allowed, self._frame_bytes
        start, end = 0, self._filled + received
        while end - start >= HEADER.size:
            length, flags = HEADER.unpack_from(view, start)
            if flags not in allowed:
                raise BadFrame("unknown flags")
            if length > frame_bytes:
                raise BadFrame("frame over the limit")
            body = start + HEADER.size
            if body + length > end:
                break
            start = body + length
            yield flags, view[body:start]
        rest = end - start
        if start:
            view[:rest] = view[start:end]
        self._filled = rest


class Assembler:
    """Reassembles bulk messages of at most ``message_bytes`` from their fragments."""

    def __init__(self, message_bytes: int) -> None:
        self._message_bytes = message_bytes
        self._parts = bytearray()

    def add(self, flags: int, body: memoryview) -> memoryview | bytearray | None:
        """Return the message that this frame completes, or None; raises ``BadFrame``."""
        if flags == CONTROL_MESSAGE or (flags == BULK_LAST and not self._parts):
            return body
        if not body:
            # Empty fragments could arrive for ever without reaching any limit.
            raise BadFrame("empty fragment")
        if len(self._parts) + len(body) > self._message_bytes:
            raise BadFrame("message over the limit")
        self._parts += body
        if flags == BULK_FRAGMENT:
            return None
        whole, self._parts = self._parts, bytearray()
        return whole
