"""Actors on the event loop's thread, as most are."""

from __future__ import annotations

import asyncio
import itertools
from typing import TYPE_CHECKING, Any

from thespian.actors import WakeupMessage
from thespian.system.timing import timePeriodSeconds

from raftkv.actors.system.base.actor_cell import ActorCell, Begin
from raftkv.actors.system.base.actor_spec import ActorSpec
from raftkv.actors.system.base.addresses import NodeAddress
from raftkv.actors.system.base.participant import Participant

if TYPE_CHECKING:
    from raftkv.actors.system.base.base import EventLoopBase


class LoopCell(ActorCell):
    """An actor on the event loop's thread."""

    __slots__ = ("_wakeup_numbers", "_wakeups")

    def __init__(self, base: EventLoopBase, address: NodeAddress, spec: ActorSpec, parent: Participant) -> None:
        super().__init__(base, address, spec, parent)
        self._wakeup_numbers = itertools.count()
        self._wakeups: dict[int, asyncio.TimerHandle] = {}

    def post(self, message: Any, sender: Any) -> None:
        """Put ``message`` into the loop's queue."""
        self.base.message_loop.put(self, message, sender)

    def announce(self) -> None:
        """Let the loop make the actor, if that is another thread than this."""
        if not self.base.on_loop():
            self.post(Begin(), self.base.address)

    def start(self) -> None:
        """Make the actor now, if this is the loop's thread."""
        if self.base.on_loop():
            self.begin()

    def abandon(self) -> None:
        """Leave the system without the actor's consent."""
        self._cancel_wakeups()
        super().abandon()

    def wakeupAfter(self, period: Any, payload: Any = None) -> None:
        """Send the actor a ``WakeupMessage`` after ``period`` (seconds, or a timedelta)."""
        number = next(self._wakeup_numbers)
        seconds = timePeriodSeconds(period)
        self._wakeups[number] = self.base.loop.call_later(seconds, self._wake, number, period, payload)

    def _wake(self, number: int, period: Any, payload: Any) -> None:
        del self._wakeups[number]
        self.post(WakeupMessage(period, payload), self.address)

    def _cancel_wakeups(self) -> None:
        for handle in self._wakeups.values():
            handle.cancel()
        self._wakeups = {}

    def wakeup_delays(self) -> list[float]:
        """Return in how many seconds each of the pending wake-ups is due."""
        now = self.base.loop.time()
        return [handle.when() - now for handle in self._wakeups.values()]
