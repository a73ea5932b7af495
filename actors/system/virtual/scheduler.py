"""Virtual time: a scheduler of events, clocks that drift, dispatchers and an asyncio loop that run on them.

This is a discrete-event simulation: a heap of events by due time, and a clock that jumps to the time of the next event.
Events that are due at the same time happen in the order in which they were scheduled. Nothing here reads the real clock
or waits, and no thread takes part, so a run depends only on the order of calls and on the random generators that are
passed in: the same seed gives the same run.
"""

from __future__ import annotations

import asyncio
import contextvars
import heapq
import weakref
from asyncio.events import _set_running_loop
from collections import deque
from collections.abc import Callable, Coroutine, Generator
from random import Random
from typing import Any, ClassVar, TypeVar

from raftkv.actors.system.base.message_loop import Receiver

_T = TypeVar("_T")

Cost = Callable[[Receiver, Any], float]
"""The virtual milliseconds that a receiver takes to handle a message."""


class Scheduler:
    """The events to come, by due time, then by age. ``steps`` counts the events that have happened."""

    __slots__ = ("_items", "_number", "now_ms", "steps")

    def __init__(self) -> None:
        self.now_ms = 0.0
        self.steps = 0
        self._items: list[tuple[float, int, Callable[..., object], tuple[Any, ...]]] = []
        self._number = 0

    def at(self, when_ms: float, function: Callable[..., object], *arguments: Any) -> None:
        """Call ``function`` at ``when_ms``, or now if that is past."""
        self._number += 1
        heapq.heappush(self._items, (max(when_ms, self.now_ms), self._number, function, arguments))

    def after(self, delay_ms: float, function: Callable[..., object], *arguments: Any) -> None:
        """Call ``function`` after ``delay_ms``."""
        self._number += 1
        heapq.heappush(self._items, (self.now_ms + max(0.0, delay_ms), self._number, function, arguments))

    @property
    def next_ms(self) -> float:
        """The due time of the next event; infinite if there is none."""
        return self._items[0][0] if self._items else float("inf")

    def step(self) -> bool:
        """Make the next event happen; False if there is none."""
        if not self._items:
            return False
        self.now_ms, _, function, arguments = heapq.heappop(self._items)
        self.steps += 1
        function(*arguments)
        return True


class VirtualClock:
    """The clock of a machine: it may run fast or slow (``rate``), and jump forward; it never goes back."""

    __slots__ = ("_scheduler", "_shown_ms", "_since_ms", "rate")

    def __init__(self, scheduler: Scheduler, start_ms: float = 0.0) -> None:
        """Show ``start_ms`` now."""
        self._scheduler = scheduler
        self._since_ms = scheduler.now_ms
        self._shown_ms = start_ms
        self.rate = 1.0

    def now_ms(self) -> float:
        """Return the machine's own time."""
        return self._shown_ms + (self._scheduler.now_ms - self._since_ms) * self.rate

    def run_at(self, rate: float) -> None:
        """Run at ``rate`` from now on; timers that are set already keep their due time."""
        self._shown_ms, self._since_ms, self.rate = self.now_ms(), self._scheduler.now_ms, rate

    def jump(self, by_ms: float) -> None:
        """Jump forward, as a clock that counts the time for which its machine was suspended."""
        assert by_ms >= 0.0, "a monotonic clock never goes back"
        self._shown_ms += by_ms


class VirtualDispatcher:
    """A ``Dispatcher`` in virtual time: handles one message after the other, each of which takes time.

    A simulated machine has one in place of its ``MessageLoop``, and one more in place of the thread of each actor with
    a thread of its own. With ``shuffled`` it picks any receiver that has a message waiting; each receiver still gets
    its messages in order. That is the order that Thespian promises on all bases, as if every actor were a process.
    While it is ``paused``, messages are kept and none is handled.
    """

    __slots__ = ("_busy", "_cost", "_on_handled", "_queue", "_scheduler", "_shuffled", "_stalled", "closed", "paused")

    def __init__(
        self,
        scheduler: Scheduler,
        cost: Cost,
        on_handled: Callable[[Receiver, Any, Any], None],
        shuffled: Random | None = None,
    ) -> None:
        """Call ``on_handled`` right after each message was handled."""
        self._scheduler = scheduler
        self._cost = cost
        self._on_handled = on_handled
        self._shuffled = shuffled
        self._queue: deque[tuple[Receiver, Any, Any]] = deque()
        self._busy = False
        self._stalled = False
        self.paused = False
        self.closed = False

    @property
    def waiting(self) -> int:
        """The number of queued messages."""
        return len(self._queue)

    @property
    def next_message(self) -> Any:
        """The message that is handled next, or is being handled; None if there is none."""
        return self._queue[0][1] if self._queue else None

    def put(self, receiver: Receiver, message: Any, sender: Any) -> None:
        """Queue ``message`` for ``receiver``."""
        if self.closed:
            return
        self._queue.append((receiver, message, sender))
        if not self._busy:
            self._busy = True
            self._next()

    def call(self, function: Callable[[], object]) -> None:
        """Call ``function`` after everything that is queued."""
        self.put(self, function, None)

    def post(self, message: Any, sender: Any) -> None:
        """Queue a call: the dispatcher is itself the ``Receiver`` of calls."""
        self.put(self, message, sender)

    def handle(self, message: Any, sender: Any) -> None:
        """Make a call whose turn has come."""
        message()

    def drain(self) -> None:
        """Handle everything that is queued, now."""
        while self._queue:
            receiver, message, sender = self._queue.popleft()
            receiver.handle(message, sender)

    def pause(self) -> None:
        """Handle nothing until ``resume``."""
        self.paused = True

    def resume(self) -> None:
        """Handle the messages that were kept."""
        self.paused = False
        if self._stalled:
            self._stalled = False
            self._next()

    def close(self) -> None:
        """Drop everything that is queued, and everything that is still put."""
        self.closed = True
        self._queue.clear()

    def _next(self) -> None:
        """Schedule the handling of the next message, at the end of the time that it takes.

        At the end, so that a message whose handling a crash interrupts has had no effect.
        """
        if self._shuffled is not None:
            self._move_any_to_front(self._shuffled)
        receiver, message, _ = self._queue[0]
        self._scheduler.after(self._cost(receiver, message), self._run)

    def _move_any_to_front(self, random: Random) -> None:
        queue = self._queue
        if len(queue) > 1:
            receiver = queue[random.randrange(len(queue))][0]
            place = next(place for place, item in enumerate(queue) if item[0] is receiver)
            item = queue[place]
            del queue[place]
            queue.appendleft(item)

    def _run(self) -> None:
        if self.closed:
            return
        if self.paused:
            self._stalled = True
            return
        receiver, message, sender = self._queue.popleft()
        receiver.handle(message, sender)
        self._on_handled(receiver, message, sender)
        if self.closed:
            return
        if self._queue:
            self._next()
        else:
            self._busy = False


class VirtualLoop(asyncio.AbstractEventLoop):
    """The part of an asyncio loop that futures, tasks and timers of a simulated machine need."""

    _all: ClassVar[weakref.WeakSet[VirtualLoop]] = weakref.WeakSet()

    @classmethod
    def close_all(cls) -> None:
        """Close every loop: coroutines that never started would otherwise warn when they are deleted."""
        for loop in list(cls._all):
            loop.close()

    def __init__(self, scheduler: Scheduler, clock: VirtualClock, dispatcher: VirtualDispatcher) -> None:
        """Read the time from ``clock``, run callbacks on ``dispatcher``; ``on_task_failed`` gets errors of tasks."""
        self._scheduler = scheduler
        self._clock = clock
        self._dispatcher = dispatcher
        self._all.add(self)
        self._closed = False
        self._tasks: dict[asyncio.Task[Any], None] = {}
        self.on_task_failed: Callable[[BaseException], None] | None = None

    def time(self) -> float:
        """Return the machine's time, in seconds."""
        return self._clock.now_ms() / 1000.0

    def call_soon(  # type: ignore[override]
        self, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.Handle:
        """Call ``callback`` after everything that is queued."""
        handle = asyncio.Handle(callback, args, self, context)
        self._dispatcher.call(lambda: self._fire(handle))
        return handle

    def call_soon_threadsafe(  # type: ignore[override]
        self, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.Handle:
        """Call ``callback`` after everything that is queued."""
        return self.call_soon(callback, *args, context=context)

    def call_later(  # type: ignore[override]
        self, delay: float, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.TimerHandle:
        """Call ``callback`` after ``delay`` seconds of the machine's clock."""
        handle = asyncio.TimerHandle(self.time() + delay, callback, args, self, context)
        self._scheduler.after(delay * 1000.0 / self._clock.rate, self._fire, handle)
        return handle

    def call_at(  # type: ignore[override]
        self, when: float, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.TimerHandle:
        """Call ``callback`` at ``when``, in seconds of the machine's clock."""
        return self.call_later(when - self.time(), callback, *args, context=context)

    def create_future(self) -> asyncio.Future[Any]:
        """Return a future of this loop."""
        return asyncio.Future(loop=self)

    def create_task(self, coro: Coroutine[Any, Any, _T] | Generator[Any, None, _T], **unused: Any) -> asyncio.Task[_T]:
        """Run a coroutine."""
        task: asyncio.Task[_T] = asyncio.Task(coro, loop=self)
        self._tasks[task] = None
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.pop(task, None)
        if self.on_task_failed is not None and not task.cancelled() and (error := task.exception()) is not None:
            self.on_task_failed(error)

    def close(self) -> None:
        """Call nothing any more, and close the coroutines of all tasks."""
        self._closed = True
        tasks, self._tasks = list(self._tasks), {}
        for task in tasks:
            # They end with their machine, which is no reason for asyncio's warning.
            task._log_destroy_pending = False  # type: ignore[attr-defined]
            coroutine = task.get_coro()
            if isinstance(coroutine, Coroutine):
                coroutine.close()

    def is_closed(self) -> bool:
        """Whether the machine is gone."""
        return self._closed

    def is_running(self) -> bool:
        """Whether anything may still be called."""
        return not self._closed

    def get_debug(self) -> bool:
        """Return False: debug mode is slow."""
        return False

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """Raise the exception of a callback: no error of a simulation goes unnoticed.

        The exception of a future that was never retrieved is ignored: its reader may have ended with its machine.
        """
        error = context.get("exception")
        if error is not None and "handle" in context:
            raise error

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """Keep a cancelled timer scheduled: it does nothing when it is due."""

    def _fire(self, handle: asyncio.Handle) -> None:
        if self._closed or handle.cancelled():
            return
        _set_running_loop(self)
        try:
            handle._run()
        finally:
            _set_running_loop(None)
