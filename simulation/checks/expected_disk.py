"""What the disk of a node must hold, as follows from the saves that its journal got and confirmed.

No crash may lose a save that was confirmed. Saves that were not confirmed may be on disk after a crash or not, but only
a prefix of them, and each as a whole.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

from raftkv.actors.messages.node import Recovered, Save
from raftkv.raft.entry import Entry, NodeId
from raftkv.simulation.checks.violation import Violation, at, same
from raftkv.simulation.cluster.describe import describe_entry


class Ballot(NamedTuple):
    """A vote on disk, and where the log on disk ended when the vote was saved."""

    voted_for: NodeId
    last_index: int
    last_term: int


class ExpectedDisk:
    """What the disk of a node must hold, over all restarts until it is wiped: one incarnation."""

    __slots__ = ("_last_number", "_last_term", "_last_vote", "_pending", "_saved", "ballots", "incarnation", "log",
                 "name", "reached", "seen_index", "term", "voted_for")  # fmt: skip

    def __init__(self, name: str, incarnation: str) -> None:
        self.name = name
        self.incarnation = incarnation
        self.term = 0
        self.voted_for: NodeId | None = None
        self.log: list[Entry] = []
        self.ballots: dict[int, Ballot] = {}
        """The vote of each term. The journal itself keeps only the latest."""
        self.reached: dict[int, int] = {}
        """By term: the last index that was on disk while the node was in that term."""
        self.seen_index = 0
        """The latest index that an answer of this node has shown to a client."""
        self._pending: deque[Save] = deque()
        self._last_number = 0
        self._saved = 0
        self._last_term = 0
        self._last_vote: NodeId | None = None

    def holds(self, entry: Entry) -> bool:
        """Whether this entry, and so all before it, is on disk."""
        return same(at(self.log, entry.index), entry)

    def note_save(self, save: Save) -> None:
        """Note that the journal got a save; raises ``Violation`` for one that no node may send."""
        if save.number != self._last_number + 1:
            raise Violation(f"{self.name} sends save {save.number} after save {self._last_number}")
        if save.current_term < self._last_term:
            raise Violation(f"{self.name} goes back from term {self._last_term} to term {save.current_term}")
        if save.current_term == self._last_term and self._last_vote not in (None, save.voted_for):
            raise Violation(
                f"{self.name} votes twice in term {save.current_term}: it saves a vote for {save.voted_for}, after one "
                f"for {self._last_vote}"
            )
        self._last_number = save.number
        self._last_term, self._last_vote = save.current_term, save.voted_for
        self._pending.append(save)

    def note_saved(self, number: int) -> None:
        """Note that the journal has confirmed every save up to ``number``."""
        if number > self._last_number:
            raise Violation(f"the journal of {self.name} confirms save {number}, but got only {self._last_number}")
        while self._pending and self._pending[0].number <= number:
            self._fold(self._pending.popleft())
        self._saved = max(self._saved, number)

    def check_recovered(self, message: Recovered) -> None:
        """Check what a process reads from disk when it starts; raises ``Violation`` if the disk can't hold that."""
        missing = self._missing(message)
        # Of the saves that were not confirmed, any number may be on disk, in their order.
        while not self._is(message) and self._pending:
            self._fold(self._pending.popleft())
        if not self._is(message):
            raise Violation(missing or f"{self.name} restarts with {_state(message)}, which it never saved as such")
        self._pending.clear()
        self._last_number = self._saved = 0
        self._last_term, self._last_vote = self.term, self.voted_for
        self.log = list(message.entries)

    def _fold(self, save: Save) -> None:
        self.term, self.voted_for = save.current_term, save.voted_for
        log = self.log
        if save.entries:
            first = save.entries[0].index
            if first > len(log) + 1:
                raise Violation(
                    f"{self.name} saves {describe_entry(save.entries[0])}, but its log on disk ends at {len(log)}"
                )
            del log[first - 1 :]
            log.extend(save.entries)
        if self.voted_for is not None and self.term not in self.ballots:
            self.ballots[self.term] = Ballot(self.voted_for, len(log), log[-1].term if log else 0)
        self.reached[self.term] = max(self.reached.get(self.term, 0), len(log))

    def _is(self, message: Recovered) -> bool:
        return (
            (message.current_term, message.voted_for) == (self.term, self.voted_for)
            and len(message.entries) == len(self.log)
            and list(message.entries) == self.log
        )

    def _missing(self, message: Recovered) -> str:
        """Return which confirmed save is missing, as a sentence; "" if one sentence does not tell."""
        if message.current_term < self.term:
            return f"{self.name} restarts in term {message.current_term}, but had saved term {self.term}"
        if message.current_term == self.term and self.voted_for not in (None, message.voted_for):
            return (
                f"{self.name} restarts with a vote for {message.voted_for} in term {self.term}, but had saved one for "
                f"{self.voted_for}"
            )
        if self._pending:
            return ""
        for number, entry in enumerate(self.log):
            there = message.entries[number] if number < len(message.entries) else None
            if not same(there, entry):
                return f"{self.name} restarts with {describe_entry(there)} where it had saved {describe_entry(entry)}"
        return ""


def _state(message: Recovered) -> str:
    last = message.entries[-1] if message.entries else None
    return (
        f"term {message.current_term}, a vote for {message.voted_for} and a log that ends with {describe_entry(last)}"
    )
