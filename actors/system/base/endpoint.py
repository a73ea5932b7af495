"""Endpoints: the system as seen by code outside of any actor, which can tell, ask and listen."""

from __future__ import annotations

import asyncio
from collections import deque
from queue import Empty, SimpleQueue
from threading import get_ident
from typing import TYPE_CHECKING, Any

from thespian.system import isInternalActorSystemMessage
from thespian.system.timing import timePeriodSeconds

from raftkv.actors.system.base.addresses import NodeAddress, new_number
from raftkv.actors.system.base.participant import Participant

if TYPE_CHECKING:
    from raftkv.actors.system.base.base import EventLoopBase

# How many messages may wait for somebody to listen. Replies to a `tell` that nobody waits for must not pile up in a
# node that runs for months; what does not fit is a dead letter.
WAITING_LIMIT = 10_000

_CLOSED = object()


class Ask(asyncio.Future[Any]):
    """What ``ask`` returns on the loop's thread: awaitable, resolves to the first reply, or None when time is up.

    It is an endpoint of its own, so that the replies to two asks never mix. It goes with the first reply, the
    time-out or its cancellation; what comes later is a dead letter.
    """

    def __init__(self, base: EventLoopBase, timeout: Any) -> None:
        super().__init__(loop=base.loop)
        self._base = base
        self.address = NodeAddress(base.node_id, new_number())
        self._timer = None if timeout is None else base.loop.call_later(timePeriodSeconds(timeout), self.release)
        base.receivers[self.address.number] = self

    def post(self, message: Any, sender: Any) -> None:
        """Take a reply: on the loop's thread at once, as that runs nobody's code, and through its queue from others."""
        if get_ident() == self._base.thread:
            self.handle(message, sender)
        else:
            self._base.message_loop.put(self, message, sender)

    def handle(self, message: Any, sender: Any) -> None:
        """Resolve to ``message``, unless it is one of the system's own."""
        if self.done():
            self._base.dead_letter(self.address, message, sender)
        elif not isInternalActorSystemMessage(message):
            self._leave()
            self.set_result(message)

    def release(self) -> None:
        """Resolve to None: time is up, or the system has ended."""
        self._leave()
        # On a loop that has been closed nobody waits any more, and nobody could be told.
        if not self.done() and not self._base.loop.is_closed():
            self.set_result(None)

    def cancel(self, msg: Any | None = None) -> bool:
        """Cancel the ask, as asyncio does when the awaiting task is cancelled."""
        self._leave()
        return super().cancel(msg)

    def _leave(self) -> None:
        self._base.receivers.pop(self.address.number, None)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class Endpoint(Participant):
    """Code outside of any actor: ``tell`` and ``ask`` of an ``ActorSystem``, or of one of its ``private`` contexts.

    On the loop's thread ``ask`` and ``listen`` return awaitables; on any other they block.
    """

    __slots__ = ("__weakref__", "_closed", "_listeners", "_mailbox")

    def __init__(self, base: EventLoopBase) -> None:
        super().__init__(base, NodeAddress(base.node_id, new_number()))
        self._mailbox: SimpleQueue[Any] = SimpleQueue()
        self._listeners: deque[asyncio.Future[Any]] = deque()
        self._closed = False
        base.receivers[self.address.number] = self

    def tell(self, target: Any, message: Any) -> None:
        """Send ``message`` to the actor at ``target``."""
        self.actor_send(target, message)

    def ask(self, target: Any, message: Any, timeout: Any) -> Any:
        """Send ``message`` and wait for a reply (seconds or a timedelta, None: for ever): None when time is up."""
        if get_ident() != self.base.thread:
            self.actor_send(target, message)
            return self._wait(timeout)
        ask = Ask(self.base, timeout)
        if self._closed:
            ask.release()
            return ask
        try:
            self.base.send(target, message, ask.address)
        except BaseException:
            ask.cancel()
            raise
        return ask

    def listen(self, timeout: Any) -> Any:
        """Wait for a message to this endpoint (seconds or a timedelta, None: for ever): None when time is up."""
        if get_ident() != self.base.thread:
            return self._wait(timeout)
        listener: asyncio.Future[Any] = self.base.loop.create_future()
        self._listeners.append(listener)
        if timeout is not None:
            timer = self.base.loop.call_later(timePeriodSeconds(timeout), _resolve, listener, None)
            listener.add_done_callback(lambda _: timer.cancel())
        self._feed()
        return listener

    def post(self, message: Any, sender: Any) -> None:
        """Keep ``message`` for whoever listens."""
        if self._closed or self._mailbox.qsize() >= WAITING_LIMIT:
            self.base.dead_letter(self.address, message, sender)
        elif not isInternalActorSystemMessage(message):
            self._mailbox.put(message)
            if self._listeners:
                self.base.message_loop.call(self._feed)

    def release(self) -> None:
        """Take no more messages and release all that wait, with None."""
        self._closed = True
        self.base.receivers.pop(self.address.number, None)
        self._mailbox.put(_CLOSED)
        if self._listeners and not self.base.loop.is_closed():
            self.base.message_loop.call(self._feed)

    def _wait(self, timeout: Any) -> Any:
        """Block until there is a message."""
        try:
            message = self._mailbox.get(timeout=None if timeout is None else max(0.0, timePeriodSeconds(timeout)))
        except Empty:
            return None
        if message is not _CLOSED:
            return message
        # Others may be waiting too.
        self._mailbox.put(_CLOSED)
        return None

    def _feed(self) -> None:
        """Give what there is to those that listen on the loop."""
        while self._listeners:
            if self._listeners[0].done():
                self._listeners.popleft()
                continue
            try:
                message = self._mailbox.get_nowait()
            except Empty:
                if not self._closed:
                    return
                # A blocked thread has the mark in its hands just now, to put it back for the next one.
                self._listeners.popleft().set_result(None)
                continue
            if message is _CLOSED:
                self._mailbox.put(_CLOSED)
                message = None
            self._listeners.popleft().set_result(message)


class PrivateContext:
    """An endpoint for ``ActorSystem.private()``.

    Thespian forgets to close it when the body of the ``with`` raises; then it goes with the last reference to it.
    """

    def __init__(self, base: EventLoopBase) -> None:
        self._endpoint = Endpoint(base)
        self.tell = self._endpoint.tell
        self.ask = self._endpoint.ask
        self.listen = self._endpoint.listen
        self.newPrimaryActor = base.newPrimaryActor

    def exit_context(self) -> None:
        """Close the endpoint."""
        self._endpoint.release()

    __del__ = exit_context


def _resolve(future: asyncio.Future[Any], result: Any) -> None:
    if not future.done():
        future.set_result(result)
