"""Cells of actors with a thread of their own, for handlers that block: file access, fsync, long computations.

The mailbox is a ``SimpleQueue``; messages are handled one at a time, in the order in which they were put.
"""

from __future__ import annotations

import heapq
import itertools
import logging
from queue import Empty, SimpleQueue
from threading import Thread, current_thread
from time import monotonic
from typing import Any

from thespian.actors import ChildActorExited, WakeupMessage
from thespian.system.timing import timePeriodSeconds

from raftkv.actors.system.base.actor_cell import ActorCell
from raftkv.actors.system.base.actor_spec import ActorSpec
from raftkv.actors.system.base.addressable import Addressable
from raftkv.actors.system.base.addresses import NodeAddress
from raftkv.actors.system.base.host import ActorHost

log = logging.getLogger("raftkv.system")


class ActorThread(Thread):
    """The thread of one actor; a daemon, since a handler that never returns must not keep the process alive."""

    def __init__(self, cell: ThreadCell) -> None:
        super().__init__(name=f"actor-{cell}", daemon=True)
        self.cell = cell

    def run(self) -> None:
        """Handle the actor's messages until it ends."""
        self.cell.run()


def current_actor_host() -> ActorHost | None:
    """Return the host of the actor whose own thread this is; None on other threads."""
    thread = current_thread()
    return thread.cell.host if isinstance(thread, ActorThread) else None


class ThreadCell(ActorCell):
    """An actor on a thread of its own, with a mailbox of its own. ``_due`` is a heap of pending wake-ups."""

    __slots__ = ("_due", "_due_numbers", "_ended", "_queue", "thread")

    def __init__(self, host: ActorHost, address: NodeAddress, spec: ActorSpec, parent: Addressable) -> None:
        super().__init__(host, address, spec, parent)
        self._queue: SimpleQueue[tuple[Any, Any]] = SimpleQueue()
        self._due: list[tuple[float, int, Any, Any]] = []
        self._due_numbers = itertools.count()
        self._ended = False
        self.thread = ActorThread(self)

    def post(self, message: Any, sender: Any) -> None:
        """Put ``message`` into the actor's own mailbox."""
        self._queue.put((message, sender))
        if self._ended:
            # The thread may have drained the queue for the last time before this message was put.
            self._drain()

    def start(self) -> None:
        """Start the thread, which creates the actor; if that fails, the parent is notified of its exit."""
        self.host.threads.add(self.thread)
        self.thread.start()

    def run(self) -> None:
        """Handle messages until the actor's end."""
        try:
            self.create_or_exit()
            while self.instance is not None and not self._ended:
                message, sender = self._next()
                self.handle(message, sender)
        finally:
            # A KeyboardInterrupt gets here too: it ends the thread, and the actor with it.
            self.host.adopt(self.children.values())
            self.finish()
            self._ended = True
            self._drain()
            self.host.message_loop.call(lambda: self.host.threads.discard(self.thread))

    def abandon(self) -> None:
        """Give the thread up, from the loop's thread: it ends if the handler that blocks it ever returns."""
        log.error("%s did not exit in time and is given up", self)
        super().abandon()
        self._ended = True
        self.host.threads.discard(self.thread)
        self._queue.put((ChildActorExited(self.address), self.host.address))

    def _next(self) -> tuple[Any, Any]:
        """Wait for the next message. A wake-up that is due goes to the end of the mailbox."""
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
            self.host.dead_letter(self.address, message, sender)

    def wakeupAfter(self, period: Any, payload: Any = None) -> None:
        """Send the actor a ``WakeupMessage`` after ``period`` (seconds, or a timedelta)."""
        when = monotonic() + timePeriodSeconds(period)
        heapq.heappush(self._due, (when, next(self._due_numbers), period, payload))

    def _cancel_wakeups(self) -> None:
        self._due = []

    def wakeup_delays(self) -> list[float]:
        """Return the seconds until each pending wake-up."""
        now = monotonic()
        return [when - now for when, *_ in self._due]
