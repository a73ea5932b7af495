"""The system base: what Thespian's ``ActorSystem`` and all actors of an event loop stand on."""

from __future__ import annotations

import asyncio
import concurrent.futures
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterable
from threading import get_ident
from typing import Any, Protocol, TypeVar

from thespian.actors import (
    ActorExitRequest,
    ActorSystemMessage,
    ChildActorExited,
    DeadEnvelope,
    ThespianGeneration,
)

from raftkv.actors.system.addresses import NodeAddress, remote_address
from raftkv.actors.system.cell import Cell, LoopCell, Participant
from raftkv.actors.system.convention import Convention
from raftkv.actors.system.copying import pickled_copy
from raftkv.actors.system.creation import Plan
from raftkv.actors.system.endpoint import Ask, Endpoint, PrivateContext
from raftkv.actors.system.pump import Pump
from raftkv.actors.system.root import Root
from raftkv.actors.system.sources import Sources
from raftkv.actors.system.thread import ThreadCell, current_actor_base

SHUTDOWN_TIMEOUT_S = 10.0

_T = TypeVar("_T")

# Addresses of one system work in all others of the process, as they do on Thespian's multi-process bases.
_bases: weakref.WeakSet[EventLoopBase] = weakref.WeakSet()
_bases_lock = threading.Lock()


class Transport(Protocol):
    """What carries messages to other nodes."""

    def send(self, peer: str, target: str, source: str, message: Any) -> None:
        """Send ``message`` to the actor named ``target`` on node ``peer``, from the one named ``source`` here.

        ``source`` is "" for a sender without a global name. Called on the loop's thread; must not block.
        """


class EventLoopBase:
    """The system base: its actors, their names, dead letters, and the way to other nodes."""

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
        self.thread = thread
        self.node_id = node_id
        self.capabilities = capabilities
        self.copy_message: Callable[[Any], Any] | None = pickled_copy if pickle_messages else None
        self.receivers: dict[int, Any] = {}
        self.names: dict[str, NodeAddress] = {}
        self.threads: set[ThreadCell] = set()
        self.dead_letters = 0
        self.dead_letter_handler: NodeAddress | None = None
        self.closing = False
        self._transport = transport
        self._shutdown_timeout_s = shutdown_timeout_s
        # Re-entrant, as putting something into the queue of a loop that has been closed ends the system on the spot.
        self._lock = threading.RLock()
        self._closed = threading.Event()
        self._closed_waiters: list[asyncio.Future[None]] = []
        self._deadline: asyncio.TimerHandle | None = None
        self.pump = Pump(loop, thread, self._give_up)
        self.root = Root(self)
        self.address = self.root.address
        self.convention = Convention(self)
        self.sources = Sources(self)
        self._outside = Endpoint(self)
        capabilities.update(_own_capabilities())
        with _bases_lock:
            _bases.add(self)

    # --- What Thespian's ActorSystem calls

    def newPrimaryActor(
        self, actor_class: Any, requirements: Any = None, global_name: str | None = None, source_hash: Any = None
    ) -> NodeAddress:
        """Create an actor whose parent is the system, or return the address of the one that has ``global_name``.

        Raises what is wrong with the class, or what its ``__init__`` raises; but an actor with a thread of its own
        is made there, so that what its ``__init__`` raises is logged, and its address is a dead one.
        """
        plan = Plan(actor_class, requirements, global_name, source_hash)
        return self._call_on_loop(lambda: self.root.create(plan))

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
        self.pump.call(lambda: self.sources.unload(source_hash))

    def _handleDeadLetters(self, address: NodeAddress, enable: bool) -> None:
        with self._lock:
            current = self.dead_letter_handler
            if enable:
                self.dead_letter_handler = address
            elif current is not None and current.number == address.number:
                self.dead_letter_handler = None

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

    # --- Other nodes

    def deliver(self, peer: str, target: str, source: str, message: Any) -> None:
        """Take a message that has come from ``peer``, for the actor named ``target``. On the loop's thread."""
        sender = remote_address(peer, source)
        address = self.names.get(target)
        receiver = self.receivers.get(address.number) if address is not None else None
        if receiver is None:
            self.dead_letter(remote_address(self.node_id, target), message, sender)
        else:
            receiver.post(message, sender)

    def peer_changed(self, peer: str, up: bool) -> None:
        """Tell those who registered that ``peer`` has come or gone. On the loop's thread."""
        self.convention.peer_changed(peer, up)

    # --- Sending

    def send(self, target: Any, message: Any, sender: NodeAddress) -> None:
        """Send ``message`` to the actor at ``target``, wherever it is."""
        if self.copy_message is not None:
            message = self.copy_message(message)
        try:
            receiver = self.receivers[target.number]
        except (AttributeError, KeyError):
            self.send_elsewhere(target, message, sender, None)
        else:
            receiver.post(message, sender)

    def send_elsewhere(self, target: Any, message: Any, sender: NodeAddress, source: str | None) -> None:
        """Send to an address that is no local actor's number: by name, on another node, of another system, or dead."""
        if not isinstance(target, NodeAddress):
            self.dead_letter(target, message, sender)
        elif target.number:
            self._send_to_other_system(target, message, sender)
        elif target.node_id == self.node_id:
            address = self.names.get(target.name)
            receiver = self.receivers.get(address.number) if address is not None else None
            if receiver is None:
                self.dead_letter(target, message, sender)
            else:
                receiver.post(message, sender)
        elif self._transport is None or not target.name or isinstance(message, ActorSystemMessage):
            # Nameless actors can't be reached from outside, and Thespian's own messages (poison, exit requests)
            # have no form in which they could travel.
            self.dead_letter(target, message, sender)
        else:
            self._send_to_peer(target.node_id, target.name, source or "", message)

    def _send_to_peer(self, peer: str, target: str, source: str, message: Any) -> None:
        transport = self._transport
        assert transport is not None
        if get_ident() == self.thread:
            transport.send(peer, target, source, message)
        else:
            self.pump.call(lambda: transport.send(peer, target, source, message))

    def _send_to_other_system(self, target: NodeAddress, message: Any, sender: NodeAddress) -> None:
        with _bases_lock:
            bases = list(_bases)
        for base in bases:
            receiver = base.receivers.get(target.number)
            if receiver is not None:
                receiver.post(message, sender)
                return
        self.dead_letter(target, message, sender)

    def dead_letter(self, target: Any, message: Any, sender: Any) -> None:
        """Count a message that nobody can get and pass it to the actor that handles dead letters. From any thread."""
        if isinstance(message, DeadEnvelope | ChildActorExited):
            return
        with self._lock:
            self.dead_letters += 1
            handler = self.dead_letter_handler
        if handler is not None:
            receiver = self.receivers.get(handler.number)
            if receiver is not None:
                receiver.post(DeadEnvelope(target, message), sender)

    # --- Actors' lives

    def start_actor(self, address: NodeAddress, plan: Plan, parent: Participant) -> NodeAddress:
        """Make an actor; returns its address, or that of the one that has its global name. From any thread.

        Raises what is wrong with the class, and what its ``__init__`` raises if that runs on this thread.
        """
        name = plan.global_name
        if name and (winner := self.names.get(name)) is not None:
            return winner
        plan.resolve(self.capabilities, self.sources.loader(plan.source_hash))
        cell: Cell = (ThreadCell if plan.own_thread else LoopCell)(self, address, plan, parent)
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
            self.pump.call(lambda: self.root.adopt(orphans))

    def forget(self, cell: Cell) -> None:
        """Remove an actor that has ended from all lists. From any thread."""
        self._forget_name(cell.globalName, cell.address)
        self._handleDeadLetters(cell.address, False)
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
            if isinstance(cell, Cell) and not cell.plan.fits(self.capabilities):
                cell.post(ActorExitRequest(), self.address)

    # --- The end

    def begin_shutdown(self) -> None:
        """Begin to end the system. From any thread."""
        if self.on_loop():
            self._shut_down()
        else:
            self.pump.call(self._shut_down)

    def _shut_down(self) -> None:
        if self.closing:
            return
        if self.loop.is_closed():
            self._give_up()
            return
        self.closing = True
        self._deadline = self.loop.call_later(self._shutdown_timeout_s, self._give_up)
        self.root.exit()

    def _give_up(self) -> None:
        """End without the actors that did not exit in time, or with a loop that somebody has closed."""
        self.closing = True
        for receiver in list(self.receivers.values()):
            if isinstance(receiver, Cell):
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
        self.receivers.clear()
        self._closed.set()
        for waiter in self._closed_waiters:
            if not waiter.done():
                waiter.set_result(None)
        with _bases_lock:
            _bases.discard(self)

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

        self.pump.call(call)
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
