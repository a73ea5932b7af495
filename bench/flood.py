"""Actors that flood each other, on any system base: a sender, and sinks that count.

The sinks write their counts to a file that all processes map, a ``CounterFile``, so a measurement does not depend on
the answer of an actor that may be too busy to give one.
"""

from __future__ import annotations

import mmap
import os
import struct
import time
from pathlib import Path
from typing import Any

import msgspec
from thespian.actors import Actor, ActorAddress, WakeupMessage

HEALTHY, OTHER = "n2", "n3"
ASK_PID = "which process?"

TURN_S = 0.01
_LATE_TURNS = 100


class FloodMessage(msgspec.Struct, frozen=True, array_like=True, tag=1):
    """A message that the sink counts."""

    sender: str
    data: bytes = b""


class Acknowledgement(msgspec.Struct, frozen=True, array_like=True, tag=2):
    """How many messages have arrived at ``sender`` so far."""

    sender: str
    count: int


class FloodSettings(msgspec.Struct, frozen=True):
    """How much is sent to each of the two peers.

    The healthy peer gets small messages: ``window`` of them are in flight at any time, and every
    ``acknowledged_each``-th is acknowledged; or, with a ``healthy_rate``, that many a second, whether or not they
    arrive. The other peer gets ``other_rate`` messages of ``other_bytes`` a second.
    """

    window: int
    acknowledged_each: int
    other_bytes: int
    other_rate: int
    healthy_rate: int = 0


class AttachSink(msgspec.Struct, frozen=True):
    """First message to a sink: the path of the counter file, and the number of its counter."""

    counters: str
    place: int
    node: str
    settings: FloodSettings


class StartSender(msgspec.Struct, frozen=True):
    """First message to a sender: where to send, and how much."""

    healthy: Any
    other: Any
    settings: FloodSettings


encode = msgspec.msgpack.Encoder().encode
decode = msgspec.msgpack.Decoder(FloodMessage | Acknowledgement).decode


def is_control(message: FloodMessage | Acknowledgement) -> bool:
    """Whether a message uses the link's control lane: small ones do, like Raft messages without entries."""
    return isinstance(message, Acknowledgement) or not message.data


class CounterFile:
    """Counters in a file: each is written by one process and read by any."""

    SIZE = 64

    def __init__(self, path: Path) -> None:
        with path.open("r+b") as file:
            self._memory = mmap.mmap(file.fileno(), self.SIZE)

    @classmethod
    def create(cls, path: Path) -> CounterFile:
        """Create a file in which all counters are zero."""
        path.write_bytes(bytes(cls.SIZE))
        return cls(path)

    def set(self, place: int, value: int) -> None:
        """Write a counter."""
        struct.pack_into("<Q", self._memory, 8 * place, value)

    def get(self, place: int) -> int:
        """Read a counter."""
        value: int = struct.unpack_from("<Q", self._memory, 8 * place)[0]
        return value


class Sink(Actor):
    """Counts messages, and acknowledges every ``acknowledged_each``-th."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0
        self.attached: AttachSink
        self.counters: CounterFile

    def receiveMessage(self, message: Any, sender: ActorAddress) -> None:
        """Count a message, or handle the first message."""
        if isinstance(message, FloodMessage):
            self.count += 1
            if self.count % self.attached.settings.acknowledged_each == 0:
                self.counters.set(self.attached.place, self.count)
                self.send(sender, Acknowledgement(self.attached.node, self.count))
        elif isinstance(message, AttachSink):
            self.attached = message
            self.counters = CounterFile(Path(message.counters))
        elif message == ASK_PID:
            self.send(sender, os.getpid())


class Sender(Actor):
    """Sends to the healthy peer, by window or by rate, and to the other peer by rate."""

    def __init__(self) -> None:
        super().__init__()
        self.start: StartSender
        self.small = FloodMessage("n1")
        self.sent = self.arrived = 0
        self.streams: list[FloodStream] = []

    def receiveMessage(self, message: Any, sender: ActorAddress) -> None:
        """Send what the window and the rates allow."""
        if isinstance(message, Acknowledgement):
            if message.sender == HEALTHY:
                self.arrived = message.count
                self._fill()
        elif isinstance(message, WakeupMessage):
            for stream in self.streams:
                for _ in range(stream.due(time.monotonic())):
                    self.send(stream.target, stream.message)
            self.wakeupAfter(TURN_S)
        elif isinstance(message, StartSender):
            self.start, settings = message, message.settings
            large = FloodMessage("n1", bytes(settings.other_bytes))
            self.streams = [FloodStream(message.other, large, settings.other_rate)]
            if settings.healthy_rate:
                self.streams.append(FloodStream(message.healthy, self.small, settings.healthy_rate))
            self._fill()
            self.wakeupAfter(TURN_S)
        elif message == ASK_PID:
            self.send(sender, os.getpid())

    def _fill(self) -> None:
        settings = self.start.settings
        while not settings.healthy_rate and self.sent - self.arrived < settings.window:
            self.sent += 1
            self.send(self.start.healthy, self.small)


class FloodStream:
    """One message, sent repeatedly at a steady rate."""

    def __init__(self, target: Any, message: FloodMessage, rate: int) -> None:
        self.target = target
        self.message = message
        self._rate = rate
        self._since_s = time.monotonic()

    def due(self, now_s: float) -> int:
        """Return how many messages are due now."""
        # Messages that are too late are skipped: a sender that was held up must not catch up in a burst.
        self._since_s = max(self._since_s, now_s - _LATE_TURNS * TURN_S)
        count = int((now_s - self._since_s) * self._rate)
        self._since_s += count / self._rate
        return count
