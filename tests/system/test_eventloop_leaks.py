"""Ended actors, asks and wake-ups leave nothing behind: a node runs for months."""

from __future__ import annotations

import asyncio
import functools
import gc
import sys
import threading
import weakref
from typing import Any

from thespian.actors import ActorExitRequest, ChildActorExited

from raftkv.actors.system.base.actor_cell import ActorCell
from raftkv.actors.system.base.endpoint import WAITING_LIMIT, Ask
from raftkv.actors.system.base.eventloop import EventLoopSystem
from tests.system.eventloop_tools import Echo, Puppet, ThreadPuppet, on_loop, reply, until

MANY_WITHIN_S = 110.0
"""The limit for a hundred thousand actors, which take five seconds on an idle machine."""


def alive(kind: type) -> int:
    """Return the number of objects of a class."""
    gc.collect()
    return sum(isinstance(each, kind) for each in gc.get_objects())


class Maker(Puppet):
    """Creates children one after the other; each exits before the next is created."""

    def make(self, sender: Any, kind: type, count: int) -> None:
        self.kind, self.left, self.asker = kind, count, sender
        self.next()

    def next(self) -> None:
        child = self.createActor(self.kind, globalName="child")
        self.send(child, lambda me, _: me.wakeupAfter(1000))
        self.send(child, lambda me, _: me.createActor(Puppet))
        self.send(child, lambda me, _: me.notifyOnSystemRegistrationChanges())
        self.send(child, ActorExitRequest())
        self.left -= 1

    def receiveMessage(self, message: Any, sender: Any) -> None:
        if not isinstance(message, ChildActorExited):
            super().receiveMessage(message, sender)
        elif self.left:
            self.next()
        else:
            self.send(self.asker, "done")


@on_loop()
async def test_ended_actors_leave_nothing_behind(system: EventLoopSystem) -> None:
    maker = system.createActor(Maker)
    cells, receivers, threads = alive(ActorCell), dict(system.base.receivers), threading.active_count()

    for kind, count in ((Puppet, 1000), (ThreadPuppet, 50)):

        def make(me: Any, sender: Any, kind: type = kind, count: int = count) -> None:
            me.make(sender, kind, count)

        assert await system.ask(maker, make, 20) == "done"

    await until(lambda: not system.base.threads)
    assert (system.base.receivers, system.base.names) == (receivers, {})
    assert system.base.convention.listeners() == []
    await until(lambda: threading.active_count() == threads)
    assert alive(ActorCell) == cells


def allocated() -> int:
    """Return the number of allocated memory blocks."""
    gc.collect()
    return sys.getallocatedblocks()


@on_loop(within_s=MANY_WITHIN_S)
async def test_a_hundred_thousand_actors_leave_no_memory_allocated(system: EventLoopSystem) -> None:
    """The few blocks that are left do not depend on the number of actors."""
    maker = system.createActor(Maker)

    async def make(*what: tuple[type, int]) -> None:
        for kind, count in what:
            message = functools.partial(Maker.make, kind=kind, count=count)
            assert await system.ask(maker, message) == "done"
        await until(lambda: not system.base.threads)

    # The first actors allocate what Python and the loop keep for ever.
    await make((Puppet, 2000), (ThreadPuppet, 20))
    before = allocated()
    for _ in range(4):
        await make((Puppet, 24_950), (ThreadPuppet, 50))

    assert allocated() - before < 500


@on_loop()
async def test_an_ended_loop_actor_is_freed_without_the_garbage_collector(system: EventLoopSystem) -> None:
    puppet = system.createActor(Puppet)
    ended = await system.ask(puppet, reply(weakref.ref), 10)
    gc.disable()
    try:
        system.tell(puppet, ActorExitRequest())
        await until(lambda: ended() is None)
    finally:
        gc.enable()


@on_loop()
async def test_asks_leave_nothing_behind_however_they_end(system: EventLoopSystem) -> None:
    echo, silent = system.createActor(Echo), system.createActor(Puppet)
    asks, receivers = alive(Ask), dict(system.base.receivers)

    await asyncio.gather(*[system.ask(echo, number, 1000) for number in range(1000)])
    await asyncio.gather(*[system.ask(silent, number, 0.001) for number in range(1000)])
    for _ in range(100):
        system.ask(silent, "?", 1000).cancel()

    # Until the next turn, the loop holds a reference to the future that has woken this task.
    await asyncio.sleep(0)

    assert system.base.receivers == receivers
    assert alive(Ask) == asks


@on_loop()
async def test_messages_to_the_outside_without_a_listener_do_not_pile_up(system: EventLoopSystem) -> None:
    puppet = system.createActor(Puppet)

    def flood(me: Any, sender: Any) -> None:
        for number in range(WAITING_LIMIT + 100):
            me.send(sender, number)

    system.tell(puppet, flood)
    await until(lambda: system.base.dead_letters == 100)

    assert await system.listen(0) == 0
