"""The cost of the event-loop system base: microseconds per message, ask, wake-up, actor and thread hand-off.

    python -m bench.system_base [--repeat 20]

Everything runs on one core, including the processes of Thespian's multiprocTCPBase. Each figure is the median of
several rounds, with the lowest and the highest; the lowest is the least disturbed by other programs. Thespian's own
bases are measured too, where they have the operation.
"""

from __future__ import annotations

import argparse
import asyncio
import socket
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from thespian.actors import Actor, ActorAddress, ActorExitRequest, ActorSystem, ChildActorExited, WakeupMessage

from bench.machine import load_average, use_one_core
from bench.report import spread, table
from raftkv.actors.messages.raft import AppendEntries
from raftkv.actors.system.base import eventloop
from raftkv.raft.entry import Entry, Kind


class Repetitions(NamedTuple):
    """How often each operation is done in a round."""

    messages: int = 20_000
    asks: int = 2_000
    actors: int = 500
    wakeups: int = 1_000
    threads: int = 50
    handoffs: int = 1_000


SIMPLE, MULTIPROCESS = "simpleSystemBase", "multiprocTCPBase"
USUAL = Repetitions()
FEW = Repetitions(messages=1_000, asks=300, actors=10)
"""For a base whose actors are processes."""


class Echo(Actor):
    """Sends each message back."""

    def receiveMessage(self, message: Any, sender: ActorAddress) -> None:
        self.send(sender, message)


class Player(Actor):
    """Sends a ball (message, other player, passes left, address to notify at the end) back to the other player."""

    def receiveMessage(self, ball: Any, sender: ActorAddress) -> None:
        if isinstance(ball, tuple):
            message, other, left, asker = ball
            if left:
                self.send(other, (message, self.myAddress, left - 1, asker or sender))
            else:
                self.send(asker, "over")


class ThreadPlayer(Player):
    """The same on a thread of its own."""

    own_thread = True


class ChildActor(Actor):
    """Does nothing."""

    def receiveMessage(self, message: Any, sender: ActorAddress) -> None:
        pass


class ThreadChild(ChildActor):
    """Does nothing on a thread of its own."""

    own_thread = True


class Parent(Actor):
    """Creates and ends a number of children, one after another."""

    def receiveMessage(self, message: Any, sender: ActorAddress) -> None:
        if isinstance(message, tuple):
            self.kind, self.left = message
            self.asker = sender
            self.next()
        elif isinstance(message, ChildActorExited):
            if self.left:
                self.next()
            else:
                self.send(self.asker, "over")

    def next(self) -> None:
        self.left -= 1
        self.send(self.createActor(self.kind), ActorExitRequest())


class Sleeper(Actor):
    """Schedules a number of wake-ups, and reports when all have fired."""

    def receiveMessage(self, message: Any, sender: ActorAddress) -> None:
        if isinstance(message, int):
            self.left, self.asker = message, sender
            for _ in range(message):
                self.wakeupAfter(0)
        elif isinstance(message, WakeupMessage):
            self.left -= 1
            if not self.left:
                self.send(self.asker, "over")


def entries() -> AppendEntries:
    """Return a message like a leader's: four entries of 100 bytes."""
    commands = tuple(Entry(index, 1, Kind.COMMANDS, bytes(100)) for index in range(4))
    return AppendEntries("n1", 1, 0, 0, commands, 0)


async def on_loop(pickled: bool) -> dict[str, float]:
    """Measure our base on the running loop; return µs by operation."""
    system = eventloop.start_on_loop(pickle_messages=pickled)
    one, two, thread = (system.createActor(kind) for kind in (Player, Player, ThreadPlayer))
    echo, sleeper, parent = (system.createActor(kind) for kind in (Echo, Sleeper, Parent))
    figures: dict[str, float] = {}

    async def measure(name: str, count: int, target: ActorAddress, message: Any) -> None:
        started = time.perf_counter()
        await system.ask(target, message)
        figures[name] = (time.perf_counter() - started) / count * 1e6

    await measure("local message", USUAL.messages, one, (entries(), two, USUAL.messages, None))
    await measure("message between loop and thread", USUAL.handoffs, one, (entries(), thread, USUAL.handoffs, None))
    await measure("wake-up", USUAL.wakeups, sleeper, USUAL.wakeups)
    await measure("actor made and ended", USUAL.actors, parent, (ChildActor, USUAL.actors))
    await measure("thread actor made and ended", USUAL.threads, parent, (ThreadChild, USUAL.threads))
    started = time.perf_counter()
    for number in range(USUAL.asks):
        await system.ask(echo, number, 5)
    figures["ask"] = (time.perf_counter() - started) / USUAL.asks * 1e6
    base = system.base
    system.shutdown()
    await base.wait_closed()
    return figures


def by_name(name: str, counts: Repetitions = USUAL) -> dict[str, float]:
    """Measure a base from outside, with blocking asks; return µs by operation."""
    # The multi-process base needs a logging configuration for its processes.
    logging: Any = {"version": 1, "disable_existing_loggers": False} if name == MULTIPROCESS else False
    system = ActorSystem(name, {"Admin Port": free_port()}, logDefs=logging, transientUnique=True)
    figures: dict[str, float] = {}

    def measure(what: str, count: int, kind: Any, message: Callable[[], Any]) -> None:
        target = system.createActor(kind)
        started = time.perf_counter()
        assert system.ask(target, message(), 60) == "over"
        figures[what] = (time.perf_counter() - started) / count * 1e6

    many = counts.messages
    measure("local message", many, Player, lambda: (entries(), system.createActor(Player), many, None))
    measure("actor made and ended", counts.actors, Parent, lambda: (ChildActor, counts.actors))
    echo = system.createActor(Echo)
    started = time.perf_counter()
    for number in range(counts.asks):
        system.ask(echo, number, 5)
    figures["ask"] = (time.perf_counter() - started) / counts.asks * 1e6
    system.shutdown()
    return figures


def free_port() -> int:
    """Return a port on which no process listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description="Measure the event-loop system base, in microseconds per operation.")
    parser.add_argument("--repeat", type=int, default=20)
    repeat = parser.parse_args().repeat
    use_one_core()
    eventloop.install()
    measures: dict[str, Callable[[], dict[str, float]]] = {
        "on the loop": lambda: asyncio.run(on_loop(pickled=False)),
        "from a thread": lambda: by_name(eventloop.BASE_NAME),
        "pickling": lambda: asyncio.run(on_loop(pickled=True)),
        SIMPLE: lambda: by_name(SIMPLE),
        MULTIPROCESS: lambda: by_name(MULTIPROCESS, FEW),
    }
    load = load_average()
    # In turns, so that disturbances by other programs affect all bases alike.
    rounds = [{name: measure() for name, measure in measures.items()} for _ in range(repeat)]
    lines = [
        [
            what,
            *(
                spread([each[name][what] for each in rounds], ",.1f") if what in rounds[0][name] else ""
                for name in measures
            ),
        ]
        for what in rounds[0]["on the loop"]
    ]
    print(f"one core, {repeat} rounds, load average {load:.1f} before\n")
    print(table(["microseconds per", *measures], lines))


if __name__ == "__main__":
    main()
