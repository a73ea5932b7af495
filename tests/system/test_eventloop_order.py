"""Order and fairness: FIFO between any two actors; no handler runs inside send; timers and sockets get their turn."""

from __future__ import annotations

import asyncio
import threading
from datetime import timedelta
from typing import Any

from thespian.actors import Actor, WakeupMessage

from raftkv.actors.system.base.eventloop import EventLoopSystem
from tests.system.eventloop_tools import Echo, Puppet, ThreadPuppet, on_loop, reply, seen, seen_by, until


@on_loop()
async def test_a_message_is_never_handled_inside_send(system: EventLoopSystem) -> None:
    puppet = system.createActor(Puppet)

    def send_to_myself(me: Any, sender: Any) -> None:
        me.send(me.myAddress, "second")
        me.seen.append("first")
        me.send(sender, "sent")

    await system.ask(puppet, send_to_myself, 10)

    assert await system.ask(puppet, seen, 10) == ["first", "second"]


@on_loop()
async def test_messages_of_different_senders_are_handled_in_the_order_of_sending(system: EventLoopSystem) -> None:
    target, other = system.createActor(Puppet), system.createActor(Puppet)
    system.tell(target, 1)
    system.tell(other, lambda me, _: me.send(target, 3))
    system.tell(target, 2)
    await system.ask(other, reply(lambda me: "done"), 10)

    assert await system.ask(target, seen, 10) == [1, 2, 3]


@on_loop()
async def test_messages_of_each_thread_keep_their_order(system: EventLoopSystem) -> None:
    count, writers = 2000, 4
    targets = [system.createActor(Puppet), system.createActor(ThreadPuppet)]

    def write(writer: int) -> None:
        for number in range(count):
            for target in targets:
                system.tell(target, (writer, number))

    threads = [threading.Thread(target=write, args=(writer,)) for writer in range(writers)]
    for thread in threads:
        thread.start()
    await until(lambda: not any(thread.is_alive() for thread in threads))

    for target in targets:
        got = await system.ask(target, seen, 10)
        assert len(got) == count * writers
        assert [[n for w, n in got if w == writer] for writer in range(writers)] == [list(range(count))] * writers


@on_loop()
async def test_messages_between_thread_actors_and_loop_actors_keep_their_order(system: EventLoopSystem) -> None:
    def burst(target: Any) -> Any:
        def send_all(me: Any, sender: Any) -> None:
            for number in range(1000):
                me.send(target, number)
            me.send(sender, "sent")

        return send_all

    on_loop_actor, on_thread = system.createActor(Puppet), system.createActor(ThreadPuppet)
    await asyncio.gather(
        system.ask(on_loop_actor, burst(on_thread), 10), system.ask(on_thread, burst(on_loop_actor), 10)
    )

    assert await system.ask(on_loop_actor, seen, 10) == list(range(1000))
    assert await system.ask(on_thread, seen, 10) == list(range(1000))


class Flooder(Actor):
    """Keeps its mailbox filled until it is stopped."""

    def __init__(self) -> None:
        super().__init__()
        self.going = True
        self.woken = False

    def receiveMessage(self, message: Any, sender: Any) -> None:
        if message == "flood":
            if self.going:
                self.send(self.myAddress, "flood")
        elif message == "stop":
            self.going = False
            self.send(sender, "stopped")
        elif message == "wake me":
            self.wakeupAfter(0.01)
        elif message == "woken?":
            self.send(sender, self.woken)
        elif isinstance(message, WakeupMessage):
            self.woken = True


@on_loop()
async def test_timers_wakeups_and_sockets_get_their_turn_under_a_flood_of_messages(system: EventLoopSystem) -> None:
    """While the queue is never empty, a timer, a wake-up, a connection and an ask are all served."""
    flooders = [system.createActor(Flooder) for _ in range(3)]
    for flooder in flooders:
        for _ in range(100):
            system.tell(flooder, "flood")
    echo = system.createActor(Echo)
    system.tell(flooders[0], "wake me")

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.readline())
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    writer.write(b"hello\n")

    assert await reader.readline() == b"hello\n"
    assert await system.ask(echo, "hello", 10) == "hello"
    while not await system.ask(flooders[0], "woken?", 10):
        pass
    assert [await system.ask(flooder, "stop", 10) for flooder in flooders] == ["stopped"] * 3

    writer.close()
    server.close()
    await server.wait_closed()


@on_loop()
async def test_wakeups_carry_their_period_and_payload(system: EventLoopSystem) -> None:
    wanted = [(0.03, "c"), (0.01, "a"), (timedelta(milliseconds=2), "b"), (0, None)]
    for puppet in (system.createActor(Puppet), system.createActor(ThreadPuppet)):

        def arm(me: Any, sender: Any) -> None:
            for period, payload in wanted:
                me.wakeupAfter(period, payload)

        system.tell(puppet, arm)
        woken = await seen_by(system, puppet, 4)
        assert all(isinstance(wakeup, WakeupMessage) for wakeup in woken)
        assert {(wakeup.delayPeriod, wakeup.payload) for wakeup in woken} == set(wanted)
