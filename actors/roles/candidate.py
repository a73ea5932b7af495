"""The candidate: asks whether it would be elected (pre-vote, 9.6), and then for votes (3.4)."""

from __future__ import annotations

from typing import Any

from raftkv.actors.messages.raft import (
    AppendEntries,
    RequestVote,
    RequestVoteReply,
    TimeoutNow,
)
from raftkv.actors.roles.passing import Passing
from raftkv.raft.entry import NodeId


class Candidate(Passing):
    """Holds the replica during an election."""

    role = "candidate"

    def __init__(self) -> None:
        super().__init__()
        self.pre_vote = True
        self.votes: set[NodeId] = set()
        """Who granted a (pre-)vote in this election; voters, not messages, are counted."""
        self.vote_save: int | None = None
        """The save that makes our own vote durable; it counts from then on."""
        self.election_ms = 0.0

    def assumed(self, cause: Any) -> None:
        """Ask for pre-votes; one whom the leader itself asked to take over campaigns at once."""
        self.replica.leader_id = None
        if not isinstance(cause, TimeoutNow):
            self._ask_pre_votes()

    def on_TimeoutNow(self, message: TimeoutNow) -> None:
        """Campaign without asking first: the leader knows that we are up to date."""
        if message.term == self.replica.current_term:
            self._campaign(transfer=True)

    def wake(self, now_ms: float) -> None:
        """Begin anew when nobody was elected in time (3.4)."""
        self.expire(now_ms)
        if now_ms < self.election_ms:
            self._rest(now_ms)
        elif self.replica.resigned or self.disk_is_stalled(now_ms):
            self.become("follower", "this node can't lead now")
        else:
            self._ask_pre_votes()

    def _rest(self, now_ms: float) -> None:
        self.wake_at(min(self.election_ms, now_ms + self.start.timing.heartbeat_ms))

    # --- asking

    def _ask_pre_votes(self) -> None:
        self._begin(pre_vote=True)
        self.votes.add(self.replica.node_id)
        self._ask(self.replica.current_term + 1, transfer=False)
        self._count()

    def _campaign(self, *, transfer: bool) -> None:
        replica = self.replica
        self.adopt_term(replica.current_term + 1)
        replica.voted_for = replica.node_id
        self._begin(pre_vote=False)
        self.vote_save = self.save()
        self.announce(f"asks for votes in term {replica.current_term}")
        self._ask(replica.current_term, transfer=transfer)

    def _begin(self, *, pre_vote: bool) -> None:
        self.pre_vote = pre_vote
        self.votes = set()
        self.vote_save = None
        now_ms = self.now()
        self.election_ms = now_ms + self.election_timeout()
        self._rest(now_ms)

    def _ask(self, term: int, *, transfer: bool) -> None:
        replica = self.replica
        log = replica.log
        request = RequestVote(replica.node_id, term, log.last_index, log.last_term, self.pre_vote, transfer)
        for voter in sorted(replica.configuration.all_voters - {replica.node_id}):
            self.send_when_saved(self.start.peers[voter], request)

    # --- counting

    def saved(self, number: int) -> None:
        """Count our own vote once it is durable."""
        if self.vote_save is not None and number >= self.vote_save:
            self.vote_save = None
            self.votes.add(self.replica.node_id)
            self._count()

    def on_RequestVoteReply(self, message: RequestVoteReply) -> None:
        """Count a vote of this election."""
        replica = self.replica
        asked_term = replica.current_term + 1 if self.pre_vote else replica.current_term
        if message.vote_granted and (message.pre_vote, message.term) == (self.pre_vote, asked_term):
            self.votes.add(message.sender)
            self._count()
        elif not (message.vote_granted and message.pre_vote):
            self.steps_down_for(message)

    def _count(self) -> None:
        if self.replica.configuration.has_quorum(self.votes) and not self.replica.resigned:
            if self.pre_vote:
                self._campaign(transfer=False)
            else:
                voters = ", ".join(sorted(self.votes))
                self.become("leader", f"elected by {voters} in term {self.replica.current_term}")

    # --- others

    def on_AppendEntries(self, message: AppendEntries) -> None:
        """Follow who was elected in our term or a later one; tell a leader of the past our term (3.4)."""
        if message.term < self.replica.current_term:
            self.reject(message)
        elif not self.steps_down_for(message):
            self.become("follower", f"{message.sender} was elected", message)

    def on_AppendEntriesReply(self, message: Any) -> None:
        """An answer to a leader that we no longer are; only a later term matters."""
        self.steps_down_for(message)
