"""The post office: who has which number and name, and how a message gets there, or does not."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from threading import get_ident
from typing import Any, Protocol

from thespian.actors import ActorSystemMessage, ChildActorExited, DeadEnvelope

from raftkv.actors.system.base.addresses import NodeAddress, remote_address
from raftkv.actors.system.base.message_loop import MessageLoop

# Addresses of one system work in all others of the process, as they do on Thespian's multi-process bases.
_routers: weakref.WeakSet[Router] = weakref.WeakSet()
_routers_lock = threading.Lock()


class Transport(Protocol):
    """What carries messages to other nodes."""

    def send(self, peer: str, target: str, source: str, message: Any) -> None:
        """Send ``message`` to the actor named ``target`` on node ``peer``, from the one named ``source`` here.

        ``source`` is "" for a sender without a global name. Called on the loop's thread; must not block.
        """


class Router:
    """All that messages of one system can be sent to, and the way to other nodes.

    Messages are sent from any thread. The lock is for what has to change in one piece; it is re-entrant, as putting
    something into the queue of a loop that has been closed ends the system on the spot.
    """

    def __init__(
        self,
        node_id: str,
        thread: int,
        message_loop: MessageLoop,
        transport: Transport | None,
        copy_message: Callable[[Any], Any] | None,
    ) -> None:
        self.node_id = node_id
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

    def close_office(self) -> None:
        """Deliver nothing any more."""
        self.receivers.clear()
        with _routers_lock:
            _routers.discard(self)

    def deliver(self, peer: str, target: str, source: str, message: Any) -> None:
        """Take a message that has come from ``peer``, for the actor named ``target``. On the loop's thread."""
        sender = remote_address(peer, source)
        receiver = self._named(target)
        if receiver is None:
            self.dead_letter(remote_address(self.node_id, target), message, sender)
        else:
            receiver.post(message, sender)

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
            receiver = self._named(target.name)
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
            offices = list(_routers)
        for router in offices:
            receiver = router.receivers.get(target.number)
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

    def handle_dead_letters(self, address: NodeAddress, enable: bool) -> None:
        """Make the actor at ``address`` the one that gets dead letters, or no longer. From any thread."""
        with self._lock:
            current = self.dead_letter_handler
            if enable:
                self.dead_letter_handler = address
            elif current is not None and current.number == address.number:
                self.dead_letter_handler = None
