"""Whether a message may leave a machine: nothing is said before it is durable, and nothing that is not so."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from raftkv.actors.messages.raft import (
    AppendEntries,
    AppendEntriesReply,
    BootstrapHello,
    RequestVote,
    RequestVoteReply,
    TimeoutNow,
)
from raftkv.actors.messages.requests import Applied, ForwardReply
from raftkv.raft.entry import NodeId
from raftkv.simulation.checks.expected_disk import ExpectedDisk
from raftkv.simulation.checks.record import ClusterRecord
from raftkv.simulation.checks.violation import Violation, at, same, told


class SendChecker:
    """Judges each message by what is on its sender's disk."""

    def __init__(self, record: ClusterRecord) -> None:
        self._record = record
        self._judges: dict[type, Callable[[ExpectedDisk, NodeId, Any], None]] = {
            RequestVote: self._request_vote,
            RequestVoteReply: self._request_vote_reply,
            AppendEntries: self._append_entries,
            AppendEntriesReply: self._append_entries_reply,
            TimeoutNow: self._term,
            BootstrapHello: self._send_hello,
            ForwardReply: self._forward_reply,
        }

    def judge(self, source: NodeId, target: NodeId, message: Any) -> None:
        """Raise ``Violation`` if ``source`` must not say this to ``target`` now."""
        judge = self._judges.get(type(message))
        if judge is not None:
            durable = self._record.durable[source]
            if message.sender != source:
                raise Violation(f"{source} speaks in the name of {message.sender}: {message}")
            judge(durable, target, message)

    def _term(self, durable: ExpectedDisk, target: NodeId, message: Any) -> None:
        if message.term > durable.term:
            raise Violation(
                f"{durable.name} speaks of term {message.term} to {target} in {type(message).__name__}, while the term "
                f"on its disk is {durable.term}"
            )

    def _request_vote(self, durable: ExpectedDisk, target: NodeId, message: RequestVote) -> None:
        name, term = durable.name, message.term
        if message.pre_vote:
            # The term that it asks about is one that nobody has begun.
            if term > durable.term + 1:
                raise Violation(f"{name} asks for pre-votes in term {term}, the term on its disk is {durable.term}")
            return
        self._term(durable, target, message)
        ballot = durable.ballots.get(term)
        if ballot is None or ballot.voted_for != name:
            raise Violation(f"{name} asks for votes in term {term} and has no vote of its own in that term on its disk")
        if (message.last_log_index, message.last_log_term) != (ballot.last_index, ballot.last_term):
            raise Violation(
                f"{name} asks for votes in term {term} with a log that ends at {message.last_log_index} of term "
                f"{message.last_log_term}, the one on its disk ended at {ballot.last_index} of term {ballot.last_term}"
            )
        self._record.vote(durable, term, name)

    def _request_vote_reply(self, durable: ExpectedDisk, target: NodeId, message: RequestVoteReply) -> None:
        if message.pre_vote and message.vote_granted:
            return
        self._term(durable, target, message)
        if message.vote_granted:
            ballot = durable.ballots.get(message.term)
            if ballot is None or ballot.voted_for != target:
                kept = "none" if ballot is None else f"one for {ballot.voted_for}"
                raise Violation(
                    f"{durable.name} says that it votes for {target} in term {message.term}, and has {kept} on its disk"
                )
            self._record.vote(durable, message.term, target)

    def _append_entries(self, durable: ExpectedDisk, target: NodeId, message: AppendEntries) -> None:
        self._term(durable, target, message)
        self._record.claim(message.term, durable.name)

    def _append_entries_reply(self, durable: ExpectedDisk, target: NodeId, message: AppendEntriesReply) -> None:
        self._term(durable, target, message)
        index, term = message.match_index, message.term
        if not message.success or not index:
            return
        # An answer may wait for saves until its term is over, and what it confirms be cut off by then.
        ours = at(durable.log, index) if durable.term == term else None
        if index > durable.reached.get(term, 0) or (durable.term == term and ours is None):
            raise Violation(
                f"{durable.name} confirms entries up to {index} to {target} in term {term}, and has "
                f"{len(durable.log) if durable.term == term else durable.reached.get(term, 0)} on its disk"
            )
        reign = self._record.leaders_log(term)
        if ours is not None and reign is not None:
            leaders = self._record.of_leader(reign, index)
            if not same(ours, leaders):
                raise Violation(
                    f"{durable.name} confirms entries up to {index} to {target}, and has {told(ours)} on its disk "
                    f"where the leader of term {term} has {told(leaders)}"
                )

    def _send_hello(self, durable: ExpectedDisk, target: NodeId, message: BootstrapHello) -> None:
        first = at(durable.log, 1)
        if message.founding and (first is None or first.data != message.founding):
            raise Violation(f"{durable.name} tells {target} of a founding that is not on its disk")

    def _forward_reply(self, durable: ExpectedDisk, target: NodeId, message: ForwardReply) -> None:
        if isinstance(message.reply, Applied):
            self.applied(durable.name, message.reply)

    def applied(self, name: NodeId, answer: Applied) -> None:
        """Raise ``Violation`` unless what ``name`` says was applied is what the committed entry comes to."""
        committed = self._record.committed
        entry = at(committed.entries, answer.index)
        if entry is None or entry.term != answer.term:
            raise Violation(
                f"{name} answers that entry {answer.index} of term {answer.term} was applied, committed is "
                f"{told(entry)}"
            )
        right = (committed.revision(entry.index), committed.results(entry.index))
        if (answer.revision, answer.results) != right:
            raise Violation(f"{name} answers {answer} for {told(entry)}, which comes to {right}")
