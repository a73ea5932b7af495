"""What is known of the cluster as a whole: entries, leaders, votes, disks; what one node does is held against it."""

from __future__ import annotations

from raftkv.raft.configuration import Member
from raftkv.raft.entry import Entry, NodeId
from raftkv.simulation.checks.committed import Committed
from raftkv.simulation.checks.expected_disk import ExpectedDisk
from raftkv.simulation.checks.violation import Violation, at, same, told


class Reign:
    """A leader in its term, and the log that it took office with."""

    __slots__ = ("inherited", "leader", "term")

    def __init__(self, term: int, leader: NodeId) -> None:
        self.term = term
        self.leader = leader
        self.inherited: list[Entry] | None = None
        """Its log before the first entry of its own; None until that is known."""


class ClusterRecord:
    """Everything that any node was seen to have, to promise or to be, in all lives."""

    def __init__(self) -> None:
        self.committed = Committed()
        self.durable: dict[NodeId, ExpectedDisk] = {}
        """The disk of each node, in its present incarnation."""
        self.disks: dict[tuple[NodeId, str], ExpectedDisk] = {}
        """The disk of each incarnation of a node; one that was taken away is as it was then."""
        self.reigns: dict[int, Reign] = {}
        """By term."""
        self.votes: dict[int, dict[tuple[NodeId, str], NodeId]] = {}
        """By term: for whom each incarnation of a node has said that it votes."""
        self.acknowledged_index = 0
        """The latest index that a client was told of."""
        self._entries: dict[tuple[int, int], tuple[Entry, int]] = {}
        """By index and term: the entry, and the term of the one before it."""

    def disk(self, member: Member) -> ExpectedDisk | None:
        """Return the disk of a member, be it there or not; None if nobody has seen it."""
        return self.disks.get((member.id, member.incarnation))

    def enter(self, name: NodeId, entry: Entry, previous_term: int) -> None:
        """Note that an entry was seen in the log of ``name``: index and term name it and all before it (3.5)."""
        known = self._entries.get((entry.index, entry.term))
        if known is None:
            self._entries[entry.index, entry.term] = (entry, previous_term)
        elif not same(known[0], entry):
            what = "belongs to another cluster" if entry.index == 1 else "does not match the other logs"
            raise Violation(f"the log of {name} {what}: it has {told(entry)} where {told(known[0])} was")
        elif known[1] != previous_term:
            raise Violation(
                f"the log of {name} does not match the other logs: before {told(entry)} it has one of term "
                f"{previous_term}, where one of term {known[1]} was"
            )

    def claim(self, term: int, name: NodeId) -> Reign:
        """Note that a node acts as the leader of a term: there is one at most (election safety, 3.4)."""
        reign = self.reigns.get(term)
        if reign is None:
            reign = self.reigns[term] = Reign(term, name)
        elif reign.leader != name:
            raise Violation(f"two leaders in term {term}: {reign.leader} and {name}")
        return reign

    def vote(self, durable: ExpectedDisk, term: int, candidate: NodeId) -> None:
        """Note that a node says that it votes: once in a term, and for no other in any life (3.4)."""
        votes = self.votes.setdefault(term, {})
        first = votes.setdefault((durable.name, durable.incarnation), candidate)
        if first != candidate:
            raise Violation(f"{durable.name} votes twice in term {term}: for {first} and for {candidate}")

    def leaders_log(self, term: int) -> Reign | None:
        """Return the reign of this term if the log of its leader is known."""
        reign = self.reigns.get(term)
        return reign if reign is not None and reign.inherited is not None else None

    def of_leader(self, reign: Reign, index: int) -> Entry | None:
        """Return what a leader whose log is known had at ``index``, or None."""
        inherited = reign.inherited or []
        if index <= len(inherited):
            return at(inherited, index)
        own = self._entries.get((index, reign.term))
        return own[0] if own is not None else None
