"""Actors with a thread of their own, for handlers that block: file access, fsync, long calculations."""

from __future__ import annotations

import heapq
import itertools
import logging
from queue import Empty, SimpleQueue
from threading import Thread, current_thread
from time import monotonic
from typing import TYPE_CHECKING, Any

from thespian.actors import ChildActorExited, WakeupMessage
from thespian.system.timing import timePeriodSeconds

from raftkv.actors.system.base.actor_cell import ActorCell
from raftkv.actors.system.base.actor_spec import ActorSpec
from raftkv.actors.system.base.addresses import NodeAddress
from raftkv.actors.system.base.participant import Participant

if TYPE_CHECKING:
    from raftkv.actors.system.base.base import EventLoopBase

log = logging.getLogger("raftkv.system")


class ActorThread(Thread):
    """The thread of one actor. Daemonic: a handler that never returns must not keep the process alive."""

    def __init__(self, cell: ThreadCell) -> None:
        super().__init__(name=f"actor-{cell}", daemon=True)
        self.cell = cell

    def run(self) -> None:
        """Handle the actor's messages until it ends."""
        self.cell.run()


def current_actor_base() -> EventLoopBase | None:
    """Return the base of the actor whose own thread this is, if any."""
    thread = current_thread()
    return thread.cell.base if isinstance(thread, ActorThread) else None


class ThreadCell(ActorCell):
    """An actor on a thread of its own, with a mailbox of its own."""

    __slots__ = ("_due", "_due_numbers", "_ended", "_queue", "thread")

    def __init__(self, base: EventLoopBase, address: NodeAddress, spec: ActorSpec, parent: Participant) -> None:
        super().__init__(base, address, spec, parent)
        self._queue: SimpleQueue[tuple[Any, Any]] = SimpleQueue()
        self._due: list[tuple[float, int, Any, Any]] = []
        self._due_numbers = itertools.count()
        self._ended = False
        self.thread = ActorThread(self)

    def post(self, message: Any, sender: Any) -> None:
        """Put ``message`` into the actor's own queue."""
        self._queue.put((message, sender))
        if self._ended:
            # The thread may have looked for the last time before this message was in.
            self._drain()

    def start(self) -> None:
        """Start the thread, on which the actor will be made; if that fails the parent is told of its exit."""
        self.base.threads.add(self)
        self.thread.start()

    def run(self) -> None:
        """Handle messages until the actor's end."""
        try:
            self.begin_or_exit()
            while self.instance is not None and not self._ended:
                message, sender = self._next()
                self.handle(message, sender)
        finally:
            # Reached by a KeyboardInterrupt too, which ends the thread and so the actor.
            self.base.adopt(self.children.values())
            self.finish()
            self._ended = True
            self._drain()
            self.base.message_loop.call(lambda: self.base.threads.discard(self))

    def abandon(self) -> None:
        """Give the thread up, from outside: it ends after the handler that it is stuck in, should that return."""
        log.error("%s did not exit in time and is given up", self)
        super().abandon()
        self._ended = True
        self.base.threads.discard(self)
        self._queue.put((ChildActorExited(self.address), self.base.address))

    def _next(self) -> tuple[Any, Any]:
        """Wait for the next message. Wake-ups go into the mailbox when they are due, behind what is in it already."""
        while True:
            now = monotonic()
            while self._due and self._due[0][0] <= now:
                _, _, period, payload = heapq.heappop(self._due)
                self._queue.put((WakeupMessage(period, payload), self.address))
            try:
                return self._queue.get(timeout=self._due[0][0] - now if self._due else None)
            except Empty:
                pass

    def _drain(self) -> None:
        while True:
            try:
                message, sender = self._queue.get_nowait()
            except Empty:
                return
            self.base.dead_letter(self.address, message, sender)

    def wakeupAfter(self, period: Any, payload: Any = None) -> None:
        """Send the actor a ``WakeupMessage`` after ``period`` (seconds, or a timedelta)."""
        when = monotonic() + timePeriodSeconds(period)
        heapq.heappush(self._due, (when, next(self._due_numbers), period, payload))

    def _cancel_wakeups(self) -> None:
        self._due = []

    def wakeup_delays(self) -> list[float]:
        """Return in how many seconds each of the pending wake-ups is due."""
        now = monotonic()
        return [when - now for when, *_ in self._due]
