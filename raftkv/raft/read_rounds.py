"""Rounds of heartbeats by which a leader confirms reads: which reads wait, and for which round (dissertation, 6.4).

A round confirms only the reads that had arrived when it was sent: a later read may have to see something that
another leader has committed since. So a read waits for a round that has not been sent yet, and while one is under way
all that come share the next.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(slots=True)
class ReadRound:
    """One round, by its number, and the reads that it confirms; ``read_index`` is the commit index when it was sent."""

    number: int
    read_index: int
    reads: list[Any]


class ReadRounds:
    """The reads of one leader: those that are ``waiting`` for a round to be sent, and the round that is ``under_way``.

    ``sent`` counts the rounds. With the term it names a round once and for all, so it is never set back. Reads are
    whatever has a ``deadline_ms``.
    """

    __slots__ = ("sent", "under_way", "waiting")

    def __init__(self) -> None:
        self.waiting: list[Any] = []
        self.under_way: ReadRound | None = None
        self.sent = 0

    def begin(self, read_index: int) -> None:
        """Note that a round is sent now, for all reads that wait; none may be under way."""
        assert self.under_way is None, self.under_way
        self.sent += 1
        self.under_way = ReadRound(self.sent, read_index, self.waiting)
        self.waiting = []

    def end(self) -> None:
        """Note that the round under way was answered by a majority."""
        self.under_way = None

    def take_late(self, now_ms: float) -> list[Any]:
        """Return and forget the reads whose deadline has passed; a round goes on without them."""
        late = [read for read in self.waiting if read.deadline_ms <= now_ms]
        self.waiting = [read for read in self.waiting if read.deadline_ms > now_ms]
        if self.under_way is not None:
            late += [read for read in self.under_way.reads if read.deadline_ms <= now_ms]
            self.under_way.reads = [read for read in self.under_way.reads if read.deadline_ms > now_ms]
        return late

    def take_all(self) -> list[Any]:
        """Return and forget all reads, those of the round under way first."""
        reads = [*(self.under_way.reads if self.under_way is not None else ()), *self.waiting]
        self.under_way = None
        self.waiting = []
        return reads
