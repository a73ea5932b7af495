"""Endpoints: how code outside of any actor sends messages (``tell``, ``ask``) and receives them (``listen``).

Each ``ask`` on the loop's thread has an address of its own, so the replies to two asks never mix, and a reply that
comes too late is a dead letter.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from queue import Empty, SimpleQueue
from threading import get_ident
from typing import Any

from thespian.system import isInternalActorSystemMessage
from thespian.system.timing import timePeriodSeconds

from raftkv.actors.system.base.addressable import Addressable
from raftkv.actors.system.base.addresses import NodeAddress, new_number
from raftkv.actors.system.base.router import Router

# The most messages that wait for a `listen`. Replies to a `tell` for which no one listens must not pile up in a node
# that runs for months; messages over the limit are dead letters.
WAITING_LIMIT = 10_000

_CLOSED = object()


class Ask(asyncio.Future[Any]):
    """The result of ``ask`` on the loop's thread: resolves to the first reply, or to None after the time-out.

    Its address ends with the first reply, the time-out or its cancellation; later replies are dead letters.
    """

    def __init__(self, router: Router, timeout: Any) -> None:
        super().__init__(loop=router.loop)
        self._router = router
        self.address = NodeAddress(router.node_id, new_number())
        self._timer = None if timeout is None else router.loop.call_later(timePeriodSeconds(timeout), self.release)
        router.receivers[self.address.number] = self

    def post(self, message: Any, sender: Any) -> None:
        """Resolve at once on the loop's thread, since no handler runs; from other threads, through the message loop."""
        if get_ident() == self._router.thread:
            self.handle(message, sender)
        else:
            self._router.message_loop.put(self, message, sender)

    def handle(self, message: Any, sender: Any) -> None:
        """Resolve to ``message``, unless it is a message of the system itself."""
        if self.done():
            self._router.dead_letter(self.address, message, sender)
        elif not isInternalActorSystemMessage(message):
            self._leave()
            self.set_result(message)

    def release(self) -> None:
        """Resolve to None: the time is over, or the system has ended."""
        self._leave()
        # On a closed loop no task waits any more, and a callback could not be scheduled.
        if not self.done() and not self._router.loop.is_closed():
            self.set_result(None)

    def cancel(self, msg: Any | None = None) -> bool:
        """Cancel the ask, as asyncio does when the awaiting task is cancelled."""
        self._leave()
        return super().cancel(msg)

    def _leave(self) -> None:
        self._router.receivers.pop(self.address.number, None)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class Endpoint(Addressable):
    """The mailbox of code outside of any actor: of an ``ActorSystem``, or of one of its ``private`` contexts.

    On the loop's thread ``ask`` and ``listen`` return awaitables; on any other they block.
    """

    __slots__ = ("__weakref__", "_closed", "_listeners", "_mailbox")

    def __init__(self, router: Router) -> None:
        super().__init__(router, NodeAddress(router.node_id, new_number()))
        self._mailbox: SimpleQueue[Any] = SimpleQueue()
        self._listeners: deque[asyncio.Future[Any]] = deque()
        self._closed = False
        router.receivers[self.address.number] = self

    def tell(self, target: Any, message: Any) -> None:
        """Send ``message`` to the actor at ``target``."""
        self.actor_send(target, message)

    def ask(self, target: Any, message: Any, timeout: Any) -> Any:
        """Send ``message`` and wait for a reply; None after ``timeout`` (seconds or a timedelta; None: no limit)."""
        if get_ident() != self._router.thread:
            self.actor_send(target, message)
            return self._wait(timeout)
        ask = Ask(self._router, timeout)
        if self._closed:
            ask.release()
            return ask
        try:
            self._router.send(target, message, ask.address)
        except BaseException:
            ask.cancel()
            raise
        return ask

    def listen(self, timeout: Any) -> Any:
        """Wait for a message to this endpoint; None after ``timeout`` (seconds or a timedelta; None: no limit)."""
        if get_ident() != self._router.thread:
            return self._wait(timeout)
        listener: asyncio.Future[Any] = self._router.loop.create_future()
        self._listeners.append(listener)
        if timeout is not None:
            timer = self._router.loop.call_later(timePeriodSeconds(timeout), _resolve, listener, None)
            listener.add_done_callback(lambda _: timer.cancel())
        self._feed()
        return listener

    def post(self, message: Any, sender: Any) -> None:
        """Keep ``message`` for the next ``listen``."""
        if self._closed or self._mailbox.qsize() >= WAITING_LIMIT:
            self._router.dead_letter(self.address, message, sender)
        elif not isInternalActorSystemMessage(message):
            self._mailbox.put(message)
            if self._listeners:
                self._router.message_loop.call(self._feed)

    def release(self) -> None:
        """Take no more messages, and resolve everything that waits to None."""
        self._closed = True
        self._router.receivers.pop(self.address.number, None)
        self._mailbox.put(_CLOSED)
        if self._listeners and not self._router.loop.is_closed():
            self._router.message_loop.call(self._feed)

    def _wait(self, timeout: Any) -> Any:
        """Block until there is a message."""
        try:
            message = self._mailbox.get(timeout=None if timeout is None else max(0.0, timePeriodSeconds(timeout)))
        except Empty:
            return None
        if message is not _CLOSED:
            return message
        # Other threads may be waiting too.
        self._mailbox.put(_CLOSED)
        return None

    def _feed(self) -> None:
        """Resolve listeners on the loop with the messages that are there."""
        while self._listeners:
            if self._listeners[0].done():
                self._listeners.popleft()
                continue
            try:
                message = self._mailbox.get_nowait()
            except Empty:
                if not self._closed:
                    return
                # A blocked thread has taken the mark just now and is about to put it back.
                self._listeners.popleft().set_result(None)
                continue
            if message is _CLOSED:
                self._mailbox.put(_CLOSED)
                message = None
            self._listeners.popleft().set_result(message)


class PrivateContext:
    """An endpoint for ``ActorSystem.private()``.

    Thespian does not close it when the body of the ``with`` raises; in that case it closes with its last reference.
    """

    def __init__(self, router: Router, new_primary_actor: Callable[..., NodeAddress]) -> None:
        self._endpoint = Endpoint(router)
        self.tell = self._endpoint.tell
        self.ask = self._endpoint.ask
        self.listen = self._endpoint.listen
        self.newPrimaryActor = new_primary_actor

    def exit_context(self) -> None:
        """Close the endpoint."""
        self._endpoint.release()

    __del__ = exit_context


def _resolve(future: asyncio.Future[Any], result: Any) -> None:
    if not future.done():
        future.set_result(result)
