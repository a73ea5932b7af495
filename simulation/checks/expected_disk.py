"""What one node must have on its disk: a shadow of it, made of what its journal was asked for and has confirmed.

The shadow holds what was confirmed, which no crash may take away. What was asked for and not confirmed may be there
after a crash or not, but only from the first save on, and each save as a whole.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

from raftkv.actors.messages.node import Recovered, Save
from raftkv.raft.entry import Entry, NodeId
from raftkv.simulation.checks.violation import Violation, at, same, told


class Ballot(NamedTuple):
    """A vote on disk, and where the log on disk ended when it got there."""

    voted_for: NodeId
    last_index: int
    last_term: int


class ExpectedDisk:
    """The disk of one incarnation of a node, over all its lives."""

    __slots__ = ("_asked", "_asked_term", "_asked_vote", "_pending", "_saved", "ballots", "incarnation", "log", "name",
                 "reached", "seen_index", "term", "voted_for")  # fmt: skip

    def __init__(self, name: str, incarnation: str) -> None:
        self.name = name
        self.incarnation = incarnation
        self.term = 0
        self.voted_for: NodeId | None = None
        self.log: list[Entry] = []
        self.ballots: dict[int, Ballot] = {}
        """The vote of each term; a journal that saves many at once keeps only the last one on disk."""
        self.reached: dict[int, int] = {}
        """By term, the last index that was on disk while the node was in that term."""
        self.seen_index = 0
        """The latest index that an answer of this node has shown to anybody."""
        self._pending: deque[Save] = deque()
        self._asked = 0
        self._saved = 0
        self._asked_term = 0
        self._asked_vote: NodeId | None = None

    def holds(self, entry: Entry) -> bool:
        """Whether this entry, and so all before it, is on disk."""
        return same(at(self.log, entry.index), entry)

    def asked(self, save: Save) -> None:
        """Note that the journal was asked to save; raises ``Violation`` for what no node may ask for."""
        if save.number != self._asked + 1:
            raise Violation(f"{self.name} asks for save {save.number} after save {self._asked}")
        if save.current_term < self._asked_term:
            raise Violation(f"{self.name} goes back to term {save.current_term} from term {self._asked_term}")
        if save.current_term == self._asked_term and self._asked_vote not in (None, save.voted_for):
            raise Violation(
                f"{self.name} votes twice in term {save.current_term}: it saves a vote for {save.voted_for}, after one "
                f"for {self._asked_vote}"
            )
        self._asked = save.number
        self._asked_term, self._asked_vote = save.current_term, save.voted_for
        self._pending.append(save)

    def saved(self, number: int) -> None:
        """Note that the journal has confirmed every save up to ``number``."""
        if number > self._asked:
            raise Violation(f"the journal of {self.name} confirms save {number}, asked for were {self._asked}")
        while self._pending and self._pending[0].number <= number:
            self._fold(self._pending.popleft())
        self._saved = max(self._saved, number)

    def recovered(self, message: Recovered) -> None:
        """Compare what a process finds on disk when it starts; raises ``Violation`` for what can't be there."""
        confirmed = self._missing(message)
        # Of the saves that were not confirmed any number may have been done, beginning with the first.
        while not self._is(message) and self._pending:
            self._fold(self._pending.popleft())
        if not self._is(message):
            raise Violation(confirmed or f"{self.name} comes back with {_state(message)}, which it never saved as such")
        self._pending.clear()
        self._asked = self._saved = 0
        self._asked_term, self._asked_vote = self.term, self.voted_for
        self.log = list(message.entries)

    def _fold(self, save: Save) -> None:
        self.term, self.voted_for = save.current_term, save.voted_for
        log = self.log
        if save.entries:
            first = save.entries[0].index
            if first > len(log) + 1:
                raise Violation(f"{self.name} saves {told(save.entries[0])}, but its log on disk ends at {len(log)}")
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
        """Say what was confirmed and is not there; "" where that is not so simple."""
        if message.current_term < self.term:
            return f"{self.name} comes back in term {message.current_term}, and had saved term {self.term}"
        if message.current_term == self.term and self.voted_for not in (None, message.voted_for):
            return (
                f"{self.name} comes back with a vote for {message.voted_for} in term {self.term}, and had saved one "
                f"for {self.voted_for}"
            )
        if self._pending:
            return ""
        for number, entry in enumerate(self.log):
            there = message.entries[number] if number < len(message.entries) else None
            if not same(there, entry):
                return f"{self.name} comes back with {told(there)} where it had saved {told(entry)}"
        return ""


def _state(message: Recovered) -> str:
    last = message.entries[-1] if message.entries else None
    return f"term {message.current_term}, a vote for {message.voted_for} and a log that ends with {told(last)}"
