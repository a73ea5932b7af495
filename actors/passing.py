"""What the roles share that do not lead: they pass requests on to the leader, or hold them until there is one."""

from __future__ import annotations

from raftkv.actors.messages import Asked, Asker, AskReadIndex, Forward, Propose, Refused
from raftkv.actors.serving import Serving
from raftkv.entry import NodeId

READ_FLOOR_MS = 1000.0
"""How long the leader may take to say what stale reads have to show."""


class Passing(Serving):
    """A role that serves no request itself."""

    def serve(self, asked: Asked) -> None:
        """Pass a request on to the leader, one hop and never more."""
        replica = self.replica
        leader = replica.leader_id
        if asked.asker.forward is not None:
            self.reply(asked.asker, Refused("not_leader", f"{leader} leads" if leader else "no leader is known"))
        elif leader is None or leader not in self.start.peers:
            self.hold(asked)
        else:
            left_ms = asked.deadline_ms - self.now()
            request = asked.request
            passed = Propose(request.commands, left_ms) if isinstance(request, Propose) else AskReadIndex(left_ms)
            self._pass_on(asked, leader, passed)

    def ask_for_read_floor(self, leader: NodeId) -> None:
        """Ask this leader what stale reads have to show at least, unless that question to it is under way.

        A former leader may take long to answer, or never do: the next one is asked all the same. Whichever answers
        first has said enough, for both were asked in this life.
        """
        replica = self.replica
        under_way = replica.forwarded.get(replica.read_floor_asked)
        if under_way is None or under_way.leader != leader:
            request = AskReadIndex(READ_FLOOR_MS)
            # Whatever becomes of it is told to Node, who takes no notice: we ask again at the next heartbeat.
            asked = Asked(request, Asker(self.start.node), self.now() + READ_FLOOR_MS)
            replica.read_floor_asked = self._pass_on(asked, leader, request)

    def _pass_on(self, asked: Asked, leader: NodeId, passed: Propose | AskReadIndex) -> int:
        replica = self.replica
        number = replica.forward(asked, leader)
        self.send(self.start.peers[leader], Forward(replica.node_id, replica.boot, number, passed))
        return number
