"""Whoever takes part in the system: actors, the code outside of them, and the system itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from raftkv.actors.system.base.addresses import NodeAddress

if TYPE_CHECKING:
    from raftkv.actors.system.base.base import EventLoopBase


class Participant:
    """Whoever has an address: who can be sent to and can send to others."""

    __slots__ = ("_copy", "_receivers", "address", "base", "globalName")

    def __init__(self, base: EventLoopBase, address: NodeAddress, global_name: str | None = None) -> None:
        self.base = base
        self.address = address
        self.globalName = global_name
        self._receivers = base.receivers
        self._copy = base.copy_message

    def actor_send(self, target: Any, message: Any) -> None:
        """Send ``message`` to the actor at ``target``, wherever it is."""
        if self._copy is not None:
            message = self._copy(message)
        try:
            receiver = self._receivers[target.number]
        except (AttributeError, KeyError):
            self.base.send_elsewhere(target, message, self.address, self.globalName)
        else:
            receiver.post(message, self.address)

    def post(self, message: Any, sender: Any) -> None:
        """Put ``message`` into the mailbox. From any thread; never runs a handler."""
        raise NotImplementedError

    def handle(self, message: Any, sender: Any) -> None:
        """Deal with a message whose turn has come."""
        raise NotImplementedError
