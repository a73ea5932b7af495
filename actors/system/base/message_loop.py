"""The pump: one queue through which everything passes that happens on the event loop's thread."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from threading import get_ident
from time import monotonic
from typing import Any, Protocol

# How long messages may be handled before timers and sockets get their turn. Under a flood of messages a slice of 4 ms
# made timers 11 ms late, this one 1 ms, at the same number of messages per second.
SLICE_S = 0.0005


class Receiver(Protocol):
    """Whatever a message can be sent to."""

    def post(self, message: Any, sender: Any) -> None:
        """Put ``message`` into the mailbox; may be called from any thread and never runs a handler itself."""

    def handle(self, message: Any, sender: Any) -> None:
        """Deal with a message whose turn has come; called on the receiver's own thread."""


class MessageLoop:
    """The queue of an event loop: what is put in first is handled first, whoever put it there.

    One queue for all actors of the loop, and for messages and calls from other threads, makes it FIFO between any
    two of them, and fair: nobody's message overtakes an older one.
    """

    __slots__ = ("_awake", "_loop", "_loop_closed", "_on_loop_closed", "_queue", "_thread")

    def __init__(self, loop: asyncio.AbstractEventLoop, thread: int, on_loop_closed: Callable[[], None]) -> None:
        """Serve ``loop``, which runs on ``thread``; ``on_loop_closed`` is called when it turns out to be closed."""
        self._loop = loop
        self._loop_closed = False
        self._on_loop_closed = on_loop_closed
        self._thread = thread
        self._queue: deque[tuple[Any, Any, Any]] = deque()
        self._awake = False

    @property
    def waiting(self) -> int:
        """How many messages are in the queue."""
        return len(self._queue)

    def put(self, receiver: Receiver, message: Any, sender: Any) -> None:
        """Let ``receiver`` handle ``message`` when its turn comes. From any thread."""
        self._queue.append((receiver, message, sender))
        if not self._awake:
            self._wake()

    def call(self, function: Callable[[], object]) -> None:
        """Call ``function`` on the loop's thread, after all that is in the queue. From any thread."""
        self.put(self, function, None)

    def post(self, message: Any, sender: Any) -> None:
        """Be a ``Receiver`` of calls."""
        self.put(self, message, sender)

    def handle(self, message: Any, sender: Any) -> None:
        """Make a call whose turn has come."""
        message()

    def drain(self) -> None:
        """Handle all that is in the queue, here and now: for when no loop will do it any more."""
        while True:
            try:
                receiver, message, sender = self._queue.popleft()
            except IndexError:
                return
            receiver.handle(message, sender)

    def _wake(self) -> None:
        self._awake = True
        try:
            if get_ident() == self._thread:
                self._loop.call_soon(self._run)
            else:
                self._loop.call_soon_threadsafe(self._run)
        except RuntimeError:
            # The loop is closed. With its actors out of the way, draining makes dead letters and refuses calls.
            self._awake = False
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
            # The flag goes down before the queue is looked at: the other way round, a message that another thread
            # puts in between would find the flag up, wake nobody and lie there.
            self._awake = False
            if queue:
                self._wake()
