"""Actors that flood each other, on whatever system base they are created: a sender, and sinks that count.

How much has arrived is written to a file that all processes share, a ``Board``: whoever measures reads it there, and
need not ask an actor that may have no time to answer.
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


class Parcel(msgspec.Struct, frozen=True, array_like=True, tag=1):
    """Something to be counted."""

    sender: str
    data: bytes = b""


class Received(msgspec.Struct, frozen=True, array_like=True, tag=2):
    """How many parcels have arrived at ``sender`` so far."""

    sender: str
    count: int


class Strength(msgspec.Struct, frozen=True):
    """How much is sent.

    ``window`` small messages are under way to the healthy peer at any time, of which each so many are acknowledged; or,
    with a ``healthy_rate``, so many are sent a second, whatever becomes of them, as to the other peer: messages of
    ``other_bytes``, ``other_rate`` a second.
    """

    window: int
    acknowledged_each: int
    other_bytes: int
    other_rate: int
    healthy_rate: int = 0


class Attach(msgspec.Struct, frozen=True):
    """First message to a sink: the path of the board, and where on it to count."""

    board: str
    place: int
    node: str
    strength: Strength


class Begin(msgspec.Struct, frozen=True):
    """First message to a sender: where to send, and how much."""

    healthy: Any
    other: Any
    strength: Strength


encode = msgspec.msgpack.Encoder().encode
decode = msgspec.msgpack.Decoder(Parcel | Received).decode


def is_control(message: Parcel | Received) -> bool:
    """Whether a message goes in the link's control lane: small ones do, as those of Raft that carry no entries."""
    return isinstance(message, Received) or not message.data


class Board:
    """Counters in a file: each is written by one process, and read by any."""

    SIZE = 64

    def __init__(self, path: Path) -> None:
        with path.open("r+b") as file:
            self._memory = mmap.mmap(file.fileno(), self.SIZE)

    @classmethod
    def create(cls, path: Path) -> Board:
        """Make a new one, on which everything is zero."""
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
    """Counts parcels, and tells their sender once in a while how many there were."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0
        self.attached: Attach
        self.board: Board

    def receiveMessage(self, message: Any, sender: ActorAddress) -> None:
        """Count."""
        if isinstance(message, Parcel):
            self.count += 1
            if self.count % self.attached.strength.acknowledged_each == 0:
                self.board.set(self.attached.place, self.count)
                self.send(sender, Received(self.attached.node, self.count))
        elif isinstance(message, Attach):
            self.attached = message
            self.board = Board(Path(message.board))
        elif message == ASK_PID:
            self.send(sender, os.getpid())


class Sender(Actor):
    """Keeps the window to the healthy peer full, or sends to it at a steady rate, and so to the other one."""

    def __init__(self) -> None:
        super().__init__()
        self.begun: Begin
        self.small = Parcel("n1")
        self.sent = self.arrived = 0
        self.streams: list[FloodStream] = []

    def receiveMessage(self, message: Any, sender: ActorAddress) -> None:
        """Send what there is room or time for."""
        if isinstance(message, Received):
            if message.sender == HEALTHY:
                self.arrived = message.count
                self._fill()
        elif isinstance(message, WakeupMessage):
            for stream in self.streams:
                for _ in range(stream.due(time.monotonic())):
                    self.send(stream.target, stream.message)
            self.wakeupAfter(TURN_S)
        elif isinstance(message, Begin):
            self.begun, strength = message, message.strength
            large = Parcel("n1", bytes(strength.other_bytes))
            self.streams = [FloodStream(message.other, large, strength.other_rate)]
            if strength.healthy_rate:
                self.streams.append(FloodStream(message.healthy, self.small, strength.healthy_rate))
            self._fill()
            self.wakeupAfter(TURN_S)
        elif message == ASK_PID:
            self.send(sender, os.getpid())

    def _fill(self) -> None:
        strength = self.begun.strength
        while not strength.healthy_rate and self.sent - self.arrived < strength.window:
            self.sent += 1
            self.send(self.begun.healthy, self.small)


class FloodStream:
    """The same message again and again, at a steady rate."""

    def __init__(self, target: Any, message: Parcel, rate: int) -> None:
        self.target = target
        self.message = message
        self._rate = rate
        self._since_s = time.monotonic()

    def due(self, now_s: float) -> int:
        """Return how many have to be sent now."""
        # What could not be sent in time is not sent at all: a sender that was held up must not make up for it.
        self._since_s = max(self._since_s, now_s - _LATE_TURNS * TURN_S)
        count = int((now_s - self._since_s) * self._rate)
        self._since_s += count / self._rate
        return count
