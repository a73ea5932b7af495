"""Whether a node may send a message: it must not promise or report anything that is not on its disk yet.

Raft answers requests only after term, vote and entries are on stable storage (dissertation, 3.8). So each message is
compared, at the moment it leaves, with what the sender's disk must hold.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

from raftkv.actors.messages.node import AdvertiseAddress
from raftkv.actors.messages.raft import (
    AppendEntries,
    AppendEntriesReply,
    BootstrapHello,
    RequestVote,
    RequestVoteReply,
    TimeoutNow,
)
from raftkv.actors.messages.requests import Applied, Done, Forward, ForwardReply, ReadIndex, ReadResult, Refused
from raftkv.raft.entry import NodeId
from raftkv.simulation.checks.expected_disk import ExpectedDisk
from raftkv.simulation.checks.record import ClusterRecord
from raftkv.simulation.checks.violation import Violation, at, same
from raftkv.simulation.cluster.describe import describe_entry


@dataclass(frozen=True)
class NothingToCheck:
    """A message that may be sent at any time."""

    because: str


class SendChecker:
    """Compares each message between nodes with the disk of its sender."""

    def __init__(self, record: ClusterRecord) -> None:
        self._record = record

    def check(self, source: NodeId, target: NodeId, message: Any) -> None:
        """Raise ``Violation`` if ``source`` must not send this to ``target`` now, or if no check knows its type."""
        check = CHECKS.get(type(message))
        if check is None:
            raise Violation(f"no check for {type(message).__name__}")
        if message.sender != source:
            raise Violation(f"{source} sends a message in the name of {message.sender}: {message}")
        if not isinstance(check, NothingToCheck):
            check(self, self._record.disks[source], target, message)

    def check_applied(self, name: NodeId, answer: Applied) -> None:
        """Raise ``Violation`` unless ``name`` answers for a committed entry, and with its results."""
        committed = self._record.committed
        entry = at(committed.entries, answer.index)
        if entry is None or entry.term != answer.term:
            raise Violation(
                f"{name} answers that entry {answer.index} of term {answer.term} was applied, but committed is "
                f"{describe_entry(entry)}"
            )
        right = (committed.revision(entry.index), committed.results(entry.index))
        if (answer.revision, answer.results) != right:
            raise Violation(f"{name} answers {answer} for {describe_entry(entry)}, which results in {right}")

    def _check_term(self, disk: ExpectedDisk, target: NodeId, message: Any) -> None:
        if message.term > disk.term:
            raise Violation(
                f"{disk.name} sends {type(message).__name__} of term {message.term} to {target}, but the term on its "
                f"disk is {disk.term}"
            )

    def _check_request_vote(self, disk: ExpectedDisk, target: NodeId, message: RequestVote) -> None:
        name, term = disk.name, message.term
        if message.pre_vote:
            # A pre-vote is about the next term, which the sender has not entered yet.
            if term > disk.term + 1:
                raise Violation(f"{name} asks for pre-votes in term {term}, but the term on its disk is {disk.term}")
            return
        self._check_term(disk, target, message)
        ballot = disk.ballots.get(term)
        if ballot is None or ballot.voted_for != name:
            raise Violation(f"{name} asks for votes in term {term}, but its disk holds no vote for itself in that term")
        if (message.last_log_index, message.last_log_term) != (ballot.last_index, ballot.last_term):
            raise Violation(
                f"{name} asks for votes in term {term} with a log that ends at {message.last_log_index} of term "
                f"{message.last_log_term}, but the one on its disk ended at {ballot.last_index} of term "
                f"{ballot.last_term}"
            )
        self._record.note_vote(disk, term, name)

    def _check_request_vote_reply(self, disk: ExpectedDisk, target: NodeId, message: RequestVoteReply) -> None:
        if message.pre_vote and message.vote_granted:
            return
        self._check_term(disk, target, message)
        if message.vote_granted:
            ballot = disk.ballots.get(message.term)
            if ballot is None or ballot.voted_for != target:
                kept = "no vote" if ballot is None else f"a vote for {ballot.voted_for}"
                raise Violation(
                    f"{disk.name} grants {target} its vote in term {message.term}, but its disk holds {kept}"
                )
            self._record.note_vote(disk, message.term, target)

    def _check_append_entries(self, disk: ExpectedDisk, target: NodeId, message: AppendEntries) -> None:
        self._check_term(disk, target, message)
        self._record.note_leader(message.term, disk.name)

    def _check_append_entries_reply(self, disk: ExpectedDisk, target: NodeId, message: AppendEntriesReply) -> None:
        self._check_term(disk, target, message)
        index, term = message.match_index, message.term
        if not message.success or not index:
            return
        # A reply may wait for saves until its term is over; the entries it confirms may have been truncated by then.
        own = at(disk.log, index) if disk.term == term else None
        if index > disk.reached.get(term, 0) or (disk.term == term and own is None):
            raise Violation(
                f"{disk.name} confirms entries up to {index} to {target} in term {term}, but its disk holds entries up "
                f"to {len(disk.log) if disk.term == term else disk.reached.get(term, 0)}"
            )
        leadership = self._record.leadership_with_log(term)
        if own is not None and leadership is not None:
            leaders = self._record.leaders_entry(leadership, index)
            if not same(own, leaders):
                raise Violation(
                    f"{disk.name} confirms entries up to {index} to {target}, but its disk holds {describe_entry(own)} "
                    f"where the leader of term {term} has {describe_entry(leaders)}"
                )

    def _check_bootstrap_hello(self, disk: ExpectedDisk, target: NodeId, message: BootstrapHello) -> None:
        first = at(disk.log, 1)
        if message.founding and (first is None or first.data != message.founding):
            raise Violation(f"{disk.name} sends {target} a founding configuration that is not on its disk")

    def _check_forward_reply(self, disk: ExpectedDisk, target: NodeId, message: ForwardReply) -> None:
        check = REPLY_CHECKS.get(type(message.reply))
        if check is None:
            raise Violation(f"no check for {type(message.reply).__name__} in ForwardReply")
        if not isinstance(check, NothingToCheck):
            check(self, disk.name, message.reply)


Check: TypeAlias = Callable[[SendChecker, ExpectedDisk, NodeId, Any], None] | NothingToCheck

CHECKS: dict[type, Check] = {
    RequestVote: SendChecker._check_request_vote,
    RequestVoteReply: SendChecker._check_request_vote_reply,
    AppendEntries: SendChecker._check_append_entries,
    AppendEntriesReply: SendChecker._check_append_entries_reply,
    TimeoutNow: SendChecker._check_term,
    BootstrapHello: SendChecker._check_bootstrap_hello,
    ForwardReply: SendChecker._check_forward_reply,
    Forward: NothingToCheck("a request promises nothing; its entry is checked when it is appended and committed"),
    AdvertiseAddress: NothingToCheck("an address does not depend on anything on disk"),
}
"""The check of every type in ``PeerMessage``."""

REPLY_CHECKS: dict[type, Callable[[SendChecker, NodeId, Any], None] | NothingToCheck] = {
    Applied: SendChecker.check_applied,
    ReadIndex: NothingToCheck("the read that uses the index is checked when it is answered"),
    ReadResult: NothingToCheck("a node forwards AskReadIndex, never the read itself"),
    Refused: NothingToCheck("a refusal promises nothing; History checks that a refused write never shows"),
    Done: NothingToCheck("no request that is forwarded has this answer"),
}
"""The check of every type in ``Reply``, as the content of a ``ForwardReply``."""
