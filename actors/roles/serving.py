"""What all roles do for those who ask: serve, hold, pass back, give up in time, and say how things stand."""

from __future__ import annotations

from raftkv.actors.messages.node import (
    NotSent,
    PeerDown,
    PeerUp,
    ReadAt,
)
from raftkv.actors.messages.raft import BootstrapHello
from raftkv.actors.messages.requests import (
    Applied,
    AskStatus,
    Done,
    Forward,
    ForwardReply,
    PeerStatus,
    PendingRequest,
    Propose,
    Read,
    ReadIndex,
    Refused,
    Resign,
    Status,
)
from raftkv.actors.roles.role import Role
from raftkv.raft.configuration import majority
from raftkv.raft.entry import NodeId


class Serving(Role):
    """A role's side towards the front end, and towards peers that come and go."""

    # --- requests

    def on_PendingRequest(self, pending: PendingRequest) -> None:
        """Serve a request, or find who does."""
        request = pending.request
        if isinstance(request, AskStatus):
            self.reply(pending.reply_to, self.status())
        elif isinstance(request, Resign):
            self.replica.resigned = True
            self.resign(pending)
        elif isinstance(request, Read) and request.level == "stale" and self.replica.min_stale_read_index is not None:
            self._read_stale(pending, request)
        elif pending.deadline_ms <= self.now():
            self.reply(
                pending.reply_to, Refused("no_leader", "the time for this request was over before it could begin")
            )
        else:
            self.serve(pending)

    def serve(self, pending: PendingRequest) -> None:
        """Serve a request that needs a leader."""
        raise AssertionError(f"{self.role} does not serve requests")

    def resign(self, pending: PendingRequest) -> None:
        """Prepare to be stopped."""
        self.reply(pending.reply_to, Done())

    def _read_stale(self, pending: PendingRequest, read: Read) -> None:
        # A client that saw a value here before a restart must not find it gone after. So a life begins with a question
        # to the leader, and until that is answered stale reads are served as linearizable ones. No other message tells
        # what was committed by our start: one of an earlier life, of the same leader and term, may still arrive.
        floor = self.replica.min_stale_read_index
        assert floor is not None
        self.send(self.start.store, ReadAt(read.queries, pending.reply_to, floor, pending.deadline_ms))

    def hold(self, pending: PendingRequest) -> None:
        """Keep a request until there is a leader, or until its time is over."""
        held = self.replica.held
        if len(held) >= self.start.limits.held_requests:
            self.reply(pending.reply_to, Refused("overloaded", f"{len(held)} requests wait for a leader already"))
        else:
            held.append(pending)

    def release_held(self) -> None:
        """Serve again what waited; what has to go on waiting is held anew."""
        held = self.replica.held
        for _ in range(len(held)):
            if not self.has_replica:
                return
            self.on_PendingRequest(held.popleft())

    def expire(self, now_ms: float) -> None:
        """Answer those whose time is over: not done, or not known."""
        replica = self.replica
        for _ in range(len(replica.held)):
            pending = replica.held.popleft()
            if pending.deadline_ms > now_ms:
                replica.held.append(pending)
            else:
                self.reply(pending.reply_to, Refused("no_leader", self.reason_for_no_leader()))
        for reply_to in replica.expired_waiters(now_ms):
            self.reply(reply_to, Refused("unknown", "not committed in time; it may yet be"))
        for number in [n for n, waiting in replica.forwarded.items() if waiting.pending.deadline_ms <= now_ms]:
            self._lost(replica.forwarded.pop(number).pending, "the leader did not answer in time")

    def _lost(self, pending: PendingRequest, why: str) -> None:
        """Answer a request that was passed on and may or may not have arrived."""
        if isinstance(pending.request, Propose):
            self.reply(pending.reply_to, Refused("unknown", why))
        else:
            self.reply(pending.reply_to, Refused("retry", why))

    def on_ForwardReply(self, message: ForwardReply) -> None:
        """Pass on the leader's answer."""
        replica = self.replica
        waiting = replica.forwarded.get(message.number) if message.boot == replica.boot else None
        if waiting is None or waiting.leader != message.sender:
            return
        del replica.forwarded[message.number]
        pending, answer = waiting.pending, message.reply
        if isinstance(answer, ReadIndex) and not isinstance(pending.request, Propose):
            if replica.min_stale_read_index is None:
                replica.min_stale_read_index = answer.index
            if isinstance(pending.request, Read):
                queries = pending.request.queries
                self.send(self.start.store, ReadAt(queries, pending.reply_to, answer.index, pending.deadline_ms))
        elif isinstance(answer, Refused) or (isinstance(answer, Applied) and isinstance(pending.request, Propose)):
            self.reply(pending.reply_to, answer)
        else:
            self._lost(pending, f"{message.sender} answered what was not asked")

    # --- peers

    def on_PeerUp(self, message: PeerUp) -> None:
        """Note that messages reach this peer."""
        self.replica.connected.add(message.peer)

    def on_PeerDown(self, message: PeerDown) -> None:
        """Note that what was sent to this peer may be lost: who asked it through us must not wait in vain."""
        replica = self.replica
        replica.connected.discard(message.peer)
        for number in [n for n, waiting in replica.forwarded.items() if waiting.leader == message.peer]:
            self._lost(replica.forwarded.pop(number).pending, f"the connection to {message.peer}, the leader, was lost")

    def on_NotSent(self, message: NotSent) -> None:
        """Take back a request that never left this node."""
        if isinstance(message.message, Forward):
            waiting = self.replica.forwarded.pop(message.message.number, None)
            if waiting is not None:
                why = f"{message.peer} can't be reached: {message.reason}"
                self.reply(waiting.pending.reply_to, Refused("not_leader", why))

    def on_BootstrapHello(self, message: BootstrapHello) -> None:
        """Tell a node that has no configuration yet how the cluster was founded."""
        replica = self.replica
        if message.answer and message.sender in self.start.peers and replica.durable_index >= 1:
            self.send(
                self.start.peers[message.sender],
                BootstrapHello(replica.node_id, replica.incarnation, message.initial_cluster, (), replica.founding),
            )

    # --- status

    def status(self) -> Status:
        """Return what this node knows of itself and the others."""
        replica = self.replica
        return Status(
            id=replica.node_id,
            role=self.role,
            term=replica.current_term,
            leader=replica.leader_id,
            commit_index=replica.commit_index,
            last_applied=replica.last_applied,
            last_log_index=replica.log.last_index,
            durable_index=replica.durable_index,
            cluster_id=replica.cluster_id,
            incarnation=replica.incarnation,
            voters=tuple(sorted(replica.configuration.all_voters)),
            peers=tuple(
                self.peer_status(member.id, member.address)
                for member in replica.configuration.members
                if member.id != replica.node_id
            ),
            reason=None if replica.leader_id else self.reason_for_no_leader(),
        )

    def peer_status(self, peer: NodeId, address: str) -> PeerStatus:
        """Return what is known of one peer."""
        return PeerStatus(peer, address, peer in self.replica.connected)

    def reason_for_no_leader(self) -> str:
        """Say in words why there is no leader."""
        replica = self.replica
        voters = replica.configuration.all_voters
        reached = {voter for voter in voters if voter == replica.node_id or voter in replica.connected}
        if not replica.configuration.has_quorum(reached):
            missing = ", ".join(sorted(voters - reached))
            return f"no majority: {missing} can't be reached, and {majority(len(voters))} of {len(voters)} are needed"
        if replica.leader_id is not None:
            return f"{replica.leader_id} leads, but did not take the request"
        return "an election is under way"
