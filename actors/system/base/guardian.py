"""The root: the system itself as an actor, parent of all that have no other."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from thespian.actors import ActorSystemFailure, ChildActorExited, Thespian_StatusReq, ValidatedSource

from raftkv.actors.system.base.actor_cell import ActorCell
from raftkv.actors.system.base.actor_spec import ActorSpec
from raftkv.actors.system.base.addresses import NodeAddress, new_number
from raftkv.actors.system.base.participant import Participant
from raftkv.actors.system.base.status import system_status

if TYPE_CHECKING:
    from raftkv.actors.system.base.base import EventLoopBase

log = logging.getLogger("raftkv.system")


class Guardian(Participant):
    """Creates actors for code outside of any, adopts orphans, ends them all, and answers for the system."""

    __slots__ = ("children",)

    def __init__(self, base: EventLoopBase) -> None:
        super().__init__(base, NodeAddress(base.node_id, new_number()))
        self.children: dict[int, NodeAddress] = {}
        base.receivers[self.address.number] = self

    def create(self, spec: ActorSpec) -> NodeAddress:
        """Create an actor, on the loop's thread. Raises what is wrong with it."""
        if self.base.closing:
            raise ActorSystemFailure("The actor system is shutting down")
        address = NodeAddress(self.base.node_id, new_number())
        # The child is known before it is made, as it may be gone by the time that this call returns.
        self.children[address.number] = address
        try:
            winner = self.base.start_actor(address, spec, self)
        except BaseException:
            del self.children[address.number]
            raise
        if winner is not address:
            del self.children[address.number]
        return winner

    def adopt(self, orphans: Iterable[NodeAddress]) -> None:
        """Become the parent of actors that have lost theirs."""
        for orphan in orphans:
            cell = self.base.receivers.get(orphan.number)
            if not isinstance(cell, ActorCell):
                continue
            cell.parent = self
            self.children[orphan.number] = orphan
            if orphan.number not in self.base.receivers:
                # It ended on its own thread just now, and may have told its former parent.
                self.children.pop(orphan.number, None)
            elif self.base.closing:
                self.base.request_exit(orphan)

    def exit(self) -> None:
        """End all actors, and then the system."""
        for child in list(self.children.values()):
            self.base.request_exit(child)
        self._finish_if_alone()

    def post(self, message: Any, sender: Any) -> None:
        """Take a message to the system. From any thread."""
        self.base.message_loop.put(self, message, sender)

    def handle(self, message: Any, sender: Any) -> None:
        """Deal with exits of children, status requests and validated sources; other messages mean nothing here."""
        if isinstance(message, ChildActorExited):
            self.children.pop(message.childAddress.number, None)
            self._finish_if_alone()
        elif isinstance(message, Thespian_StatusReq):
            self.actor_send(sender, system_status(self.base))
        elif isinstance(message, ValidatedSource):
            self.base.sources.validated(message, sender)
        else:
            log.debug("the system ignores %s from %s", type(message).__name__, sender)

    def _finish_if_alone(self) -> None:
        if self.base.closing and not self.children:
            self.base.finish()
