"""Messages are passed by reference; debug mode pickles each one, so that changes after sending have no effect."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from thespian.actors import PoisonMessage

from raftkv.actors.system.base.eventloop import EventLoopSystem
from tests.system.eventloop_tools import Echo, Puppet, ThreadPuppet, on_loop, reply, seen


@dataclass
class Note:
    """A mutable message that holds an address."""

    words: list[str]
    address: Any = None
    call: Any = None


def iter_nothing() -> Iterator[None]:
    """Return a generator, which can't be copied."""
    yield


@dataclass
class Secret:
    """A message that can't be pickled."""

    item: Any = field(default_factory=iter_nothing)


@on_loop()
async def test_messages_are_passed_by_reference(system: EventLoopSystem) -> None:
    for kind in (Puppet, ThreadPuppet):
        note, puppet = Note(["a"]), system.createActor(kind)
        system.tell(puppet, note)

        assert (await system.ask(puppet, seen, 10))[0] is note


@on_loop(pickle_messages=True)
async def test_debug_mode_copies_every_message(system: EventLoopSystem) -> None:
    for kind in (Puppet, ThreadPuppet):
        puppet = system.createActor(kind)
        note = Note(["a"], puppet)
        system.tell(puppet, note)
        note.words.append("changed after sending")

        [got] = await system.ask(puppet, seen, 10)

        assert got == Note(["a"], puppet)
        assert isinstance(await system.ask(got.address, reply(lambda me: me.myAddress), 10), type(puppet))


@on_loop(pickle_messages=True)
async def test_debug_mode_passes_functions_by_reference(system: EventLoopSystem) -> None:
    """A function in a message, like the `fail` of a `Start`, is meant to be called."""
    called: list[str] = []
    echo = system.createActor(Echo)

    note = await system.ask(echo, Note([], call=(called.append, test_debug_mode_passes_functions_by_reference)), 10)

    note.call[0]("yes")
    assert (called, note.call[1]) == (["yes"], test_debug_mode_passes_functions_by_reference)


@on_loop(pickle_messages=True)
async def test_debug_mode_raises_in_the_sender_of_a_message_that_can_not_be_pickled(system: EventLoopSystem) -> None:
    before = set(system.base.receivers)
    puppet = system.createActor(Puppet)
    with pytest.raises(TypeError, match="pickle"):
        system.ask(puppet, Secret())
    with pytest.raises(TypeError, match="pickle"):
        system.tell(puppet, Secret())

    assert set(system.base.receivers) - before == {puppet.number}

    def send_secret(me: Any, sender: Any) -> None:
        me.send(puppet, Secret())

    poison = await system.ask(puppet, send_secret, 10)
    assert isinstance(poison, PoisonMessage)
    assert "TypeError: cannot pickle 'generator' object" in poison.details


@on_loop(node_id="n1")
async def test_an_address_can_be_copied_and_pickled(system: EventLoopSystem) -> None:
    puppet = system.createActor(Puppet)

    assert copy.deepcopy(puppet) is puppet
    copied = pickle.loads(pickle.dumps(puppet))
    assert (copied == puppet, copied.number, copied.node_id) == (True, puppet.number, "n1")
