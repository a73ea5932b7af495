"""The candidate: asks whether it would be elected (pre-vote, 9.6), and then for votes (3.4).

A pre-vote changes nothing anywhere, so a node that was cut off can't disturb the cluster with ever higher terms when it
comes back. In the election proper a node votes for itself first; like any other, that vote counts once it is durable.
"""

from __future__ import annotations

from typing import Any

from raftkv.actors.messages.raft import AppendEntries, AppendEntriesReply, RequestVote, RequestVoteReply, TimeoutNow
from raftkv.actors.roles.role import Role
from raftkv.raft.entry import NodeId


class Candidate(Role):
    """Holds the replica during an election."""

    role = "candidate"

    def __init__(self) -> None:
        super().__init__()
        self.pre_vote = True
        self.votes: set[NodeId] = set()
        """The nodes that granted a (pre-)vote in this election: voters are counted, not messages."""
        self.vote_save: int | None = None
        """The save that makes our own vote durable."""
        self.election_ms = 0.0
        """When this election is given up."""

    def assumed(self, cause: Any) -> None:
        """Ask for pre-votes, unless the leader itself asked us to take over."""
        self.replica.leader_id = None
        if not isinstance(cause, TimeoutNow):
            self.ask_pre_votes()

    def on_TimeoutNow(self, message: TimeoutNow) -> None:
        """Campaign without pre-votes: the leader knows that we are up to date."""
        if message.term == self.replica.current_term:
            self.campaign(transfer=True)

    def wake(self, now_ms: float) -> None:
        """Start over when no node was elected in time (3.4)."""
        self.service.expire(now_ms)
        if now_ms < self.election_ms:
            self._rest(now_ms)
        elif self.replica.resigned or self.disk_is_stalled(now_ms):
            self.become("follower", "this node can't lead now")
        else:
            self.ask_pre_votes()

    def _rest(self, now_ms: float) -> None:
        self.wake_at(min(self.election_ms, now_ms + self.environment.timing.heartbeat_ms))

    # --- asking

    def ask_pre_votes(self) -> None:
        """Ask every voter whether it would vote for us in the next term."""
        self._begin(pre_vote=True)
        self.votes.add(self.replica.node_id)
        self._ask(self.replica.current_term + 1, transfer=False)
        self.count_votes()

    def campaign(self, *, transfer: bool) -> None:
        """Start a term of our own, and ask every voter for its vote."""
        replica = self.replica
        replica.adopt_term(replica.current_term + 1)
        replica.vote_for(replica.node_id)
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
            self.send_when_saved(self.peer(voter), request)

    # --- counting

    def saved(self, number: int) -> None:
        """Count our own vote once it is durable."""
        if self.vote_save is not None and number >= self.vote_save:
            self.vote_save = None
            self.votes.add(self.replica.node_id)
            self.count_votes()

    def on_RequestVoteReply(self, message: RequestVoteReply) -> None:
        """Count a vote of this election."""
        replica = self.replica
        asked_term = replica.current_term + 1 if self.pre_vote else replica.current_term
        if message.vote_granted and (message.pre_vote, message.term) == (self.pre_vote, asked_term):
            self.votes.add(message.sender)
            self.count_votes()
        elif not (message.vote_granted and message.pre_vote):
            self.follow_later_term(message)

    def count_votes(self) -> None:
        """Go on to the election, or to leadership, with a majority."""
        if self.replica.configuration.has_quorum(self.votes) and not self.replica.resigned:
            if self.pre_vote:
                self.campaign(transfer=False)
            else:
                voters = ", ".join(sorted(self.votes))
                self.become("leader", f"elected by {voters} in term {self.replica.current_term}")

    # --- others

    def on_AppendEntries(self, message: AppendEntries) -> None:
        """Follow the node that was elected in our term or a later one; tell a former leader our term (3.4)."""
        if message.term < self.replica.current_term:
            self.reject(message)
        elif not self.follow_later_term(message):
            self.become("follower", f"{message.sender} was elected", message)

    def on_AppendEntriesReply(self, message: AppendEntriesReply) -> None:
        """Follow the later term of an answer to the leader that this node was."""
        self.follow_later_term(message)
