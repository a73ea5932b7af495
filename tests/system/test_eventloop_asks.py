"""Awaitable asks: each has an address of its own, a time-out, and an end."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from thespian.actors import ActorExitRequest, DeadEnvelope, PoisonMessage

from raftkv.actors.system.base.eventloop import EventLoopSystem
from tests.system.eventloop_tools import Echo, Puppet, ThreadPuppet, on_loop, reply, until


@on_loop()
async def test_concurrent_asks_each_get_their_own_reply(system: EventLoopSystem) -> None:
    """One actor answers in reverse order, another one at once."""
    echo = system.createActor(Echo)
    holder = system.createActor(Puppet)
    asks = [
        asyncio.ensure_future(system.ask(holder, lambda me, sender, n=n: me.seen.append((sender, n)), 10))
        for n in range(500)
    ]

    def release(me: Any, _: Any) -> None:
        for sender, number in reversed(me.seen):
            me.send(sender, number)

    direct = [system.ask(echo, -n, 10) for n in range(500)]
    system.tell(holder, release)

    assert await asyncio.gather(*asks) == list(range(500))
    assert await asyncio.gather(*direct) == [-n for n in range(500)]


@on_loop()
async def test_an_ask_without_a_reply_resolves_to_none(system: EventLoopSystem) -> None:
    silent = system.createActor(Puppet)

    asks = [system.ask(silent, "?", timeout) for timeout in (0, 0.001, 1e-9, timedelta(milliseconds=1))]

    assert await asyncio.gather(*asks) == [None, None, None, None]


@on_loop()
async def test_an_ask_without_a_time_out_waits_for_its_reply(system: EventLoopSystem) -> None:
    puppet = system.createActor(Puppet)
    ask = system.ask(puppet, lambda me, sender: me.seen.append(sender))

    system.tell(puppet, lambda me, _: me.send(me.seen.pop(), "at last"))

    assert await ask == "at last"


@on_loop()
async def test_replies_after_the_first_and_after_the_time_out_are_dead_letters(system: EventLoopSystem) -> None:
    undertaker, puppet = system.createActor(Puppet), system.createActor(Puppet)
    system.tell(undertaker, lambda me, _: me.handleDeadLetters())

    def answer_twice(me: Any, sender: Any) -> None:
        me.send(sender, "first")
        me.send(sender, "second")

    assert await system.ask(puppet, answer_twice, 10) == "first"
    assert await system.ask(puppet, lambda me, sender: me.seen.append(sender), 0.001) is None
    late: Any = await system.ask(puppet, reply(lambda me: me.seen[0]), 10)
    system.tell(puppet, lambda me, _: me.send(late, "late"))

    await until(lambda: system.base.dead_letters == 2)
    letters = await system.ask(undertaker, reply(lambda me: list(me.seen)), 10)
    assert [letter.deadMessage for letter in letters] == ["second", "late"]
    assert letters[1] == DeadEnvelope(late, "late")


@on_loop()
async def test_an_ask_to_a_dead_actor_resolves_to_none_at_its_time_out(system: EventLoopSystem) -> None:
    puppet = system.createActor(Puppet)
    system.tell(puppet, ActorExitRequest())

    assert await system.ask(puppet, "anybody there?", 0.001) is None
    assert system.base.dead_letters == 1


@on_loop()
async def test_a_cancelled_ask_leaves_nothing_behind(system: EventLoopSystem) -> None:
    puppet = system.createActor(Puppet)
    before = set(system.base.receivers)

    async def asking() -> None:
        await system.ask(puppet, lambda me, sender: me.seen.append(sender), 1000)

    task = asyncio.ensure_future(asking())
    await until(lambda: set(system.base.receivers) != before)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert set(system.base.receivers) == before
    system.tell(puppet, lambda me, _: me.send(me.seen[0], "too late"))
    await until(lambda: system.base.dead_letters == 1)


@on_loop()
async def test_none_is_a_valid_reply(system: EventLoopSystem) -> None:
    puppet = system.createActor(Puppet)

    assert await system.ask(puppet, reply(lambda me: None)) is None


@on_loop()
async def test_system_messages_do_not_count_as_replies_but_poison_does(system: EventLoopSystem) -> None:
    puppet = system.createActor(Puppet)

    def answer(me: Any, sender: Any) -> None:
        me.send(sender, ActorExitRequest())
        me.send(sender, "the reply")

    def fail(me: Any, sender: Any) -> None:
        raise ValueError("not like this")

    assert await system.ask(puppet, answer, 10) == "the reply"
    poison = await system.ask(puppet, fail, 10)
    assert poison == PoisonMessage(fail)
    assert "ValueError: not like this" in poison.details


@on_loop()
async def test_a_thread_actor_answers_asks(system: EventLoopSystem) -> None:
    puppet = system.createActor(ThreadPuppet)

    asks = [system.ask(puppet, reply(lambda me, n=n: n), 10) for n in range(200)]  # type: ignore[misc]

    assert await asyncio.gather(*asks) == list(range(200))


@on_loop()
async def test_listen_gets_messages_to_the_outside_in_order(system: EventLoopSystem) -> None:
    puppet = system.createActor(Puppet)
    early = system.listen(10)

    def answer(me: Any, sender: Any) -> None:
        for number in range(3):
            me.send(sender, number)

    system.tell(puppet, answer)

    assert [await early, await system.listen(10), await system.listen(10)] == [0, 1, 2]
    assert await system.listen(0.001) is None


@on_loop()
async def test_private_contexts_do_not_get_each_others_messages(system: EventLoopSystem) -> None:
    puppet = system.createActor(Puppet)
    with system.private() as one, system.private() as two:
        one.tell(puppet, reply(lambda me: "for one"))
        two.tell(puppet, reply(lambda me: "for two"))

        assert await two.ask(puppet, reply(lambda me: "asked"), 10) == "asked"
        assert [await one.listen(10), await two.listen(10)] == ["for one", "for two"]


@on_loop()
async def test_a_private_context_is_closed_when_its_block_raises(system: EventLoopSystem) -> None:
    before = set(system.base.receivers)

    def raising() -> None:
        with system.private():
            raise KeyError("oops")

    with pytest.raises(KeyError):
        raising()

    assert set(system.base.receivers) == before
