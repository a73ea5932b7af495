"""One whole node by hand: Node and its roles, with mailboxes that the test empties in the order it likes.

The node is n1 of n1, n2 and n3. Its journal and store are mute: the test speaks for them.
"""

from __future__ import annotations

from collections import deque
from datetime import timedelta
from random import Random
from typing import Any

from thespian.actors import Actor, ActorAddress, WakeupMessage

from raftkv.actors.messages.node import (
    Boot,
    Recovered,
    RoleChanged,
    Start,
)
from raftkv.actors.node import Node
from raftkv.config.settings import Limits, Timing
from raftkv.environment import Environment
from raftkv.raft.entry import Entry
from tests.roles.rehearsal import NAMES, ROOM, log
from tests.support.stage import Stage

Sent = tuple[str, Any]


class Mute(Actor):
    """Takes messages and says nothing."""

    def receiveMessage(self, message: Any, sender: Any) -> None:
        """Do nothing."""


class MuteJournal(Mute):
    """Stands in for the journal."""


class MuteStore(Mute):
    """Stands in for the store."""


class QuietNode(Node):
    """A node whose journal and store the test plays."""

    journal_class = MuteJournal
    store_class = MuteStore


class Backstage:
    """A node, its mailboxes, and all that has left it or gone to its journal, store and observer."""

    def __init__(self, *, limits: Limits | None = None) -> None:
        self.stage = Stage()
        self.failures: list[tuple[int, str]] = []
        self.mail: dict[str, deque[tuple[str, Any]]] = {}
        """(sender, message) that wait, by who is to get them: n1 or a role."""
        self.changes: list[RoleChanged] = []
        self.node: Any = self.stage.put("n1", QuietNode)
        self.stage.give(
            "n1",
            Boot(
                node_id="n1",
                incarnation="n1-1",
                initial_cluster=tuple((name, f"{name}:5001") for name in NAMES),
                peer_address=ActorAddress,
                observer=ActorAddress("observer"),
                http="n1:4001",
                environment=Environment(
                    directory="/data/n1",
                    disk=None,  # type: ignore[arg-type]
                    clock=self.stage.clock,
                    rng=Random(1),
                    timing=Timing(),
                    limits=limits or Limits(),
                    fail=lambda status, line: self.failures.append((status, line)),
                ),
            ),
        )
        self.settle()

    def recovers(
        self, *, term: int = 1, voted_for: str | None = None, entries: tuple[Entry, ...] | None = None
    ) -> list[Sent]:
        """Let the journal report what was on disk: entry 1 alone by default."""
        return self.gets(Recovered(term, voted_for, log() if entries is None else entries, ROOM))

    # --- mail

    def post(self, *messages: Any, to: str = "n1", sender: str = "test") -> list[Sent]:
        """Put messages into a mailbox; return what has left the node meanwhile."""
        for message in messages:
            self.mail.setdefault(to, deque()).append((sender, message))
        return self._sort()

    def handle(self, who: str, count: int = 1) -> list[Sent]:
        """Let one actor handle the first of what waits for it, and return what leaves the node upon that."""
        left = []
        for _ in range(count):
            sender, message = self.mail[who].popleft()
            self.stage.give(self._full(who), message, sender)
            left += self._sort()
        return left

    def settle(self) -> list[Sent]:
        """Handle all that waits, first in, first out by actor, and return what leaves the node."""
        left = self._sort()
        while waiting := [who for who, mail in self.mail.items() if mail]:
            left += self.handle(waiting[0])
        return left

    def gets(self, *messages: Any) -> list[Sent]:
        """Give Node messages, handle everything, and return what leaves the node."""
        return self.post(*messages) + self.settle()

    def wakes_after_ms(self, span_ms: float) -> None:
        """Let time pass, and put the wake-ups that were due into the mailboxes."""
        self.stage.clock.ms += span_ms
        for _, _, name, payload in self.stage.due():
            self.post(WakeupMessage(timedelta(), payload), to=self._short(name), sender=name)

    def waiting(self, who: str) -> list[Any]:
        """Return the messages in a mailbox."""
        return [message for _, message in self.mail.get(who, ())]

    # --- looking on

    @property
    def holder(self) -> str | None:
        """The role that has the replica; None while it is handed over."""
        names = ("bootstrap", "follower", "candidate", "leader")
        holders = [name for name in names if getattr(self.stage.actors[f"n1/{name}"], "has_replica", False)]
        assert len(holders) <= 1, holders
        return holders[0] if holders else None

    def role(self, name: str) -> Any:
        """Return a role's actor."""
        return self.stage.actors[f"n1/{name}"]

    @property
    def replica(self) -> Any:
        """The replica, which one of the roles must have."""
        assert self.holder is not None
        return self.role(self.holder).replica

    @staticmethod
    def _short(name: str) -> str:
        return name.split("/")[-1]

    @staticmethod
    def _full(who: str) -> str:
        return who if who == "n1" else f"n1/{who}"

    def _sort(self) -> list[Sent]:
        left = []
        sent, self.stage.sent = self.stage.sent, []
        for source, target, message in sent:
            if target in ("n1/mutejournal", "n1/mutestore"):
                if not isinstance(message, Start):
                    left.append((target.removeprefix("n1/mute"), message))
            elif target in self.stage.actors:
                self.mail.setdefault(self._short(target), deque()).append((self._short(source), message))
            elif target == "observer":
                self.changes.append(message)
            else:
                left.append((target, message))
        return left
