"""Cells of actors on the event loop's thread, where most actors run."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

from thespian.actors import WakeupMessage
from thespian.system.timing import timePeriodSeconds

from raftkv.actors.system.base.actor_cell import ActorCell, Create
from raftkv.actors.system.base.actor_spec import ActorSpec
from raftkv.actors.system.base.addressable import Addressable
from raftkv.actors.system.base.addresses import NodeAddress
from raftkv.actors.system.base.host import ActorHost


class LoopCell(ActorCell):
    """An actor on the event loop's thread."""

    __slots__ = ("_wakeup_numbers", "_wakeups")

    def __init__(self, host: ActorHost, address: NodeAddress, spec: ActorSpec, parent: Addressable) -> None:
        super().__init__(host, address, spec, parent)
        self._wakeup_numbers = itertools.count()
        self._wakeups: dict[int, asyncio.TimerHandle] = {}

    def post(self, message: Any, sender: Any) -> None:
        """Queue ``message`` on the message loop."""
        self.host.message_loop.put(self, message, sender)

    def enqueue_creation(self) -> None:
        """Queue the actor's creation, unless this is the loop's thread."""
        if not self.host.on_loop():
            self.post(Create(), self.host.address)

    def start(self) -> None:
        """Create the actor now, if this is the loop's thread."""
        if self.host.on_loop():
            self.create()

    def abandon(self) -> None:
        """Remove the actor from the system without its cooperation."""
        self._cancel_wakeups()
        super().abandon()

    def wakeupAfter(self, period: Any, payload: Any = None) -> None:
        """Send the actor a ``WakeupMessage`` after ``period`` (seconds, or a timedelta)."""
        number = next(self._wakeup_numbers)
        seconds = timePeriodSeconds(period)
        self._wakeups[number] = self.host.loop.call_later(seconds, self._wake, number, period, payload)

    def _wake(self, number: int, period: Any, payload: Any) -> None:
        del self._wakeups[number]
        self.post(WakeupMessage(period, payload), self.address)

    def _cancel_wakeups(self) -> None:
        for handle in self._wakeups.values():
            handle.cancel()
        self._wakeups = {}

    def wakeup_delays(self) -> list[float]:
        """Return the seconds until each pending wake-up."""
        now = self.host.loop.time()
        return [handle.when() - now for handle in self._wakeups.values()]
