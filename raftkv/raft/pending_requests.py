"""Requests of clients that wait: for a leader, for an answer of the leader, or for an entry to be applied.

They belong to the replica and not to a role, because they outlive changes of role: a leader that steps down does not
answer a write that it has appended, since the entry may still be committed. Reads that wait for its leadership to be
confirmed (``ReadRounds``) end with it, and are not here. Requests and addresses are opaque; roles decide on answers.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Any

from raftkv.raft.entry import NodeId


@dataclass(slots=True, frozen=True)
class Waiter:
    """A client that waits for an entry to be applied; ``term`` is the entry's."""

    term: int
    reply_to: Any
    deadline_ms: float


@dataclass(slots=True, frozen=True)
class Forwarded:
    """A request that was forwarded to ``leader``."""

    pending: Any
    leader: NodeId


class PendingRequests:
    """The requests that outlive a change of role, each in exactly one place, each with a deadline.

    ``held`` wait for a leader, in order of arrival. ``forwarded`` are at the leader's node, by the number that its
    answer will carry; numbers count from 1 and are never used again. Waiters are kept by the index of their entry.
    Held and forwarded requests are whatever has a ``deadline_ms``.
    """

    __slots__ = ("_last_number", "_waiters", "forwarded", "held")

    def __init__(self) -> None:
        self.held: deque[Any] = deque()
        self.forwarded: dict[int, Forwarded] = {}
        self._waiters: dict[int, list[Waiter]] = {}
        self._last_number = 0

    def wait_for(self, index: int, waiter: Waiter) -> None:
        """Remember a client that waits for the entry at ``index``."""
        self._waiters.setdefault(index, []).append(waiter)

    def take_waiters(self, index: int) -> list[Waiter]:
        """Return and forget the clients that wait for ``index``, in whatever term."""
        return self._waiters.pop(index, []) if self._waiters else []

    def forward(self, pending: Any, leader: NodeId) -> int:
        """Remember a request that is forwarded to ``leader``; return its number."""
        self._last_number += 1
        self.forwarded[self._last_number] = Forwarded(pending, leader)
        return self._last_number

    def take_answered(self, number: int, leader: NodeId) -> Any | None:
        """Return and forget the request that ``leader`` answers by its number; None if it does not wait for that."""
        forwarded = self.forwarded.get(number)
        if forwarded is None or forwarded.leader != leader:
            return None
        return self.forwarded.pop(number).pending

    def take_forwarded_to(self, leader: NodeId) -> list[Any]:
        """Return and forget all requests that were forwarded to ``leader``."""
        return self._take_forwarded([n for n, waiting in self.forwarded.items() if waiting.leader == leader])

    def take_expired_held(self, now_ms: float) -> list[Any]:
        """Return and forget the held requests whose deadline has passed; the others stay in order."""
        if all(pending.deadline_ms > now_ms for pending in self.held):
            return []
        expired = [pending for pending in self.held if pending.deadline_ms <= now_ms]
        self.held = deque(pending for pending in self.held if pending.deadline_ms > now_ms)
        return expired

    def take_expired_waiters(self, now_ms: float) -> list[Any]:
        """Return and forget where the clients wait whose deadline has passed: their ``reply_to``."""
        expired = []
        for index, waiters in list(self._waiters.items()):
            late = [waiter.reply_to for waiter in waiters if waiter.deadline_ms <= now_ms]
            if late:
                expired += late
                self._waiters[index] = [waiter for waiter in waiters if waiter.deadline_ms > now_ms]
                if not self._waiters[index]:
                    del self._waiters[index]
        return expired

    def take_expired_forwarded(self, now_ms: float) -> list[Any]:
        """Return and forget the forwarded requests whose deadline has passed."""
        late = [n for n, waiting in self.forwarded.items() if waiting.pending.deadline_ms <= now_ms]
        return self._take_forwarded(late)

    def _take_forwarded(self, numbers: list[int]) -> list[Any]:
        return [self.forwarded.pop(number).pending for number in numbers]
