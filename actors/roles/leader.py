"""The leader: takes requests, replicates its log, and finds out what is committed (3.5, 3.6, 6.4)."""

from __future__ import annotations

import logging
from typing import Any

from raftkv.actors.messages.node import (
    Flush,
    NotSent,
    PeerDown,
    PeerUp,
    ReadAt,
)
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
from raftkv.actors.roles.serving import Serving
from raftkv.raft.entry import ENTRY_OVERHEAD, Entry, Kind, NodeId
from raftkv.raft.progress import Progress
from raftkv.raft.read_rounds import ReadRounds
from raftkv.raft.replica import Waiting
from raftkv.store.commands import Command, Delete, DeleteIf, encode_commands, invalid

logger = logging.getLogger("raftkv.raft")


class Leader(Serving):
    """Holds the replica while a majority follows."""

    role = "leader"

    def __init__(self) -> None:
        super().__init__()
        self.progress: dict[NodeId, Progress] = {}
        self.term_start = 0
        """The index of this term's no-op: reads are served only after it is committed."""
        self.unflushed: list[Entry] = []
        self.flush_is_due = False
        self.uncommitted_bytes = 0
        self.quorum_ms = 0.0
        """When it is checked next that a majority still answers."""
        self.rounds = ReadRounds()
        self.transfer_to: NodeId | None = None
        self.transfer_ms = 0.0
        """When the transfer under way is given up."""
        self.resigning: list[PendingRequest] = []

    # --- tenure

    def assumed(self, cause: Any) -> None:
        """Take office: a no-op makes the entries of earlier terms committable (3.6.2), and tells everyone."""
        replica, now_ms = self.replica, self.now()
        replica.leader_id = replica.node_id
        limit = self.start.limits.inflight_bytes
        self.progress = {peer: Progress(replica.log.last_index + 1, now_ms, limit) for peer in replica.peers}
        self.unflushed = []
        self.flush_is_due = False
        self.uncommitted_bytes = replica.log.bytes_after(replica.commit_index)
        self.rounds.take_all()
        self.transfer_to = None
        self.resigning = []
        self.quorum_ms = now_ms + self.start.timing.election_max_ms
        self.term_start = replica.log.last_index + 1
        self._append(Kind.NOOP, b"")
        self._flush()
        self._beat(now_ms)
        self.release_held()

    def leaving(self) -> None:
        """Let go of what only a leader can do; what was appended may still be committed, so nobody is told so."""
        replica = self.replica
        if self.unflushed:
            self.save()
        if replica.leader_id == replica.node_id:
            replica.leader_id = None
        for pending in self.rounds.take_all():
            self.reply(pending.reply_to, Refused("retry", "leadership was lost before the read was confirmed"))
        self._answer_resigning()

    def hears_leader(self) -> bool:
        """A leader that a majority answers is reason enough to keep the peace."""
        return True

    def wake(self, now_ms: float) -> None:
        """Send heartbeats, and step down when no majority answers or the disk does not (check-quorum, 6.2)."""
        timing = self.start.timing
        if now_ms - self.due_ms > timing.heartbeat_ms:
            # We were stalled ourselves: answers may be waiting behind this wake-up.
            self.quorum_ms = max(self.quorum_ms, now_ms + timing.heartbeat_ms)
        self.expire(now_ms)
        self._expire_reads(now_ms)
        if now_ms >= self.quorum_ms:
            self.quorum_ms = now_ms + timing.heartbeat_ms
            heard = {peer for peer, p in self.progress.items() if self._heard_lately(p, now_ms)}
            if not self.replica.configuration.has_quorum(heard | {self.replica.node_id}):
                self.become("follower", "no majority has answered for an election timeout")
                return
        if self.disk_is_stalled(now_ms):
            self.become("follower", "the disk has not answered for too long")
            return
        if self.transfer_to is not None and now_ms >= self.transfer_ms:
            self._give_up_transfer()
        self._beat(now_ms)

    def _heard_lately(self, progress: Progress, now_ms: float) -> bool:
        return progress.heard_ms is not None and now_ms - progress.heard_ms <= self.start.timing.election_max_ms

    # --- requests

    def serve(self, pending: PendingRequest) -> None:
        """Append commands, or let a read join the next round."""
        request = pending.request
        if self.transfer_to is not None and pending.reply_to.forward is None:
            self.hold(pending)
        elif self.transfer_to is not None:
            self.reply(pending.reply_to, Refused("not_leader", f"leadership goes to {self.transfer_to}"))
        elif isinstance(request, Propose):
            self._propose(pending, request)
        elif isinstance(request, Read | AskReadIndex):
            self.rounds.waiting.append(pending)
            self._flush_soon()

    def _propose(self, pending: PendingRequest, propose: Propose) -> None:
        replica, limits = self.replica, self.start.limits
        if why := invalid(propose.commands):
            self.reply(pending.reply_to, Refused("invalid", why))
            return
        data = encode_commands(propose.commands)
        if self.uncommitted_bytes + len(data) > limits.uncommitted_bytes:
            why = f"{self.uncommitted_bytes} bytes wait to be committed, {limits.uncommitted_bytes} may"
            self.reply(pending.reply_to, Refused("overloaded", why))
        elif not self._has_room(len(data) + ENTRY_OVERHEAD, propose.commands):
            self.reply(pending.reply_to, Refused("no_room", "the disks of a majority are full; deleting is possible"))
        else:
            entry = self._append(Kind.COMMANDS, data)
            replica.wait_for(entry.index, Waiting(entry.term, pending.reply_to, pending.deadline_ms))

    def _has_room(self, size: int, commands: tuple[Command, ...]) -> bool:
        """Whether an entry fits on our disk and on enough others; half a segment is kept for deletes."""
        deletes = all(isinstance(command, Delete | DeleteIf) for command in commands)
        needed = size if deletes else size + self.start.limits.segment_bytes // 2
        now_ms = self.now()
        with_room = [peer for peer, p in self.progress.items() if p.has_room(needed, now_ms)]
        if needed > self.replica.available_bytes:
            self.ask_for_free_bytes()
            if self.transfer_to is None:
                self._transfer(now_ms, with_room)
            return False
        return self.replica.configuration.has_quorum({*with_room, self.replica.node_id})

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
        """Save what was appended together with whatever else is saved: a save speaks for the whole log."""
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
            for peer, progress in self.progress.items():
                self._replicate(peer, progress)
        self._begin_round()

    def _replicate(self, peer: NodeId, progress: Progress) -> None:
        """Send what this peer lacks, as far as it may be under way."""
        replica, limits = self.replica, self.start.limits
        log, now_ms = replica.log, self.now()
        while progress.next_index <= log.last_index and progress.may_send(now_ms):
            entries = log.between(progress.next_index, log.last_index, limits.append_bytes)
            self._send_append(peer, progress.next_index - 1, entries)
            progress.sent(entries[-1].index, sum(entry.size for entry in entries), now_ms)

    def _send_append(self, peer: NodeId, prev_log_index: int, entries: tuple[Entry, ...]) -> None:
        replica = self.replica
        self.send(
            self.start.peers[peer],
            AppendEntries(
                replica.node_id,
                replica.current_term,
                prev_log_index,
                replica.log.term(prev_log_index),
                entries,
                replica.commit_index,
                self.rounds.sent,
            ),
        )

    def _beat(self, now_ms: float) -> None:
        """Send a heartbeat to every peer, and look after what was sent and not confirmed."""
        for peer, progress in self.progress.items():
            if progress.has_inflight and now_ms - progress.progress_ms > self.start.timing.election_max_ms:
                # Raft's own messages may be lost without a word. The next try waits a whole timeout again.
                progress.probe()
                progress.progress_ms = now_ms
            progress.waiting = False
            self._send_heartbeat(peer, progress)
            if progress.state == "replicate":
                self._replicate(peer, progress)
        self.wake_at(now_ms + self.start.timing.heartbeat_ms)

    def _send_heartbeat(self, peer: NodeId, progress: Progress) -> None:
        # While probing, the heartbeat is the probe. Otherwise it refers to what is known to match: heartbeats
        # overtake entries on the link, and one that referred to entries still under way would be refused.
        index = progress.next_index - 1 if progress.state == "probe" else progress.match_index
        self._send_append(peer, index, ())

    def on_AppendEntriesReply(self, message: AppendEntriesReply) -> None:
        """Learn how far a peer's log matches, or where it differs."""
        if self.steps_down_for(message):
            return
        progress = self.progress.get(message.sender)
        if progress is None or message.term < self.replica.current_term:
            return
        now_ms = self.now()
        if message.match_index > self.replica.log.last_index or message.read_round > self.rounds.sent:
            logger.error("%s answers what its leader never sent: %r", message.sender, message)
            return
        progress.heard_ms = now_ms
        progress.read_round = max(progress.read_round, message.read_round)
        progress.free_bytes = message.free_bytes
        if message.success:
            if progress.matched(message.match_index, now_ms):
                self._commit()
        elif message.no_room:
            progress.full(now_ms)
        elif progress.rejected(message.match_index, self._next_after_conflict(message)):
            self._send_heartbeat(message.sender, progress)
            progress.waiting = True
        if progress.state == "replicate":
            self._replicate(message.sender, progress)
        self._confirm_round()
        if self.transfer_to == message.sender:
            self._finish_transfer()

    def _next_after_conflict(self, message: AppendEntriesReply) -> int:
        """Return where to go on: behind our last entry of the conflicting term, or before the peer's first (3.5)."""
        if message.conflict_term:
            ours = self.replica.log.last_of_term(message.conflict_term, message.match_index + 1)
            if ours:
                return ours + 1
        return max(1, message.conflict_index)

    # --- commitment

    def saved(self, number: int) -> None:
        """Count ourselves, like any other member, by what is on our disk."""
        self._commit()
        self._confirm_round()

    def _commit(self) -> None:
        """Commit what a majority has, if its last entry is of our term (3.6.2, figure 3.7)."""
        replica = self.replica
        progress, own = self.progress, replica.node_id
        index = replica.configuration.quorum_value(
            lambda voter: replica.durable_index if voter == own else progress[voter].match_index
        )
        if index <= replica.commit_index or replica.log.term(index) != replica.current_term:
            return
        self.uncommitted_bytes -= sum(e.size for e in replica.log.span(replica.commit_index + 1, index))
        had_committed = replica.commit_index >= self.term_start
        self.commit_to(index)
        if not had_committed:
            # From here on the commit index covers everything that any earlier leader has acknowledged.
            if replica.min_stale_read_index is None:
                replica.min_stale_read_index = index
            self.release_held()
            self._begin_round()

    # --- reads

    def _begin_round(self) -> None:
        """Send one round of heartbeats for all reads that wait, unless one is under way (6.4)."""
        rounds, commit_index = self.rounds, self.replica.commit_index
        if not rounds.waiting or rounds.under_way is not None or commit_index < self.term_start:
            return
        rounds.begin(commit_index)
        for peer, progress in self.progress.items():
            self._send_heartbeat(peer, progress)
        self._confirm_round()

    def _confirm_round(self) -> None:
        """Serve the reads of the round once a majority has answered it: we led when it was sent."""
        while (current := self.rounds.under_way) is not None:
            answered = {peer for peer, p in self.progress.items() if p.read_round >= current.number}
            if not self.replica.configuration.has_quorum(answered | {self.replica.node_id}):
                return
            self.rounds.end()
            for pending in current.reads:
                self._serve_read(pending, current.read_index)
            self._begin_round()

    def _expire_reads(self, now_ms: float) -> None:
        """Answer reads whose time is over: a no-op that no other disk has room for is never committed."""
        for pending in self.rounds.take_late(now_ms):
            self.reply(pending.reply_to, Refused("retry", "leadership was not confirmed in time"))

    def _serve_read(self, pending: PendingRequest, read_index: int) -> None:
        if isinstance(pending.request, Read):
            queries = pending.request.queries
            self.send(self.start.store, ReadAt(queries, pending.reply_to, read_index, pending.deadline_ms))
        else:
            self.reply(pending.reply_to, ReadIndex(read_index))

    # --- leadership transfer

    def resign(self, pending: PendingRequest) -> None:
        """Hand leadership over before this node stops (3.10)."""
        now_ms = self.now()
        self.resigning.append(pending)
        self._transfer(now_ms, list(self.progress))
        if self.transfer_to is None:
            self._give_up_transfer()

    def _transfer(self, now_ms: float, candidates: list[NodeId]) -> None:
        voters = self.replica.configuration.all_voters
        heard = [p for p in candidates if p in voters and self._heard_lately(self.progress[p], now_ms)]
        if heard:
            self.transfer_to = max(heard, key=lambda peer: (self.progress[peer].match_index, peer))
            self.transfer_ms = now_ms + 2 * self.start.timing.election_max_ms
            if self.resigning:
                self.transfer_ms = min(self.transfer_ms, *(pending.deadline_ms for pending in self.resigning))
            self._finish_transfer()

    def _finish_transfer(self) -> None:
        """Tell the chosen peer to campaign once it has all that we have."""
        replica, peer = self.replica, self.transfer_to
        assert peer is not None
        if self.progress[peer].match_index == replica.log.last_index:
            self.send_when_saved(self.start.peers[peer], TimeoutNow(replica.node_id, replica.current_term))

    def _give_up_transfer(self) -> None:
        """Go on leading; who wanted to stop is told that nothing more will come of waiting."""
        self.transfer_to = None
        self._answer_resigning()
        self.release_held()

    def _answer_resigning(self) -> None:
        resigning, self.resigning = self.resigning, []
        for pending in resigning:
            self.reply(pending.reply_to, Done())

    # --- others

    def on_AppendEntries(self, message: AppendEntries) -> None:
        """Step down for a leader of a later term; there is no other in ours."""
        if message.term < self.replica.current_term:
            self.reject(message)
        elif not self.steps_down_for(message):
            logger.critical("%s claims to lead in our own term %d", message.sender, message.term)

    def on_RequestVoteReply(self, message: RequestVoteReply) -> None:
        """A vote that came after the election; only a later term matters."""
        if not (message.pre_vote and message.vote_granted):
            self.steps_down_for(message)

    def on_PeerUp(self, message: PeerUp) -> None:
        """Find out at once what the peer has."""
        super().on_PeerUp(message)
        self._probe(message.peer)

    def on_PeerDown(self, message: PeerDown) -> None:
        """Nothing is on its way to this peer any more, as far as we know."""
        super().on_PeerDown(message)
        if message.peer in self.progress:
            self.progress[message.peer].probe()
            self.progress[message.peer].waiting = True

    def on_NotSent(self, message: NotSent) -> None:
        """Entries that the link did not take go out again with a later heartbeat."""
        super().on_NotSent(message)
        if isinstance(message.message, AppendEntries) and message.peer in self.progress:
            self.progress[message.peer].probe()
            self.progress[message.peer].waiting = True

    def _probe(self, peer: NodeId) -> None:
        progress = self.progress.get(peer)
        if progress is not None:
            progress.probe()
            self._send_heartbeat(peer, progress)
            progress.waiting = True

    def peer_status(self, peer: NodeId, address: str) -> PeerStatus:
        """Return what is known of one peer, its progress with it."""
        progress = self.progress[peer]
        return PeerStatus(
            peer,
            address,
            peer in self.replica.connected,
            None if progress.heard_ms is None else self.now() - progress.heard_ms,
            progress.match_index,
            progress.next_index,
            progress.state,
        )
