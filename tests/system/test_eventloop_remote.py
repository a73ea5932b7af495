"""Other nodes: addresses by name, messages to and from the transport, and convention updates."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest
from thespian.actors import ActorAddress, ActorExitRequest, ActorSystemConventionUpdate, DeadEnvelope, PoisonMessage

from raftkv.actors.system.base.eventloop import EventLoopSystem, NodeAddress, remote_address, start_on_loop
from tests.system.eventloop_tools import Echo, Puppet, ThreadPuppet, on_loop, reply, seen, until


class Wire:
    """A transport that keeps messages, or delivers them to the base of the peer."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, str, str, Any]] = []
        self.threads: set[int] = set()
        self.ends: dict[str, tuple[str, Any]] = {}

    def send(self, peer: str, target: str, source: str, message: Any) -> None:
        self.threads.add(threading.get_ident())
        self.sent.append((peer, target, source, message))
        if peer in self.ends:
            me, base = self.ends[peer]
            base.deliver(me, target, source, message)


wire = Wire()


@pytest.fixture(autouse=True)
def _empty_wire() -> None:
    wire.__init__()  # type: ignore[misc]


def test_an_address_by_name_shows_its_node_and_name() -> None:
    address = remote_address("n2", "node")

    assert isinstance(address, ActorAddress)
    assert (address.node_id, address.name, address.addressDetails) == ("n2", "node", ("n2", "node"))
    assert (str(address), address.actorAddressString) == ("ActorAddr-n2/node", "n2/node")
    assert address == remote_address("n2", "node")
    assert [address == other for other in (remote_address("n2", "x"), remote_address("n1", "node"), "n2/node")] == [
        False
    ] * 3
    assert [address != other for other in (remote_address("n2", "node"), remote_address("n2", "x"), 5)] == [
        False,
        True,
        True,
    ]
    with pytest.raises(TypeError, match="unhashable"):
        hash(address)


@on_loop(node_id="n1", transport=wire)
async def test_messages_to_a_peer_go_to_the_transport_on_the_loops_thread(system: EventLoopSystem) -> None:
    peer = remote_address("n2", "node")
    named = system.createActor(Puppet, globalName="mine")
    on_thread = system.createActor(ThreadPuppet, globalName="threaded")
    nameless = system.createActor(Puppet)

    system.tell(peer, 1)
    for number, actor in ((2, named), (3, on_thread), (4, nameless)):
        await system.ask(actor, reply(lambda me, number=number: me.send(peer, number)), 10)  # type: ignore[misc]
    await until(lambda: len(wire.sent) == 4)

    assert sorted(wire.sent, key=lambda sent: sent[3]) == [
        ("n2", "node", "", 1),
        ("n2", "node", "mine", 2),
        ("n2", "node", "threaded", 3),
        ("n2", "node", "", 4),
    ]
    assert wire.threads == {threading.get_ident()}


@on_loop(node_id="n1", transport=wire)
async def test_a_thread_actors_messages_to_a_peer_keep_their_order(system: EventLoopSystem) -> None:
    puppet = system.createActor(ThreadPuppet, globalName="p")

    def burst(me: Any, sender: Any) -> None:
        for number in range(500):
            me.send(remote_address("n2", "node"), number)

    system.tell(puppet, burst)
    await until(lambda: len(wire.sent) == 500)

    assert wire.sent == [("n2", "node", "p", number) for number in range(500)]


@on_loop(node_id="n1", transport=wire)
async def test_a_name_on_our_own_node_is_local(system: EventLoopSystem) -> None:
    puppet = system.createActor(Puppet, globalName="mine")

    assert await system.ask(remote_address("n1", "mine"), reply(lambda me: me.myAddress), 10) is puppet
    assert await system.ask(remote_address("n1", "nobody"), "?", 0.001) is None
    assert (wire.sent, system.base.dead_letters) == ([], 1)


@on_loop(node_id="n1", transport=wire)
async def test_messages_from_a_peer_carry_the_senders_address(
    system: EventLoopSystem,
) -> None:
    def note(me: Any, sender: Any) -> None:
        me.seen.append(sender)

    puppet = system.createActor(Puppet, globalName="node")
    system.base.deliver("n2", "node", "node", note)
    assert (await system.ask(puppet, seen, 10)) == [remote_address("n2", "node")]

    system.base.deliver("n2", "node", "asker", lambda me, sender: me.send(sender, "answer"))
    await until(lambda: wire.sent)
    assert wire.sent == [("n2", "asker", "node", "answer")]


@on_loop(node_id="n1", transport=wire)
async def test_undeliverable_messages_are_dead_letters(system: EventLoopSystem) -> None:
    undertaker = system.createActor(Puppet)
    await system.ask(undertaker, reply(lambda me: me.handleDeadLetters()), 10)

    system.base.deliver("n2", "nobody", "node", "hello")
    system.tell(remote_address("n2", ""), "to a nameless one")
    system.tell(remote_address("n2", "node"), ActorExitRequest())
    system.tell(ActorAddress("foreign"), "to nowhere")

    assert await system.ask(undertaker, seen, 10) == [
        DeadEnvelope(remote_address("n1", "nobody"), "hello"),
        DeadEnvelope(remote_address("n2", ""), "to a nameless one"),
        DeadEnvelope(remote_address("n2", "node"), ActorExitRequest()),
        DeadEnvelope(ActorAddress("foreign"), "to nowhere"),
    ]
    assert (wire.sent, system.base.dead_letters) == ([], 4)


@on_loop(node_id="n1")
async def test_without_a_transport_messages_to_other_nodes_are_dead_letters(system: EventLoopSystem) -> None:
    system.tell(remote_address("n2", "node"), "hello")

    assert system.base.dead_letters == 1


@on_loop(node_id="n1", transport=wire)
async def test_a_transport_that_raises_fails_the_handler_that_sent(system: EventLoopSystem) -> None:
    def send_it(me: Any, sender: Any) -> None:
        me.send(remote_address("n2", "node"), "hello")

    puppet = system.createActor(Puppet)
    wire.send = None  # type: ignore[assignment, method-assign]
    try:
        assert isinstance(await system.ask(puppet, send_it, 10), PoisonMessage)
    finally:
        del wire.send


@on_loop(node_id="n1")
async def test_registered_actors_are_notified_of_peers(system: EventLoopSystem) -> None:
    for puppet_class in (Puppet, ThreadPuppet):
        puppet = system.createActor(puppet_class)
        system.base.peer_changed("n2", up=True)
        await system.ask(puppet, reply(lambda me: me.notifyOnSystemRegistrationChanges()), 10)
        await until(lambda: len(system.base.convention.listeners()) == 1)
        system.base.peer_changed("n3", up=True)
        system.base.peer_changed("n3", up=True)
        system.base.peer_changed("n2", up=False)
        await system.ask(puppet, reply(lambda me: me.notifyOnSystemRegistrationChanges(False)), 10)
        await until(lambda: not system.base.convention.listeners())
        system.base.peer_changed("n3", up=False)

        updates = await system.ask(puppet, seen, 10)
        assert updates == [
            ActorSystemConventionUpdate(remote_address("n2", ""), {"Node": "n2"}, True),
            ActorSystemConventionUpdate(remote_address("n3", ""), {"Node": "n3"}, True),
            ActorSystemConventionUpdate(remote_address("n2", ""), {"Node": "n2"}, False),
        ]


@on_loop(node_id="n1")
async def test_a_listener_that_exits_is_unregistered(system: EventLoopSystem) -> None:
    puppet = system.createActor(Puppet)
    await system.ask(puppet, reply(lambda me: me.notifyOnSystemRegistrationChanges()), 10)
    system.tell(puppet, ActorExitRequest())
    await until(lambda: puppet.number not in system.base.receivers)

    system.base.peer_changed("n2", up=True)

    assert (system.base.convention.listeners(), system.base.dead_letters) == ([], 0)


@on_loop(node_id="n1", transport=wire)
async def test_two_nodes_in_one_process_exchange_messages_by_name(system: EventLoopSystem) -> None:
    other = start_on_loop(node_id="n2", transport=wire)
    wire.ends = {"n1": ("n2", system.base), "n2": ("n1", other.base)}
    other.createActor(Echo, globalName="echo")
    asker = system.createActor(Puppet, globalName="asker")

    await system.ask(asker, reply(lambda me: me.send(remote_address("n2", "echo"), "hello")), 10)
    await until(lambda: len(wire.sent) == 2)

    assert await system.ask(asker, seen, 10) == ["hello"]
    assert wire.sent == [("n2", "echo", "asker", "hello"), ("n1", "asker", "echo", "hello")]
    other.base.shutdown()
    await other.base.wait_closed()


@on_loop(node_id="n1")
async def test_addresses_work_across_the_systems_of_one_process(system: EventLoopSystem) -> None:
    """As on Thespian's multi-process bases; here even from a system on a loop of another thread."""
    echo = system.createActor(Echo)
    got: list[Any] = []

    async def elsewhere() -> None:
        other = start_on_loop(node_id="n2")
        got.append(await other.ask(echo, "hello", 10))
        other.base.shutdown()
        await other.base.wait_closed()
        got.append(other.base.dead_letters)

    await asyncio.get_running_loop().run_in_executor(None, asyncio.run, elsewhere())

    assert got == ["hello", 0]
    assert isinstance(echo, NodeAddress)
