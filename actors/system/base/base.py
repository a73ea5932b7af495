"""The system base: what Thespian's ``ActorSystem`` and all actors of an event loop stand on."""

from __future__ import annotations

import asyncio
import concurrent.futures
import sys
import threading
import time
from collections.abc import Callable, Iterable
from threading import get_ident
from typing import Any, TypeVar

from thespian.actors import ActorExitRequest, ThespianGeneration

from raftkv.actors.system.base.actor_cell import ActorCell
from raftkv.actors.system.base.actor_spec import ActorSpec
from raftkv.actors.system.base.addresses import NodeAddress
from raftkv.actors.system.base.convention import Convention
from raftkv.actors.system.base.endpoint import Ask, Endpoint, PrivateContext
from raftkv.actors.system.base.guardian import Guardian
from raftkv.actors.system.base.loop_cell import LoopCell
from raftkv.actors.system.base.message_loop import MessageLoop
from raftkv.actors.system.base.participant import Participant
from raftkv.actors.system.base.pickled_copy import pickled_copy
from raftkv.actors.system.base.router import Router, Transport
from raftkv.actors.system.base.source_loading import Sources
from raftkv.actors.system.base.thread_cell import ThreadCell, current_actor_base

SHUTDOWN_TIMEOUT_S = 10.0

_T = TypeVar("_T")


class EventLoopBase(Router):
    """The system base: what Thespian's ``ActorSystem`` calls, and the beginning and end of actors and system."""

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
        """Serve actors on ``loop``, which runs on the thread ``thread`` (as ``threading.get_ident`` says it)."""
        self.loop = loop
        message_loop = self._make_pump(thread)
        super().__init__(node_id, thread, message_loop, transport, pickled_copy if pickle_messages else None)
        self.capabilities = capabilities
        self.threads: set[ThreadCell] = set()
        self.closing = False
        self._shutdown_timeout_s = shutdown_timeout_s
        self._closed = threading.Event()
        self._closed_waiters: list[asyncio.Future[None]] = []
        self._deadline: asyncio.TimerHandle | None = None
        self.guardian = Guardian(self)
        self.address = self.guardian.address
        self.convention = Convention(self)
        self.sources = Sources(self)
        self._outside = Endpoint(self)
        capabilities.update(_own_capabilities())

    def _make_pump(self, thread: int) -> MessageLoop:
        return MessageLoop(self.loop, thread, self._give_up)

    # --- What Thespian's ActorSystem calls

    def newPrimaryActor(
        self, actor_class: Any, requirements: Any = None, global_name: str | None = None, source_hash: Any = None
    ) -> NodeAddress:
        """Create an actor whose parent is the system, or return the address of the one that has ``global_name``.

        Raises what is wrong with the class, or what its ``__init__`` raises; but an actor with a thread of its own
        is made there, so that what its ``__init__`` raises is logged, and its address is a dead one.
        """
        spec = ActorSpec(actor_class, requirements, global_name, source_hash)
        return self._call_on_loop(lambda: self.guardian.create(spec))

    def tell(self, target: Any, message: Any) -> None:
        """Send ``message`` from outside of any actor."""
        self._outside.actor_send(target, message)

    def ask(self, target: Any, message: Any, timeout: Any = None) -> Any:
        """Send ``message`` and wait for a reply: an awaitable on the loop's thread, blocking on any other."""
        return self._outside.ask(target, message, timeout)

    def listen(self, timeout: Any = None) -> Any:
        """Wait for any message to the outside: an awaitable on the loop's thread, blocking on any other."""
        return self._outside.listen(timeout)

    def external_clone(self) -> PrivateContext:
        """Return an endpoint with a mailbox of its own."""
        return PrivateContext(self)

    def updateCapability(self, name: str, value: Any) -> None:
        """Set a capability, or take it away (None); actors that needed it exit."""
        self._call_on_loop(lambda: self.set_capability(name, value))

    def loadActorSource(self, source: Any) -> str:
        """Have the source authority validate a zip file (a path or a file object); returns its hash at once."""
        if hasattr(source, "read"):
            with source:
                return self.sources.request(source.read(), str(getattr(source, "name", source)))
        with open(source, "rb") as file:
            return self.sources.request(file.read(), str(source))

    def unloadActorSource(self, source_hash: str) -> None:
        """Forget a source."""
        self.message_loop.call(lambda: self.sources.unload(source_hash))

    def _handleDeadLetters(self, address: NodeAddress, enable: bool) -> None:
        self.handle_dead_letters(address, enable)

    def shutdown(self) -> None:
        """End all actors, children first, then the system.

        On the loop's thread, and on that of an actor, this begins the shutdown and returns: ``await wait_closed()``.
        On any other thread it returns when all is over.
        """
        self.begin_shutdown()
        if not self.on_loop() and current_actor_base() is not self:
            self._closed.wait(self._shutdown_timeout_s + 1.0)

    async def wait_closed(self) -> None:
        """Wait, on the loop, until all actors have ended after a ``shutdown``."""
        if not self._closed.is_set():
            waiter = self.loop.create_future()
            self._closed_waiters.append(waiter)
            await waiter

    def peer_changed(self, peer: str, up: bool) -> None:
        """Tell those who registered that ``peer`` has come or gone. On the loop's thread."""
        self.convention.peer_changed(peer, up)

    # --- Actors' lives

    def start_actor(self, address: NodeAddress, spec: ActorSpec, parent: Participant) -> NodeAddress:
        """Make an actor; returns its address, or that of the one that has its global name. From any thread.

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
            # The name comes last: whoever finds it may send at once, from any thread, and that has to find its way
            # into the mailbox, behind the actor's making.
            self.receivers[address.number] = cell
            cell.announce()
            if name:
                self.names[name] = address
        try:
            cell.start()
        except BaseException:
            self.receivers.pop(address.number, None)
            self._forget_name(name, address)
            raise
        return address

    def _make_cell(self, address: NodeAddress, spec: ActorSpec, parent: Participant) -> ActorCell:
        return (ThreadCell if spec.own_thread else LoopCell)(self, address, spec, parent)

    def request_exit(self, address: NodeAddress) -> None:
        """Ask an actor and all below it to exit."""
        receiver = self.receivers.get(address.number)
        # One that is not there has ended by itself; its ChildActorExited is under way.
        if receiver is not None:
            receiver.post(ActorExitRequest(recursive=True), self.address)

    def adopt(self, children: Iterable[NodeAddress]) -> None:
        """Become the parent of actors whose own has ended without them. From any thread."""
        orphans = list(children)
        if orphans:
            self.message_loop.call(lambda: self.guardian.adopt(orphans))

    def forget(self, cell: ActorCell) -> None:
        """Remove an actor that has ended from all lists. From any thread."""
        self._forget_name(cell.globalName, cell.address)
        self.handle_dead_letters(cell.address, False)
        self.convention.unregister(cell.address.number)
        self.sources.unregister(cell)

    def _forget_name(self, name: str | None, address: NodeAddress) -> None:
        if name:
            with self._lock:
                if self.names.get(name) is address:
                    del self.names[name]

    def set_capability(self, name: str, value: Any) -> None:
        """Change a capability, on the loop's thread, and end the actors that can't do without."""
        if self.capabilities.get(name) == value:
            return
        if value is None:
            del self.capabilities[name]
        else:
            self.capabilities[name] = value
        for cell in list(self.receivers.values()):
            if isinstance(cell, ActorCell) and not cell.spec.fits(self.capabilities):
                cell.post(ActorExitRequest(), self.address)

    # --- The end

    def begin_shutdown(self) -> None:
        """Begin to end the system. From any thread."""
        if self.on_loop():
            self._shut_down()
        else:
            self.message_loop.call(self._shut_down)

    def _shut_down(self) -> None:
        if self.closing:
            return
        if self.loop.is_closed():
            self._give_up()
            return
        self.closing = True
        self._deadline = self.loop.call_later(self._shutdown_timeout_s, self._give_up)
        self.guardian.exit()

    def _give_up(self) -> None:
        """End without the actors that did not exit in time, or with a loop that somebody has closed."""
        self.closing = True
        for receiver in list(self.receivers.values()):
            if isinstance(receiver, ActorCell):
                receiver.abandon()
        self.finish()

    def finish(self) -> None:
        """Release all that wait, once the actors are gone."""
        if self._closed.is_set():
            return
        if self._deadline is not None:
            self._deadline.cancel()
        for cell in list(self.threads):
            # These threads have told that their actors have ended, so they need a moment at most. One of them may be
            # the caller, if the loop was closed before the system.
            if cell.thread is not threading.current_thread():
                cell.thread.join(1.0)
        self.threads.clear()
        self.sources.unload_all()
        for receiver in list(self.receivers.values()):
            if isinstance(receiver, Ask | Endpoint):
                receiver.release()
        self.close_office()
        self._closed.set()
        for waiter in self._closed_waiters:
            if not waiter.done():
                waiter.set_result(None)

    # --- The loop's thread

    def on_loop(self) -> bool:
        """Whether this is the loop's thread."""
        return get_ident() == self.thread

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
