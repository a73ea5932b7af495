"""The store: applies committed entries in order, answers queries, and replies to whoever asked."""

from __future__ import annotations

import traceback
from collections import deque
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from thespian.actors import Actor, WakeupMessage

from raftkv.actors.messages.node import (
    AppliedUpTo,
    Apply,
    ReadAt,
    Start,
)
from raftkv.actors.messages.replying import reply
from raftkv.actors.messages.requests import (
    Applied,
    ReadResult,
    Refused,
)
from raftkv.exit_status import EXIT_BUG
from raftkv.raft.entry import Entry, Kind
from raftkv.store.commands import Result, decode_commands
from raftkv.store.keyspace import Keyspace

EXPIRE_MS = 100.0
"""How often waiting queries are looked through for those whose time is over."""


class Store(Actor):
    """Holds the keyspace. Applying is total and deterministic: the keyspace follows from the log alone."""

    retry_failed_messages = False

    def __init__(self) -> None:
        super().__init__()
        self.start: Start
        self.keyspace = Keyspace()
        self.last_applied = 0
        self.waiting: deque[ReadAt] = deque()
        """Queries for a state that is not reached yet."""
        self.wakeup_is_due = False
        self._handlers: dict[type, Callable[[Any], None]] = {
            Apply: self.on_apply,
            ReadAt: self.on_read_at,
            Start: self.on_start,
            WakeupMessage: self.on_wakeup,
        }

    def receiveMessage(self, message: Any, sender: Any) -> None:
        """Handle one message; a handler that raises is a bug, and stops the node."""
        handler = self._handlers.get(type(message))
        if handler is None:
            return
        try:
            handler(message)
        except Exception as error:
            self.start.fail(EXIT_BUG, f"bug in store: {error!r} on {message!r:.500}\n{traceback.format_exc()}")

    def on_start(self, message: Start) -> None:
        """Learn whom to talk to."""
        self.start = message

    def on_apply(self, message: Apply) -> None:
        """Apply entries: those that were applied before are skipped, a gap is a bug."""
        assert message.first_index <= self.last_applied + 1, (message.first_index, self.last_applied)
        waiters = list(message.waiters)
        for entry in message.entries[self.last_applied + 1 - message.first_index :]:
            results = self.apply_entry(entry)
            self.last_applied = entry.index
            while waiters and waiters[0][0] <= entry.index:
                applied = Applied(entry.index, entry.term, self.keyspace.revision, results)
                reply(self, self.start.node_id, waiters.pop(0)[1], applied)
        self.send(self.start.node, AppliedUpTo(self.last_applied))
        if self.waiting:
            self._answer_waiting()

    def apply_entry(self, entry: Entry) -> tuple[Result, ...]:
        """Apply one entry and return the results of its commands (a seam: tests replace it by mistakes)."""
        if entry.kind != Kind.COMMANDS:
            return ()
        return tuple(self.keyspace.apply(command) for command in decode_commands(entry.data))

    def on_read_at(self, message: ReadAt) -> None:
        """Answer queries from a state that holds everything up to their read index."""
        if message.read_index <= self.last_applied:
            self._answer(message)
            return
        self.waiting.append(message)
        self._wake_up_later()

    def _wake_up_later(self) -> None:
        if self.waiting and not self.wakeup_is_due:
            self.wakeup_is_due = True
            self.wakeupAfter(timedelta(milliseconds=EXPIRE_MS))

    def on_wakeup(self, message: WakeupMessage) -> None:
        """Tell those whose time is over."""
        self.wakeup_is_due = False
        now_ms = self.start.clock.now_ms()
        late = [query for query in self.waiting if query.deadline_ms <= now_ms]
        self.waiting = deque(query for query in self.waiting if query.deadline_ms > now_ms)
        for query in late:
            why = f"entry {query.read_index} was not applied in time, only {self.last_applied}"
            reply(self, self.start.node_id, query.reply_to, Refused("no_leader", why))
        self._wake_up_later()

    def _answer_waiting(self) -> None:
        for _ in range(len(self.waiting)):
            query = self.waiting.popleft()
            if query.read_index <= self.last_applied:
                self._answer(query)
            else:
                self.waiting.append(query)

    def _answer(self, message: ReadAt) -> None:
        get = self.keyspace.get
        items = tuple([get(query.key) for query in message.queries])
        reply(self, self.start.node_id, message.reply_to, ReadResult(self.last_applied, self.keyspace.revision, items))
