"""The life cycle of actors: creation, names, exit, and what happens to their children and their messages."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

import pytest
from thespian.actors import (
    Actor,
    ActorExitRequest,
    ActorSystemException,
    ChildActorExited,
    InvalidActorSpecification,
    NoCompatibleSystemForActor,
    Thespian_StatusReq,
    requireCapability,
)

from raftkv.actors.system.base.eventloop import EventLoopSystem, remote_address
from tests.system.eventloop_tools import Echo, Puppet, ThreadPuppet, create, on_loop, reply, seen, seen_by, until


class Stillborn(Actor):
    """Fails in its __init__."""

    def __init__(self) -> None:
        raise ValueError("can't be made")


class ThreadStillborn(Stillborn):
    """Fails in its __init__, on its own thread."""

    own_thread = True


class WithArguments(Puppet):
    """Takes the arguments that Thespian passes on request."""

    def __init__(self, capabilities: Any, requirements: Any = None) -> None:
        super().__init__()
        self.seen = [capabilities["colour"], requirements]


@requireCapability("colour", "red")
class Red(Puppet):
    """Requires a red system."""


class Forwarding(list[Any]):
    """A list for the messages of a puppet that forwards them to an observer instead."""

    def __init__(self, me: Any, observer: Any) -> None:
        super().__init__()
        self.me = me
        self.observer = observer

    def append(self, message: Any) -> None:
        self.me.send(self.observer, (self.me.myAddress, message))


KINDS = (Puppet, ThreadPuppet)


@on_loop(capabilities={"colour": "red"})
async def test_an_actor_is_created_with_the_arguments_that_its_init_names(system: EventLoopSystem) -> None:
    puppet = system.createActor(WithArguments, {"size": 3})

    assert await system.ask(puppet, seen, 10) == ["red", {"size": 3}]


@on_loop()
async def test_creating_from_outside_raises_what_is_wrong_with_the_class(system: EventLoopSystem) -> None:
    for wrong, error in (
        (Stillborn, ValueError),
        ("Unqualified", InvalidActorSpecification),
        ("tests.system.eventloop_tools.Missing", InvalidActorSpecification),
        ("no_such_module.Actor", ImportError),
        (Red, NoCompatibleSystemForActor),
    ):
        with pytest.raises(error):
            system.createActor(wrong, globalName="taken?")

    assert system.base.names == {}
    assert system.base.guardian.children == {}


@on_loop()
async def test_a_child_that_can_not_be_created_exits_at_once(system: EventLoopSystem) -> None:
    for parent_class in KINDS:
        for wrong in (Stillborn, ThreadStillborn, "Unqualified", "no_such_module.Actor", Red):
            parent = system.createActor(parent_class)
            child = await system.ask(parent, create(wrong, globalName="child"), 10)
            await until(lambda child=child: child.number not in system.base.receivers)  # type: ignore[misc]

            assert await seen_by(system, parent, 1) == [ChildActorExited(child)]
            assert system.base.names == {}


@on_loop()
async def test_a_parent_is_notified_of_a_childs_exit_after_which_the_child_handles_nothing(
    system: EventLoopSystem,
) -> None:
    for parent_class in KINDS:
        for child_class in KINDS:
            parent = system.createActor(parent_class)
            child = await system.ask(parent, create(child_class), 10)
            letters = system.base.dead_letters

            def exit_and_more(me: Any, sender: Any, parent: Any = parent) -> None:
                me.send(me.myAddress, ActorExitRequest())
                me.send(me.myAddress, lambda me, sender: me.send(parent, "handled after the exit"))
                me.send(me.myAddress, "in the mailbox at the exit")

            system.tell(child, exit_and_more)
            await until(lambda letters=letters: system.base.dead_letters == letters + 2)  # type: ignore[misc]

            assert await seen_by(system, parent, 1) == [ChildActorExited(child)]


@on_loop()
async def test_an_exit_request_reaches_all_descendants_and_children_exit_first(system: EventLoopSystem) -> None:
    for parent_class, child_class in itertools.product(KINDS, KINDS):
        observer, parent = system.createActor(Puppet), system.createActor(parent_class)
        child = await system.ask(parent, create(child_class), 10)
        grandchild = await system.ask(child, create(Puppet), 10)
        for address in (parent, child, grandchild):
            system.tell(address, lambda me, _, observer=observer: setattr(me, "seen", Forwarding(me, observer)))

        system.tell(parent, ActorExitRequest())
        await until(lambda parent=parent: parent.number not in system.base.receivers)  # type: ignore[misc]

        # The messages of one actor are in order; those of several on different threads are not.
        forwarded = await system.ask(observer, seen, 10)
        assert [
            [message for source, message in forwarded if source == address] for address in (parent, child, grandchild)
        ] == [
            [ActorExitRequest(), ChildActorExited(child)],
            [ActorExitRequest(), ChildActorExited(grandchild)],
            [ActorExitRequest()],
        ]


@on_loop()
async def test_children_survive_a_parent_that_exits_without_them(system: EventLoopSystem) -> None:
    for parent_class in KINDS:
        for child_class in KINDS:
            parent = system.createActor(parent_class)
            child = await system.ask(parent, create(child_class), 10)

            system.tell(parent, ActorExitRequest(recursive=False))
            await until(lambda parent=parent: parent.number not in system.base.receivers)  # type: ignore[misc]

            assert await system.ask(child, reply(lambda me: "alive"), 10) == "alive"
            await until(lambda child=child: child.number in system.base.guardian.children)  # type: ignore[misc]


@on_loop()
async def test_system_exit_ends_only_the_actor_and_its_children(system: EventLoopSystem) -> None:
    for child_class in KINDS:
        parent = system.createActor(Puppet)
        child = await system.ask(parent, create(child_class), 10)
        grandchild = await system.ask(child, create(), 10)

        def leave(me: Any, sender: Any) -> None:
            raise SystemExit(3)

        system.tell(child, leave)
        await until(lambda child=child: child.number not in system.base.receivers)  # type: ignore[misc]

        assert await seen_by(system, parent, 1) == [ChildActorExited(child)]
        assert grandchild.number not in system.base.receivers


@on_loop()
async def test_an_actor_may_exit_while_its_wakeups_are_pending(system: EventLoopSystem) -> None:
    for puppet_class in KINDS:
        puppet = system.createActor(puppet_class)
        system.tell(puppet, lambda me, _: me.wakeupAfter(0.001))
        system.tell(puppet, lambda me, _: me.wakeupAfter(1000))
        system.tell(puppet, ActorExitRequest())
        await until(lambda puppet=puppet: puppet.number not in system.base.receivers)  # type: ignore[misc]

    assert await system.listen(0.01) is None
    assert system.base.dead_letters == 0


@on_loop(node_id="n1")
async def test_a_global_name_belongs_to_one_actor_until_it_exits(system: EventLoopSystem) -> None:
    first = system.createActor(Puppet, globalName="one")
    parent = system.createActor(Puppet)

    assert system.createActor("no.such.Class", globalName="one") is first
    assert await system.ask(parent, create(Echo, globalName="one"), 10) is first
    assert await system.ask(first, reply(lambda me: me.globalName), 10) == "one"
    assert await system.ask(remote_address("n1", "one"), reply(lambda me: me.myAddress), 10) is first

    system.tell(first, ActorExitRequest())
    await until(lambda: system.base.names == {})
    assert await system.ask(parent, create(Echo, globalName="one"), 10) != first
    assert await system.ask(parent, seen, 10) == []


@on_loop()
async def test_a_global_name_is_given_once_and_messages_wait_for_its_actor(
    system: EventLoopSystem,
) -> None:
    """Actors on several threads create and use it at the same time; none of their messages arrives too early."""
    threads = [system.createActor(ThreadPuppet) for _ in range(4)]
    for name, kind in itertools.product("abcdefgh", KINDS):

        def create_and_use(me: Any, sender: Any, name: str = f"{name} {kind.__name__}", kind: type = kind) -> None:
            address = me.createActor(kind, globalName=name)
            me.send(address, "used")
            me.send(sender, address)

        got = await asyncio.gather(*[system.ask(thread, create_and_use, 10) for thread in threads])

        assert got == [got[0]] * len(threads)
        assert await system.ask(got[0], seen, 10) == ["used"] * len(threads)
    assert system.base.dead_letters == 0


@on_loop(capabilities={"colour": "red"})
async def test_actors_exit_when_a_required_capability_is_removed(system: EventLoopSystem) -> None:
    red, parent = system.createActor(Red), system.createActor(Puppet)
    child = await system.ask(parent, create(Red), 10)

    system.updateCapability("colour", "blue")
    await until(lambda: red.number not in system.base.receivers)

    assert await seen_by(system, parent, 1) == [ChildActorExited(child)]
    with pytest.raises(ActorSystemException):
        system.createActor(Red)


@on_loop()
async def test_status_requests_are_answered_for_actors_and_for_the_system(system: EventLoopSystem) -> None:
    parent = system.createActor(Puppet, globalName="parent")
    child = await system.ask(parent, create(ThreadPuppet), 10)
    for address in (parent, child):
        await system.ask(address, reply(lambda me: me.wakeupAfter(1000)), 10)

    of_parent = await system.ask(parent, Thespian_StatusReq(), 10)
    of_child = await system.ask(child, Thespian_StatusReq(), 10)
    of_system = await system.ask(system.systemAddress, Thespian_StatusReq(), 10)

    assert (of_parent.actorAddress, of_parent.childActors, len(of_parent.pendingWakeups)) == (parent, [child], 1)
    assert (of_child.actorAddress, of_child.parentAddress, len(of_child.pendingWakeups)) == (child, parent, 1)
    assert (of_system.childActors, of_system.globalActors) == ([parent], {"parent": parent})
