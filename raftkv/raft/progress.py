"""What a leader knows of one peer's log, and how much it has on the way to it."""

from __future__ import annotations

from collections import deque
from typing import Literal

UNKNOWN_FREE_BYTES = 2**62
"""What a node says of the room on its disk while there is plenty."""

NO_ROOM_PAUSE_MS = 1000.0
"""How long a peer with a full disk is left alone before entries are offered again."""


class Progress:
    """Replication to one peer: ``match_index < next_index``.

    While *probing*, the leader looks for the last index on which both logs agree, one message at a time. While
    *replicating*, it sends ahead without waiting, up to ``inflight_bytes`` of entries that were not confirmed.
    """

    __slots__ = (
        "_inflight",
        "_limit",
        "free_bytes",
        "full_until_ms",
        "heard_ms",
        "inflight_bytes",
        "match_index",
        "next_index",
        "progress_ms",
        "read_round",
        "state",
        "waiting",
    )  # fmt: skip

    def __init__(self, next_index: int, now_ms: float, inflight_limit_bytes: int) -> None:
        self.match_index = 0
        self.next_index = next_index
        self.state: Literal["probe", "replicate"] = "probe"
        self.waiting = False
        """A probe is on its way, and nothing else is sent before its answer or the next heartbeat."""
        self.heard_ms: float | None = None
        """When this peer last answered in this term."""
        self.progress_ms = now_ms
        """When a message on its way was last confirmed, or the first of them was sent."""
        self.read_round = 0
        """The latest round of heartbeats that this peer has answered."""
        self.free_bytes = UNKNOWN_FREE_BYTES
        """Bytes of entries that the peer has room for, as it last said."""
        self.full_until_ms = 0.0
        """Until when no entries are sent, since the peer's disk was full."""
        self.inflight_bytes = 0
        self._inflight: deque[tuple[int, int]] = deque()
        self._limit = inflight_limit_bytes

    def may_send(self, now_ms: float) -> bool:
        """Whether a message with entries may go out now."""
        return not self.waiting and self.inflight_bytes < self._limit and self.full_until_ms <= now_ms

    def has_room(self, size: int, now_ms: float) -> bool:
        """Whether the peer's disk has room for ``size`` bytes of entries, as far as it has told."""
        return self.free_bytes >= size and self.full_until_ms <= now_ms

    @property
    def has_inflight(self) -> bool:
        """Whether entries are on their way that have not been confirmed."""
        return bool(self._inflight)

    def sent(self, last_index: int, size: int, now_ms: float) -> None:
        """Note that entries up to ``last_index`` of ``size`` bytes went out."""
        if not self._inflight:
            self.progress_ms = now_ms
        self._inflight.append((last_index, size))
        self.inflight_bytes += size
        if self.state == "probe":
            self.waiting = True
        else:
            self.next_index = last_index + 1

    def matched(self, index: int, now_ms: float) -> bool:
        """Note that the peer has everything up to ``index`` on disk; return whether that is news."""
        news = index > self.match_index
        if news:
            self.match_index = index
            self.progress_ms = now_ms
        while self._inflight and self._inflight[0][0] <= self.match_index:
            self.inflight_bytes -= self._inflight.popleft()[1]
        if self.state == "probe":
            self.state = "replicate"
            self.waiting = False
            self._forget_inflight()
            self.next_index = self.match_index + 1
        self.next_index = max(self.next_index, self.match_index + 1)
        return news

    def rejected(self, prev_log_index: int, next_index: int) -> bool:
        """Note that the logs differ at ``prev_log_index``, and go on at ``next_index``; False if that is old news."""
        if prev_log_index <= self.match_index:
            return False
        if self.state == "probe" and prev_log_index != self.next_index - 1:
            return False
        self.probe(max(self.match_index + 1, min(next_index, prev_log_index)))
        return True

    def full(self, now_ms: float) -> None:
        """Note that the peer's disk had no room for what was sent."""
        self.probe()
        self.full_until_ms = now_ms + NO_ROOM_PAUSE_MS

    def probe(self, next_index: int | None = None) -> None:
        """Go back to probing, at ``next_index`` or behind the last match: what was on its way may be lost.

        A probe without an answer stays where it is: the peer has said nothing that would move it.
        """
        if next_index is not None:
            self.next_index = next_index
        elif self.state == "replicate":
            self.next_index = self.match_index + 1
        self.state = "probe"
        self.waiting = False
        self._forget_inflight()
        assert self.match_index < self.next_index, (self.match_index, self.next_index)

    def _forget_inflight(self) -> None:
        self._inflight.clear()
        self.inflight_bytes = 0
