"""Leadership transfer (dissertation, 3.10): its target, its deadline, and the requests that wait for it.

The leader stops taking requests, brings the target up to date, and sends it ``TimeoutNow``; the target campaigns
without pre-votes. If it is not elected in time, the leader goes on leading.
"""

from __future__ import annotations

from collections.abc import Iterable

from raftkv.actors.messages.requests import PendingRequest
from raftkv.raft.entry import NodeId
from raftkv.raft.progress import Progress


class LeadershipTransfer:
    """The transfer of one leader, if one is under way, and the requests to resign that wait for its end."""

    __slots__ = ("deadline_ms", "resigning", "target")

    def __init__(self) -> None:
        self.target: NodeId | None = None
        self.deadline_ms = 0.0
        """When the transfer under way is given up."""
        self.resigning: list[PendingRequest] = []

    def begin(self, target: NodeId, deadline_ms: float) -> None:
        """Begin to hand over to ``target``, until ``deadline_ms`` or the first deadline of a request to resign."""
        self.target = target
        self.deadline_ms = min(deadline_ms, *(pending.deadline_ms for pending in self.resigning), deadline_ms)

    def is_overdue(self, now_ms: float) -> bool:
        """Whether the target was not elected in time."""
        return self.target is not None and now_ms >= self.deadline_ms

    def end(self) -> list[PendingRequest]:
        """Give the transfer up, or find it done; return and forget the requests to resign."""
        resigning, self.resigning = self.resigning, []
        self.target = None
        return resigning


def most_up_to_date(peers: Iterable[NodeId], progress: dict[NodeId, Progress]) -> NodeId | None:
    """Return the peer that has most of the leader's log on its disk; None when there is no peer."""
    return max(peers, key=lambda peer: (progress[peer].match_index, peer), default=None)
