"""Helpers for the tests of the event-loop base: a system per test that must end clean, and scriptable actors."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

from thespian.actors import Actor

from raftkv.actors.system.base.eventloop import EventLoopSystem, start_on_loop

WITHIN_S = 45.0


class Puppet(Actor):
    """Calls each message that is a function with itself and the sender, and keeps the other messages in ``seen``."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Any] = []

    def receiveMessage(self, message: Any, sender: Any) -> None:
        if callable(message):
            message(self, sender)
        else:
            self.seen.append(message)


class ThreadPuppet(Puppet):
    """The same on a thread of its own."""

    own_thread = True


class Echo(Actor):
    """Sends each message back."""

    def receiveMessage(self, message: Any, sender: Any) -> None:
        self.send(sender, message)


def reply(value: Callable[[Any], Any]) -> Callable[[Any, Any], None]:
    """Return a message that makes a puppet reply with ``value(puppet)``."""
    return lambda me, sender: me.send(sender, value(me))


def seen(me: Any, sender: Any) -> None:
    """Make a puppet reply with the messages that it has kept. (This function is itself a message.)"""
    me.send(sender, list(me.seen))


def create(actor_class: Any = Puppet, **options: Any) -> Callable[[Any, Any], None]:
    """Return a message that makes a puppet create a child and reply with its address."""
    return reply(lambda me: me.createActor(actor_class, **options))


def on_loop(
    *, within_s: float = WITHIN_S, **options: Any
) -> Callable[[Callable[[EventLoopSystem], Awaitable[None]]], Callable[[], None]]:
    """Turn a coroutine function into a test with a system on a running loop; afterwards nothing of it may be left."""

    def decorate(test: Callable[[EventLoopSystem], Awaitable[None]]) -> Callable[[], None]:
        async def scenario() -> None:
            problems: list[dict[str, Any]] = []
            asyncio.get_running_loop().set_exception_handler(lambda loop, context: problems.append(context))
            async with asyncio.timeout(within_s):
                system = start_on_loop(**options)
                base = system.base
                await test(system)
                base.shutdown()
                await base.wait_closed()
            assert (base.receivers, base.names, base.threads, problems) == ({}, {}, set(), [])

        # Not functools.wraps: pytest would look for a fixture "system".
        def run() -> None:
            asyncio.run(scenario())

        run.__name__, run.__doc__ = test.__name__, test.__doc__
        return run

    return decorate


async def seen_by(system: EventLoopSystem, puppet: Any, count: int) -> list[Any]:
    """Return the messages that a puppet has kept, once there are at least ``count``."""
    while True:
        kept: list[Any] = await system.ask(puppet, seen)
        if len(kept) >= count:
            return kept


async def until(condition: Callable[[], object]) -> None:
    """Return once ``condition`` holds."""
    async with asyncio.timeout(WITHIN_S):
        while not condition():
            await asyncio.sleep(0.001)


def until_blocking(condition: Callable[[], object]) -> None:
    """Return once ``condition`` holds, without a loop."""
    deadline = time.monotonic() + WITHIN_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)
