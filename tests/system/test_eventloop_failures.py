"""Handlers that raise: a second attempt, then poison for the sender; and the exceptions to that rule."""

from __future__ import annotations

import asyncio
import copy
import logging
from typing import Any

import pytest
from thespian.actors import Actor, ChildActorExited, PoisonMessage, WakeupMessage

from raftkv.actors.system.base.eventloop import EventLoopSystem, start_on_loop
from tests.system.eventloop_tools import Echo, Puppet, create, on_loop, reply, seen, seen_by, until


class Grumpy(Actor):
    """Raises the exception in a message on every attempt, and keeps the attempts."""

    def __init__(self) -> None:
        super().__init__()
        self.attempts: list[Any] = []

    def receiveMessage(self, message: Any, sender: Any) -> None:
        if message == "attempts":
            self.send(sender, self.attempts)
        elif isinstance(message, tuple):
            self.attempts.append(message)
            raise message[0]


class ThreadGrumpy(Grumpy):
    """The same on a thread of its own."""

    own_thread = True


class GrumpyOnce(Grumpy):
    """Has its second attempt turned off."""

    retry_failed_messages = False


class GrumpyAtFirst(Grumpy):
    """Fails only at the first attempt."""

    def receiveMessage(self, message: Any, sender: Any) -> None:
        self.attempts.append(message)
        if len(self.attempts) == 1:
            raise ValueError
        self.send(sender, "managed")


@on_loop()
async def test_a_message_that_fails_twice_is_returned_as_poison(system: EventLoopSystem) -> None:
    for failing in (Grumpy, ThreadGrumpy):
        for error in (ValueError("no"), asyncio.CancelledError("no"), GeneratorExit("no")):
            actor, message = system.createActor(failing), (error,)

            poison = await system.ask(actor, message, 10)

            assert isinstance(poison, PoisonMessage)
            assert poison.poisonMessage is message
            assert f"{type(error).__name__}: no" in poison.details
            attempts = await system.ask(actor, "attempts", 10)
            assert len(attempts) == 2
            # The second attempt gets a copy: the first may have changed the message.
            assert [attempt is message for attempt in attempts] == [True, False]


@on_loop()
async def test_a_class_can_turn_the_second_attempt_off(system: EventLoopSystem) -> None:
    actor, message = system.createActor(GrumpyOnce), (ValueError("no"),)

    assert (await system.ask(actor, message, 10)).poisonMessage is message
    assert await system.ask(actor, "attempts", 10) == [message]


@on_loop()
async def test_a_second_attempt_may_succeed(system: EventLoopSystem) -> None:
    assert await system.ask(system.createActor(GrumpyAtFirst), "do it", 10) == "managed"


@on_loop()
async def test_a_message_that_can_not_be_copied_counts_as_failed_twice(system: EventLoopSystem) -> None:
    class Unique(ValueError):
        def __deepcopy__(self, memo: Any) -> Any:
            raise copy.Error("there is only one")

    actor, message = system.createActor(Grumpy), (Unique(),)

    assert "there is only one" in (await system.ask(actor, message, 10)).details


@on_loop()
async def test_failing_on_poison_returns_no_poison(system: EventLoopSystem) -> None:
    """An actor that fails on returned poison goes on with its next message."""
    grumpy, echo = system.createActor(Grumpy), system.createActor(Echo)

    class Sensitive(Puppet):
        def receiveMessage(self, message: Any, sender: Any) -> None:
            super().receiveMessage(message, sender)
            if isinstance(message, PoisonMessage):
                raise RuntimeError("how dare you")

    sensitive = system.createActor(Sensitive)
    system.tell(sensitive, lambda me, _: me.send(grumpy, (ValueError("no"),)))
    await system.ask(grumpy, "attempts", 10)
    await system.ask(echo, "after", 10)

    assert [type(message) for message in await system.ask(sensitive, seen, 10)] == [PoisonMessage, PoisonMessage]


@on_loop()
async def test_a_parent_that_fails_on_a_child_exit_has_still_lost_the_child(system: EventLoopSystem) -> None:
    class Touchy(Puppet):
        def receiveMessage(self, message: Any, sender: Any) -> None:
            super().receiveMessage(message, sender)
            if isinstance(message, ChildActorExited):
                raise RuntimeError("no bad news, please")

    def leave(me: Any, sender: Any) -> None:
        raise SystemExit

    parent = system.createActor(Touchy)
    child = await system.ask(parent, create(), 10)
    system.tell(child, leave)
    await until(lambda: child.number not in system.base.receivers)

    assert await system.ask(parent, reply(lambda me: me._myRef.children), 10) == {}
    assert await system.ask(parent, seen, 10) == [ChildActorExited(child), ChildActorExited(child)]


@on_loop()
async def test_a_failed_wakeup_returns_poison_to_the_actor_itself(system: EventLoopSystem) -> None:
    class Sleepy(Puppet):
        def receiveMessage(self, message: Any, sender: Any) -> None:
            super().receiveMessage(message, sender)
            if isinstance(message, WakeupMessage):
                raise RuntimeError("five more minutes")

    sleepy = system.createActor(Sleepy)
    system.tell(sleepy, lambda me, _: me.wakeupAfter(0, "up!"))
    wakeup = WakeupMessage(0, "up!")
    assert await seen_by(system, sleepy, 3) == [wakeup, wakeup, PoisonMessage(wakeup)]


def test_a_keyboard_interrupt_propagates_and_keeps_the_rest_of_the_queue() -> None:
    """The program handles it; if it runs the loop again, all actors and messages are in place."""
    loop = asyncio.new_event_loop()
    made: list[Any] = []

    def interrupt(me: Any, sender: Any) -> None:
        raise KeyboardInterrupt

    async def run() -> None:
        system = start_on_loop()
        puppet = system.createActor(Puppet)
        made.extend((system, puppet))
        system.tell(puppet, interrupt)
        system.tell(puppet, "after it")
        await asyncio.Event().wait()

    async def resume(system: EventLoopSystem, puppet: Any) -> None:
        assert await system.ask(puppet, seen, 10) == ["after it"]
        base = system.base
        system.shutdown()
        await base.wait_closed()

    first = loop.create_task(run())
    with pytest.raises(KeyboardInterrupt):
        loop.run_until_complete(first)
    loop.run_until_complete(resume(*made))
    first.cancel()
    loop.run_until_complete(asyncio.wait([first]))
    loop.close()


@on_loop()
async def test_failures_are_logged_with_their_traceback(system: EventLoopSystem) -> None:
    records: list[logging.LogRecord] = []
    handler = logging.Handler()
    handler.emit = records.append  # type: ignore[method-assign, assignment]
    logger = logging.getLogger("raftkv.system")
    logger.addHandler(handler)
    try:
        await system.ask(system.createActor(Grumpy), (ValueError("no"),), 10)
    finally:
        logger.removeHandler(handler)

    assert [(record.levelname, str(record.exc_info[1])) for record in records if record.exc_info] == [
        ("WARNING", "no"),
        ("ERROR", "no"),
    ]
