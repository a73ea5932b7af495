"""What all roles share: the baton, durable before said, terms, votes and applying.

A role holds the replica or it does not. Without it, it returns whatever it gets to Node, which passes it to the role
that has it; only its own wake-ups and flushes, which meant an earlier tenure, it drops.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterable
from datetime import timedelta
from typing import Any, ClassVar

from thespian.actors import Actor, ActorSystemMessage, WakeupMessage

from raftkv.actors.messages.base import RoleName
from raftkv.actors.messages.node import (
    AppliedUpTo,
    Apply,
    AskFreeBytes,
    Assume,
    Flush,
    FreeBytes,
    RoleChanged,
    Save,
    Saved,
    Start,
)
from raftkv.actors.messages.raft import (
    AppendEntries,
    AppendEntriesReply,
    RequestVote,
    RequestVoteReply,
)
from raftkv.actors.messages.replying import reply
from raftkv.actors.messages.requests import (
    Refused,
    Reply,
    ReplyTo,
    Status,
)
from raftkv.exit_status import EXIT_BUG
from raftkv.raft.entry import Entry, NodeId
from raftkv.raft.replica import Replica

APPLY_ENTRIES = 512
"""Most entries in one ``Apply``: applying must not keep the loop from its timers."""

APPLY_BYTES = 32 << 10
"""Most bytes of entries in one ``Apply`` (or one entry): some five milliseconds of the smallest commands."""

APPLIES_UNDER_WAY = 2
"""Most ``Apply`` messages that the store has not confirmed: it stays busy, and others get their turn in between."""

ASK_FREE_BYTES_MS = 1000.0
"""How often a node whose disk is full looks for room."""

Handler = Callable[[Any, Any], None]


class Role(Actor):
    """A Raft role. Handlers are methods named ``on_`` and the class of the message."""

    role: ClassVar[RoleName]
    retry_failed_messages = False
    handlers: ClassVar[dict[str, Handler]] = {}

    def __init_subclass__(cls, **keywords: Any) -> None:
        super().__init_subclass__(**keywords)
        # One look-up per message; Thespian's own dispatcher walks two class hierarchies for each.
        cls.handlers = {name[3:]: getattr(cls, name) for name in dir(cls) if name.startswith("on_")}

    def __init__(self) -> None:
        super().__init__()
        self.start: Start
        self.replica: Replica
        self.has_replica = False
        self.due_ms = 0.0
        """When the wake-up that was asked for last is due."""
        self._wake_number = 0
        self._announced: tuple[int, NodeId | None] | None = None

    # --- receiving

    def receiveMessage(self, message: Any, sender: Any) -> None:
        """Handle one message; a handler that raises is a bug, and stops the node before it can do harm."""
        try:
            self._handle(message)
        except Exception as error:
            trace = traceback.format_exc()
            self.start.fail(EXIT_BUG, f"bug in {self.role}: {error!r} on {message!r:.500}\n{trace}")

    def _handle(self, message: Any) -> None:
        if isinstance(message, Start):
            self.start = message
        elif isinstance(message, Assume):
            self._take_over(message)
        elif isinstance(message, WakeupMessage):
            if self.has_replica and message.payload == self._wake_number:
                self.wake(self.now())
                self._save_what_changed()
        elif isinstance(message, ActorSystemMessage):
            pass
        elif self.has_replica:
            handler = self.handlers.get(type(message).__name__)
            if handler is not None:
                handler(self, message)
                self._save_what_changed()
        elif not isinstance(message, Flush):
            self.send(self.start.node, message)

    def _save_what_changed(self) -> None:
        if self.has_replica and self.replica.hard_state_dirty:
            self.save()

    # --- the baton

    def _take_over(self, message: Assume) -> None:
        assert not self.has_replica, f"{self.role} was handed a second replica"
        self.replica = message.replica
        self.has_replica = True
        self._announced = None
        self.assumed(message.cause)
        if self.has_replica:
            self.announce(message.reason)
        if message.cause is not None:
            self._handle(message.cause)
        self._save_what_changed()

    def assumed(self, cause: Any) -> None:
        """Begin a tenure; ``cause`` is handled afterwards like any other message."""

    def leaving(self) -> None:
        """End a tenure, while the replica is still here."""

    def become(self, role: RoleName, reason: str, cause: Any = None) -> None:
        """Hand the replica to another role. A handler does nothing more after this."""
        self._save_what_changed()
        self.leaving()
        self.has_replica = False
        replica = self.replica
        del self.replica
        self.send(self.start.node, Assume(replica, role, reason, cause))

    def announce(self, reason: str) -> None:
        """Tell the observer of a new term or leader, once."""
        replica = self.replica
        if self._announced != (replica.current_term, replica.leader_id):
            self._announced = (replica.current_term, replica.leader_id)
            self.send(
                self.start.node,
                RoleChanged(
                    replica.node_id, self.role, replica.current_term, replica.leader_id, reason, replica.cluster_id
                ),
            )

    # --- time

    def now(self) -> float:
        """Return the time in milliseconds."""
        return self.start.clock.now_ms()

    def wake_at(self, when_ms: float) -> None:
        """Ask to be woken then, and at no time that was asked for before: wake-ups can't be cancelled."""
        self._wake_number += 1
        self.due_ms = when_ms
        # Periods are whole microseconds: rounded down, one could end before the moment it was meant for.
        self.wakeupAfter(timedelta(milliseconds=max(0.0, when_ms - self.now()) + 0.001), self._wake_number)

    def wake(self, now_ms: float) -> None:
        """Do what is due."""

    def election_timeout(self) -> float:
        """Draw how long to wait before an election, in milliseconds (3.4)."""
        timing = self.start.timing
        return self.start.rng.uniform(timing.election_min_ms, timing.election_max_ms)

    # --- durable before said

    def save(self, entries: tuple[Entry, ...] = ()) -> int:
        """Ask the journal to save term, vote and ``entries``, which are in the log already; return its number."""
        replica = self.replica
        number = replica.save(self.now())
        self.send(self.start.journal, Save(number, replica.current_term, replica.voted_for, entries))
        return number

    def send_when_saved(self, address: Any, message: Any) -> None:
        """Send a message that says something of our term, vote or log as soon as all of that is durable."""
        self._save_what_changed()
        if not self.replica.reply_when_saved(address, message):
            self.send(address, message)

    def send_when_term_saved(self, address: Any, message: Any) -> None:
        """Send a message that says nothing of ours but the term; it waits only while that is not on disk."""
        replica = self.replica
        if not replica.hard_state_dirty and replica.durable_term == replica.current_term:
            self.send(address, message)
        else:
            self.send_when_saved(address, message)

    def on_Saved(self, message: Saved) -> None:
        """Say what waited for these saves."""
        replica = self.replica
        replica.saved(message.number)
        replica.free_bytes = message.free_bytes
        for address, waiting in replica.saved_replies(message.number):
            self.send(address, waiting)
        self.saved(message.number)
        if self.has_replica:
            self.apply_committed()

    def saved(self, number: int) -> None:
        """Act on saves up to ``number`` being durable."""

    def ask_for_free_bytes(self) -> None:
        """Ask the journal whether there is room again, now and then."""
        now_ms = self.now()
        if now_ms - self.replica.free_bytes_asked_ms >= ASK_FREE_BYTES_MS:
            self.replica.free_bytes_asked_ms = now_ms
            self.send(self.start.journal, AskFreeBytes())

    def on_FreeBytes(self, message: FreeBytes) -> None:
        """Take note of how much room there is."""
        self.replica.free_bytes = message.free_bytes

    def disk_is_stalled(self, now_ms: float) -> bool:
        """Whether the oldest save has been under way for longer than a leader may wait for its disk."""
        saves = self.replica.saves
        return bool(saves) and now_ms - saves[0].asked_ms > self.start.timing.disk_stall_ms

    # --- terms and votes

    def adopt_term(self, term: int) -> None:
        """Go to a later term, in which we have not voted and know no leader (3.3)."""
        replica = self.replica
        assert term > replica.current_term, (term, replica.current_term)
        replica.current_term = term
        replica.voted_for = None
        replica.leader_id = None
        replica.leader_matched_index = 0
        replica.hard_state_dirty = True

    def steps_down_for(self, message: Any) -> bool:
        """Follow a message of a later term; return True when it was handed to the follower with the replica."""
        if message.term <= self.replica.current_term:
            return False
        self.adopt_term(message.term)
        if self.role == "follower":
            return False
        self.become("follower", f"{message.sender} is in a later term, {message.term}", message)
        return True

    def hears_leader(self) -> bool:
        """Whether a leader has been heard of so lately that an election would only disturb it (4.2.3)."""
        replica = self.replica
        since = self.now() - replica.leader_heard_ms
        return replica.leader_id is not None and since < self.start.timing.election_min_ms

    def on_RequestVote(self, message: RequestVote) -> None:
        """Vote for at most one candidate in a term, and only for one whose log is at least as up to date (3.6.1)."""
        replica = self.replica
        if message.sender not in replica.configuration.ids:
            return
        if message.pre_vote:
            self._pre_vote(message)
            return
        if message.term > replica.current_term and self.hears_leader() and not message.transfer:
            return
        if self.steps_down_for(message):
            return
        granted = (
            message.term == replica.current_term
            and replica.voted_for in (None, message.sender)
            and replica.log.is_up_to_date(message.last_log_index, message.last_log_term)
        )
        if granted:
            if replica.voted_for is None:
                replica.voted_for = message.sender
                replica.hard_state_dirty = True
            self.voted()
        self.send_when_saved(
            self.start.peers[message.sender], RequestVoteReply(replica.node_id, replica.current_term, granted)
        )

    def _pre_vote(self, message: RequestVote) -> None:
        """Say whether we would vote for this candidate; nothing changes here (9.6)."""
        replica = self.replica
        granted = (
            message.term > replica.current_term
            and not self.hears_leader()
            and replica.log.is_up_to_date(message.last_log_index, message.last_log_term)
        )
        term = message.term if granted else replica.current_term
        self.send_when_saved(
            self.start.peers[message.sender], RequestVoteReply(replica.node_id, term, granted, pre_vote=True)
        )

    def voted(self) -> None:
        """Act on having given a vote to another node."""

    def reject(
        self, message: AppendEntries, conflict_index: int = 0, conflict_term: int = 0, no_room: bool = False
    ) -> None:
        """Refuse entries, and say where our log differs or that ours is a later term."""
        replica = self.replica
        self.send_when_term_saved(
            self.start.peers[message.sender],
            AppendEntriesReply(
                replica.node_id,
                replica.current_term,
                False,
                message.prev_log_index,
                message.read_round,
                conflict_term,
                conflict_index,
                no_room,
                replica.reported_free_bytes,
            ),
        )

    # --- applying

    def commit_to(self, index: int) -> None:
        """Move the commit index forward, never back."""
        replica = self.replica
        if index > replica.commit_index:
            assert index <= replica.log.last_index, (index, replica.log.last_index)
            replica.commit_index = index
            self.apply_committed()

    def apply_committed(self) -> None:
        """Hand the store what is committed and on our own disk, a bounded piece at a time."""
        replica = self.replica
        limit = min(replica.commit_index, replica.durable_index)
        while replica.applying_index < limit and len(replica.inflight_applies) < APPLIES_UNDER_WAY:
            first = replica.applying_index + 1
            entries = replica.log.between(first, min(limit, first + APPLY_ENTRIES - 1), APPLY_BYTES)
            replica.applying_index = entries[-1].index
            replica.inflight_applies.append(replica.applying_index)
            self.send(self.start.store, Apply(first, entries, tuple(self._waiters_of(entries))))

    def _waiters_of(self, entries: Iterable[Entry]) -> Iterable[tuple[int, ReplyTo]]:
        for entry in entries:
            for waiting in self.replica.waiting_for(entry.index):
                # Only now is it certain: another entry stands where the asker's should have been. That an entry was
                # cut off here says nothing, since another node may still hold and commit it.
                if waiting.term == entry.term:
                    yield entry.index, waiting.reply_to
                else:
                    self.reply(waiting.reply_to, Refused("not_committed", "another leader's entry took its place"))

    def on_AppliedUpTo(self, message: AppliedUpTo) -> None:
        """Go on applying."""
        replica = self.replica
        assert message.index <= replica.applying_index, (message.index, replica.applying_index)
        # One that went to an earlier role comes back through Node, and may come behind the next one.
        replica.last_applied = max(replica.last_applied, message.index)
        while replica.inflight_applies and replica.inflight_applies[0] <= replica.last_applied:
            replica.inflight_applies.popleft()
        self.apply_committed()

    def reply(self, reply_to: ReplyTo, answer: Reply | Status) -> None:
        """Answer somebody who asked, here or on another node."""
        reply(self, self.start.node_id, reply_to, answer)
