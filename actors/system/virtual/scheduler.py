"""Virtual time: what is due when, clocks that run fast or slow, lanes in which messages wait for their turn."""

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
"""How many milliseconds it takes until a receiver has dealt with a message."""


class Scheduler:
    """What is going to happen, in the order in which it is due; of two things due at once the older one is first."""

    __slots__ = ("_items", "_number", "now_ms", "steps")

    def __init__(self) -> None:
        self.now_ms = 0.0
        self.steps = 0
        """How many things have happened."""
        self._items: list[tuple[float, int, Callable[..., object], tuple[Any, ...]]] = []
        self._number = 0

    def at(self, when_ms: float, function: Callable[..., object], *arguments: Any) -> None:
        """Call ``function`` at this time, or now if that has passed."""
        self._number += 1
        heapq.heappush(self._items, (max(when_ms, self.now_ms), self._number, function, arguments))

    def after(self, delay_ms: float, function: Callable[..., object], *arguments: Any) -> None:
        """Call ``function`` in so many milliseconds."""
        self._number += 1
        heapq.heappush(self._items, (self.now_ms + max(0.0, delay_ms), self._number, function, arguments))

    @property
    def next_ms(self) -> float:
        """When the next thing is due; infinite if there is none."""
        return self._items[0][0] if self._items else float("inf")

    def step(self) -> bool:
        """Let the next thing happen; False if there is none."""
        if not self._items:
            return False
        self.now_ms, _, function, arguments = heapq.heappop(self._items)
        self.steps += 1
        function(*arguments)
        return True


class VirtualClock:
    """The clock of a machine: it may run fast or slow, and jump forward. It never goes back."""

    __slots__ = ("_scheduler", "_since_ms", "_told_ms", "rate")

    def __init__(self, scheduler: Scheduler, told_ms: float = 0.0) -> None:
        """Show ``told_ms`` now."""
        self._scheduler = scheduler
        self._since_ms = scheduler.now_ms
        self._told_ms = told_ms
        self.rate = 1.0
        """How many milliseconds it counts in one."""

    def now_ms(self) -> float:
        """Return the time that the machine believes in."""
        return self._told_ms + (self._scheduler.now_ms - self._since_ms) * self.rate

    def run_at(self, rate: float) -> None:
        """Run at another rate from now on; timers that are set already ring when they would have."""
        self._told_ms, self._since_ms, self.rate = self.now_ms(), self._scheduler.now_ms, rate

    def jump(self, by_ms: float) -> None:
        """Go forward, as a clock does that counts the time for which its machine was suspended."""
        assert by_ms >= 0.0, "a clock that goes back is no monotonic clock"
        self._told_ms += by_ms


class Lane:
    """A mailbox whose messages are dealt with one after the other, each taking its time.

    It is to a simulated system what the ``MessageLoop`` is to one on an event loop, or, for an actor with a thread of
    its own, that thread. ``shuffled`` makes it pick any of the waiting receivers, each of which still gets its messages
    in order: as if every actor were a process, the promise that Thespian gives on all bases.
    """

    __slots__ = ("_awake", "_cost", "_dealt", "_queue", "_scheduler", "_shuffled", "_stalled", "closed", "stopped")

    def __init__(
        self,
        scheduler: Scheduler,
        cost: Cost,
        dealt: Callable[[Receiver, Any, Any], None],
        shuffled: Random | None = None,
    ) -> None:
        """Tell ``dealt`` of each message right after it was dealt with."""
        self._scheduler = scheduler
        self._cost = cost
        self._dealt = dealt
        self._shuffled = shuffled
        self._queue: deque[tuple[Receiver, Any, Any]] = deque()
        self._awake = False
        self._stalled = False
        self.stopped = False
        """Nothing is dealt with while it is, but everything is kept."""
        self.closed = False

    @property
    def waiting(self) -> int:
        """How many messages are in the lane."""
        return len(self._queue)

    @property
    def next_message(self) -> Any:
        """The message that is dealt with next, or is being dealt with; None if there is none."""
        return self._queue[0][1] if self._queue else None

    def put(self, receiver: Receiver, message: Any, sender: Any) -> None:
        """Let ``receiver`` handle ``message`` when its turn comes."""
        if self.closed:
            return
        self._queue.append((receiver, message, sender))
        if not self._awake:
            self._awake = True
            self._next()

    def call(self, function: Callable[[], object]) -> None:
        """Call ``function`` when its turn comes."""
        self.put(self, function, None)

    def post(self, message: Any, sender: Any) -> None:
        """Be a ``Receiver`` of calls."""
        self.put(self, message, sender)

    def handle(self, message: Any, sender: Any) -> None:
        """Make a call whose turn has come."""
        message()

    def drain(self) -> None:
        """Deal with everything that waits, now."""
        while self._queue:
            receiver, message, sender = self._queue.popleft()
            receiver.handle(message, sender)

    def stop(self) -> None:
        """Deal with nothing any more, until ``go_on``."""
        self.stopped = True

    def go_on(self) -> None:
        """Deal with what has come meanwhile."""
        self.stopped = False
        if self._stalled:
            self._stalled = False
            self._next()

    def close(self) -> None:
        """Forget everything that waits, and all that may come."""
        self.closed = True
        self._queue.clear()

    def _next(self) -> None:
        """See to it that the first message is dealt with at the end of the time that it takes.

        At the end: what a crash finds under way has not been done.
        """
        if self._shuffled is not None:
            self._bring_any_to_the_front(self._shuffled)
        receiver, message, _ = self._queue[0]
        self._scheduler.after(self._cost(receiver, message), self._run)

    def _bring_any_to_the_front(self, random: Random) -> None:
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
        if self.stopped:
            self._stalled = True
            return
        receiver, message, sender = self._queue.popleft()
        receiver.handle(message, sender)
        self._dealt(receiver, message, sender)
        if self.closed:
            return
        if self._queue:
            self._next()
        else:
            self._awake = False


class VirtualLoop(asyncio.AbstractEventLoop):
    """As much of an asyncio loop as futures, tasks and timers of a simulated machine need."""

    _all: ClassVar[weakref.WeakSet[VirtualLoop]] = weakref.WeakSet()

    @classmethod
    def close_all(cls) -> None:
        """Close every loop: in a simulation that nobody goes on with, coroutines that never began would complain."""
        for loop in list(cls._all):
            loop.close()

    def __init__(self, scheduler: Scheduler, clock: VirtualClock, lane: Lane) -> None:
        """Tell the time by ``clock``; what is to be called soon gets its turn in ``lane``."""
        self._scheduler = scheduler
        self._clock = clock
        self._lane = lane
        self._all.add(self)
        self._closed = False
        self._tasks: dict[asyncio.Task[Any], None] = {}
        self.task_failed: Callable[[BaseException], None] | None = None
        """Told of the exception with which a task ended; nobody may ever ask the task for it."""

    def time(self) -> float:
        """Return the machine's time, in seconds."""
        return self._clock.now_ms() / 1000.0

    def call_soon(  # type: ignore[override]
        self, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.Handle:
        """Call ``callback`` when its turn comes."""
        handle = asyncio.Handle(callback, args, self, context)
        self._lane.call(lambda: self._fire(handle))
        return handle

    def call_soon_threadsafe(  # type: ignore[override]
        self, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.Handle:
        """Call ``callback`` when its turn comes."""
        return self.call_soon(callback, *args, context=context)

    def call_later(  # type: ignore[override]
        self, delay: float, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.TimerHandle:
        """Call ``callback`` after so many seconds on the machine's clock."""
        handle = asyncio.TimerHandle(self.time() + delay, callback, args, self, context)
        self._scheduler.after(delay * 1000.0 / self._clock.rate, self._fire, handle)
        return handle

    def call_at(  # type: ignore[override]
        self, when: float, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.TimerHandle:
        """Call ``callback`` at this time of the machine's clock."""
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
        if self.task_failed is not None and not task.cancelled() and (error := task.exception()) is not None:
            self.task_failed(error)

    def close(self) -> None:
        """Call nothing any more; coroutines end where they are."""
        self._closed = True
        tasks, self._tasks = list(self._tasks), {}
        for task in tasks:
            # They end with their machine, which is nothing to complain about.
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
        """Be quick."""
        return False

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """Raise what a callback raised: in a simulation nothing goes wrong unseen.

        What nobody asked a future for is not told here: whoever might have asked may be gone with his machine.
        """
        error = context.get("exception")
        if error is not None and "handle" in context:
            raise error

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """Leave a cancelled timer where it is: it does nothing when its time comes."""

    def _fire(self, handle: asyncio.Handle) -> None:
        if self._closed or handle.cancelled():
            return
        _set_running_loop(self)
        try:
            handle._run()
        finally:
            _set_running_loop(None)
