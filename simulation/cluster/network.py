"""The network between simulated machines: what it loses, delays, repeats and cuts, and what a node's link tells of it.

Messages are carried as the bytes that they would be on a wire. Those of Raft may be lost, repeated, late and out of
order; a client's request that one node passes on to another may be lost or late, but is never repeated: the link
sends nothing twice. A connection ends with the process at its other end, or after some silence: where the machine went
with the process, nobody tells.
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
from raftkv.actors.messages.requests import Forward, ForwardReply
from raftkv.actors.messages.wire import decode_peer, encode_peer, is_control
from raftkv.actors.system.virtual.scheduler import Scheduler

SILENCE_MS = (1200.0, 2000.0)
"""After how long without an answer a connection is given up."""

CONNECT_MS = (1.0, 300.0)
"""How long it takes to connect to a peer that can be reached again."""

OLDEST_MS = 60_000.0
"""By how much a repeated message may be late."""

LAST_WORDS_MS = 2.0
"""How long a message may be in a machine before it leaves it."""

Pair = tuple[str, str]


class Host(Protocol):
    """A machine, as far as the network is concerned."""

    @property
    def life(self) -> int:
        """The number of the process that runs there."""

    @property
    def is_listening(self) -> bool:
        """Whether that process takes messages of its peers."""

    @property
    def is_stopped(self) -> bool:
        """Whether that process stands still."""

    @property
    def is_lost(self) -> bool:
        """Whether that process ended without anybody to close its connections."""

    @property
    def crashed_ms(self) -> float:
        """When its power failed last."""

    def tell(self, message: Any) -> None:
        """Give the node a message of its own link."""

    def deliver(self, source: str, target: str, sender: str, message: Any) -> None:
        """Give the node a message of a peer."""


class Network:
    """Connections between all hosts, and what is on its way."""

    def __init__(self, scheduler: Scheduler, random: Random, hosts: dict[str, Host]) -> None:
        self._scheduler = scheduler
        self._random = random
        self._hosts = hosts
        self.latency_ms = (0.1, 1.0)
        self.loss = 0.0
        """How likely a message is to be lost."""
        self.repeat = 0.0
        """How likely a message of Raft's is to come once more."""
        self.repeat_late = 0.0
        """How likely such a second one is to be very late."""
        self.ordered = False
        """Whether nothing overtakes anything between two hosts."""
        self.slow_ms: dict[Pair, float] = {}
        """Latency that some ways have on top."""
        self.counts = {"sent": 0, "lost": 0, "repeated": 0, "refused": 0, "delivered": 0}
        self.said: Callable[[str, str, Any], None] | None = None
        """Told of each message that leaves a host: from where, to where, what."""
        self._cut: frozenset[Pair] = frozenset()
        self._connected: dict[Pair, int] = {}
        """The number of the process at the other end of each connection."""
        self._plans: dict[Pair, tuple[int, Callable[[Pair, int], None] | None]] = {}
        """What is about to become of a connection; the number tells it from plans that were dropped."""
        self._last_due: dict[Pair, float] = {}

    # --- What faults do.

    @property
    def cut(self) -> frozenset[Pair]:
        """The (from, to) ways on which everything is lost."""
        return self._cut

    def cut_off(self, pairs: Iterable[Pair]) -> None:
        """Lose everything on these ways, and on no others, from now on."""
        self._cut = frozenset(pairs)
        self.look()

    def disconnect(self, source: str, target: str) -> None:
        """End the connection between two hosts in both directions; they connect again."""
        for pair in ((source, target), (target, source)):
            self._lose(pair, "reset")
        self.look()

    # --- What hosts do.

    def look(self) -> None:
        """See which connections end and which begin, now that something has changed."""
        for source in self._hosts:
            for target in self._hosts:
                if source != target:
                    self._look_at((source, target))

    def send(self, source: str, target: str, name: str, sender: str, message: Any) -> None:
        """Carry ``message`` from the actor ``sender`` to the actor ``name`` on another host."""
        pair = (source, target)
        if self.said is not None:
            self.said(source, target, message)
        if pair not in self._connected:
            self.counts["refused"] += 1
            if not is_control(message):
                self._scheduler.after(0.0, self._tell, source, self._life(source), NotSent(target, message, "down"))
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
        self._scheduler.at(due_ms, self._arrive, pair, self._life(target), name, sender, data, self._scheduler.now_ms)
        if self.repeat and random.random() < self.repeat and not isinstance(message, Forward | ForwardReply):
            self.counts["repeated"] += 1
            late_ms = random.uniform(0.0, OLDEST_MS if random.random() < self.repeat_late else 20.0)
            self._scheduler.at(due_ms + late_ms, self._arrive, pair, None, name, sender, data, self._scheduler.now_ms)

    # --- Inside.

    def _arrive(self, pair: Pair, life: int | None, name: str, sender: str, data: bytes, sent_ms: float) -> None:
        """Deliver a message; the first copy of it goes to the process that it was sent to, and to no later one."""
        source, target = pair
        host = self._hosts[target]
        # What a machine said last before its power failed may never have left it, or only a part of it.
        is_last_word = 0.0 <= self._hosts[source].crashed_ms - sent_ms < LAST_WORDS_MS
        lost = pair in self._cut or not host.is_listening or life not in (None, host.life)
        if lost or (is_last_word and self._random.random() < 0.5):
            self.counts["lost"] += 1
            return
        self.counts["delivered"] += 1
        host.deliver(source, name, sender, decode_peer(data))

    def _life(self, name: str) -> int:
        return self._hosts[name].life

    def _tell(self, name: str, life: int, message: Any) -> None:
        host = self._hosts[name]
        if host.life == life:
            host.tell(message)

    def _reachable(self, pair: Pair) -> bool:
        stopped = self._hosts[pair[0]].is_stopped or self._hosts[pair[1]].is_stopped
        return not stopped and pair not in self._cut and pair[::-1] not in self._cut

    def _look_at(self, pair: Pair) -> None:
        here, there = self._hosts[pair[0]], self._hosts[pair[1]]
        plan: Callable[[Pair, int], None] | None = None
        delay_ms = (0.0, 0.0)
        if not here.is_listening:
            self._connected.pop(pair, None)
        elif pair in self._connected:
            if not self._reachable(pair) or there.is_lost:
                # Nobody says that a way is cut, or that a machine is gone; it is noticed by the silence.
                plan, delay_ms = self._give_up, SILENCE_MS
            elif not there.is_listening or self._connected[pair] != there.life:
                self._lose(pair, "the peer has closed the connection")
                self._look_at(pair)
                return
        elif there.is_listening and self._reachable(pair):
            plan, delay_ms = self._connect, CONNECT_MS
        # What is under way already goes on.
        number, earlier = self._plans.get(pair, (0, None))
        if plan != earlier:
            self._plans[pair] = (number + 1, plan)
            if plan is not None:
                self._scheduler.after(self._random.uniform(*delay_ms), plan, pair, number + 1)

    def _connect(self, pair: Pair, number: int) -> None:
        if self._plans[pair][0] == number:
            self._plans[pair] = (number, None)
            self._connected[pair] = self._life(pair[1])
            self._hosts[pair[0]].tell(PeerUp(pair[1]))

    def _give_up(self, pair: Pair, number: int) -> None:
        if self._plans[pair][0] == number:
            self._plans[pair] = (number, None)
            self._lose(pair, "no answer for too long")
            self._look_at(pair)

    def _lose(self, pair: Pair, reason: str) -> None:
        if self._connected.pop(pair, None) is not None and self._hosts[pair[0]].is_listening:
            self._hosts[pair[0]].tell(PeerDown(pair[1], reason))
