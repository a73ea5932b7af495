"""Nothing is left of actors, asks and wake-ups that are over: a node runs for months."""

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
"""For a hundred thousand actors: on an idle machine they take five seconds."""


def alive(kind: type) -> int:
    """Return how many objects of a kind there are."""
    gc.collect()
    return sum(isinstance(each, kind) for each in gc.get_objects())


class Maker(Puppet):
    """Makes children one after the other, each of which exits before the next is made."""

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
async def test_many_actors_created_and_ended_leave_nothing(system: EventLoopSystem) -> None:
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
    """Return how many blocks of memory Python objects take."""
    gc.collect()
    return sys.getallocatedblocks()


@on_loop(within_s=MANY_WITHIN_S)
async def test_a_hundred_thousand_actors_leave_no_memory_taken(system: EventLoopSystem) -> None:
    """Whatever they did in their lives: the few blocks that are left have nothing to do with their number."""
    maker = system.createActor(Maker)

    async def make(*what: tuple[type, int]) -> None:
        for kind, count in what:
            message = functools.partial(Maker.make, kind=kind, count=count)
            assert await system.ask(maker, message) == "done"
        await until(lambda: not system.base.threads)

    # What Python and the loop keep once and for all is there after the first ones.
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
async def test_asks_leave_nothing_however_they_end(system: EventLoopSystem) -> None:
    echo, silent = system.createActor(Echo), system.createActor(Puppet)
    asks, receivers = alive(Ask), dict(system.base.receivers)

    await asyncio.gather(*[system.ask(echo, number, 1000) for number in range(1000)])
    await asyncio.gather(*[system.ask(silent, number, 0.001) for number in range(1000)])
    for _ in range(100):
        system.ask(silent, "?", 1000).cancel()

    # The loop itself holds on to what has woken this task until the next turn.
    await asyncio.sleep(0)

    assert system.base.receivers == receivers
    assert alive(Ask) == asks


@on_loop()
async def test_messages_to_the_outside_that_nobody_listens_for_do_not_pile_up(system: EventLoopSystem) -> None:
    puppet = system.createActor(Puppet)

    def flood(me: Any, sender: Any) -> None:
        for number in range(WAITING_LIMIT + 100):
            me.send(sender, number)

    system.tell(puppet, flood)
    await until(lambda: system.base.dead_letters == 100)

    assert await system.listen(0) == 0
