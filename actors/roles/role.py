"""What all roles share: the baton, durable before sent, terms, votes and applying.

A role either holds the replica or does not. Without it, a role returns every message to Node, which passes it to the
role that holds the replica; only its own wake-ups and flushes, which belong to an earlier tenure, are dropped. A change
of role moves the replica in an ``Assume`` message, together with the message that caused the change, which the new role
handles first. So each message is handled by exactly one role, on the latest state.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from typing import Any, ClassVar

from thespian.actors import ActorAddress, ActorSystemMessage, WakeupMessage

from raftkv.actors.fail_stop import FailStopActor
from raftkv.actors.messages.base import Message, RoleName, WireMessage
from raftkv.actors.messages.node import (
    AppliedUpTo,
    Apply,
    AskFreeBytes,
    Assume,
    Flush,
    FreeBytes,
    NotSent,
    PeerDown,
    PeerUp,
    RoleChanged,
    Save,
    Saved,
    Start,
)
from raftkv.actors.messages.raft import (
    AppendEntries,
    AppendEntriesReply,
    BootstrapHello,
    RequestVote,
    RequestVoteReply,
)
from raftkv.actors.messages.requests import (
    AskReadIndex,
    Done,
    ForwardReply,
    PeerStatus,
    PendingRequest,
    Propose,
    Read,
    Refused,
    ReplyTo,
    Resign,
    Status,
)
from raftkv.actors.roles.request_service import RequestService
from raftkv.raft.configuration import majority
from raftkv.raft.entry import Entry, NodeId
from raftkv.raft.replica import Replica

APPLY_ENTRIES = 512
"""Most entries in one ``Apply``: applying must not keep the loop from its timers."""

APPLY_BYTES = 32 << 10
"""Most bytes of entries in one ``Apply`` (or one entry): some five milliseconds of the smallest commands."""

MAX_INFLIGHT_APPLIES = 2
"""Most ``Apply`` messages that the store has not confirmed: it stays busy, and others get their turn in between."""

ASK_FREE_BYTES_MS = 1000.0
"""How often a node whose disk is full looks for room."""


class Role(FailStopActor):
    """A Raft role. Everything in it is the same for all roles, or a default that one of them overrides."""

    role: ClassVar[RoleName]

    def __init_subclass__(cls, **keywords: Any) -> None:
        super().__init_subclass__(**keywords)
        cls.label = getattr(cls, "role", cls.label)

    def __init__(self) -> None:
        super().__init__()
        self.replica: Replica
        self.has_replica = False
        self.service = RequestService(self)
        self.due_ms = 0.0
        """When the latest wake-up that was asked for is due."""
        self._wake_number = 0
        self._announced: tuple[int, NodeId | None] | None = None
        self._peer_addresses: dict[NodeId, ActorAddress] = {}

    # --- receiving

    @classmethod
    def is_ignored(cls, kind: type[Message | WireMessage]) -> bool:
        """Whether messages of this class mean nothing to this role, as their class says."""
        return cls.role in kind.ignored_by

    def handle(self, message: Any) -> None:
        """Handle a message with the replica, or return it to Node without."""
        if self.has_replica:
            super().handle(message)
            self.save_hard_state()
        elif isinstance(message, Start | Assume):
            super().handle(message)
        elif not isinstance(message, ActorSystemMessage):
            self.handle_without_replica(message)

    def handle_without_replica(self, message: Any) -> None:
        """Return a message that came too late for this role; its own flush has no meaning for another one."""
        if not isinstance(message, Flush):
            self.send(self.start.node, message)

    def on_WakeupMessage(self, message: WakeupMessage) -> None:
        """Act on the latest wake-up only: wake-ups cannot be cancelled, so earlier ones still arrive."""
        if message.payload == self._wake_number:
            self.wake(self.now())

    def peer(self, node_id: NodeId) -> ActorAddress:
        """Return the address of another node's Node actor."""
        address = self._peer_addresses.get(node_id)
        if address is None:
            address = self._peer_addresses[node_id] = self.start.peer_address(node_id)
        return address

    # --- the baton

    def on_Assume(self, message: Assume) -> None:
        """Take the replica over, and then handle the message that caused the change of role."""
        assert not self.has_replica, f"{self.role} was handed a second replica"
        self.replica = message.replica
        self.has_replica = True
        self._announced = None
        self.assumed(message.cause)
        if self.has_replica:
            self.announce(message.reason)
        if message.cause is not None:
            self.handle(message.cause)
        self.save_hard_state()

    def assumed(self, cause: Any) -> None:
        """Begin a tenure; ``cause`` is handled afterwards like any other message."""

    def leaving(self) -> None:
        """End a tenure, while the replica is still here."""

    def become(self, role: RoleName, reason: str, cause: Any = None) -> None:
        """Hand the replica to another role. A handler does nothing more after this."""
        self.save_hard_state()
        self.leaving()
        self.has_replica = False
        replica = self.replica
        del self.replica
        self.send(self.start.node, Assume(replica, role, reason, cause))

    def announce(self, reason: str) -> None:
        """Report a new term or leader to the observer, once."""
        replica = self.replica
        if self._announced != (replica.current_term, replica.leader_id):
            self._announced = (replica.current_term, replica.leader_id)
            changed = RoleChanged(
                id=replica.node_id,
                role=self.role,
                term=replica.current_term,
                leader=replica.leader_id,
                reason=reason,
                cluster_id=replica.cluster_id,
                members=replica.configuration.members,
            )
            self.send(self.start.node, changed)

    # --- time

    def now(self) -> float:
        """Return the time in milliseconds."""
        return self.environment.clock.now_ms()

    def wake_at(self, when_ms: float) -> None:
        """Schedule the next wake-up, which replaces any earlier one."""
        self._wake_number += 1
        self.due_ms = when_ms
        # Periods are whole microseconds: rounded down, one could end before the moment it was meant for.
        self.wakeupAfter(timedelta(milliseconds=max(0.0, when_ms - self.now()) + 0.001), self._wake_number)

    def wake(self, now_ms: float) -> None:
        """Do what is due."""

    def election_timeout(self) -> float:
        """Draw how long to wait before an election, in milliseconds (3.4)."""
        timing = self.environment.timing
        return self.environment.rng.uniform(timing.election_min_ms, timing.election_max_ms)

    # --- durable before sent

    def save(self, entries: tuple[Entry, ...] = ()) -> int:
        """Ask the journal to save term, vote and ``entries``, which are in the log already; return its number."""
        replica = self.replica
        number = replica.save(self.now())
        self.send(self.start.journal, Save(number, replica.current_term, replica.voted_for, entries))
        return number

    def save_hard_state(self) -> None:
        """Save term and vote if they have changed since the last save."""
        if self.has_replica and self.replica.saves.hard_state_dirty:
            self.save()

    def send_when_saved(self, address: Any, message: Any) -> None:
        """Send a message that reveals our term, vote or log as soon as all of that is durable."""
        self.save_hard_state()
        if not self.replica.saves.send_later(address, message):
            self.send(address, message)

    def send_when_term_saved(self, address: Any, message: Any) -> None:
        """Send a message that reveals only our term, once the term is on disk."""
        saves = self.replica.saves
        if not saves.hard_state_dirty and saves.durable_term == self.replica.current_term:
            self.send(address, message)
        else:
            self.send_when_saved(address, message)

    def on_Saved(self, message: Saved) -> None:
        """Send the messages that waited for these saves."""
        replica = self.replica
        replica.saved(message.number)
        replica.saves.free_bytes = message.free_bytes
        for address, waiting in replica.saves.take_ready(message.number):
            self.send(address, waiting)
        self.saved(message.number)
        if self.has_replica:
            self.apply_committed()

    def saved(self, number: int) -> None:
        """Act on saves up to ``number`` being durable."""

    def ask_for_free_bytes(self) -> None:
        """Ask the journal whether there is room again, now and then."""
        saves, now_ms = self.replica.saves, self.now()
        if now_ms - saves.free_bytes_asked_ms >= ASK_FREE_BYTES_MS:
            saves.free_bytes_asked_ms = now_ms
            self.send(self.start.journal, AskFreeBytes())

    def on_FreeBytes(self, message: FreeBytes) -> None:
        """Take note of how much room there is."""
        self.replica.saves.free_bytes = message.free_bytes

    def disk_is_stalled(self, now_ms: float) -> bool:
        """Whether the oldest save has been under way for longer than a leader may wait for its disk."""
        oldest_ms = self.replica.saves.oldest_ms
        return oldest_ms is not None and now_ms - oldest_ms > self.environment.timing.disk_stall_ms

    # --- terms and votes

    def follow_later_term(self, message: Any) -> bool:
        """Follow a message of a later term; return True when it was handed to the follower with the replica."""
        if message.term <= self.replica.current_term:
            return False
        self.replica.adopt_term(message.term)
        if self.role == "follower":
            return False
        self.become("follower", f"{message.sender} is in a later term, {message.term}", message)
        return True

    def hears_leader(self) -> bool:
        """Whether the leader was heard from so recently that an election would only disturb it (4.2.3)."""
        replica = self.replica
        since = self.now() - replica.leader_heard_ms
        return replica.leader_id is not None and since < self.environment.timing.election_min_ms

    def on_RequestVote(self, message: RequestVote) -> None:
        """Vote for at most one candidate in a term, and only for one whose log is at least as up to date (3.6.1).

        A later term is ignored while the leader is heard, unless that leader hands over (4.2.3).
        """
        replica = self.replica
        if message.sender not in replica.configuration.ids:
            return
        if message.pre_vote:
            self._pre_vote(message)
            return
        if message.term > replica.current_term and self.hears_leader() and not message.transfer:
            return
        if self.follow_later_term(message):
            return
        granted = (
            message.term == replica.current_term
            and replica.voted_for in (None, message.sender)
            and replica.log.is_up_to_date(message.last_log_index, message.last_log_term)
        )
        if granted:
            replica.vote_for(message.sender)
            self.voted()
        reply = RequestVoteReply(replica.node_id, replica.current_term, granted)
        self.send_when_saved(self.peer(message.sender), reply)

    def _pre_vote(self, message: RequestVote) -> None:
        """Say whether we would vote for this candidate; nothing changes here (9.6)."""
        replica = self.replica
        granted = (
            message.term > replica.current_term
            and not self.hears_leader()
            and replica.log.is_up_to_date(message.last_log_index, message.last_log_term)
        )
        term = message.term if granted else replica.current_term
        reply = RequestVoteReply(replica.node_id, term, granted, pre_vote=True)
        self.send_when_saved(self.peer(message.sender), reply)

    def voted(self) -> None:
        """Act on having given a vote to another node."""

    def reject(
        self, message: AppendEntries, conflict_index: int = 0, conflict_term: int = 0, no_room: bool = False
    ) -> None:
        """Refuse entries, and say where our log differs or that ours is a later term."""
        replica = self.replica
        reply = AppendEntriesReply(
            replica.node_id,
            replica.current_term,
            False,
            message.prev_log_index,
            message.read_round,
            conflict_term,
            conflict_index,
            no_room,
            replica.saves.reported_free_bytes,
        )
        self.send_when_term_saved(self.peer(message.sender), reply)

    # --- applying

    def commit_to(self, index: int) -> None:
        """Move the commit index forward, never back."""
        replica = self.replica
        if index > replica.commit_index:
            assert index <= replica.log.last_index, (index, replica.log.last_index)
            replica.commit_index = index
            self.apply_committed()

    def apply_committed(self) -> None:
        """Give the store what is committed and on our own disk, a bounded piece at a time."""
        replica = self.replica
        limit = min(replica.commit_index, replica.durable_index)
        while replica.applying_index < limit and len(replica.inflight_applies) < MAX_INFLIGHT_APPLIES:
            first = replica.applying_index + 1
            entries = replica.log.between(first, min(limit, first + APPLY_ENTRIES - 1), APPLY_BYTES)
            replica.applying_index = entries[-1].index
            replica.inflight_applies.append(replica.applying_index)
            self.send(self.start.store, Apply(first, entries, tuple(self.waiters_of(entries))))

    def waiters_of(self, entries: Iterable[Entry]) -> Iterable[tuple[int, ReplyTo]]:
        """Yield (index, reply_to) of the clients that wait for these entries; refuse those whose entry was replaced."""
        for entry in entries:
            for waiter in self.replica.requests.take_waiters(entry.index):
                # Only now is it certain: another entry is committed in the place of the client's. That an entry was
                # cut off here proves nothing, since another node may still hold and commit it.
                if waiter.term == entry.term:
                    yield entry.index, waiter.reply_to
                else:
                    self.reply(waiter.reply_to, Refused("not_committed", "another leader's entry took its place"))

    def on_AppliedUpTo(self, message: AppliedUpTo) -> None:
        """Go on applying."""
        replica = self.replica
        assert message.index <= replica.applying_index, (message.index, replica.applying_index)
        # A report sent to an earlier role returns through Node, and may arrive after the next report.
        replica.last_applied = max(replica.last_applied, message.index)
        while replica.inflight_applies and replica.inflight_applies[0] <= replica.last_applied:
            replica.inflight_applies.popleft()
        self.apply_committed()

    # --- requests

    def on_PendingRequest(self, pending: PendingRequest) -> None:
        """Serve a request, or forward it, or hold it."""
        self.service.take(pending)

    def serve(self, pending: PendingRequest) -> None:
        """Serve a request that needs a leader: forward it to the leader, as long as that is another node."""
        self.service.forward(pending)

    def resign(self, pending: PendingRequest) -> None:
        """Prepare to be stopped."""
        self.reply(pending.reply_to, Done())

    def answer_to_lost(self, request: Propose | Read | AskReadIndex | Resign, why: str) -> Refused:
        """Return the answer to a forwarded request that may or may not have reached the leader."""
        return Refused("unknown" if isinstance(request, Propose) else "retry", why)

    def on_ForwardReply(self, message: ForwardReply) -> None:
        """Pass on the leader's answer."""
        self.service.answered(message)

    # --- peers

    def on_PeerUp(self, message: PeerUp) -> None:
        """Take note that messages reach this peer."""
        self.replica.connected.add(message.peer)

    def on_PeerDown(self, message: PeerDown) -> None:
        """Take note that messages to this peer may be lost: clients must not wait for them in vain."""
        self.replica.connected.discard(message.peer)
        self.service.connection_lost(message.peer)

    def on_NotSent(self, message: NotSent) -> None:
        """Take back a request that never left this node."""
        self.service.not_sent(message)

    def on_BootstrapHello(self, message: BootstrapHello) -> None:
        """Show a node that has no configuration yet how the cluster was founded."""
        replica = self.replica
        if message.answer and message.sender in replica.configuration.ids and replica.durable_index >= 1:
            hello = BootstrapHello(
                replica.node_id, replica.incarnation, message.initial_cluster_hash, (), replica.founding
            )
            self.send(self.peer(message.sender), hello)

    # --- status

    def status(self) -> Status:
        """Return what this node knows of itself and the others."""
        replica = self.replica
        moved = dict(self.start.initial_cluster)
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
                # An address given by --cluster is later than the one in the log: nodes may move.
                self.peer_status(member.id, moved.get(member.id, member.address))
                for member in replica.configuration.members
                if member.id != replica.node_id
            ),
            reason=None if replica.leader_id else self.reason_for_no_leader(),
        )

    def peer_status(self, peer: NodeId, address: str) -> PeerStatus:
        """Return what is known of one peer."""
        return PeerStatus(peer, address, peer in self.replica.connected)

    def reason_for_no_leader(self) -> str:
        """Explain in words why there is no leader."""
        replica = self.replica
        voters = replica.configuration.all_voters
        reached = {voter for voter in voters if voter == replica.node_id or voter in replica.connected}
        if not replica.configuration.has_quorum(reached):
            missing = ", ".join(sorted(voters - reached))
            return f"no majority: {missing} can't be reached, and {majority(len(voters))} of {len(voters)} are needed"
        if replica.leader_id is not None:
            return f"{replica.leader_id} leads, but did not take the request"
        return "an election is under way"
