"""The router: the receivers of one actor system, by number and by name, and how a message reaches them.

A message to a local actor's number goes straight into that actor's mailbox, from any thread. A message to a name on
another node goes to the transport. Everything else is a dead letter: counted, and passed to the actor that handles
dead letters, if there is one. Nothing is dropped without being counted.
"""

from __future__ import annotations

import asyncio
import threading
import weakref
from collections.abc import Callable
from threading import get_ident
from typing import Any, Protocol

from thespian.actors import ActorSystemMessage, ChildActorExited, DeadEnvelope

from raftkv.actors.system.base.addresses import NodeAddress, remote_address
from raftkv.actors.system.base.message_loop import Dispatcher

# An address of one system works in all other systems of the process, as it does on Thespian's multi-process bases.
_routers: weakref.WeakSet[Router] = weakref.WeakSet()
_routers_lock = threading.Lock()


class Transport(Protocol):
    """Carries messages to other nodes."""

    def send(self, peer: str, target: str, source: str, message: Any) -> None:
        """Send ``message`` to the actor named ``target`` on node ``peer``, from the local actor named ``source``.

        ``source`` is "" for a sender without a global name. Called on the loop's thread; must not block.
        """


class Router:
    """The receivers of one system, and the way to other nodes.

    Messages are sent from any thread. The lock guards what must change together; it is re-entrant, because queueing
    a message on a loop that has been closed shuts the system down on the spot.
    """

    def __init__(
        self,
        node_id: str,
        loop: asyncio.AbstractEventLoop,
        thread: int,
        message_loop: Dispatcher,
        transport: Transport | None,
        copy_message: Callable[[Any], Any] | None,
    ) -> None:
        """``loop`` runs on ``thread``, a ``threading.get_ident()``; ``copy_message`` copies each message sent."""
        self.node_id = node_id
        self.loop = loop
        self.thread = thread
        self.message_loop = message_loop
        self.copy_message = copy_message
        self.receivers: dict[int, Any] = {}
        self.names: dict[str, NodeAddress] = {}
        self.dead_letters = 0
        self.dead_letter_handler: NodeAddress | None = None
        self._transport = transport
        self._lock = threading.RLock()
        with _routers_lock:
            _routers.add(self)

    def close_router(self) -> None:
        """Deliver nothing any more."""
        self.receivers.clear()
        with _routers_lock:
            _routers.discard(self)

    def on_loop(self) -> bool:
        """Whether this is the loop's thread."""
        return get_ident() == self.thread

    def deliver(self, peer: str, target: str, source: str, message: Any) -> None:
        """Deliver a message of ``peer`` to the actor named ``target``. On the loop's thread."""
        sender = remote_address(peer, source)
        receiver = self._named(target)
        if receiver is None:
            self.dead_letter(remote_address(self.node_id, target), message, sender)
        else:
            receiver.post(message, sender)

    def send(self, target: Any, message: Any, sender: NodeAddress) -> None:
        """Send ``message`` to the actor at ``target``, on any node."""
        if self.copy_message is not None:
            message = self.copy_message(message)
        try:
            receiver = self.receivers[target.number]
        except (AttributeError, KeyError):
            self.send_elsewhere(target, message, sender, None)
        else:
            receiver.post(message, sender)

    def send_elsewhere(self, target: Any, message: Any, sender: NodeAddress, source: str | None) -> None:
        """Send to an address that is no local actor's number: a name, another node or system, or a dead actor."""
        if not isinstance(target, NodeAddress):
            self.dead_letter(target, message, sender)
        elif target.number:
            self._send_to_other_system(target, message, sender)
        elif target.node_id == self.node_id:
            receiver = self._named(target.name)
            if receiver is None:
                self.dead_letter(target, message, sender)
            else:
                receiver.post(message, sender)
        elif self._transport is None or not target.name or isinstance(message, ActorSystemMessage):
            # Actors without a name can't be reached from other nodes, and Thespian's own messages (poison, exit
            # requests) have no encoding for the wire.
            self.dead_letter(target, message, sender)
        else:
            self._send_to_peer(target.node_id, target.name, source or "", message)

    def _named(self, name: str) -> Any:
        address = self.names.get(name)
        return self.receivers.get(address.number) if address is not None else None

    def _send_to_peer(self, peer: str, target: str, source: str, message: Any) -> None:
        transport = self._transport
        assert transport is not None
        if get_ident() == self.thread:
            transport.send(peer, target, source, message)
        else:
            self.message_loop.call(lambda: transport.send(peer, target, source, message))

    def _send_to_other_system(self, target: NodeAddress, message: Any, sender: NodeAddress) -> None:
        with _routers_lock:
            routers = list(_routers)
        for router in routers:
            receiver = router.receivers.get(target.number)
            if receiver is not None:
                receiver.post(message, sender)
                return
        self.dead_letter(target, message, sender)

    def dead_letter(self, target: Any, message: Any, sender: Any) -> None:
        """Count an undeliverable message and pass it to the actor that handles dead letters. From any thread."""
        if isinstance(message, DeadEnvelope | ChildActorExited):
            return
        with self._lock:
            self.dead_letters += 1
            handler = self.dead_letter_handler
        if handler is not None:
            receiver = self.receivers.get(handler.number)
            if receiver is not None:
                receiver.post(DeadEnvelope(target, message), sender)

    def handle_dead_letters(self, address: NodeAddress, enable: bool) -> None:
        """Make the actor at ``address`` the handler of dead letters, or no longer. From any thread."""
        with self._lock:
            current = self.dead_letter_handler
            if enable:
                self.dead_letter_handler = address
            elif current is not None and current.number == address.number:
                self.dead_letter_handler = None
