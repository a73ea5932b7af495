"""The store: applies committed entries in order, replies to their proposers, and answers queries.

The keyspace follows from the log alone (``raftkv/store/state_machine.py``), so all stores pass through the same
states. A query carries a read index and waits until that index is applied (dissertation, 6.4).
"""

from __future__ import annotations

from collections import deque
from datetime import timedelta

from thespian.actors import WakeupMessage

from raftkv.actors.fail_stop import FailStopActor
from raftkv.actors.messages.node import (
    AppliedUpTo,
    Apply,
    ReadAt,
)
from raftkv.actors.messages.requests import (
    Applied,
    ReadResult,
    Refused,
)
from raftkv.raft.entry import Entry, Kind
from raftkv.store.commands import Result, decode_commands
from raftkv.store.keyspace import Keyspace

EXPIRE_MS = 100.0
"""How often expired queries are removed from those that wait, in milliseconds."""


class Store(FailStopActor):
    """Holds the keyspace. Applying is total and deterministic: the keyspace follows from the log alone."""

    label = "store"

    def __init__(self) -> None:
        super().__init__()
        self.keyspace = Keyspace()
        self.last_applied = 0
        self.waiting: deque[ReadAt] = deque()
        """Queries whose read index is not applied yet."""
        self.wakeup_is_due = False

    def on_Apply(self, message: Apply) -> None:
        """Apply entries: those that were applied before are skipped, a gap is a bug."""
        assert message.first_index <= self.last_applied + 1, (message.first_index, self.last_applied)
        waiters = list(message.waiters)
        for entry in message.entries[self.last_applied + 1 - message.first_index :]:
            results = self.apply_entry(entry)
            self.last_applied = entry.index
            while waiters and waiters[0][0] <= entry.index:
                applied = Applied(entry.index, entry.term, self.keyspace.revision, results)
                self.reply(waiters.pop(0)[1], applied)
        self.send(self.start.node, AppliedUpTo(self.last_applied))
        if self.waiting:
            self._answer_waiting()

    def apply_entry(self, entry: Entry) -> tuple[Result, ...]:
        """Apply one entry and return the results of its commands (a seam: tests replace it by mistakes)."""
        if entry.kind != Kind.COMMANDS:
            return ()
        return tuple(self.keyspace.apply(command) for command in decode_commands(entry.data))

    def on_ReadAt(self, message: ReadAt) -> None:
        """Answer queries from a state that holds everything up to their read index."""
        if message.read_index <= self.last_applied:
            self.answer(message)
            return
        self.waiting.append(message)
        self._wake_up_later()

    def _wake_up_later(self) -> None:
        if self.waiting and not self.wakeup_is_due:
            self.wakeup_is_due = True
            self.wakeupAfter(timedelta(milliseconds=EXPIRE_MS))

    def on_WakeupMessage(self, message: WakeupMessage) -> None:
        """Refuse the queries whose deadline has passed."""
        self.wakeup_is_due = False
        now_ms = self.environment.clock.now_ms()
        late = [query for query in self.waiting if query.deadline_ms <= now_ms]
        self.waiting = deque(query for query in self.waiting if query.deadline_ms > now_ms)
        for query in late:
            why = f"entry {query.read_index} was not applied in time, only {self.last_applied}"
            self.reply(query.reply_to, Refused("no_leader", why))
        self._wake_up_later()

    def _answer_waiting(self) -> None:
        for _ in range(len(self.waiting)):
            query = self.waiting.popleft()
            if query.read_index <= self.last_applied:
                self.answer(query)
            else:
                self.waiting.append(query)

    def answer(self, message: ReadAt) -> None:
        """Answer queries from the keyspace as it is."""
        query = self.keyspace.query
        items = tuple([query(each) for each in message.queries])
        self.reply(message.reply_to, ReadResult(self.last_applied, self.keyspace.revision, items))
