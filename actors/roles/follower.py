"""The follower: answers leaders and candidates, and becomes a candidate when it hears from neither (3.4)."""

from __future__ import annotations

from typing import Any

from raftkv.actors.messages.raft import (
    AppendEntries,
    AppendEntriesReply,
    RequestVoteReply,
    TimeoutNow,
)
from raftkv.actors.roles.passing import Passing
from raftkv.raft.entry import Entry, Kind
from raftkv.raft.progress import UNKNOWN_FREE_BYTES


class Follower(Passing):
    """Holds the replica while another node leads, or none does."""

    role = "follower"

    def __init__(self) -> None:
        super().__init__()
        self.election_ms = 0.0
        """When we campaign unless a leader or a candidate is heard before."""
        self.rearmed = False

    def assumed(self, cause: Any) -> None:
        """Wait a whole election timeout first."""
        self.rearmed = False
        self._wait_anew()
        self._rest()

    def voted(self) -> None:
        """Give the candidate that has our vote the time to win."""
        self._wait_anew()

    def _wait_anew(self) -> None:
        self.election_ms = self.now() + self.election_timeout()

    def wake(self, now_ms: float) -> None:
        """Campaign when the election timeout has passed."""
        timing = self.start.timing
        late = now_ms - self.due_ms > timing.heartbeat_ms
        self.expire(now_ms)
        if now_ms >= self.election_ms:
            if late and not self.rearmed:
                # We were stalled ourselves: the leader's heartbeats may be waiting behind this wake-up. But only
                # once, or a node that is always slow could never be elected.
                self.rearmed = True
                self._wait_anew()
            elif self._may_campaign(now_ms):
                self.become("candidate", "no leader was heard of for an election timeout")
                return
            else:
                self.replica.leader_id = None
                self._wait_anew()
        self._rest()

    def _rest(self) -> None:
        now_ms = self.now()
        self.wake_at(min(self.election_ms, now_ms + self.start.timing.heartbeat_ms))

    def _may_campaign(self, now_ms: float) -> bool:
        replica = self.replica
        return (
            replica.node_id in replica.configuration.all_voters
            and not replica.resigned
            and not self.disk_is_stalled(now_ms)
        )

    # --- replication

    def on_AppendEntries(self, message: AppendEntries) -> None:
        """Follow the leader of our term, and make our log like its (3.5)."""
        replica = self.replica
        if message.term < replica.current_term:
            self.reject(message)
            return
        if message.term > replica.current_term:
            self.adopt_term(message.term)
        self._heard(message.sender)
        if not replica.log.matches(message.prev_log_index, message.prev_log_term):
            self.reject(message, *self._conflict(message.prev_log_index))
            return
        if not self._append(message.entries):
            self.reject(message, no_room=True)
            return
        # What lies behind the last entry that this term's leader has sent may differ from its log, however long
        # ours is.
        match_index = message.prev_log_index + len(message.entries)
        replica.leader_matched_index = max(replica.leader_matched_index, match_index)
        self.commit_to(min(message.leader_commit, replica.leader_matched_index))
        self._confirm(message, match_index)
        if replica.min_stale_read_index is None and not message.entries:
            self.ask_for_min_stale_read_index(message.sender)

    def _heard(self, leader: str) -> None:
        replica = self.replica
        replica.leader_heard_ms = self.now()
        self.rearmed = False
        self._wait_anew()
        if replica.leader_id != leader:
            replica.leader_id = leader
            self.announce(f"{leader} leads in term {replica.current_term}")
            self.release_held()

    def _append(self, entries: tuple[Entry, ...]) -> bool:
        """Add what we do not have; return False, with nothing changed, when the disk has no room for it."""
        replica = self.replica
        log = replica.log
        # Entries we already have stay: a delayed request must not cut off entries that a later one has added,
        # because we may have acknowledged those.
        known = 0
        while known < len(entries) and log.matches(entries[known].index, entries[known].term):
            known += 1
        new = entries[known:]
        if not new:
            return True
        commands = sum(entry.size for entry in new if entry.kind == Kind.COMMANDS)
        if commands > replica.available_bytes:
            # A no-op passes, for which there is always a place: without it a new leader could serve no reads.
            self.ask_for_free_bytes()
            return False
        if new[0].index <= log.last_index:
            replica.truncate(new[0].index)
        replica.append(new)
        self.save(new)
        return True

    def _conflict(self, prev_log_index: int) -> tuple[int, int]:
        """Return (first index, term) of our entries that conflict with the leader's, so that it skips them at once."""
        log = self.replica.log
        if prev_log_index > log.last_index:
            return log.last_index + 1, 0
        return log.first_of_term(prev_log_index), log.term(prev_log_index)

    def _confirm(self, message: AppendEntries, match_index: int) -> None:
        replica = self.replica
        node_id, term = replica.node_id, replica.current_term
        if message.entries:
            answer = AppendEntriesReply(
                node_id, term, True, match_index, message.read_round, free_bytes=replica.reported_free_bytes
            )
            self.send_when_saved(self.start.peers[message.sender], answer)
        else:
            # A heartbeat is answered at once, or a slow disk would look like a dead node: so it reports no more
            # than what is durable already.
            durable = min(replica.leader_matched_index, replica.durable_index)
            if replica.reported_free_bytes != UNKNOWN_FREE_BYTES:
                # The leader offers nothing to who has no room: nothing else would find out that there is some again.
                self.ask_for_free_bytes()
            self.send_when_term_saved(
                self.start.peers[message.sender],
                AppendEntriesReply(
                    node_id, term, True, durable, message.read_round, free_bytes=replica.reported_free_bytes
                ),
            )

    # --- elections

    def on_RequestVoteReply(self, message: RequestVoteReply) -> None:
        """A vote for an election that is over; only a later term matters."""
        if not (message.pre_vote and message.vote_granted) and message.term > self.replica.current_term:
            self.adopt_term(message.term)

    def on_AppendEntriesReply(self, message: AppendEntriesReply) -> None:
        """An answer to a leader that we no longer are; only a later term matters."""
        if message.term > self.replica.current_term:
            self.adopt_term(message.term)

    def on_TimeoutNow(self, message: TimeoutNow) -> None:
        """Start an election at once: the leader wants us in its place."""
        replica = self.replica
        if message.term == replica.current_term and self._may_campaign(self.now()):
            self.become("candidate", f"{message.sender} hands leadership over", message)
