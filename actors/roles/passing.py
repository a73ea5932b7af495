"""What the roles share that do not lead: they pass requests on to the leader, or hold them until there is one."""

from __future__ import annotations

from raftkv.actors.messages.requests import (
    AskReadIndex,
    Forward,
    PendingRequest,
    Propose,
    Refused,
    ReplyTo,
)
from raftkv.actors.roles.serving import Serving
from raftkv.raft.entry import NodeId

MIN_STALE_READ_MS = 1000.0
"""How long the leader may take to say what stale reads have to show."""


class Passing(Serving):
    """A role that serves no request itself."""

    def serve(self, pending: PendingRequest) -> None:
        """Pass a request on to the leader, one hop and never more."""
        replica = self.replica
        leader = replica.leader_id
        if pending.reply_to.forward is not None:
            self.reply(pending.reply_to, Refused("not_leader", f"{leader} leads" if leader else "no leader is known"))
        elif leader is None or leader not in self.start.peers:
            self.hold(pending)
        else:
            left_ms = pending.deadline_ms - self.now()
            request = pending.request
            passed = Propose(request.commands, left_ms) if isinstance(request, Propose) else AskReadIndex(left_ms)
            self._pass_on(pending, leader, passed)

    def ask_for_min_stale_read_index(self, leader: NodeId) -> None:
        """Ask this leader what stale reads have to show at least, unless that question to it is under way.

        A former leader may take long to answer, or never do: the next one is asked all the same. Whichever answers
        first has said enough, for both were asked in this life.
        """
        replica = self.replica
        under_way = replica.forwarded.get(replica.min_stale_read_request)
        if under_way is None or under_way.leader != leader:
            request = AskReadIndex(MIN_STALE_READ_MS)
            # Whatever becomes of it is told to Node, who takes no notice: we ask again at the next heartbeat.
            pending = PendingRequest(request, ReplyTo(self.start.node), self.now() + MIN_STALE_READ_MS)
            replica.min_stale_read_request = self._pass_on(pending, leader, request)

    def _pass_on(self, pending: PendingRequest, leader: NodeId, passed: Propose | AskReadIndex) -> int:
        replica = self.replica
        number = replica.forward(pending, leader)
        self.send(self.start.peers[leader], Forward(replica.node_id, replica.boot, number, passed))
        return number
