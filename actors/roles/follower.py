"""The follower: answers leaders and candidates, and becomes a candidate when it hears from neither (3.4).

It makes its log like the leader's: the leader names the entry before those that it sends, and a follower whose log
differs there refuses them and says where to look next. So two logs that have an entry of the same index and term are
equal up to there (log matching, 3.5). What a follower confirms is on its disk.
"""

from __future__ import annotations

from typing import Any

from raftkv.actors.messages.raft import (
    AppendEntries,
    AppendEntriesReply,
    RequestVoteReply,
    TimeoutNow,
)
from raftkv.actors.roles.role import Role
from raftkv.raft.entry import Entry, Kind
from raftkv.raft.progress import AMPLE_FREE_BYTES


class Follower(Role):
    """Holds the replica while another node leads, or none does."""

    role = "follower"

    def __init__(self) -> None:
        super().__init__()
        self.election_ms = 0.0
        """When we campaign unless a leader or a candidate is heard before."""
        self.rearmed = False
        """The election timeout was extended once because we were stalled ourselves."""

    def assumed(self, cause: Any) -> None:
        """Wait a whole election timeout first."""
        self.rearmed = False
        self._restart_timer()
        self._rest()

    def voted(self) -> None:
        """Give the candidate that has our vote the time to win."""
        self._restart_timer()

    def _restart_timer(self) -> None:
        self.election_ms = self.now() + self.election_timeout()

    def wake(self, now_ms: float) -> None:
        """Campaign when the election timeout has passed."""
        timing = self.environment.timing
        late = now_ms - self.due_ms > timing.heartbeat_ms
        self.service.expire(now_ms)
        if now_ms >= self.election_ms:
            if late and not self.rearmed:
                # We were stalled ourselves: the leader's heartbeats may be waiting behind this wake-up. But only
                # once, or a node that is always slow could never be elected.
                self.rearmed = True
                self._restart_timer()
            elif self.may_campaign(now_ms):
                self.become("candidate", "heard no leader for an election timeout")
                return
            else:
                self.replica.leader_id = None
                self._restart_timer()
        self._rest()

    def _rest(self) -> None:
        now_ms = self.now()
        self.wake_at(min(self.election_ms, now_ms + self.environment.timing.heartbeat_ms))

    def may_campaign(self, now_ms: float) -> bool:
        """Whether this node could lead: it votes, it is not about to stop, and its disk answers."""
        replica = self.replica
        return (
            replica.node_id in replica.configuration.all_voters
            and not replica.resigned
            and not self.disk_is_stalled(now_ms)
        )

    # --- replication

    def on_AppendEntries(self, message: AppendEntries) -> None:
        """Follow the leader of our term, and make our log match the leader's (3.5)."""
        replica = self.replica
        if message.term < replica.current_term:
            self.reject(message)
            return
        if message.term > replica.current_term:
            replica.adopt_term(message.term)
        self._heard(message.sender)
        if not replica.log.matches(message.prev_log_index, message.prev_log_term):
            self.reject(message, *self._conflict(message.prev_log_index))
            return
        if not self.append(message.entries):
            self.reject(message, no_room=True)
            return
        # After the last entry that this term's leader has sent, our log may differ from the leader's.
        match_index = message.prev_log_index + len(message.entries)
        replica.leader_matched_index = max(replica.leader_matched_index, match_index)
        self.commit_to(min(message.leader_commit, replica.leader_matched_index))
        self.confirm(message, match_index)
        if replica.min_stale_read_index is None and not message.entries:
            self.service.ask_min_stale_read_index(message.sender)

    def _heard(self, leader: str) -> None:
        replica = self.replica
        replica.leader_heard_ms = self.now()
        self.rearmed = False
        self._restart_timer()
        if replica.leader_id != leader:
            replica.leader_id = leader
            self.announce(f"{leader} leads in term {replica.current_term}")
            self.service.release_held()

    def append(self, entries: tuple[Entry, ...]) -> bool:
        """Add the entries that we do not have; return False, with nothing changed, when the disk has no room."""
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
        if commands > replica.saves.available_bytes:
            # There is always a place for a no-op: without it a new leader could serve no reads.
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

    def confirm(self, message: AppendEntries, match_index: int) -> None:
        """Tell the leader what of its log is on our disk: entries once they are saved, a heartbeat at once."""
        replica = self.replica
        saves = replica.saves
        node_id, term = replica.node_id, replica.current_term
        leader = self.peer(message.sender)
        if message.entries:
            free_bytes = saves.reported_free_bytes
            reply = AppendEntriesReply(node_id, term, True, match_index, message.read_round, free_bytes=free_bytes)
            self.send_when_saved(leader, reply)
        else:
            # A late answer to a heartbeat would make a slow disk look like a dead node. So the answer does not wait,
            # and reports no more than what is durable already.
            durable = min(replica.leader_matched_index, saves.durable_index)
            free_bytes = saves.reported_free_bytes
            if free_bytes != AMPLE_FREE_BYTES:
                # The leader sends no entries to a node without room, so no save would ever report new room.
                self.ask_for_free_bytes()
            reply = AppendEntriesReply(node_id, term, True, durable, message.read_round, free_bytes=free_bytes)
            self.send_when_term_saved(leader, reply)

    # --- elections

    def on_RequestVoteReply(self, message: RequestVoteReply) -> None:
        """Take the term of a vote for an election that is over."""
        if not (message.pre_vote and message.vote_granted) and message.term > self.replica.current_term:
            self.replica.adopt_term(message.term)

    def on_AppendEntriesReply(self, message: AppendEntriesReply) -> None:
        """Take the term of an answer to the leader that this node was."""
        if message.term > self.replica.current_term:
            self.replica.adopt_term(message.term)

    def on_TimeoutNow(self, message: TimeoutNow) -> None:
        """Start an election at once, because the leader hands over to us (3.10)."""
        replica = self.replica
        if message.term == replica.current_term and self.may_campaign(self.now()):
            self.become("candidate", f"{message.sender} hands leadership over", message)
