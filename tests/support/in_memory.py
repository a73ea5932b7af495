"""Whole clusters in one thread: every actor of every node on one stage, with a journal that a test can crash.

This is a rehearsal, driven by a seed: messages between nodes may be lost, delayed and repeated, nodes crash and lose
what was not saved. Inside a node a mailbox is first in, first out, as on our own system base. The actors take turns
in the order in which they were sent something, and time goes on when none has anything left to do; or, ``shuffled``,
they take turns in any order, and time does not wait for them: as if each of them had a thread, and the machine no time.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Sequence
from datetime import timedelta
from random import Random
from typing import Any, ClassVar

from thespian.actors import Actor, ActorAddress, WakeupMessage

from raftkv.actors.messages.node import (
    Boot,
    Flush,
    PeerDown,
    PeerUp,
    Recovered,
    RoleChanged,
    Save,
    Saved,
    Start,
)
from raftkv.actors.node import Node
from raftkv.config.settings import Limits, Timing
from raftkv.environment import Disk, Environment
from raftkv.raft.entry import Entry
from tests.support.stage import Stage

HURRY = 0.2
"""How often time goes on though there is something to do."""

HURRY_MS = 2.0
"""By how much at most."""


class SafeBox:
    """What a node has on its disk, and survives its crashes."""

    def __init__(self) -> None:
        self.incarnation = ""
        self.term = 0
        self.voted_for: str | None = None
        self.entries: list[Entry] = []
        self.slow_ms = 0.0
        """How long a sync takes."""


class MemoryJournal(Actor):
    """Does what the journal does, without bytes: all that waits is durable at the next flush."""

    boxes: ClassVar[dict[str, SafeBox]] = {}
    """By node: actors get no arguments."""
    free_bytes = 1 << 40

    def __init__(self) -> None:
        super().__init__()
        self.waiting: list[Save] = []

    def receiveMessage(self, message: Any, sender: Any) -> None:
        """Save, and say so at the flush."""
        if isinstance(message, Start):
            self.start = message
            self.box = self.boxes[message.node_id]
            recovered = Recovered(self.box.term, self.box.voted_for, tuple(self.box.entries), self.free_bytes)
            self.send(message.node, recovered)
        elif isinstance(message, Save):
            if not self.waiting and self.box.slow_ms:
                self.wakeupAfter(timedelta(milliseconds=self.box.slow_ms))
            elif not self.waiting:
                self.send(self.myAddress, Flush())
            self.waiting.append(message)
        elif isinstance(message, Flush | WakeupMessage):
            for save in self.waiting:
                self.box.term, self.box.voted_for = save.current_term, save.voted_for
                if save.entries:
                    del self.box.entries[save.entries[0].index - 1 :]
                    self.box.entries.extend(save.entries)
            last, self.waiting = self.waiting[-1].number, []
            self.send(self.start.node, Saved(last, self.free_bytes))


class MemoryNode(Node):
    """A node whose journal is a box in memory."""

    journal_class = MemoryJournal


class Fatal(AssertionError):
    """A node stopped itself."""


class InMemoryCluster:
    """Nodes n1, n2, … over a network that the test can break; those that are ``late`` are booted by the test."""

    def __init__(
        self,
        size: int,
        seed: int,
        node_class: type[Node] = MemoryNode,
        *,
        late: Collection[str] = (),
        shuffled: bool = False,
    ) -> None:
        self.stage = Stage()
        self.random = Random(seed)
        self.node_class = node_class
        self.names = [f"n{number}" for number in range(1, size + 1)]
        self.boxes = {name: SafeBox() for name in self.names}
        MemoryJournal.boxes = self.boxes
        self.inbox: deque[tuple[str, str, Any]] = deque()
        """Inside nodes."""
        self.shuffled = shuffled
        self.network: list[tuple[float, int, str, str, Any]] = []
        self.cut: set[tuple[str, str]] = set()
        """(from, to) pairs that carry nothing."""
        self.loss = 0.0
        self.repeat = 0.0
        self.delay_ms = (0.1, 1.0)
        self.paused: set[str] = set()
        """Nodes that handle nothing, as if their process had been stopped."""
        self.replies: list[tuple[str, Any]] = []
        """What came back to those who asked, by their name."""
        self.replied_ms: list[float] = []
        """When each of the replies came."""
        self.changes: list[RoleChanged] = []
        for name in self.names:
            self.boxes[name].incarnation = f"{name}-1"
            if name not in late:
                self.boot(name)

    # --- nodes

    def boot(self, name: str, initial_cluster: Sequence[str] = ()) -> None:
        """Start a node with what its box holds, by its list of nodes (all of them, unless it was given another)."""
        names = initial_cluster or self.names

        def fail(status: int, line: str) -> None:
            raise Fatal(f"{name} stopped with {status}: {line}")

        self.stage.put(name, self.node_class)
        boot = Boot(
            node_id=name,
            incarnation=self.boxes[name].incarnation,
            initial_cluster=tuple((other, f"{other}:5001") for other in names),
            peer_address=ActorAddress,
            observer=ActorAddress("observer"),
            http=f"{name}:4001",
            environment=Environment(
                directory="",
                disk=_NO_DISK,
                clock=self.stage.clock,
                rng=Random(self.random.random()),
                timing=Timing(),
                limits=Limits(),
                fail=fail,
            ),
        )
        self.inbox.append(("test", name, boot))

    def crash(self, name: str) -> None:
        """Stop a node at once; what was not flushed is gone, and so are its messages that have not left."""
        self.stage.remove(name)
        self.paused.discard(name)
        own = f"{name}/"
        self.inbox = deque(m for m in self.inbox if m[1] != name and not m[1].startswith(own))

    def wipe(self, name: str) -> None:
        """Stop a node and take its disk away; it comes back as another incarnation.

        Nothing of the old one arrives later: the link lets a node in by one connection at a time.
        """
        self.crash(name)
        self.network = [item for item in self.network if name not in item[2:4]]
        earlier = self.boxes[name].incarnation
        self.boxes[name] = SafeBox()
        # Incarnations have an order, and "9" is greater than "10".
        self.boxes[name].incarnation = f"{earlier}1" if earlier[-1] == "9" else f"{earlier[:-1]}{int(earlier[-1]) + 1}"

    def disconnect(self, source: str, target: str) -> None:
        """Lose what is on its way from one node to another, and tell the first one so, as the link would."""
        self.network = [item for item in self.network if item[2:4] != (source, target)]
        for event in (PeerDown(target, "reset"), PeerUp(target)):
            self.inbox.append(("link", source, event))

    def is_up(self, name: str) -> bool:
        """Whether a node runs."""
        return name in self.stage.actors

    def replica(self, name: str) -> Any:
        """Return a node's replica, or None while it is being handed over or not made yet."""
        for role in ("bootstrap", "follower", "candidate", "leader"):
            actor: Any = self.stage.actors.get(f"{name}/{role}")
            if actor is not None and actor.has_replica:
                return actor.replica
        return None

    def leaders(self) -> list[str]:
        """Return the nodes whose leader holds the replica."""
        return [n for n in self.names if getattr(self.stage.actors.get(f"{n}/leader"), "has_replica", False)]

    def keyspace(self, name: str) -> Any:
        """Return the keyspace of a node's store."""
        store: Any = self.stage.actors[f"{name}/store"]
        return store.keyspace

    # --- asking

    def ask(self, name: str, message: Any, reply_to: str) -> None:
        """Give a node a request; what comes back is found in ``replies``."""
        self.inbox.append((reply_to, name, message))

    # --- running

    def step(self) -> None:
        """Deliver one message, or move time to what is next."""
        if self.shuffled and self.inbox and self.random.random() < HURRY:
            self._advance(within_ms=HURRY_MS)
        place = self._next_place()
        if place is None:
            self._advance()
            place = self._next_place()
        if place is not None:
            sender, target, message = self.inbox[place]
            del self.inbox[place]
            if target in self.stage.actors:
                self.stage.give(target, message, sender)
                self._collect()

    def _next_place(self) -> int | None:
        """Return which of the messages in the nodes is the next to be handled; None when none can be."""
        if self.inbox and not self.paused and not self.shuffled:
            return 0
        targets: dict[str, int] = {}
        for place, (_, target, _) in enumerate(self.inbox):
            if target not in targets and target.split("/")[0] not in self.paused:
                targets[target] = place
        places = list(targets.values())
        if not places:
            return None
        return self.random.choice(places) if self.shuffled else places[0]

    def run_ms(self, span_ms: float) -> None:
        """Run for a span of time."""
        end = self.stage.clock.ms + span_ms
        while self.stage.clock.ms < end:
            self.step()

    def _collect(self) -> None:
        sent, self.stage.sent = self.stage.sent, []
        for source, target, message in sent:
            if target == "observer":
                if isinstance(message, RoleChanged):
                    self.changes.append(message)
            elif target in self.stage.actors and source.split("/")[0] == target.split("/")[0]:
                self.inbox.append((source, target, message))
            elif target in self.names:
                self._post(source.split("/")[0], target, message)
            elif "/" not in target:
                self.replies.append((target, message))
                self.replied_ms.append(self.stage.clock.ms)

    def _post(self, source: str, target: str, message: Any) -> None:
        client_message = type(message).__name__.startswith("Forward")
        if (source, target) in self.cut or self.random.random() < self.loss:
            return
        copies = 2 if not client_message and self.random.random() < self.repeat else 1
        for _ in range(copies):
            due = self.stage.clock.ms + self.random.uniform(*self.delay_ms)
            self.network.append((due, next(self.stage.order), source, target, message))

    def _advance(self, within_ms: float = float("inf")) -> None:
        asleep = [wakeup for wakeup in self.stage.wakeups if wakeup[2].split("/")[0] in self.paused]
        awake = [wakeup for wakeup in self.stage.wakeups if wakeup[2].split("/")[0] not in self.paused]
        times = [item[0] for item in self.network] + [wakeup[0] for wakeup in awake]
        if not times:
            self.stage.clock.ms += min(1.0, within_ms)
            return
        if min(times) > self.stage.clock.ms + within_ms:
            return
        self.stage.clock.ms = max(self.stage.clock.ms, min(times))
        arrived = sorted(item for item in self.network if item[0] <= self.stage.clock.ms)
        self.network = [item for item in self.network if item[0] > self.stage.clock.ms]
        self.inbox.extend((source, target, message) for _, _, source, target, message in arrived)
        self.stage.wakeups = awake
        for _, _, name, payload in self.stage.due():
            self.inbox.append((name, name, WakeupMessage(timedelta(), payload)))
        self.stage.wakeups += asleep


_NO_DISK: Disk = None  # type: ignore[assignment]
"""The journal of these nodes is a box: nothing may touch a disk."""
