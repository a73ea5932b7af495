"""The guardian: the actor system itself as an actor, and the parent of all actors that have no other (Akka's word)."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any

from thespian.actors import (
    ActorSystemFailure,
    ChildActorExited,
    Thespian_StatusReq,
    Thespian_SystemStatus,
    ValidatedSource,
)

from raftkv.actors.system.base.actor_cell import ActorCell
from raftkv.actors.system.base.actor_spec import ActorSpec
from raftkv.actors.system.base.addressable import Addressable
from raftkv.actors.system.base.addresses import NodeAddress, new_number
from raftkv.actors.system.base.host import ActorHost

log = logging.getLogger("raftkv.system")


class Guardian(Addressable):
    """Creates actors for code outside of any actor, adopts orphans, ends all actors, and answers for the system."""

    __slots__ = ("_host", "children")

    def __init__(self, host: ActorHost) -> None:
        super().__init__(host, NodeAddress(host.node_id, new_number()))
        self.children: dict[int, NodeAddress] = {}
        self._host = host
        host.receivers[self.address.number] = self

    def create(self, spec: ActorSpec) -> NodeAddress:
        """Create an actor. On the loop's thread. Raises what is wrong with it."""
        if self._host.closing:
            raise ActorSystemFailure("The actor system is shutting down")
        address = NodeAddress(self._host.node_id, new_number())
        # The child is registered before it is created: it may have ended by the time that start_actor returns.
        self.children[address.number] = address
        try:
            winner = self._host.start_actor(address, spec, self)
        except BaseException:
            del self.children[address.number]
            raise
        if winner is not address:
            del self.children[address.number]
        return winner

    def adopt(self, orphans: Iterable[NodeAddress]) -> None:
        """Become the parent of actors that have lost theirs."""
        for orphan in orphans:
            cell = self._host.receivers.get(orphan.number)
            if not isinstance(cell, ActorCell):
                continue
            cell.parent = self
            self.children[orphan.number] = orphan
            if orphan.number not in self._host.receivers:
                # It ended on its own thread just now, and may have notified its former parent.
                self.children.pop(orphan.number, None)
            elif self._host.closing:
                self._host.request_exit(orphan)

    def exit(self) -> None:
        """End all actors, and then the system."""
        for child in list(self.children.values()):
            self._host.request_exit(child)
        self._finish_if_alone()

    def post(self, message: Any, sender: Any) -> None:
        """Queue a message to the system. From any thread."""
        self._host.message_loop.put(self, message, sender)

    def handle(self, message: Any, sender: Any) -> None:
        """Handle exits of children, status requests and validated sources; ignore everything else."""
        if isinstance(message, ChildActorExited):
            self.children.pop(message.childAddress.number, None)
            self._finish_if_alone()
        elif isinstance(message, Thespian_StatusReq):
            self.actor_send(sender, self._status())
        elif isinstance(message, ValidatedSource):
            self._host.sources.validated(message, sender)
        else:
            log.debug("the system ignores %s from %s", type(message).__name__, sender)

    def _finish_if_alone(self) -> None:
        if self._host.closing and not self.children:
            self._host.finish()

    def _status(self) -> Thespian_SystemStatus:
        """Return the system's capabilities, top-level actors, global names and count of dead letters."""
        host = self._host
        status = Thespian_SystemStatus(host.address, capabilities=dict(host.capabilities), inShutdown=host.closing)
        for child in self.children.values():
            status.addChild(child)
        for name, address in list(host.names.items()):
            status.addGlobalActor(name, address)
        if host.dead_letter_handler is not None:
            status.setDeadLetterHandler(host.dead_letter_handler)
        status.setNotifyHandlers(host.convention.listeners())
        status.setLoadedSources(host.sources.loaded)
        status.sourceAuthority = host.sources.authority
        status.addKeyVal("dead letters", host.dead_letters)
        return status
