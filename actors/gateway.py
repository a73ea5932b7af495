"""The front end's side of the asks: one message for all that arrives in a turn, sent again where that is safe.

Not an actor. A request that was certainly not done (``not_leader``, ``not_committed``, ``retry``) is sent again while
there is time; a write that may have been done never is: it would be done twice.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from math import ceil
from random import Random
from typing import Any, Generic, TypeVar

from raftkv.actors.messages.base import Level, RoleName
from raftkv.actors.messages.node import RoleChanged
from raftkv.actors.messages.requests import (
    Applied,
    AskStatus,
    Propose,
    Read,
    ReadResult,
    Refused,
    Status,
)
from raftkv.raft.entry import NodeId
from raftkv.store.commands import Command, Item, Query, Result

Ask = Callable[[object, float], Awaitable[object | None]]

BATCH_BYTES = 256 << 10
BATCH_REQUESTS = 1000
TIMEOUT_STEP_S = 0.05
ANSWER_GRACE_S = 0.1
FIRST_PAUSE_S = 0.005
LONGEST_PAUSE_S = 0.05
STATUS_TIMEOUT_S = 1.0

_RETRIED_WRITES = frozenset({"not_leader", "not_committed", "retry"})
_RETRIED_READS = frozenset({"not_leader", "not_committed", "retry", "unknown"})

_log = logging.getLogger("raftkv.client")

Request = TypeVar("Request")
Answered = TypeVar("Answered")


class RequestFailed(Exception):
    """A request was refused for good; ``refused.code`` is ``unknown`` where a write may have been done all the same.

    A read that nobody answered in time fails with ``unknown`` too, though it changed nothing.
    """

    def __init__(self, refused: Refused) -> None:
        super().__init__(refused.code, refused.detail)
        self.refused = refused


class NodeView:
    """What this node last said of its role, its term and its leader."""

    __slots__ = ("leader", "role", "term")

    def __init__(self) -> None:
        self.role: RoleName = "follower"
        self.term = 0
        self.leader: NodeId | None = None

    def changed(self, event: RoleChanged) -> None:
        """Remember what ``event`` says."""
        self.role, self.term, self.leader = event.role, event.term, event.leader


class _Batch(Generic[Request, Answered]):
    """Requests that travel in one message, and who waits for each."""

    __slots__ = ("bytes", "deadline_s", "requests", "waiting")

    def __init__(self, deadline_s: float) -> None:
        self.deadline_s = deadline_s
        self.bytes = 0
        self.requests: list[Request] = []
        self.waiting: list[asyncio.Future[Answered]] = []

    def has_room(self, size: int) -> bool:
        """Whether ``size`` bytes more still fit; a request that is too big for any batch travels alone."""
        return len(self.requests) < BATCH_REQUESTS and self.bytes + size <= BATCH_BYTES

    def add(self, request: Request, size: int, waiting: asyncio.Future[Answered]) -> None:
        self.requests.append(request)
        self.waiting.append(waiting)
        self.bytes += size

    def drop_cancelled(self) -> None:
        """Forget those whose client went away; only between two attempts, since answers are matched by place."""
        if any(future.done() for future in self.waiting):
            kept = [pair for pair in zip(self.requests, self.waiting, strict=True) if not pair[1].done()]
            self.requests = [request for request, _ in kept]
            self.waiting = [future for _, future in kept]

    def succeed(self, outcomes: list[Answered]) -> None:
        for future, outcome in zip(self.waiting, outcomes, strict=True):
            if not future.done():
                future.set_result(outcome)

    def fail(self, refused: Refused) -> None:
        for future in self.waiting:
            if not future.done():
                future.set_exception(RequestFailed(refused))


_Writes = _Batch[Command, tuple[Applied, Result]]
_Reads = _Batch[Query, tuple[ReadResult, Item | None]]


class Gateway:
    """Asks the node on behalf of HTTP requests; to be used on the loop's thread only.

    ``ask(message, timeout_s)`` is bound to the ``Node`` actor and gives ``None`` when the time is over.
    """

    def __init__(
        self,
        ask: Ask,
        *,
        rng: Random,
        loop: asyncio.AbstractEventLoop | None = None,
        answer_grace_s: float = ANSWER_GRACE_S,
    ) -> None:
        """Wait ``answer_grace_s`` longer than the node has: its own answer, which says why, is to come first."""
        self.view = NodeView()
        self._ask = ask
        self._rng = rng
        self._loop = loop
        self._answer_grace_s = answer_grace_s
        self._writes: dict[int, _Writes] = {}
        self._reads: dict[tuple[Level, int], _Reads] = {}
        self._collected: list[tuple[_Writes, None] | tuple[_Reads, Level]] = []
        self._carrying: set[asyncio.Task[None]] = set()
        self._closed = False

    def propose(self, command: Command, timeout_s: float) -> asyncio.Future[tuple[Applied, Result]]:
        """Return a future of ``Applied`` and the result of this command; it fails with ``RequestFailed``.

        ``timeout_s`` is rounded up to the next 50 ms, so that requests find company. Cancelling the future takes
        nothing back that was sent.
        """
        loop = self._running_loop()
        future: asyncio.Future[tuple[Applied, Result]] = loop.create_future()
        steps = ceil(timeout_s / TIMEOUT_STEP_S)
        size = command.cost()
        batch = self._writes.get(steps)
        if batch is None or not batch.has_room(size):
            batch = self._writes[steps] = _Batch(loop.time() + steps * TIMEOUT_STEP_S)
            self._collect((batch, None), loop)
        batch.add(command, size, future)
        return future

    def read(self, query: Query, level: Level, timeout_s: float) -> asyncio.Future[tuple[ReadResult, Item | None]]:
        """Return a future of ``ReadResult`` and what this query found; it fails with ``RequestFailed``."""
        loop = self._running_loop()
        future: asyncio.Future[tuple[ReadResult, Item | None]] = loop.create_future()
        steps = ceil(timeout_s / TIMEOUT_STEP_S)
        batch = self._reads.get((level, steps))
        if batch is None or not batch.has_room(0):
            batch = self._reads[level, steps] = _Batch(loop.time() + steps * TIMEOUT_STEP_S)
            self._collect((batch, level), loop)
        batch.add(query, 0, future)
        return future

    async def status(self, timeout_s: float = STATUS_TIMEOUT_S) -> Status:
        """Return what the node knows of itself; raises ``RequestFailed`` if it does not say so in time."""
        reply = await self._asked(AskStatus(), timeout_s)
        if isinstance(reply, Status):
            return reply
        raise RequestFailed(reply if isinstance(reply, Refused) else Refused("unknown", "the node did not answer"))

    async def close(self) -> None:
        """Give up everything that waits: what was sent as ``unknown``, the rest as ``stopping``."""
        self._closed = True
        self._flush()
        carrying = list(self._carrying)
        for task in carrying:
            task.cancel()
        await asyncio.gather(*carrying, return_exceptions=True)

    def _running_loop(self) -> asyncio.AbstractEventLoop:
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
        return self._loop

    def _collect(self, batch: tuple[_Writes, None] | tuple[_Reads, Level], loop: asyncio.AbstractEventLoop) -> None:
        # The first request of a turn asks for the flush: it runs after everything else that is ready in this turn.
        if not self._collected:
            loop.call_soon(self._flush)
        self._collected.append(batch)

    def _flush(self) -> None:
        collected, self._collected = self._collected, []
        self._writes.clear()
        self._reads.clear()
        for batch, level in collected:
            if self._closed:
                batch.fail(Refused("stopping", "this node is stopping"))
                continue
            # mypy can't see that a level comes with reads and None with writes.
            carry = self._carry_writes(batch) if level is None else self._carry_reads(batch, level)  # type: ignore[arg-type]
            task = self._running_loop().create_task(carry)
            self._carrying.add(task)
            task.add_done_callback(self._carrying.discard)

    async def _carry_writes(self, batch: _Writes) -> None:
        def message(timeout_ms: float) -> Propose:
            return Propose(tuple(batch.requests), timeout_ms)

        reply = await self._carry(batch, message, _RETRIED_WRITES)
        if isinstance(reply, Refused):
            batch.fail(reply)
        elif isinstance(reply, Applied) and len(reply.results) == len(batch.waiting):
            batch.succeed([(reply, result) for result in reply.results])
        else:
            batch.fail(_nonsense(reply))

    async def _carry_reads(self, batch: _Reads, level: Level) -> None:
        def message(timeout_ms: float) -> Read:
            return Read(tuple(batch.requests), level, timeout_ms)

        reply = await self._carry(batch, message, _RETRIED_READS)
        if isinstance(reply, Refused):
            batch.fail(reply)
        elif isinstance(reply, ReadResult) and len(reply.items) == len(batch.waiting):
            batch.succeed([(reply, item) for item in reply.items])
        else:
            batch.fail(_nonsense(reply))

    async def _carry(
        self, batch: _Batch[Any, Any], message: Callable[[float], object], retried: frozenset[str]
    ) -> object:
        """Ask until there is an answer that is not to be asked for again, or no time for another attempt."""
        loop = self._running_loop()
        longest_pause_s = FIRST_PAUSE_S
        while True:
            batch.drop_cancelled()
            left_s = batch.deadline_s - loop.time()
            # The node gets a little less time than the ask: its own answer, which says why, is to come first.
            reply = (
                await self._asked(message(left_s * 1000.0), left_s + self._answer_grace_s) if batch.waiting else None
            )
            if reply is None:
                return Refused("unknown", "no answer in time")
            if self._closed or not isinstance(reply, Refused) or reply.code not in retried:
                return reply
            pause_s = self._rng.uniform(FIRST_PAUSE_S, longest_pause_s)
            longest_pause_s = min(LONGEST_PAUSE_S, longest_pause_s * 2)
            if loop.time() + pause_s >= batch.deadline_s:
                return reply
            try:
                await asyncio.sleep(pause_s)
            except asyncio.CancelledError:
                return reply

    async def _asked(self, message: object, timeout_s: float) -> object | None:
        try:
            return await self._ask(message, timeout_s)
        except asyncio.CancelledError:
            return Refused("unknown", "this node stopped while the request was under way")
        except Exception:
            # Whether the node got the message is anybody's guess: no answer is the honest one.
            _log.exception("asking the node failed")
            return None


def _nonsense(reply: object) -> Refused:
    _log.error("the node answered with what is no answer: %.200r", reply)
    return Refused("unknown", "the node's answer was not understood")
