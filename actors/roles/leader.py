"""The leader: takes requests, replicates its log, and decides what is committed (3.5, 3.6, 6.4).

An entry is committed once it is durable on a majority and an entry of the leader's own term is, at or behind it; then
every later leader has it (leader completeness, 3.6.3). A leader can be deposed without noticing. So it confirms its
leadership by a round of heartbeats before it answers a read, and steps down when no majority answers it.
"""

from __future__ import annotations

import logging
from typing import Any

from raftkv.actors.messages.node import Flush, NotSent, PeerDown, PeerUp
from raftkv.actors.messages.raft import (
    AppendEntries,
    AppendEntriesReply,
    RequestVoteReply,
    TimeoutNow,
)
from raftkv.actors.messages.requests import (
    AskReadIndex,
    Done,
    PeerStatus,
    PendingRequest,
    Propose,
    Read,
    ReadIndex,
    Refused,
)
from raftkv.actors.roles.leadership_transfer import LeadershipTransfer, most_up_to_date
from raftkv.actors.roles.replication import Replication
from raftkv.actors.roles.role import Role
from raftkv.raft.entry import ENTRY_OVERHEAD, Entry, Kind, NodeId
from raftkv.raft.pending_requests import Waiter
from raftkv.raft.read_rounds import ReadRounds
from raftkv.store.commands import Command, encode_commands, invalid

logger = logging.getLogger("raftkv.raft")


class Leader(Role):
    """Holds the replica while a majority follows."""

    role = "leader"

    def __init__(self) -> None:
        super().__init__()
        self.replication: Replication
        self.rounds = ReadRounds()
        self.transfer = LeadershipTransfer()
        self.term_start = 0
        """The index of this term's no-op: reads are served only after it is committed."""
        self.unflushed: list[Entry] = []
        self.flush_is_due = False
        self.uncommitted_bytes = 0
        self.quorum_ms = 0.0
        """When the leader next checks that a majority still answers."""

    # --- tenure

    def assumed(self, cause: Any) -> None:
        """Take office: a no-op makes the entries of earlier terms committable (3.6.2), and tells every node."""
        replica, now_ms = self.replica, self.now()
        replica.leader_id = replica.node_id
        self.rounds.take_all()
        self.replication = Replication(
            replica, self.environment, self.rounds, lambda peer, message: self.send(self.peer(peer), message)
        )
        self.transfer = LeadershipTransfer()
        self.unflushed = []
        self.flush_is_due = False
        self.uncommitted_bytes = replica.log.bytes_after(replica.commit_index)
        self.quorum_ms = now_ms + self.environment.timing.election_max_ms
        self.term_start = replica.log.last_index + 1
        self.append_noop()
        self._flush()
        self._beat(now_ms)
        self.service.release_held()

    def append_noop(self) -> None:
        """Begin the term with an entry of its own."""
        self._append(Kind.NOOP, b"")

    def leaving(self) -> None:
        """Give up a leader's duties. Appended entries may still be committed, so their clients stay unanswered."""
        replica = self.replica
        if self.unflushed:
            self.save()
        if replica.leader_id == replica.node_id:
            replica.leader_id = None
        for pending in self.rounds.take_all():
            self.reply(pending.reply_to, Refused("retry", "leadership was lost before the read was confirmed"))
        self._end_transfer()
        # It refers to the replica, which is another role's from now on.
        del self.replication

    def hears_leader(self) -> bool:
        """A leader counts itself as the live leader (4.2.3)."""
        return True

    def wake(self, now_ms: float) -> None:
        """Send heartbeats, and step down when no majority answers or the disk does not (check-quorum, 6.2)."""
        timing = self.environment.timing
        if now_ms - self.due_ms > timing.heartbeat_ms:
            # We were stalled ourselves: answers may be waiting behind this wake-up.
            self.quorum_ms = max(self.quorum_ms, now_ms + timing.heartbeat_ms)
        self.service.expire(now_ms)
        self._expire_reads(now_ms)
        if now_ms >= self.quorum_ms:
            self.quorum_ms = now_ms + timing.heartbeat_ms
            if not self.majority_answers(now_ms):
                self.become("follower", "no majority has answered for an election timeout")
                return
        if self.disk_is_stalled(now_ms):
            self.become("follower", "the disk has not answered for too long")
            return
        if self.transfer.is_overdue(now_ms):
            self._give_up_transfer()
        self._beat(now_ms)

    def majority_answers(self, now_ms: float) -> bool:
        """Whether a majority, this node included, has answered within an election timeout."""
        heard = self.replication.heard_recently(now_ms)
        return self.replica.configuration.has_quorum(heard | {self.replica.node_id})

    def _beat(self, now_ms: float) -> None:
        self.replication.beat(now_ms)
        self.wake_at(now_ms + self.environment.timing.heartbeat_ms)

    # --- requests

    def serve(self, pending: PendingRequest) -> None:
        """Append commands, or let a read join the next round."""
        request = pending.request
        if self.transfer.target is not None and pending.reply_to.forward is None:
            self.service.hold(pending)
        elif self.transfer.target is not None:
            self.reply(pending.reply_to, Refused("not_leader", f"leadership goes to {self.transfer.target}"))
        elif isinstance(request, Propose):
            self.propose(pending, request)
        elif isinstance(request, Read | AskReadIndex):
            self.rounds.waiting.append(pending)
            self._flush_soon()

    def propose(self, pending: PendingRequest, request: Propose) -> None:
        """Append commands as one entry, or refuse them."""
        limits = self.environment.limits
        if why := invalid(request.commands):
            self.reply(pending.reply_to, Refused("invalid", why))
            return
        data = encode_commands(request.commands)
        needed = self._bytes_needed(len(data) + ENTRY_OVERHEAD, request.commands)
        if self.uncommitted_bytes + len(data) > limits.uncommitted_bytes:
            why = f"{self.uncommitted_bytes} bytes wait to be committed; the limit is {limits.uncommitted_bytes}"
            self.reply(pending.reply_to, Refused("overloaded", why))
        elif not self._has_room(needed):
            if needed > self.replica.saves.available_bytes:
                self.ask_for_free_bytes()
                self._hand_over_to_room(needed)
            why = "the disks of a majority are full; deleting is possible"
            self.reply(pending.reply_to, Refused("no_room", why))
        else:
            entry = self._append(Kind.COMMANDS, data)
            waiter = Waiter(entry.term, pending.reply_to, pending.deadline_ms)
            self.replica.requests.wait_for(entry.index, waiter)

    def _bytes_needed(self, size: int, commands: tuple[Command, ...]) -> int:
        """Return the room that an entry of this size needs; half a segment is kept for deletes."""
        deletes = all(command.frees_space for command in commands)
        return size if deletes else size + self.environment.limits.segment_bytes // 2

    def _has_room(self, needed: int) -> bool:
        """Whether an entry fits on our disk and on those of enough peers."""
        if needed > self.replica.saves.available_bytes:
            return False
        with_room = self.replication.with_room(needed, self.now())
        return self.replica.configuration.has_quorum(with_room | {self.replica.node_id})

    def _append(self, kind: Kind, data: bytes) -> Entry:
        replica = self.replica
        entry = Entry(replica.log.last_index + 1, replica.current_term, kind, data)
        replica.append((entry,))
        self.uncommitted_bytes += entry.size
        self.unflushed.append(entry)
        self._flush_soon()
        return entry

    # --- replication

    def _flush_soon(self) -> None:
        """Flush after all that is in the mailbox already: one save and one message per peer for all of it."""
        if not self.flush_is_due:
            self.flush_is_due = True
            self.send(self.myAddress, Flush())

    def save(self, entries: tuple[Entry, ...] = ()) -> int:
        """Save what was appended together with term and vote: every save covers the whole log."""
        assert not entries, "a leader's entries are saved by flushing"
        entries = tuple(self.unflushed)
        self.unflushed = []
        return super().save(entries)

    def on_Flush(self, message: Flush) -> None:
        """Save and send what has been appended, and begin a round for the reads that wait."""
        self.flush_is_due = False
        self._flush()

    def _flush(self) -> None:
        if self.unflushed:
            # Our own disk works in parallel with the sending (10.2.1); we count ourselves once it is done.
            self.save()
            self.replication.replicate_to_all()
        self.begin_round()

    def on_AppendEntriesReply(self, message: AppendEntriesReply) -> None:
        """Learn what a peer has, commit what a majority has, and send the peer more."""
        if self.follow_later_term(message):
            return
        peer = message.sender
        if peer not in self.replication.progress or message.term < self.replica.current_term:
            return
        if message.match_index > self.replica.log.last_index or message.read_round > self.rounds.sent:
            logger.error("%s answers a message that was never sent: %r", peer, message)
            return
        if self.replication.take_reply(message, self.now()):
            self.advance_commit()
        self.replication.replicate_more(peer)
        self._confirm_round()
        if self.transfer.target == peer:
            self._finish_transfer()

    # --- commitment

    def saved(self, number: int) -> None:
        """Count ourselves, like any other member, by what is on our disk."""
        self.advance_commit()
        self._confirm_round()

    def advance_commit(self) -> None:
        """Commit what a majority has, if its last entry is of our term (3.6.2, figure 3.7)."""
        replica = self.replica
        index = self.replication.majority_index()
        if index <= replica.commit_index or replica.log.term(index) != replica.current_term:
            return
        self.uncommitted_bytes -= sum(e.size for e in replica.log.span(replica.commit_index + 1, index))
        had_committed = replica.commit_index >= self.term_start
        self.commit_to(index)
        if not had_committed:
            # From here on the commit index covers everything that any earlier leader has acknowledged.
            if replica.min_stale_read_index is None:
                replica.min_stale_read_index = index
            self.service.release_held()
            self.begin_round()

    # --- reads

    def begin_round(self) -> None:
        """Send one round of heartbeats for all reads that wait, unless one is under way (6.4)."""
        rounds, commit_index = self.rounds, self.replica.commit_index
        if not rounds.waiting or rounds.under_way is not None or commit_index < self.term_start:
            return
        rounds.begin(commit_index)
        self.replication.send_heartbeats()
        self._confirm_round()

    def _confirm_round(self) -> None:
        """Serve the reads of the round once a majority has answered it: we led when it was sent."""
        while (current := self.rounds.under_way) is not None:
            if not self.replication.has_answered(current.number):
                return
            self.rounds.end()
            for pending in current.reads:
                self.serve_read(pending, current.read_index)
            self.begin_round()

    def _expire_reads(self, now_ms: float) -> None:
        """Answer reads whose time is over: a no-op that no other disk has room for is never committed."""
        for pending in self.rounds.take_late(now_ms):
            self.reply(pending.reply_to, Refused("retry", "leadership was not confirmed in time"))

    def serve_read(self, pending: PendingRequest, read_index: int) -> None:
        """Answer a confirmed read from our own store, or tell a follower what to wait for."""
        if isinstance(pending.request, Read):
            self.service.read_at(pending, pending.request, read_index)
        else:
            self.reply(pending.reply_to, ReadIndex(read_index))

    # --- leadership transfer

    def resign(self, pending: PendingRequest) -> None:
        """Hand leadership over before this node stops (3.10)."""
        self.transfer.resigning.append(pending)
        self._begin_transfer(set(self.replication.progress))
        if self.transfer.target is None:
            self._give_up_transfer()

    def _hand_over_to_room(self, needed: int) -> None:
        """Hand leadership to a peer whose disk has room, since ours has none."""
        if self.transfer.target is None:
            self._begin_transfer(self.replication.with_room(needed, self.now()))

    def _begin_transfer(self, candidates: set[NodeId]) -> None:
        now_ms = self.now()
        heard = candidates & self.replica.configuration.all_voters & self.replication.heard_recently(now_ms)
        target = most_up_to_date(heard, self.replication.progress)
        if target is not None:
            self.transfer.begin(target, now_ms + 2 * self.environment.timing.election_max_ms)
            self._finish_transfer()

    def _finish_transfer(self) -> None:
        """Ask the target to campaign once it has all that we have."""
        replica, target = self.replica, self.transfer.target
        assert target is not None
        if self.replication.progress[target].match_index == replica.log.last_index:
            self.send_when_saved(self.peer(target), TimeoutNow(replica.node_id, replica.current_term))

    def _give_up_transfer(self) -> None:
        """Continue to lead; a node that is stopping need not wait any longer."""
        self._end_transfer()
        self.service.release_held()

    def _end_transfer(self) -> None:
        for pending in self.transfer.end():
            self.reply(pending.reply_to, Done())

    # --- others

    def on_AppendEntries(self, message: AppendEntries) -> None:
        """Step down for a leader of a later term; there is no other in ours."""
        if message.term < self.replica.current_term:
            self.reject(message)
        elif not self.follow_later_term(message):
            logger.critical("%s claims to lead in our own term %d", message.sender, message.term)

    def on_RequestVoteReply(self, message: RequestVoteReply) -> None:
        """Follow the later term of a vote that came after the election."""
        if not (message.pre_vote and message.vote_granted):
            self.follow_later_term(message)

    def on_PeerUp(self, message: PeerUp) -> None:
        """Find out at once what the peer has."""
        super().on_PeerUp(message)
        self.replication.connected(message.peer)

    def on_PeerDown(self, message: PeerDown) -> None:
        """Assume that every message in flight to this peer is lost."""
        super().on_PeerDown(message)
        self.replication.lost(message.peer)

    def on_NotSent(self, message: NotSent) -> None:
        """Send entries that the link did not take again, with a later heartbeat."""
        super().on_NotSent(message)
        if isinstance(message.message, AppendEntries):
            self.replication.lost(message.peer)

    def peer_status(self, peer: NodeId, address: str) -> PeerStatus:
        """Return what is known of one peer, and how replication to it goes."""
        progress = self.replication.progress[peer]
        return PeerStatus(
            peer,
            address,
            peer in self.replica.connected,
            None if progress.heard_ms is None else self.now() - progress.heard_ms,
            progress.match_index,
            progress.next_index,
            progress.state.value,
        )
