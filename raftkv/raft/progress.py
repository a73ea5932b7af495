"""What a leader knows about one peer's log, and how much it has on the way to that peer.

A leader does not know where a peer's log agrees with its own. It *probes*: it offers one message and waits for the
answer, which either matches or says where to look next (dissertation, 3.5). Once an answer matches it *replicates*: it
sends ahead without waiting, a bounded number of bytes, and advances as answers come (10.2.1, pipelining). Anything that
may have lost messages sends it back to probing.
"""

from __future__ import annotations

from collections import deque
from enum import StrEnum

AMPLE_FREE_BYTES = 2**62
"""What a node reports as its free disk space while it has more than could matter."""

NO_ROOM_PAUSE_MS = 1000.0
"""How long a leader offers no entries to a peer whose disk was full."""


class ProgressState(StrEnum):
    """How entries are sent to a peer."""

    PROBE = "probe"
    """One message at a time, until one matches."""
    REPLICATE = "replicate"
    """Ahead of the answers, up to the limit of bytes in flight."""


class Progress:
    """Replication to one peer.

    ``match_index`` is durable on the peer's disk and never falls in a term; ``match_index < next_index`` always holds.
    While probing, entries are sent once per answer or heartbeat; while replicating, ``next_index`` is behind the last
    entry sent.
    """

    __slots__ = ("_inflight", "_limit", "_paused", "free_bytes", "full_until_ms", "heard_ms", "inflight_bytes",
                 "match_index", "next_index", "progress_ms", "read_round", "state")  # fmt: skip

    def __init__(self, next_index: int, now_ms: float, inflight_limit_bytes: int) -> None:
        self.match_index = 0
        self.next_index = next_index
        self.state = ProgressState.PROBE
        self._paused = False
        """Nothing with entries is sent before an answer or the next heartbeat."""
        self.heard_ms: float | None = None
        """When this peer last answered in this term."""
        self.progress_ms = now_ms
        """When a message in flight was last confirmed, or the first of them was sent."""
        self.read_round = 0
        """The latest round of heartbeats that this peer has answered."""
        self.free_bytes = AMPLE_FREE_BYTES
        """Bytes of entries for which the peer's disk has room, as last reported."""
        self.full_until_ms = 0.0
        """Until when no entries are sent, since the peer's disk was full."""
        self.inflight_bytes = 0
        self._inflight: deque[tuple[int, int]] = deque()
        self._limit = inflight_limit_bytes

    def may_send(self, now_ms: float) -> bool:
        """Whether a message with entries may be sent now."""
        return not self._paused and self.inflight_bytes < self._limit and self.full_until_ms <= now_ms

    def has_room(self, size: int, now_ms: float) -> bool:
        """Whether the peer's disk has room for ``size`` bytes of entries, as far as it has reported."""
        return self.free_bytes >= size and self.full_until_ms <= now_ms

    @property
    def has_inflight(self) -> bool:
        """Whether entries were sent that the peer has not confirmed."""
        return bool(self._inflight)

    def pause(self) -> None:
        """Send no entries before the peer has answered, or ``resume`` is called."""
        self._paused = True

    def resume(self) -> None:
        """Let entries be sent again."""
        self._paused = False

    def sent(self, last_index: int, size: int, now_ms: float) -> None:
        """Record that entries up to ``last_index``, of ``size`` bytes, were sent."""
        if not self._inflight:
            self.progress_ms = now_ms
        self._inflight.append((last_index, size))
        self.inflight_bytes += size
        if self.state is ProgressState.PROBE:
            self.pause()
        else:
            self.next_index = last_index + 1

    def matched(self, index: int, now_ms: float) -> bool:
        """Record that the peer has everything up to ``index`` on disk; return whether that is news."""
        news = index > self.match_index
        if news:
            self.match_index = index
            self.progress_ms = now_ms
        while self._inflight and self._inflight[0][0] <= self.match_index:
            self.inflight_bytes -= self._inflight.popleft()[1]
        if self.state is ProgressState.PROBE:
            self.state = ProgressState.REPLICATE
            self.resume()
            self._forget_inflight()
            self.next_index = self.match_index + 1
        self.next_index = max(self.next_index, self.match_index + 1)
        return news

    def rejected(self, prev_log_index: int, next_index: int) -> bool:
        """Record that the logs differ at ``prev_log_index``, and probe at ``next_index``; return False for old news."""
        if prev_log_index <= self.match_index:
            return False
        if self.state is ProgressState.PROBE and prev_log_index != self.next_index - 1:
            return False
        self.probe(max(self.match_index + 1, min(next_index, prev_log_index)))
        return True

    def disk_full(self, now_ms: float) -> None:
        """Record that the peer's disk had no room for what was sent."""
        self.probe()
        self.full_until_ms = now_ms + NO_ROOM_PAUSE_MS

    def probe(self, next_index: int | None = None) -> None:
        """Go back to probing, at ``next_index`` or behind the last match: messages in flight may be lost.

        A peer that was being probed already has not answered, so its ``next_index`` stays.
        """
        if next_index is not None:
            self.next_index = next_index
        elif self.state is ProgressState.REPLICATE:
            self.next_index = self.match_index + 1
        self.state = ProgressState.PROBE
        self.resume()
        self._forget_inflight()
        assert self.match_index < self.next_index, (self.match_index, self.next_index)

    def _forget_inflight(self) -> None:
        self._inflight.clear()
        self.inflight_bytes = 0
