"""A Thespian system base in virtual time: the actor systems of several machines in one thread, driven by a seed.

The actors are those of production and know nothing of the simulation. Each machine has a dispatcher that handles one
message after the other, and one more for each actor with a thread of its own. Handling a message takes virtual time,
and so does a message between machines; machines can be killed, paused and slowed down. Every random choice comes from
one generator, so the same seed gives the same run, message by message.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from random import Random
from threading import get_ident
from typing import Any

from raftkv.actors.system.base.actor_cell import ActorCell
from raftkv.actors.system.base.actor_spec import ActorSpec
from raftkv.actors.system.base.addressable import Addressable
from raftkv.actors.system.base.addresses import NodeAddress
from raftkv.actors.system.base.base import EventLoopBase
from raftkv.actors.system.base.eventloop import EventLoopSystem
from raftkv.actors.system.base.loop_cell import LoopCell
from raftkv.actors.system.base.message_loop import Receiver
from raftkv.actors.system.base.router import Transport
from raftkv.actors.system.virtual.scheduler import Cost, Scheduler, VirtualClock, VirtualDispatcher, VirtualLoop

HANDLING_MS = 0.02
"""The average time that handling a message takes."""

LATENCY_MS = (0.1, 1.0)
"""The least and the most time that a message takes from machine to machine."""

OnHandled = Callable[["SimulatedBase", ActorCell, Any, Any], None]
"""Called after each message that an actor has handled, with the system, the actor's cell, the message, its sender."""


class SimulatedCell(LoopCell):
    """An actor on the dispatcher of its machine or, if it asks for a thread of its own, on its own dispatcher."""

    __slots__ = ("_system", "dispatcher")

    def __init__(self, base: SimulatedBase, address: NodeAddress, spec: ActorSpec, parent: Addressable) -> None:
        super().__init__(base, address, spec, parent)
        self._system = base
        self.dispatcher = base.new_dispatcher() if spec.own_thread else base.dispatcher

    def post(self, message: Any, sender: Any) -> None:
        """Queue ``message`` on the dispatcher."""
        self.dispatcher.put(self, message, sender)

    def _failed(self, message: Any, sender: Any, error: BaseException) -> Any:
        """Retry as Thespian does; but a machine that ended during the handler does nothing more."""
        self._system.handler_raised(error)
        return super()._failed(message, sender, error) if self._system.alive else None


class SimulatedBase(EventLoopBase):
    """The actor system of one machine, for one run of its process."""

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
        self._dispatchers: list[VirtualDispatcher] = []
        self.alive = True
        self.clock = clock
        self.dispatcher = self.new_dispatcher()
        # asyncio's abstract loop has sockets and subprocesses too, which simulated machines do not use.
        loop = VirtualLoop(simulation.scheduler, clock, self.dispatcher)  # type: ignore[abstract]
        super().__init__(loop, get_ident(), capabilities, node_id, transport)

    def _make_message_loop(self, loop: asyncio.AbstractEventLoop, thread: int) -> VirtualDispatcher:
        return self.dispatcher

    def _make_cell(self, address: NodeAddress, spec: ActorSpec, parent: Addressable) -> ActorCell:
        return SimulatedCell(self, address, spec, parent)

    def new_dispatcher(self) -> VirtualDispatcher:
        """Return one more dispatcher of this machine."""
        simulation = self._simulation
        dispatcher = VirtualDispatcher(simulation.scheduler, self._cost, self._on_handled, simulation.shuffler)
        self._dispatchers.append(dispatcher)
        return dispatcher

    def pause(self) -> None:
        """Do nothing until ``resume``, as a process after SIGSTOP."""
        for dispatcher in self._dispatchers:
            dispatcher.pause()

    def resume(self) -> None:
        """Continue, as after SIGCONT: handle the messages that were kept; timers that are overdue fire now."""
        for dispatcher in self._dispatchers:
            dispatcher.resume()

    def kill(self) -> None:
        """End the machine at once: nothing is handled or sent any more."""
        self.alive = False
        for dispatcher in self._dispatchers:
            dispatcher.close()
        self.loop.close()
        self.close_router()

    def send_elsewhere(self, target: Any, message: Any, sender: NodeAddress, source: str | None) -> None:
        """Send to an address that is no local actor's number, unless the machine has been killed."""
        if self.alive:
            super().send_elsewhere(target, message, sender, source)

    def handler_raised(self, error: BaseException) -> None:
        """Report an exception to the owner of the simulation, which may kill the machine."""
        if self._simulation.on_raised is not None:
            self._simulation.on_raised(self, error)

    def _on_handled(self, receiver: Receiver, message: Any, sender: Any) -> None:
        on_handled = self._simulation.on_handled
        if on_handled is not None and isinstance(receiver, ActorCell):
            on_handled(self, receiver, message, sender)


class Simulation:
    """Machines by name, their common scheduler, and the generator of every random choice."""

    def __init__(
        self,
        seed: int,
        *,
        shuffled: bool = False,
        on_handled: OnHandled | None = None,
        on_raised: Callable[[SimulatedBase, BaseException], None] | None = None,
    ) -> None:
        """With ``shuffled``, the actors of a machine take turns in random order.

        ``on_raised`` is called with the exception of a handler, before the retry.
        """
        self.random = Random(seed)
        self.shuffler = Random(self.random.random()) if shuffled else None
        self.scheduler = Scheduler()
        self.on_handled = on_handled
        self.on_raised = on_raised
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
        """Start the actor system of a machine; a running one of that name is killed.

        Without a ``transport``, its messages reach the other machines after ``LATENCY_MS``, in any order.
        """
        if (old := self.systems.get(node_id)) is not None:
            old.kill()
        base = SimulatedBase(
            self,
            node_id,
            clock or VirtualClock(self.scheduler),
            cost or self._handling,
            transport or _DefaultTransport(self, node_id),
            dict(capabilities or {}),
        )
        self.systems[node_id] = base
        return EventLoopSystem(base)

    def step(self) -> bool:
        """Make the next event happen; False if there is none."""
        return self.scheduler.step()

    def run_until(self, condition: Callable[[], bool], within_ms: float) -> bool:
        """Run until ``condition`` holds; False if it does not hold within ``within_ms``."""
        end_ms = self.scheduler.now_ms + within_ms
        while not condition():
            if self.scheduler.next_ms > end_ms:
                self.scheduler.now_ms = end_ms
                return condition()
            self.scheduler.step()
        return True

    def run_ms(self, span_ms: float) -> None:
        """Run for ``span_ms``."""
        self.run_until(lambda: False, span_ms)

    def deliver(self, target: str, source: str, name: str, sender: str, message: Any) -> None:
        """Deliver a message to actor ``name`` of a machine, if it runs, from actor ``sender`` of machine ``source``."""
        system = self.systems.get(target)
        if system is not None and system.alive:
            system.deliver(source, name, sender, message)

    def _handling(self, receiver: Receiver, message: Any) -> float:
        return self.random.random() * 2 * HANDLING_MS


class _DefaultTransport:
    """Connects machines that were started without a transport."""

    def __init__(self, simulation: Simulation, node_id: str) -> None:
        self._simulation = simulation
        self._node_id = node_id

    def send(self, peer: str, target: str, source: str, message: Any) -> None:
        simulation = self._simulation
        delay_ms = simulation.random.uniform(*LATENCY_MS)
        simulation.scheduler.after(delay_ms, simulation.deliver, peer, self._node_id, target, source, message)
