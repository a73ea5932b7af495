"""The observer: an actor that reports changes of role, and the addresses of peers, to the rest of the process."""

from __future__ import annotations

from collections.abc import Callable

from raftkv.actors.fail_stop import FailStopActor
from raftkv.actors.messages.base import Message
from raftkv.actors.messages.node import AdvertiseAddress, RoleChanged
from raftkv.environment import Environment


class Observe(Message, frozen=True, gc=True):
    """The observer's first message: call ``callback`` with each report, on the thread of the actors' event loop."""

    callback: Callable[[RoleChanged | AdvertiseAddress], None]
    environment: Environment


class Observer(FailStopActor):
    """Calls a callback with each ``RoleChanged`` and ``AdvertiseAddress``; those before ``Observe`` are dropped."""

    label = "observer"

    def __init__(self) -> None:
        super().__init__()
        self._callback: Callable[[RoleChanged | AdvertiseAddress], None] | None = None

    def on_Observe(self, message: Observe) -> None:
        """Report to this callback from now on."""
        self.environment = message.environment
        self._callback = message.callback

    def on_RoleChanged(self, message: RoleChanged) -> None:
        """Report a change of role, term or leader."""
        self._report(message)

    def on_AdvertiseAddress(self, message: AdvertiseAddress) -> None:
        """Report where clients reach a peer."""
        self._report(message)

    def _report(self, message: RoleChanged | AdvertiseAddress) -> None:
        if self._callback is not None:
            self._callback(message)
