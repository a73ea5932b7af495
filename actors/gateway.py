"""The gateway between HTTP and the actors: batches requests into messages, and retries those that were not done.

All writes that arrive in one turn of the event loop travel in one ``Propose``, all reads of a level in one ``Read``:
the node handles a batch at nearly the cost of one request. A request that was certainly not done (``not_leader``,
``not_committed``, ``retry``) is retried while there is time. A write that may have been done never is: it could be done
twice. The gateway is not an actor; it asks the ``Node`` actor as any part of the process may.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from math import ceil
from random import Random
from typing import Any, Generic, TypeVar

from raftkv.actors.messages.base import Level
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

_log = logging.getLogger("raftkv.gateway")

RequestT = TypeVar("RequestT")
ReplyT = TypeVar("ReplyT")


class RequestFailed(Exception):
    """A request was refused and will not be retried.

    ``refused.code`` is ``unknown`` if a write may have been done all the same, and if a read was not answered in time.
    """

    def __init__(self, refused: Refused) -> None:
        super().__init__(refused.code, refused.detail)
        self.refused = refused


class _Batch(Generic[RequestT, ReplyT]):
    """Requests that travel in one message, and a future for the reply to each."""

    __slots__ = ("bytes", "deadline_s", "requests", "waiting")

    def __init__(self, deadline_s: float) -> None:
        self.deadline_s = deadline_s
        self.bytes = 0
        self.requests: list[RequestT] = []
        self.waiting: list[asyncio.Future[ReplyT]] = []

    def has_room(self, size: int) -> bool:
        """Whether ``size`` more bytes fit; a request that is too large for any batch travels alone."""
        return len(self.requests) < BATCH_REQUESTS and self.bytes + size <= BATCH_BYTES

    def add(self, request: RequestT, size: int, waiting: asyncio.Future[ReplyT]) -> None:
        self.requests.append(request)
        self.waiting.append(waiting)
        self.bytes += size

    def drop_cancelled(self) -> None:
        """Drop the requests of clients that disconnected; only between attempts, as results are matched by position."""
        if any(future.done() for future in self.waiting):
            kept = [pair for pair in zip(self.requests, self.waiting, strict=True) if not pair[1].done()]
            self.requests = [request for request, _ in kept]
            self.waiting = [future for _, future in kept]

    def succeed(self, replies: list[ReplyT]) -> None:
        for future, reply in zip(self.waiting, replies, strict=True):
            if not future.done():
                future.set_result(reply)

    def fail(self, refused: Refused) -> None:
        for future in self.waiting:
            if not future.done():
                future.set_exception(RequestFailed(refused))


_Writes = _Batch[Command, tuple[Applied, Result]]
_Reads = _Batch[Query, tuple[ReadResult, Item | None]]


class Gateway:
    """Asks the node on behalf of clients; all methods must be called on the event loop's thread.

    ``ask(message, timeout_s)`` is bound to the ``Node`` actor, and returns ``None`` when the time is over.
    """

    def __init__(
        self,
        ask: Ask,
        *,
        rng: Random,
        loop: asyncio.AbstractEventLoop | None = None,
        answer_grace_s: float = ANSWER_GRACE_S,
    ) -> None:
        """Wait ``answer_grace_s`` longer than the node may take, so that its own answer, with a reason, comes first."""
        self.term = 0
        self.leader: NodeId | None = None
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

        ``timeout_s`` is rounded up to the next 50 ms, so that requests share a batch. Cancelling the future does not
        take back a command that was sent.
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
        """Return a future of ``ReadResult`` and the item of this query; it fails with ``RequestFailed``."""
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
        """Return what the node knows of itself; raises ``RequestFailed`` if it does not answer in time."""
        reply = await self._asked(AskStatus(), timeout_s)
        if isinstance(reply, Status):
            return reply
        raise RequestFailed(reply if isinstance(reply, Refused) else Refused("unknown", "the node did not answer"))

    def on_role_changed(self, event: RoleChanged) -> None:
        """Remember the term and the leader that the node reported last."""
        self.term, self.leader = event.term, event.leader

    async def close(self) -> None:
        """Fail every request that waits: those that were sent with ``unknown``, the others with ``stopping``."""
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
        # The first request of a turn schedules the flush, which runs after everything else that is ready in this turn.
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
            # mypy cannot see that reads have a level and writes have None.
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
            batch.fail(_not_understood(reply))

    async def _carry_reads(self, batch: _Reads, level: Level) -> None:
        def message(timeout_ms: float) -> Read:
            return Read(tuple(batch.requests), level, timeout_ms)

        reply = await self._carry(batch, message, _RETRIED_READS)
        if isinstance(reply, Refused):
            batch.fail(reply)
        elif isinstance(reply, ReadResult) and len(reply.items) == len(batch.waiting):
            batch.succeed([(reply, item) for item in reply.items])
        else:
            batch.fail(_not_understood(reply))

    async def _carry(
        self, batch: _Batch[Any, Any], message: Callable[[float], object], retried: frozenset[str]
    ) -> object:
        """Ask until the answer is not one of the ``retried`` refusals, or no time is left for another attempt."""
        loop = self._running_loop()
        longest_pause_s = FIRST_PAUSE_S
        while True:
            batch.drop_cancelled()
            left_s = batch.deadline_s - loop.time()
            # Wait a little longer than the node may take, so that the node's own answer, with a reason, comes first.
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
            # The node may or may not have received the message, so this counts as no answer.
            _log.exception("asking the node failed")
            return None


def _not_understood(reply: object) -> Refused:
    _log.error("the node's answer is not of the expected type: %.200r", reply)
    return Refused("unknown", "the node's answer was not understood")
