"""The network between simulated machines: it loses, delays, repeats and cuts, as a link of real nodes would see it.

Messages travel as the bytes that they are on the wire. Raft's messages may be lost, repeated, late and out of order. A
forwarded request of a client may be lost or late, but is never repeated, because a link sends nothing twice. A
connection ends with the process at its other end. If the whole machine went down, or a way is cut, it ends after some
silence only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from random import Random
from typing import Any, Protocol

from raftkv.actors.messages.node import (
    NotSent,
    PeerDown,
    PeerUp,
)
from raftkv.actors.messages.wire import decode_peer, encode_peer, is_control
from raftkv.actors.system.virtual.scheduler import Scheduler

SILENCE_MS = (1200.0, 2000.0)
"""How long a connection without answers lasts."""

CONNECT_MS = (1.0, 300.0)
"""How long it takes to connect to a peer that is reachable again."""

OLDEST_MS = 60_000.0
"""How late the copy of a repeated message may be."""

BUFFERED_MS = 2.0
"""How long a message may be in a machine before it leaves it: a power failure loses it."""

Pair = tuple[str, str]


class Host(Protocol):
    """A machine, as the network sees it."""

    @property
    def process_number(self) -> int:
        """The number of the process that runs there; each restart increments it."""

    @property
    def is_listening(self) -> bool:
        """Whether that process takes messages from its peers."""

    @property
    def is_stopped(self) -> bool:
        """Whether that process is paused."""

    @property
    def is_lost(self) -> bool:
        """Whether the machine went down with its process, so that no connection was closed."""

    @property
    def crashed_ms(self) -> float:
        """When its power last failed."""

    def tell(self, message: Any) -> None:
        """Deliver a message of the node's own link."""

    def deliver(self, source: str, target: str, sender: str, message: Any) -> None:
        """Deliver a message of a peer."""


class Network:
    """The connections between all hosts, and the messages on their way."""

    def __init__(self, scheduler: Scheduler, random: Random, hosts: dict[str, Host]) -> None:
        self._scheduler = scheduler
        self._random = random
        self._hosts = hosts
        self.latency_ms = (0.1, 1.0)
        self.loss = 0.0
        """The probability that a message is lost."""
        self.repeat = 0.0
        """The probability that a message of Raft arrives twice."""
        self.repeat_late = 0.0
        """The probability that such a copy is very late."""
        self.ordered = False
        """Whether messages between two hosts stay in order."""
        self.slow_ms: dict[Pair, float] = {}
        """Additional latency, by way."""
        self.counts = {"sent": 0, "lost": 0, "repeated": 0, "refused": 0, "delivered": 0}
        self.on_send: Callable[[str, str, Any], None] | None = None
        """Called with each message that leaves a host: source, target, message."""
        self._cut: frozenset[Pair] = frozenset()
        self._connected: dict[Pair, int] = {}
        """The number of the process at the other end of each connection."""
        self._changes: dict[Pair, tuple[int, Callable[[Pair, int], None] | None]] = {}
        """The pending change of each connection; the number distinguishes it from changes that were dropped."""
        self._last_due: dict[Pair, float] = {}

    # --- for faults

    @property
    def cut(self) -> frozenset[Pair]:
        """The (from, to) ways on which everything is lost."""
        return self._cut

    def cut_off(self, pairs: Iterable[Pair]) -> None:
        """From now on, lose all messages on these ways and on no others."""
        self._cut = frozenset(pairs)
        self.update_connections()

    def disconnect(self, source: str, target: str) -> None:
        """End the connections between two hosts in both directions; they reconnect."""
        for pair in ((source, target), (target, source)):
            self._lose(pair, "reset")
        self.update_connections()

    # --- for hosts

    def update_connections(self) -> None:
        """Start and end connections after a change of a host or of the cuts."""
        for source in self._hosts:
            for target in self._hosts:
                if source != target:
                    self._update((source, target))

    def send(self, source: str, target: str, name: str, sender: str, message: Any) -> None:
        """Carry ``message`` from the actor ``sender`` to the actor ``name`` on another host."""
        pair = (source, target)
        if self.on_send is not None:
            self.on_send(source, target, message)
        if pair not in self._connected:
            self.counts["refused"] += 1
            if not is_control(message):
                self._scheduler.after(
                    0.0, self._deliver_own, source, self._process_number(source), NotSent(target, message, "down")
                )
            return
        self.counts["sent"] += 1
        random = self._random
        if pair in self._cut or (self.loss and random.random() < self.loss):
            self.counts["lost"] += 1
            return
        data = encode_peer(message)
        due_ms = self._scheduler.now_ms + random.uniform(*self.latency_ms) + self.slow_ms.get(pair, 0.0)
        if self.ordered:
            due_ms = self._last_due[pair] = max(due_ms, self._last_due.get(pair, 0.0))
        self._scheduler.at(
            due_ms, self._arrive, pair, self._process_number(target), name, sender, data, self._scheduler.now_ms
        )
        if self.repeat and random.random() < self.repeat and message.may_repeat:
            self.counts["repeated"] += 1
            late_ms = random.uniform(0.0, OLDEST_MS if random.random() < self.repeat_late else 20.0)
            self._scheduler.at(due_ms + late_ms, self._arrive, pair, None, name, sender, data, self._scheduler.now_ms)

    # --- internals

    def _arrive(self, pair: Pair, process: int | None, name: str, sender: str, data: bytes, sent_ms: float) -> None:
        """Deliver a message; the original goes to the process that it was sent to, and to no later one."""
        source, target = pair
        host = self._hosts[target]
        # Of the last messages before a power failure, some may never have left the machine.
        is_buffered = 0.0 <= self._hosts[source].crashed_ms - sent_ms < BUFFERED_MS
        lost = pair in self._cut or not host.is_listening or process not in (None, host.process_number)
        if lost or (is_buffered and self._random.random() < 0.5):
            self.counts["lost"] += 1
            return
        self.counts["delivered"] += 1
        host.deliver(source, name, sender, decode_peer(data))

    def _process_number(self, name: str) -> int:
        return self._hosts[name].process_number

    def _deliver_own(self, name: str, process: int, message: Any) -> None:
        host = self._hosts[name]
        if host.process_number == process:
            host.tell(message)

    def _reachable(self, pair: Pair) -> bool:
        stopped = self._hosts[pair[0]].is_stopped or self._hosts[pair[1]].is_stopped
        return not stopped and pair not in self._cut and pair[::-1] not in self._cut

    def _update(self, pair: Pair) -> None:
        here, there = self._hosts[pair[0]], self._hosts[pair[1]]
        change: Callable[[Pair, int], None] | None = None
        delay_ms = (0.0, 0.0)
        if not here.is_listening:
            self._connected.pop(pair, None)
        elif pair in self._connected:
            if not self._reachable(pair) or there.is_lost:
                # A cut way, or a machine that is gone, shows by its silence only.
                change, delay_ms = self._give_up, SILENCE_MS
            elif not there.is_listening or self._connected[pair] != there.process_number:
                self._lose(pair, "the peer has closed the connection")
                self._update(pair)
                return
        elif there.is_listening and self._reachable(pair):
            change, delay_ms = self._connect, CONNECT_MS
        # A change that is already pending goes on.
        number, earlier = self._changes.get(pair, (0, None))
        if change != earlier:
            self._changes[pair] = (number + 1, change)
            if change is not None:
                self._scheduler.after(self._random.uniform(*delay_ms), change, pair, number + 1)

    def _connect(self, pair: Pair, number: int) -> None:
        if self._changes[pair][0] == number:
            self._changes[pair] = (number, None)
            self._connected[pair] = self._process_number(pair[1])
            self._hosts[pair[0]].tell(PeerUp(pair[1]))

    def _give_up(self, pair: Pair, number: int) -> None:
        if self._changes[pair][0] == number:
            self._changes[pair] = (number, None)
            self._lose(pair, "no answer for too long")
            self._update(pair)

    def _lose(self, pair: Pair, reason: str) -> None:
        if self._connected.pop(pair, None) is not None and self._hosts[pair[0]].is_listening:
            self._hosts[pair[0]].tell(PeerDown(pair[1], reason))
