"""A Thespian system base in virtual time: the actor systems of several machines in one thread, driven by a seed.

The actors are the ones that run in earnest, and know nothing of it. Each machine has a lane in which its actors deal
with one message after the other, and one more for each actor that wants a thread of its own. Handling takes virtual
time, messages between machines take some too, machines are killed, stopped and slowed down; whatever is left to chance
comes from one generator. So the same seed gives the same run, message by message.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from random import Random
from threading import get_ident
from typing import Any

from raftkv.actors.system.base.actor_cell import ActorCell
from raftkv.actors.system.base.actor_spec import ActorSpec
from raftkv.actors.system.base.addresses import NodeAddress
from raftkv.actors.system.base.base import EventLoopBase
from raftkv.actors.system.base.eventloop import EventLoopSystem
from raftkv.actors.system.base.loop_cell import LoopCell
from raftkv.actors.system.base.message_loop import Receiver
from raftkv.actors.system.base.participant import Participant
from raftkv.actors.system.base.router import Transport
from raftkv.actors.system.virtual.scheduler import Cost, Lane, Scheduler, VirtualClock, VirtualLoop

HANDLING_MS = 0.02
"""How long a message takes to be handled, on average."""

LATENCY_MS = (0.1, 1.0)
"""How long a message takes from machine to machine."""

Watch = Callable[["SimulatedBase", ActorCell, Any, Any], None]
"""Told of each message that an actor has dealt with: its system, the actor's cell, the message, who sent it."""


class SimulatedCell(LoopCell):
    """An actor in the lane of its machine or, if it asked for a thread of its own, in one of its own."""

    __slots__ = ("_system", "lane")

    def __init__(self, base: SimulatedBase, address: NodeAddress, spec: ActorSpec, parent: Participant) -> None:
        super().__init__(base, address, spec, parent)
        self._system = base
        self.lane = base.new_lane() if spec.own_thread else base.lane

    def post(self, message: Any, sender: Any) -> None:
        """Put ``message`` into the lane."""
        self.lane.put(self, message, sender)

    def _failed(self, message: Any, sender: Any, error: BaseException) -> Any:
        """Do what Thespian promises; but a machine that ended in the middle of a handler does nothing more."""
        self._system.handler_raised(error)
        return super()._failed(message, sender, error) if self._system.alive else None


class SimulatedBase(EventLoopBase):
    """The actor system of one machine, from its start to its end."""

    def __init__(
        self,
        simulation: Simulation,
        node_id: str,
        clock: VirtualClock,
        cost: Cost,
        transport: Transport | None,
        capabilities: dict[str, Any],
    ) -> None:
        self._simulation = simulation
        self._cost = cost
        self._lanes: list[Lane] = []
        self.alive = True
        self.clock = clock
        self.lane = self.new_lane()
        # Asyncio's abstract loop has sockets and processes too, of which a simulated machine has none.
        loop = VirtualLoop(simulation.scheduler, clock, self.lane)  # type: ignore[abstract]
        super().__init__(loop, get_ident(), capabilities, node_id, transport)

    def _make_message_loop(self, loop: asyncio.AbstractEventLoop, thread: int) -> Lane:
        return self.lane

    def _make_cell(self, address: NodeAddress, spec: ActorSpec, parent: Participant) -> ActorCell:
        return SimulatedCell(self, address, spec, parent)

    def new_lane(self) -> Lane:
        """Return one more lane of this machine."""
        lane = Lane(self._simulation.scheduler, self._cost, self._dealt, self._simulation.shuffler)
        self._lanes.append(lane)
        return lane

    def stop(self) -> None:
        """Do nothing until ``go_on``, as a process that got a SIGSTOP."""
        for lane in self._lanes:
            lane.stop()

    def go_on(self) -> None:
        """Deal with what came meanwhile; timers whose time has passed ring now."""
        for lane in self._lanes:
            lane.go_on()

    def kill(self) -> None:
        """End everything here at once: nothing is handled, sent or told any more."""
        self.alive = False
        for lane in self._lanes:
            lane.close()
        self.loop.close()
        self.close_router()

    def send_elsewhere(self, target: Any, message: Any, sender: NodeAddress, source: str | None) -> None:
        """Send to an address that is no local actor's number; the dead send nothing."""
        if self.alive:
            super().send_elsewhere(target, message, sender, source)

    def handler_raised(self, error: BaseException) -> None:
        """Tell who runs the simulation, who may end the machine because of it."""
        if self._simulation.raised is not None:
            self._simulation.raised(self, error)

    def _dealt(self, receiver: Receiver, message: Any, sender: Any) -> None:
        watch = self._simulation.watch
        if watch is not None and isinstance(receiver, ActorCell):
            watch(self, receiver, message, sender)


class Simulation:
    """Machines by name, their common time, and the generator that decides what is left to chance."""

    def __init__(
        self,
        seed: int,
        *,
        shuffled: bool = False,
        watch: Watch | None = None,
        raised: Callable[[SimulatedBase, BaseException], None] | None = None,
    ) -> None:
        """With ``shuffled``, the actors of a machine take turns in any order.

        ``raised`` is told what an actor's handler raised, before anything else comes of it.
        """
        self.random = Random(seed)
        self.shuffler = Random(self.random.random()) if shuffled else None
        self.scheduler = Scheduler()
        self.watch = watch
        self.raised = raised
        self.systems: dict[str, SimulatedBase] = {}

    def start(
        self,
        node_id: str,
        *,
        clock: VirtualClock | None = None,
        cost: Cost | None = None,
        transport: Transport | None = None,
        capabilities: dict[str, Any] | None = None,
    ) -> EventLoopSystem:
        """Start the actor system of a machine; one of that name that still runs is killed.

        Without a ``transport`` its messages reach the other machines after ``LATENCY_MS``, in any order.
        """
        if (old := self.systems.get(node_id)) is not None:
            old.kill()
        base = SimulatedBase(
            self,
            node_id,
            clock or VirtualClock(self.scheduler),
            cost or self._handling,
            transport or _Wire(self, node_id),
            dict(capabilities or {}),
        )
        self.systems[node_id] = base
        return EventLoopSystem(base)

    def step(self) -> bool:
        """Let the next thing happen; False if nothing is going to."""
        return self.scheduler.step()

    def run_until(self, condition: Callable[[], bool], within_ms: float) -> bool:
        """Run until ``condition`` holds, and say whether it did within that time."""
        end_ms = self.scheduler.now_ms + within_ms
        while not condition():
            if self.scheduler.next_ms > end_ms:
                self.scheduler.now_ms = end_ms
                return condition()
            self.scheduler.step()
        return True

    def run_ms(self, span_ms: float) -> None:
        """Run for a span of time."""
        self.run_until(lambda: False, span_ms)

    def deliver(self, target: str, source: str, name: str, sender: str, message: Any) -> None:
        """Give a machine, if it is there, a message for its actor ``name`` from the actor ``sender`` of ``source``."""
        system = self.systems.get(target)
        if system is not None and system.alive:
            system.deliver(source, name, sender, message)

    def _handling(self, receiver: Receiver, message: Any) -> float:
        return self.random.random() * 2 * HANDLING_MS


class _Wire:
    """What connects the machines where nobody has brought another network."""

    def __init__(self, simulation: Simulation, node_id: str) -> None:
        self._simulation = simulation
        self._node_id = node_id

    def send(self, peer: str, target: str, source: str, message: Any) -> None:
        simulation = self._simulation
        delay_ms = simulation.random.uniform(*LATENCY_MS)
        simulation.scheduler.after(delay_ms, simulation.deliver, peer, self._node_id, target, source, message)
