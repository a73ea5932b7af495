"""The observer: an actor that reports changes of role, and the addresses of peers, to the rest of the process."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from thespian.actors import Actor

from raftkv.actors.messages.base import Message
from raftkv.actors.messages.node import AdvertiseAddress, RoleChanged


class Observe(Message, frozen=True, gc=True):
    """The observer's first message: call ``callback`` with each report, on the thread of the actors' event loop."""

    callback: Callable[[RoleChanged | AdvertiseAddress], None]


class Observer(Actor):
    """Calls a callback with each ``RoleChanged`` and ``AdvertiseAddress``; those before ``Observe`` are dropped."""

    def __init__(self) -> None:
        super().__init__()
        self._callback: Callable[[RoleChanged | AdvertiseAddress], None] | None = None

    def receiveMessage(self, message: Any, sender: Any) -> None:
        """Take the callback, or call it."""
        if isinstance(message, Observe):
            self._callback = message.callback
        elif isinstance(message, RoleChanged | AdvertiseAddress) and self._callback is not None:
            self._callback(message)
