"""Everything that has an address: actors, code outside of them, and the system itself."""

from __future__ import annotations

from typing import Any

from raftkv.actors.system.base.addresses import NodeAddress
from raftkv.actors.system.base.router import Router


class Addressable:
    """Something that can be sent to and can send to others, through its system's router."""

    __slots__ = ("_copy", "_receivers", "_router", "address", "globalName")

    def __init__(self, router: Router, address: NodeAddress, global_name: str | None = None) -> None:
        self.address = address
        self.globalName = global_name
        self._router = router
        self._receivers = router.receivers
        self._copy = router.copy_message

    def actor_send(self, target: Any, message: Any) -> None:
        """Send ``message`` to the actor at ``target``, on any node."""
        if self._copy is not None:
            message = self._copy(message)
        try:
            receiver = self._receivers[target.number]
        except (AttributeError, KeyError):
            self._router.send_elsewhere(target, message, self.address, self.globalName)
        else:
            receiver.post(message, self.address)

    def post(self, message: Any, sender: Any) -> None:
        """Put ``message`` into the mailbox. From any thread; never runs a handler."""
        raise NotImplementedError

    def handle(self, message: Any, sender: Any) -> None:
        """Handle a message whose turn has come."""
        raise NotImplementedError
