"""What all nodes of a cluster have done so far: entries, leaders, votes, disks. Each node is checked against this."""

from __future__ import annotations

from raftkv.raft.configuration import Member
from raftkv.raft.entry import Entry, NodeId
from raftkv.simulation.checks.committed import Committed
from raftkv.simulation.checks.expected_disk import ExpectedDisk
from raftkv.simulation.checks.violation import Violation, at, same
from raftkv.simulation.cluster.describe import describe_entry


class Leadership:
    """The leader of a term, and the log with which it was elected."""

    __slots__ = ("inherited", "leader", "term")

    def __init__(self, term: int, leader: NodeId) -> None:
        self.term = term
        self.leader = leader
        self.inherited: list[Entry] | None = None
        """Its log before the first entry of its own term; None until it is known."""


class ClusterRecord:
    """Every entry, vote and leader of a run, and what each disk must hold."""

    def __init__(self) -> None:
        self.committed = Committed()
        self.disks: dict[NodeId, ExpectedDisk] = {}
        """The disk of each node, in its present incarnation."""
        self.all_disks: dict[tuple[NodeId, str], ExpectedDisk] = {}
        """The disk of each (node, incarnation); a disk that was wiped stays here as it was."""
        self.leaderships: dict[int, Leadership] = {}
        """By term."""
        self.votes: dict[int, dict[tuple[NodeId, str], NodeId]] = {}
        """By term: the candidate that each (node, incarnation) has sent its vote to."""
        self.acknowledged_index = 0
        """The latest index of a write that a client got ``Applied`` for."""
        self._entries: dict[tuple[int, int], tuple[Entry, int]] = {}
        """By index and term: the entry, and the term of the entry before it."""

    def disk_of(self, member: Member) -> ExpectedDisk | None:
        """Return the disk of a member, wiped or not; None if it has never booted."""
        return self.all_disks.get((member.id, member.incarnation))

    def note_entry(self, name: NodeId, entry: Entry, previous_term: int) -> None:
        """Note an entry in the log of ``name``: index and term determine it and all before it (log matching, 3.5)."""
        known = self._entries.get((entry.index, entry.term))
        if known is None:
            self._entries[entry.index, entry.term] = (entry, previous_term)
        elif not same(known[0], entry):
            problem = "belongs to another cluster" if entry.index == 1 else "does not match the other logs"
            raise Violation(
                f"the log of {name} {problem}: it has {describe_entry(entry)} where {describe_entry(known[0])} was"
            )
        elif known[1] != previous_term:
            raise Violation(
                f"the log of {name} does not match the other logs: before {describe_entry(entry)} it has an "
                f"entry of term {previous_term}, where one of term {known[1]} was"
            )

    def note_leader(self, term: int, name: NodeId) -> Leadership:
        """Note that a node acts as the leader of a term, which has at most one (election safety, 3.4)."""
        leadership = self.leaderships.get(term)
        if leadership is None:
            leadership = self.leaderships[term] = Leadership(term, name)
        elif leadership.leader != name:
            raise Violation(f"two leaders in term {term}: {leadership.leader} and {name}")
        return leadership

    def note_vote(self, disk: ExpectedDisk, term: int, candidate: NodeId) -> None:
        """Note that a node sends its vote, which goes to one candidate per term, across all restarts (3.4)."""
        votes = self.votes.setdefault(term, {})
        first = votes.setdefault((disk.name, disk.incarnation), candidate)
        if first != candidate:
            raise Violation(f"{disk.name} votes twice in term {term}: for {first} and for {candidate}")

    def leadership_with_log(self, term: int) -> Leadership | None:
        """Return the leadership of this term if the log of its leader is known."""
        leadership = self.leaderships.get(term)
        return leadership if leadership is not None and leadership.inherited is not None else None

    def leaders_entry(self, leadership: Leadership, index: int) -> Entry | None:
        """Return the entry that a leader whose log is known had at ``index``, or None."""
        inherited = leadership.inherited or []
        if index <= len(inherited):
            return at(inherited, index)
        own = self._entries.get((index, leadership.term))
        return own[0] if own is not None else None
