"""The queues of messages to one peer: a control lane, which goes first, and a bulk lane.

Both lanes are bounded. A full control lane drops its oldest messages, because Raft's own messages describe the current
state and the newest describes it best. A full bulk lane refuses the new message, so its sender knows at once. Large
bulk messages go out in fragments, so a control message never waits for a whole one.
"""

from __future__ import annotations

from collections import deque
from typing import Any

from raftkv.actors.system.link.frames import BULK_FRAGMENT, BULK_LAST, CONTROL_MESSAGE, HEADER, KEEPALIVE, frame

MESSAGE_OVERHEAD = 256
"""About the bytes that a queued message takes beside its body; many tiny messages would otherwise exceed the bound."""


class QueuedMessage:
    """A message in the bulk lane; ``sent`` bytes of its ``body`` have been taken out."""

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
        """The bytes that this message counts for in its lane."""
        return len(self.body) + MESSAGE_OVERHEAD


class Lanes:
    """The two queues to one peer; they are emptied in frames of at most ``frame_bytes``."""

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
        """Queue a message; return how many of the oldest were dropped to make room for it."""
        self._control.append(frame(CONTROL_MESSAGE, body))
        self.control_bytes += HEADER.size + len(body)
        dropped = 0
        while len(self._control) > self._control_limit or self.control_bytes > self._control_bytes_limit:
            self.control_bytes -= len(self._control.popleft())
            dropped += 1
        return dropped

    def put_keepalive(self, body: bytes) -> None:
        """Send a keepalive before everything else. It is kept apart, since making room must not drop it."""
        self._keepalive = frame(KEEPALIVE, body)

    def put_bulk(self, message: QueuedMessage) -> bool:
        """Queue a message if it fits; return whether it did."""
        if self.bulk_bytes + message.cost > self._bulk_limit:
            return False
        self._bulk.append(message)
        self.bulk_bytes += message.cost
        return True

    def is_half_empty(self) -> bool:
        """Whether both lanes hold at most half of their limits."""
        return (
            self.bulk_bytes <= self._bulk_limit // 2
            and self.control_bytes <= self._control_bytes_limit // 2
            and len(self._control) <= self._control_limit // 2
        )

    def take(self, budget: int) -> tuple[list[bytes | memoryview], int]:
        """Take out frames of ``budget`` bytes at most, or one frame; return their pieces in order, and their number."""
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
            queued = self._bulk[0]
            rest = len(queued.body) - queued.sent
            size = min(rest, self._frame_bytes)
            if frames and taken + HEADER.size + size > budget:
                break
            pieces.append(HEADER.pack(size, BULK_LAST if size == rest else BULK_FRAGMENT))
            pieces.append(queued.body if size == len(queued.body) else memoryview(queued.body)[queued.sent :][:size])
            taken += HEADER.size + size
            frames += 1
            queued.sent += size
            if size == rest:
                self._bulk.popleft()
                self.bulk_bytes -= queued.cost
        return pieces, frames

    def clear(self) -> list[QueuedMessage]:
        """Drop everything; return the bulk messages of which nothing was taken out."""
        unsent = [queued for queued in self._bulk if not queued.sent]
        self._keepalive = b""
        self._control.clear()
        self._bulk.clear()
        self.control_bytes = self.bulk_bytes = 0
        return unsent
