"""What waits to go to one peer: a control lane, which goes first, and a bulk lane. Both are bounded."""

from __future__ import annotations

from collections import deque
from typing import Any

from raftkv.actors.system.link.frames import BULK_FRAGMENT, BULK_LAST, CONTROL_MESSAGE, HEADER, KEEPALIVE, frame

PARCEL_OVERHEAD = 256
"""About what a waiting message takes beside its bytes; counted, or many tiny ones would take far more memory."""


class QueuedMessage:
    """A message in the bulk lane; ``sent`` bytes of its ``body`` have been taken."""

    __slots__ = ("body", "control", "message", "sent", "source", "target")

    def __init__(self, target: str, source: str, message: Any, body: bytes, *, control: bool = False) -> None:
        self.target = target
        self.source = source
        self.message = message
        self.body = body
        self.control = control
        self.sent = 0

    @property
    def cost(self) -> int:
        """Bytes that this message counts for."""
        return len(self.body) + PARCEL_OVERHEAD


class Lanes:
    """Two queues of messages for one peer, taken from in frames of at most ``frame_bytes``."""

    def __init__(self, *, frame_bytes: int, bulk_bytes: int, control_messages: int, control_bytes: int) -> None:
        self._frame_bytes = frame_bytes
        self._bulk_limit = bulk_bytes
        self._control_limit = control_messages
        self._control_bytes_limit = control_bytes
        self._control: deque[bytes] = deque()
        self._bulk: deque[QueuedMessage] = deque()
        self._keepalive = b""
        self.control_bytes = 0
        self.bulk_bytes = 0

    def __bool__(self) -> bool:
        return bool(self._control or self._bulk or self._keepalive)

    def put_control(self, body: bytes) -> int:
        """Add a message; return how many of the oldest had to go to make room for it.

        The oldest, because Raft's messages say how things stand, and the newest say it best.
        """
        self._control.append(frame(CONTROL_MESSAGE, body))
        self.control_bytes += HEADER.size + len(body)
        dropped = 0
        while len(self._control) > self._control_limit or self.control_bytes > self._control_bytes_limit:
            self.control_bytes -= len(self._control.popleft())
            dropped += 1
        return dropped

    def put_keepalive(self, body: bytes) -> None:
        """Put a keepalive before everything else, in a place of its own: making room must not cost it."""
        self._keepalive = frame(KEEPALIVE, body)

    def put_bulk(self, parcel: QueuedMessage) -> bool:
        """Add a message, unless it does not fit; return whether it did."""
        if self.bulk_bytes + parcel.cost > self._bulk_limit:
            return False
        self._bulk.append(parcel)
        self.bulk_bytes += parcel.cost
        return True

    def relieved(self) -> bool:
        """Whether less than half of what may wait does."""
        return (
            self.bulk_bytes <= self._bulk_limit // 2
            and self.control_bytes <= self._control_bytes_limit // 2
            and len(self._control) <= self._control_limit // 2
        )

    def take(self, budget: int) -> tuple[list[bytes | memoryview], int]:
        """Return pieces of frames in the order in which to send them, and how many frames they make.

        They are ``budget`` bytes at most, or one frame.
        """
        pieces: list[bytes | memoryview] = []
        frames = taken = 0
        if self._keepalive:
            pieces.append(self._keepalive)
            self._keepalive = b""
            frames = 1
        control = self._control
        while control and (not frames or taken + len(control[0]) <= budget):
            pieces.append(control.popleft())
            taken += len(pieces[-1])
            frames += 1
        self.control_bytes -= taken
        while self._bulk:
            parcel = self._bulk[0]
            rest = len(parcel.body) - parcel.sent
            size = min(rest, self._frame_bytes)
            if frames and taken + HEADER.size + size > budget:
                break
            pieces.append(HEADER.pack(size, BULK_LAST if size == rest else BULK_FRAGMENT))
            pieces.append(parcel.body if size == len(parcel.body) else memoryview(parcel.body)[parcel.sent :][:size])
            taken += HEADER.size + size
            frames += 1
            parcel.sent += size
            if size == rest:
                self._bulk.popleft()
                self.bulk_bytes -= parcel.cost
        return pieces, frames

    def clear(self) -> list[QueuedMessage]:
        """Forget everything; return the bulk messages of which nothing was taken."""
        unsent = [parcel for parcel in self._bulk if not parcel.sent]
        self._keepalive = b""
        self._control.clear()
        self._bulk.clear()
        self.control_bytes = self.bulk_bytes = 0
        return unsent
