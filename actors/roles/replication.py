"""Replication in one tenure of a leader: what each peer has, what to send it next, and which reads a majority confirms.

The leader's log is the truth of its term: a peer's log is probed until it agrees somewhere, and then made equal from
there on (dissertation, 3.5), with messages sent ahead of their answers (10.2.1). Heartbeats go in a lane of their own
and overtake entries, so to a peer that replicates a heartbeat refers to what is known to match, never to entries still
on their way; to one that is being probed it is the probe. Entries count as replicated when the peer reports them
durable.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from raftkv.actors.messages.raft import AppendEntries, AppendEntriesReply
from raftkv.environment import Environment
from raftkv.raft.entry import Entry, NodeId
from raftkv.raft.progress import Progress, ProgressState
from raftkv.raft.read_rounds import ReadRounds
from raftkv.raft.replica import Replica


class Replication:
    """One leader's view of its peers, from its election to its stepping down.

    ``send(peer, message)`` sends to a peer's Node. ``rounds`` numbers the heartbeats that confirm reads.
    """

    def __init__(
        self, replica: Replica, environment: Environment, rounds: ReadRounds, send: Callable[[NodeId, Any], None]
    ) -> None:
        self._replica = replica
        self._clock = environment.clock
        self._timing = environment.timing
        self._limits = environment.limits
        self._rounds = rounds
        self._send = send
        next_index, now_ms = replica.log.last_index + 1, self._clock.now_ms()
        limit = environment.limits.inflight_bytes
        self.progress = {peer: Progress(next_index, now_ms, limit) for peer in replica.peers}

    # --- sending

    def replicate_to_all(self) -> None:
        """Send every peer what it lacks."""
        for peer in self.progress:
            self._replicate(peer)

    def replicate_more(self, peer: NodeId) -> None:
        """Send a peer more of what it lacks, unless its log is being probed."""
        if self.progress[peer].state is ProgressState.REPLICATE:
            self._replicate(peer)

    def _replicate(self, peer: NodeId) -> None:
        log, now_ms, progress = self._replica.log, self._clock.now_ms(), self.progress[peer]
        while progress.next_index <= log.last_index and progress.may_send(now_ms):
            entries = log.between(progress.next_index, log.last_index, self._limits.append_bytes)
            self._send_append(peer, progress.next_index - 1, entries)
            progress.sent(entries[-1].index, sum(entry.size for entry in entries), now_ms)

    def _send_append(self, peer: NodeId, prev_log_index: int, entries: tuple[Entry, ...]) -> None:
        replica = self._replica
        self._send(
            peer,
            AppendEntries(
                replica.node_id,
                replica.current_term,
                prev_log_index,
                replica.log.term(prev_log_index),
                entries,
                replica.commit_index,
                self._rounds.sent,
            ),
        )

    def send_heartbeats(self) -> None:
        """Send every peer a heartbeat, of the latest round."""
        for peer in self.progress:
            self._send_heartbeat(peer)

    def _send_heartbeat(self, peer: NodeId) -> None:
        # While probing, the heartbeat is the probe.
        progress = self.progress[peer]
        probing = progress.state is ProgressState.PROBE
        self._send_append(peer, progress.next_index - 1 if probing else progress.match_index, ())

    def beat(self, now_ms: float) -> None:
        """Send every peer a heartbeat, and send again what was sent and not confirmed."""
        for peer, progress in self.progress.items():
            if progress.has_inflight and now_ms - progress.progress_ms > self._timing.election_max_ms:
                # Raft's own messages may be lost without notice. The next try waits a whole timeout again.
                progress.probe()
                progress.progress_ms = now_ms
            progress.resume()
            self._send_heartbeat(peer)
            self.replicate_more(peer)

    # --- hearing

    def take_reply(self, message: AppendEntriesReply, now_ms: float) -> bool:
        """Learn how far a peer's log matches, or where it differs; return whether more of it is known to match."""
        peer, progress = message.sender, self.progress[message.sender]
        progress.heard_ms = now_ms
        progress.read_round = max(progress.read_round, message.read_round)
        progress.free_bytes = message.free_bytes
        if message.success:
            return progress.matched(message.match_index, now_ms)
        if message.no_room:
            progress.disk_full(now_ms)
        elif progress.rejected(message.match_index, self._next_after_conflict(message)):
            self._send_heartbeat(peer)
            progress.pause()
        return False

    def _next_after_conflict(self, message: AppendEntriesReply) -> int:
        """Return the next index to try: after our last entry of the conflicting term, or the peer's first one (3.5)."""
        if message.conflict_term:
            ours = self._replica.log.last_of_term(message.conflict_term, message.match_index + 1)
            if ours:
                return ours + 1
        return max(1, message.conflict_index)

    def connected(self, peer: NodeId) -> None:
        """Find out at once what a peer has that can be reached again."""
        if (progress := self.progress.get(peer)) is not None:
            progress.probe()
            self._send_heartbeat(peer)
            progress.pause()

    def lost(self, peer: NodeId) -> None:
        """Assume that everything in flight to this peer is lost; the next heartbeat probes it."""
        if (progress := self.progress.get(peer)) is not None:
            progress.probe()
            progress.pause()

    # --- knowing

    def majority_index(self) -> int:
        """Return the highest index that is durable on a majority; this node counts itself like any other member."""
        replica, progress = self._replica, self.progress
        own, durable_index = replica.node_id, replica.durable_index
        return replica.configuration.quorum_value(
            lambda voter: durable_index if voter == own else progress[voter].match_index
        )

    def has_answered(self, round_number: int) -> bool:
        """Whether a majority has answered this round of heartbeats, or a later one."""
        answered = {peer for peer, progress in self.progress.items() if progress.read_round >= round_number}
        return self._replica.configuration.has_quorum(answered | {self._replica.node_id})

    def heard_recently(self, now_ms: float) -> set[NodeId]:
        """Return the peers that have answered within an election timeout."""
        timeout_ms = self._timing.election_max_ms
        return {
            peer
            for peer, progress in self.progress.items()
            if progress.heard_ms is not None and now_ms - progress.heard_ms <= timeout_ms
        }

    def with_room(self, size: int, now_ms: float) -> set[NodeId]:
        """Return the peers whose disks have room for ``size`` bytes of entries, as far as they have reported."""
        return {peer for peer, progress in self.progress.items() if progress.has_room(size, now_ms)}
