"""The observer: how the rest of the process learns of role changes."""

from __future__ import annotations

import asyncio

from raftkv.actors.messages.node import AdvertiseAddress, RoleChanged
from raftkv.actors.observer import Observe, Observer
from raftkv.actors.system.base.eventloop import start_on_loop


def test_each_role_change_is_handed_on_in_order_and_nothing_else() -> None:
    changes = [RoleChanged("n1", "candidate", 2, None, "why"), AdvertiseAddress("n2", "10.0.0.2:4001")]
    heard: list[RoleChanged | AdvertiseAddress] = []

    async def observe() -> None:
        system = start_on_loop()
        both = asyncio.Event()

        def callback(event: RoleChanged | AdvertiseAddress) -> None:
            heard.append(event)
            if len(heard) == len(changes):
                both.set()

        observer = system.createActor(Observer)
        for message in (changes[0], Observe(callback), *changes[:1], "something else", *changes[1:]):
            system.tell(observer, message)
        await asyncio.wait_for(both.wait(), 10)
        system.shutdown()
        await system.base.wait_closed()

    asyncio.run(observe())
    # The first change came before `Observe`, so there was no observer to report it to.
    assert heard == changes
