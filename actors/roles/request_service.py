"""What every role does with requests: serve, forward to the leader, hold until there is one, and time out.

A request is done at most once. It is forwarded one hop and never sent twice; when its fate is unknown (the connection
to the leader ended, or the deadline passed), the client learns exactly that.
"""

from __future__ import annotations

from typing import Any, Protocol

from thespian.actors import ActorAddress

from raftkv.actors.messages.node import NotSent, ReadAt, Start
from raftkv.actors.messages.requests import (
    Applied,
    AskReadIndex,
    AskStatus,
    Forward,
    ForwardReply,
    PendingRequest,
    Propose,
    Read,
    ReadIndex,
    Refused,
    Reply,
    ReplyTo,
    Resign,
    Status,
)
from raftkv.environment import Environment
from raftkv.raft.entry import NodeId
from raftkv.raft.replica import Replica

MIN_STALE_READ_MS = 1000.0
"""How long a leader may take to answer what stale reads have to show."""


class RequestHost(Protocol):
    """The role that requests are served for, as far as they need it."""

    start: Start
    environment: Environment
    replica: Replica
    has_replica: bool

    def now(self) -> float:
        """Return the time in milliseconds."""

    def send(self, address: Any, message: Any) -> None:
        """Send a message."""

    def peer(self, node_id: NodeId) -> ActorAddress:
        """Return the address of another node's Node actor."""

    def reply(self, reply_to: ReplyTo, answer: Reply | Status) -> None:
        """Answer a request."""

    def serve(self, pending: PendingRequest) -> None:
        """Serve a request that needs a leader."""

    def resign(self, pending: PendingRequest) -> None:
        """Prepare to be stopped."""

    def status(self) -> Status:
        """Return what this node knows of itself."""

    def reason_for_no_leader(self) -> str:
        """Explain in words why there is no leader."""

    def answer_to_lost(self, request: Propose | Read | AskReadIndex | Resign, why: str) -> Refused:
        """Return the answer to a forwarded request that may or may not have reached the leader."""


class RequestService:
    """The requests of one role; those that wait are in the replica, and outlive the role's tenure."""

    def __init__(self, host: RequestHost) -> None:
        self._host = host

    def take(self, pending: PendingRequest) -> None:
        """Serve a request, or find a node that does."""
        host, request = self._host, pending.request
        if isinstance(request, AskStatus):
            host.reply(pending.reply_to, host.status())
        elif isinstance(request, Resign):
            host.replica.resigned = True
            host.resign(pending)
        elif (
            isinstance(request, Read)
            and request.level == "stale"
            and (read_index := host.replica.min_stale_read_index) is not None
        ):
            # A client that saw a value here before a restart must not find it gone afterwards. So a node asks the
            # leader for a read index when it has started, and until that is answered stale reads are served as
            # linearizable ones. No other message tells what was committed before the start: one from before the
            # restart, of the same leader and term, may still arrive.
            self.read_at(pending, request, read_index)
        elif pending.deadline_ms <= host.now():
            host.reply(pending.reply_to, Refused("no_leader", "the time for this request was over before it began"))
        else:
            host.serve(pending)

    def read_at(self, pending: PendingRequest, read: Read, read_index: int) -> None:
        """Let the store answer a read once it has applied ``read_index``."""
        host = self._host
        host.send(host.start.store, ReadAt(read.queries, pending.reply_to, read_index, pending.deadline_ms))

    # --- without a leader

    def hold(self, pending: PendingRequest) -> None:
        """Keep a request until there is a leader, or until its time is over."""
        host = self._host
        held = host.replica.requests.held
        if len(held) >= host.environment.limits.held_requests:
            host.reply(pending.reply_to, Refused("overloaded", f"{len(held)} requests wait for a leader already"))
        else:
            held.append(pending)

    def release_held(self) -> None:
        """Take the held requests again, in order; some may be held once more."""
        held = self._host.replica.requests.held
        for _ in range(len(held)):
            if not self._host.has_replica:
                return
            self.take(held.popleft())

    def expire(self, now_ms: float) -> None:
        """Answer the requests whose time is over: not done, or unknown."""
        host, requests = self._host, self._host.replica.requests
        for pending in requests.take_expired_held(now_ms):
            host.reply(pending.reply_to, Refused("no_leader", host.reason_for_no_leader()))
        for reply_to in requests.take_expired_waiters(now_ms):
            host.reply(reply_to, Refused("unknown", "not committed in time; it may yet be"))
        for pending in requests.take_expired_forwarded(now_ms):
            self._lost(pending, "the leader did not answer in time")

    # --- at another leader

    def forward(self, pending: PendingRequest) -> None:
        """Forward a request to the leader, one hop and never more, or hold it until there is a leader."""
        host = self._host
        leader = host.replica.leader_id
        if pending.reply_to.forward is not None:
            host.reply(pending.reply_to, Refused("not_leader", f"{leader} leads" if leader else "no leader is known"))
        elif leader is None:
            self.hold(pending)
        else:
            left_ms = pending.deadline_ms - host.now()
            request = pending.request
            forwarded = Propose(request.commands, left_ms) if isinstance(request, Propose) else AskReadIndex(left_ms)
            self._send(pending, leader, forwarded)

    def ask_min_stale_read_index(self, leader: NodeId) -> None:
        """Ask this leader for the index that stale reads have to show, unless it is being asked already.

        A former leader may take long to answer, or never do, so the next one is asked all the same. Either answer is
        enough, for both were asked since the start.
        """
        host = self._host
        replica = host.replica
        under_way = replica.requests.forwarded.get(replica.min_stale_read_request)
        if under_way is None or under_way.leader != leader:
            request = AskReadIndex(MIN_STALE_READ_MS)
            # Failures are reported to Node, which ignores them: we ask again at the next heartbeat.
            pending = PendingRequest(request, ReplyTo(host.start.node), host.now() + MIN_STALE_READ_MS)
            replica.min_stale_read_request = self._send(pending, leader, request)

    def _send(self, pending: PendingRequest, leader: NodeId, request: Propose | AskReadIndex) -> int:
        host = self._host
        number = host.replica.requests.forward(pending, leader)
        host.send(host.peer(leader), Forward(host.replica.node_id, host.replica.boot_id, number, request))
        return number

    def answered(self, message: ForwardReply) -> None:
        """Pass on the leader's answer to a forwarded request."""
        host = self._host
        replica = host.replica
        if message.boot_id != replica.boot_id:
            return
        pending = replica.requests.take_answered(message.number, message.sender)
        if pending is None:
            return
        request, answer = pending.request, message.reply
        if isinstance(answer, ReadIndex) and not isinstance(request, Propose):
            if replica.min_stale_read_index is None:
                replica.min_stale_read_index = answer.index
            if isinstance(request, Read):
                self.read_at(pending, request, answer.index)
        elif isinstance(answer, Refused) or (isinstance(answer, Applied) and isinstance(request, Propose)):
            host.reply(pending.reply_to, answer)
        else:
            self._lost(pending, f"{message.sender} answered another question")

    def connection_lost(self, peer: NodeId) -> None:
        """Answer the requests that were forwarded to this peer and may or may not have reached it."""
        for pending in self._host.replica.requests.take_forwarded_to(peer):
            self._lost(pending, f"the connection to {peer}, the leader, was lost")

    def not_sent(self, message: NotSent) -> None:
        """Take back a forwarded request that never left this node."""
        if isinstance(message.message, Forward):
            pending = self._host.replica.requests.take_answered(message.message.number, message.peer)
            if pending is not None:
                why = f"{message.peer} can't be reached: {message.reason}"
                self._host.reply(pending.reply_to, Refused("not_leader", why))

    def _lost(self, pending: PendingRequest, why: str) -> None:
        request = pending.request
        assert not isinstance(request, AskStatus), request
        self._host.reply(pending.reply_to, self._host.answer_to_lost(request, why))
