"""What the roles share that do not lead: they pass requests on to the leader, or hold them until there is one."""

from __future__ import annotations

from raftkv.actors.messages import Asked, AskReadIndex, Forward, Propose, Refused
from raftkv.actors.serving import Serving


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
            number = replica.forward(asked, leader)
            self.send(self.start.peers[leader], Forward(replica.node_id, replica.boot, number, passed))
