"""The message loop: one queue through which everything passes that happens on the event loop's thread.

It guarantees that messages are handled one at a time, in the order in which they were queued, whichever thread queued
them. So messages between any two actors of the loop are FIFO, a message never overtakes an older one, and no actor
starves another. How: a deque, whose ``append`` and ``popleft`` are atomic under the GIL, and a flag that says whether
a run is scheduled on the asyncio loop. A run handles messages for one slice of time and schedules the next run behind
the timers and sockets that are due, as an actor dispatcher with a throughput deadline does (Akka).
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from threading import get_ident
from time import monotonic
from typing import Any, Protocol

# How long one run may handle messages before timers and sockets get their turn. Under a flood of messages, slices of
# 4 ms made timers 11 ms late; these make them 1 ms late, at the same number of messages per second.
SLICE_S = 0.0005


class Receiver(Protocol):
    """Anything that messages can be sent to."""

    def post(self, message: Any, sender: Any) -> None:
        """Queue ``message``. From any thread; never runs a handler."""

    def handle(self, message: Any, sender: Any) -> None:
        """Handle a message whose turn has come. On the receiver's own thread."""


class Dispatcher(Protocol):
    """Runs receivers, one message at a time: a ``MessageLoop``, or a lane of virtual time in its place."""

    @property
    def waiting(self) -> int:
        """The number of queued messages."""

    def put(self, receiver: Receiver, message: Any, sender: Any) -> None:
        """Queue ``message`` for ``receiver``. From any thread."""

    def call(self, function: Callable[[], object]) -> None:
        """Call ``function`` on the dispatcher's thread, after everything that is queued. From any thread."""

    def drain(self) -> None:
        """Handle everything that is queued, now."""


class MessageLoop:
    """The dispatcher of an event loop."""

    __slots__ = ("_loop", "_loop_closed", "_on_loop_closed", "_queue", "_scheduled", "_thread")

    def __init__(self, loop: asyncio.AbstractEventLoop, thread: int, on_loop_closed: Callable[[], None]) -> None:
        """Serve ``loop``, which runs on ``thread``; ``on_loop_closed`` is called once the loop is found closed."""
        self._loop = loop
        self._loop_closed = False
        self._on_loop_closed = on_loop_closed
        self._thread = thread
        self._queue: deque[tuple[Any, Any, Any]] = deque()
        self._scheduled = False

    @property
    def waiting(self) -> int:
        """The number of queued messages."""
        return len(self._queue)

    def put(self, receiver: Receiver, message: Any, sender: Any) -> None:
        """Queue ``message`` for ``receiver``. From any thread."""
        self._queue.append((receiver, message, sender))
        if not self._scheduled:
            self._schedule()

    def call(self, function: Callable[[], object]) -> None:
        """Call ``function`` on the loop's thread, after everything that is queued. From any thread."""
        self.put(self, function, None)

    def post(self, message: Any, sender: Any) -> None:
        """Queue a call: the loop is itself the ``Receiver`` of calls."""
        self.put(self, message, sender)

    def handle(self, message: Any, sender: Any) -> None:
        """Make a call whose turn has come."""
        message()

    def drain(self) -> None:
        """Handle everything that is queued, now: for when the loop will not do it any more."""
        while True:
            try:
                receiver, message, sender = self._queue.popleft()
            except IndexError:
                return
            receiver.handle(message, sender)

    def _schedule(self) -> None:
        self._scheduled = True
        try:
            if get_ident() == self._thread:
                self._loop.call_soon(self._run)
            else:
                self._loop.call_soon_threadsafe(self._run)
        except RuntimeError:
            # The loop is closed. Once its actors are gone, draining turns messages into dead letters and refuses calls.
            self._scheduled = False
            if not self._loop_closed:
                self._loop_closed = True
                self._on_loop_closed()
            self.drain()

    def _run(self) -> None:
        """Handle messages for one slice."""
        queue = self._queue
        until = monotonic() + SLICE_S
        try:
            while queue:
                receiver, message, sender = queue.popleft()
                receiver.handle(message, sender)
                if monotonic() >= until:
                    break
        finally:
            # The flag is cleared before the queue is checked. In the other order, a thread that queues a message in
            # between would see the flag set and schedule nothing, and the message would stay in the queue.
            self._scheduled = False
            if queue:
                self._schedule()
