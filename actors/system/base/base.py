"""The event-loop system base: what Thespian's ``ActorSystem`` calls, and how actors and their system begin and end.

A shutdown ends all actors, children before parents, and then the system. Actors that have not ended after the shutdown
time-out are abandoned, so a shutdown always finishes.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import sys
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from thespian.actors import ActorExitRequest, ThespianGeneration

from raftkv.actors.system.base.actor_cell import ActorCell
from raftkv.actors.system.base.actor_spec import ActorSpec
from raftkv.actors.system.base.addressable import Addressable
from raftkv.actors.system.base.addresses import NodeAddress
from raftkv.actors.system.base.convention import Convention
from raftkv.actors.system.base.endpoint import Ask, Endpoint, PrivateContext
from raftkv.actors.system.base.guardian import Guardian
from raftkv.actors.system.base.host import ActorHost
from raftkv.actors.system.base.loop_cell import LoopCell
from raftkv.actors.system.base.message_loop import Dispatcher, MessageLoop
from raftkv.actors.system.base.pickled_copy import pickled_copy
from raftkv.actors.system.base.router import Transport
from raftkv.actors.system.base.sources import Sources
from raftkv.actors.system.base.thread_cell import ThreadCell, current_actor_host

SHUTDOWN_TIMEOUT_S = 10.0

_T = TypeVar("_T")


class EventLoopBase(ActorHost):
    """The system base: the actors of one event loop."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        thread: int,
        capabilities: dict[str, Any],
        node_id: str = "",
        transport: Transport | None = None,
        pickle_messages: bool = False,
        shutdown_timeout_s: float = SHUTDOWN_TIMEOUT_S,
    ) -> None:
        """Run actors on ``loop``, which runs on ``thread`` (a ``threading.get_ident()``)."""
        message_loop = self._make_message_loop(loop, thread)
        super().__init__(node_id, loop, thread, message_loop, transport, pickled_copy if pickle_messages else None)
        self.capabilities = capabilities
        self.threads = set()
        self.closing = False
        self._shutdown_timeout_s = shutdown_timeout_s
        self._closed = threading.Event()
        self._closed_waiters: list[asyncio.Future[None]] = []
        self._deadline: asyncio.TimerHandle | None = None
        self.guardian = Guardian(self)
        self.address = self.guardian.address
        self.convention = Convention(self, self.address)
        self.sources = Sources(self, self.address, capabilities, self._is_source_in_use)
        self._outside = Endpoint(self)
        capabilities.update(_own_capabilities())

    def _make_message_loop(self, loop: asyncio.AbstractEventLoop, thread: int) -> Dispatcher:
        return MessageLoop(loop, thread, self._abandon_actors)

    # --- What Thespian's ActorSystem calls

    def newPrimaryActor(
        self, actor_class: Any, requirements: Any = None, global_name: str | None = None, source_hash: Any = None
    ) -> NodeAddress:
        """Create an actor whose parent is the guardian, or return the address of the one that has ``global_name``.

        Raises what is wrong with the class, or what its ``__init__`` raises. But an actor with a thread of its own is
        created on that thread: what its ``__init__`` raises is logged, and its address is that of a dead actor.
        """
        spec = ActorSpec(actor_class, requirements, global_name, source_hash)
        return self._call_on_loop(lambda: self.guardian.create(spec))

    def tell(self, target: Any, message: Any) -> None:
        """Send ``message`` from outside of any actor."""
        self._outside.actor_send(target, message)

    def ask(self, target: Any, message: Any, timeout: Any = None) -> Any:
        """Send ``message`` and wait for a reply: returns an awaitable on the loop's thread, blocks on any other."""
        return self._outside.ask(target, message, timeout)

    def listen(self, timeout: Any = None) -> Any:
        """Wait for any message to the outside: returns an awaitable on the loop's thread, blocks on any other."""
        return self._outside.listen(timeout)

    def external_clone(self) -> PrivateContext:
        """Return an endpoint with a mailbox of its own."""
        return PrivateContext(self, self.newPrimaryActor)

    def updateCapability(self, name: str, value: Any) -> None:
        """Set a capability or remove it (None); actors that required it exit."""
        self._call_on_loop(lambda: self.set_capability(name, value))

    def loadActorSource(self, source: Any) -> str:
        """Have the source authority validate a zip file (a path or a file object); returns its hash at once."""
        if hasattr(source, "read"):
            with source:
                return self.sources.request(source.read(), str(getattr(source, "name", source)))
        with open(source, "rb") as file:
            return self.sources.request(file.read(), str(source))

    def unloadActorSource(self, source_hash: str) -> None:
        """Unload a source."""
        self.message_loop.call(lambda: self.sources.unload(source_hash))

    def _handleDeadLetters(self, address: NodeAddress, enable: bool) -> None:
        self.handle_dead_letters(address, enable)

    def shutdown(self) -> None:
        """End all actors, children first, then the system.

        On the loop's thread, and on an actor's own thread, this begins the shutdown and returns; ``wait_closed`` waits
        for its end. On any other thread it blocks until the system has ended.
        """
        self.begin_shutdown()
        if not self.on_loop() and current_actor_host() is not self:
            self._closed.wait(self._shutdown_timeout_s + 1.0)

    async def wait_closed(self) -> None:
        """Wait for the end of the system after a ``shutdown``. On the loop's thread."""
        if not self._closed.is_set():
            waiter = self.loop.create_future()
            self._closed_waiters.append(waiter)
            await waiter

    def peer_changed(self, peer: str, up: bool) -> None:
        """Notify registered actors that ``peer`` is connected or no longer. On the loop's thread."""
        self.convention.peer_changed(peer, up)

    # --- What actors and the guardian call (``ActorHost``)

    def start_actor(self, address: NodeAddress, spec: ActorSpec, parent: Addressable) -> NodeAddress:
        """Create an actor; returns its address, or that of the actor that has its global name. From any thread.

        Raises what is wrong with the class, and what its ``__init__`` raises if that runs on this thread.
        """
        name = spec.global_name
        if name and (winner := self.names.get(name)) is not None:
            return winner
        spec.resolve(self.capabilities, self.sources.loader(spec.source_hash))
        cell = self._make_cell(address, spec, parent)
        with self._lock:
            if name and (winner := self.names.get(name)) is not None:
                return winner
            # The name is registered last: another thread that finds it may send at once, and that message must get
            # into the mailbox, behind the actor's creation.
            self.receivers[address.number] = cell
            cell.enqueue_creation()
            if name:
                self.names[name] = address
        try:
            cell.start()
        except BaseException:
            self.receivers.pop(address.number, None)
            self._forget_name(name, address)
            raise
        return address

    def _make_cell(self, address: NodeAddress, spec: ActorSpec, parent: Addressable) -> ActorCell:
        return (ThreadCell if spec.own_thread else LoopCell)(self, address, spec, parent)

    def request_exit(self, address: NodeAddress) -> None:
        """Ask an actor and all below it to exit."""
        receiver = self.receivers.get(address.number)
        # An actor that is not there has ended by itself; its ChildActorExited is on its way.
        if receiver is not None:
            receiver.post(ActorExitRequest(recursive=True), self.address)

    def adopt(self, children: Iterable[NodeAddress]) -> None:
        """Make the guardian the parent of actors whose own parent has ended without them. From any thread."""
        orphans = list(children)
        if orphans:
            self.message_loop.call(lambda: self.guardian.adopt(orphans))

    def forget(self, address: NodeAddress, spec: ActorSpec) -> None:
        """Remove an actor that has ended from all registers. From any thread."""
        self._forget_name(spec.global_name, address)
        self.handle_dead_letters(address, False)
        self.convention.unregister(address.number)
        self.sources.unregister(address, spec.source_hash)

    def _forget_name(self, name: str | None, address: NodeAddress) -> None:
        if name:
            with self._lock:
                if self.names.get(name) is address:
                    del self.names[name]

    def set_capability(self, name: str, value: Any) -> None:
        """Set a capability or remove it (None), and end the actors that required it. On the loop's thread."""
        if self.capabilities.get(name) == value:
            return
        if value is None:
            del self.capabilities[name]
        else:
            self.capabilities[name] = value
        for cell in list(self.receivers.values()):
            if isinstance(cell, ActorCell) and not cell.spec.fits(self.capabilities):
                cell.post(ActorExitRequest(), self.address)

    def _is_source_in_use(self, source_hash: str) -> bool:
        """Whether there is an actor made from this source."""
        receivers = list(self.receivers.values())
        return any(isinstance(each, ActorCell) and each.spec.source_hash == source_hash for each in receivers)

    # --- Shutdown

    def begin_shutdown(self) -> None:
        """Begin to shut the system down. From any thread."""
        if self.on_loop():
            self._shut_down()
        else:
            self.message_loop.call(self._shut_down)

    def _shut_down(self) -> None:
        if self.closing:
            return
        if self.loop.is_closed():
            self._abandon_actors()
            return
        self.closing = True
        self._deadline = self.loop.call_later(self._shutdown_timeout_s, self._abandon_actors)
        self.guardian.exit()

    def _abandon_actors(self) -> None:
        """End the system without the actors that did not exit in time, or whose loop has been closed."""
        self.closing = True
        for receiver in list(self.receivers.values()):
            if isinstance(receiver, ActorCell):
                receiver.abandon()
        self.finish()

    def finish(self) -> None:
        """Finish the shutdown, after the end of all actors: resolve every ask and listen, and wake every waiter."""
        if self._closed.is_set():
            return
        if self._deadline is not None:
            self._deadline.cancel()
        for thread in list(self.threads):
            # The actors of these threads have ended, so the threads are about to. One of them may be the caller, if
            # the loop was closed before the system.
            if thread is not threading.current_thread():
                thread.join(1.0)
        self.threads.clear()
        self.sources.unload_all()
        for receiver in list(self.receivers.values()):
            if isinstance(receiver, Ask | Endpoint):
                receiver.release()
        self.close_router()
        self._closed.set()
        for waiter in self._closed_waiters:
            if not waiter.done():
                waiter.set_result(None)

    # --- The loop's thread

    def _call_on_loop(self, function: Callable[[], _T]) -> _T:
        """Call ``function`` on the loop's thread and return what it returns, or raise what it raises."""
        if self.on_loop():
            return function()
        result: concurrent.futures.Future[_T] = concurrent.futures.Future()

        def call() -> None:
            try:
                result.set_result(function())
            except BaseException as error:
                result.set_exception(error)

        self.message_loop.call(call)
        return result.result()


def _own_capabilities() -> dict[str, Any]:
    """Return the capabilities that every Thespian system has."""
    return {
        "Python Version": tuple(sys.version_info),
        "Thespian Generation": ThespianGeneration,
        "Thespian Version": str(int(time.time() * 1000)),
        "Thespian ActorSystem Name": "eventLoopSystem",
        "Thespian ActorSystem Version": 1,
        "Thespian Watch Supported": True,
        "AllowRemoteActorSources": "No",
    }
