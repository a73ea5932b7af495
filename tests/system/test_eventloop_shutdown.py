"""Shutdown, begun from every thread: all actors exit, every wait ends, no thread is left."""

from __future__ import annotations

import asyncio
import signal
import threading
from typing import Any

import pytest
from thespian.actors import ActorExitRequest, ActorSystem, ActorSystemFailure

from raftkv.actors.system.base import eventloop
from raftkv.actors.system.base.eventloop import EventLoopSystem, start_on_loop
from tests.system.eventloop_tools import (
    WITHIN_S,
    Puppet,
    ThreadPuppet,
    create,
    on_loop,
    reply,
    until,
    until_blocking,
)


@pytest.fixture
def by_name() -> Any:
    """A system that Thespian creates by name, with a loop thread of its own."""
    eventloop.install()
    threads = set(threading.enumerate())
    system = ActorSystem(eventloop.BASE_NAME, {}, transientUnique=True)
    base = system._systemBase
    yield system
    base.shutdown()
    until_blocking(lambda: set(threading.enumerate()) <= threads)
    assert (base.receivers, base.names, base.threads, base.loop.is_closed()) == ({}, {}, set(), True)


def mail(base: Any, puppet: Any) -> list[Any]:
    """Return the messages that a puppet has kept, without asking it."""
    return list(base.receivers[puppet.number].instance.seen)


@on_loop()
async def test_shutdown_on_the_loop_returns_at_once_and_can_be_awaited(system: EventLoopSystem) -> None:
    exits: list[str] = []

    class Noting(Puppet):
        def receiveMessage(self, message: Any, sender: Any) -> None:
            super().receiveMessage(message, sender)
            if isinstance(message, ActorExitRequest):
                exits.append(self.globalName)

    class ThreadNoting(Noting):
        own_thread = True

    parent = system.createActor(Noting, globalName="parent")
    child = await system.ask(parent, create(ThreadNoting, globalName="child"), 10)
    await system.ask(child, create(Noting, globalName="grandchild"), 10)
    system.createActor(ThreadNoting, globalName="other")
    base = system.base

    system.shutdown()
    assert "parent" not in exits
    await asyncio.gather(base.wait_closed(), base.wait_closed())
    await base.wait_closed()

    assert sorted(exits) == ["child", "grandchild", "other", "parent"]
    assert [name for name in exits if name != "other"] == ["parent", "child", "grandchild"]


@on_loop()
async def test_a_shutdown_releases_asks_and_listeners(system: EventLoopSystem) -> None:
    puppet = system.createActor(Puppet)
    base = system.base
    asks = [system.ask(puppet, "?"), system.ask(puppet, "?", 1000), system.listen(), system.listen(1000)]
    with system.private() as private:
        asks.append(private.listen())
        blocked = asyncio.get_running_loop().run_in_executor(None, base.ask, puppet, "?", None)
        await until(lambda: len(mail(base, puppet)) == 3)

        system.shutdown()

        assert await asyncio.gather(*asks, blocked) == [None] * 6
        assert await private.ask(puppet, "?", 1000) is None
    assert await base.ask(puppet, "?", 1000) is None


@on_loop()
async def test_after_the_shutdown_creation_is_refused_and_messages_are_dead_letters(system: EventLoopSystem) -> None:
    puppet = system.createActor(Puppet)
    base = system.base
    base.shutdown()
    with pytest.raises(ActorSystemFailure):
        base.newPrimaryActor(Puppet)
    await base.wait_closed()

    letters = base.dead_letters
    base.tell(puppet, "too late")
    with pytest.raises(ActorSystemFailure):
        base.newPrimaryActor(Puppet)

    assert base.dead_letters == letters + 1


@on_loop()
async def test_an_actor_may_shut_the_system_down(system: EventLoopSystem) -> None:
    system.tell(system.createActor(Puppet), lambda me, _: me.actorSystemShutdown())
    await system.base.wait_closed()


@on_loop()
async def test_a_thread_actor_may_shut_the_system_down_either_way(system: EventLoopSystem) -> None:
    def shut_down(me: Any, sender: Any) -> None:
        system.base.shutdown()
        me.actorSystemShutdown()

    system.tell(system.createActor(ThreadPuppet), shut_down)
    await system.base.wait_closed()


@on_loop()
async def test_a_shutdown_from_another_thread_blocks_until_the_end(system: EventLoopSystem) -> None:
    puppet = system.createActor(Puppet)

    await asyncio.get_running_loop().run_in_executor(None, system.base.shutdown)

    assert puppet.number not in system.base.receivers
    await system.base.wait_closed()


@on_loop(shutdown_timeout_s=0.05)
async def test_a_blocked_thread_actor_is_given_up(system: EventLoopSystem) -> None:
    stuck, freed = threading.Event(), threading.Event()

    def get_stuck(me: Any, sender: Any) -> None:
        stuck.set()
        freed.wait(WITHIN_S)
        me.send(me.myAddress, "undeliverable")

    puppet = system.createActor(ThreadPuppet)
    parent = system.createActor(Puppet)
    child = await system.ask(parent, create(ThreadPuppet), 10)
    system.tell(puppet, get_stuck)
    threads = [system.base.receivers[address.number].thread for address in (puppet, child)]
    await until(stuck.is_set)

    system.base.shutdown()
    await system.base.wait_closed()

    # Actors that are not blocked end; on a busy machine they may need longer than the shutdown time-out.
    await until(lambda: not threads[1].is_alive())
    assert threads[0].is_alive()
    freed.set()
    await until(lambda: not threads[0].is_alive())


@on_loop(shutdown_timeout_s=0.05)
async def test_a_thread_actor_that_blocks_in_its_init_is_given_up(system: EventLoopSystem) -> None:
    stuck, freed = threading.Event(), threading.Event()

    class Slow(ThreadPuppet):
        def __init__(self) -> None:
            stuck.set()
            freed.wait(WITHIN_S)
            super().__init__()

    thread = system.base.receivers[system.createActor(Slow).number].thread
    await until(stuck.is_set)

    system.base.shutdown()
    await system.base.wait_closed()

    assert thread.is_alive()
    freed.set()
    await until(lambda: not thread.is_alive())


def test_a_system_by_name_ends_with_its_threads(by_name: Any) -> None:
    parent = by_name.createActor(Puppet)
    by_name.ask(parent, create(ThreadPuppet), 10)

    assert by_name.ask(parent, reply(lambda me: threading.current_thread().name), 10) == "actor-loop"

    by_name.shutdown()


def test_a_system_by_name_may_be_shut_down_by_an_actor(by_name: Any) -> None:
    base = by_name._systemBase
    by_name.tell(by_name.createActor(Puppet), lambda me, _: (base.shutdown(), me.actorSystemShutdown()))
    until_blocking(base.loop.is_closed)

    with pytest.raises(ActorSystemFailure):
        by_name.createActor(Puppet)
    assert by_name.ask(base.address, "anybody there?", 1000) is None


def test_a_blocked_ask_is_released_by_a_shutdown(by_name: Any) -> None:
    puppet = by_name.createActor(Puppet)
    base = by_name._systemBase
    replies: list[Any] = []
    threads = [
        threading.Thread(target=lambda ask=ask: replies.append(ask()))
        for ask in (lambda: by_name.ask(puppet, "?"), lambda: by_name.listen(), lambda: base.ask(puppet, "?", 1000))
    ]
    for thread in threads:
        thread.start()
    until_blocking(lambda: len(mail(base, puppet)) == 2)

    base.shutdown()

    for thread in threads:
        thread.join(WITHIN_S)
    assert replies == [None, None, None]


def test_a_keyboard_interrupt_in_a_handler_is_passed_to_the_main_thread(
    by_name: Any, request: pytest.FixtureRequest
) -> None:
    # A shell makes its background jobs ignore this signal.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    request.addfinalizer(lambda: signal.signal(signal.SIGINT, before))

    def interrupt(me: Any, sender: Any) -> None:
        raise KeyboardInterrupt

    puppet = by_name.createActor(Puppet)
    with pytest.raises(KeyboardInterrupt):
        by_name.ask(puppet, interrupt, 10)

    assert by_name.ask(puppet, reply(lambda me: "alive"), 10) == "alive"


def test_a_system_on_a_closed_loop_refuses_calls_and_makes_dead_letters() -> None:
    async def start() -> tuple[EventLoopSystem, Any]:
        system = start_on_loop()
        return system, system.createActor(Puppet)

    system, puppet = asyncio.run(start())

    system.tell(puppet, "?")
    system.base.shutdown()
    assert system.base.dead_letters == 1
    with pytest.raises(ActorSystemFailure):
        system.createActor(Puppet)
