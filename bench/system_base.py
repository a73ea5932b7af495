"""What the event-loop system base costs: microseconds per message, ask, wake-up, actor and thread hand-off.

    python bench/system_base.py [--repeat 20]

Each figure is the best of several rounds, as everything else on a machine only ever adds to it. Thespian's
simpleSystemBase stands beside it where it has such a thing at all.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import Callable
from typing import Any

from thespian.actors import Actor, ActorAddress, ActorExitRequest, ActorSystem, ChildActorExited, WakeupMessage

from raftkv.actors.messages import AppendEntries
from raftkv.actors.system import eventloop
from raftkv.entry import Entry, Kind

MESSAGES = 20_000
ASKS = 2_000
WAKEUPS = 1_000
ACTORS = 500
THREADS = 50
HANDOFFS = 1_000


class Echo(Actor):
    """Sends back what it gets."""

    def receiveMessage(self, message: Any, sender: ActorAddress) -> None:
        self.send(sender, message)


class Player(Actor):
    """Sends a ball (message, other player, times left, who waits for the end) back to the other player."""

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


class Child(Actor):
    """Does nothing."""

    def receiveMessage(self, message: Any, sender: ActorAddress) -> None:
        pass


class ThreadChild(Child):
    """Does nothing on a thread of its own."""

    own_thread = True


class Parent(Actor):
    """Creates as many children as it is told, one after the other, and ends each."""

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
    """Has itself woken as often as it is told."""

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
    """Return a message as a leader sends it: four entries of 100 bytes."""
    commands = tuple(Entry(index, 1, Kind.COMMANDS, bytes(100)) for index in range(4))
    return AppendEntries("n1", 1, 0, 0, commands, 0)


async def on_loop(pickled: bool) -> dict[str, float]:
    """Measure the base on the running loop; microseconds each."""
    system = eventloop.start_on_loop(pickle_messages=pickled)
    one, two, thread = (system.createActor(kind) for kind in (Player, Player, ThreadPlayer))
    echo, sleeper, parent = (system.createActor(kind) for kind in (Echo, Sleeper, Parent))
    figures: dict[str, float] = {}

    async def measure(name: str, count: int, target: ActorAddress, message: Any) -> None:
        begun = time.perf_counter()
        await system.ask(target, message)
        figures[name] = (time.perf_counter() - begun) / count * 1e6

    await measure("local message", MESSAGES, one, (entries(), two, MESSAGES, None))
    await measure("message between loop and thread", HANDOFFS, one, (entries(), thread, HANDOFFS, None))
    await measure("wake-up", WAKEUPS, sleeper, WAKEUPS)
    await measure("actor made and ended", ACTORS, parent, (Child, ACTORS))
    await measure("thread actor made and ended", THREADS, parent, (ThreadChild, THREADS))
    begun = time.perf_counter()
    for number in range(ASKS):
        await system.ask(echo, number, 5)
    figures["ask"] = (time.perf_counter() - begun) / ASKS * 1e6
    base = system.base
    system.shutdown()
    await base.wait_closed()
    return figures


def by_name(name: str) -> dict[str, float]:
    """Measure a base from outside, with blocking asks; microseconds each."""
    system = ActorSystem(name, {}, logDefs=False, transientUnique=True)
    figures: dict[str, float] = {}

    def measure(what: str, count: int, kind: Any, message: Callable[[], Any]) -> None:
        target = system.createActor(kind)
        begun = time.perf_counter()
        assert system.ask(target, message(), 60) == "over"
        figures[what] = (time.perf_counter() - begun) / count * 1e6

    measure("local message", MESSAGES, Player, lambda: (entries(), system.createActor(Player), MESSAGES, None))
    measure("actor made and ended", ACTORS, Parent, lambda: (Child, ACTORS))
    echo = system.createActor(Echo)
    begun = time.perf_counter()
    for number in range(ASKS):
        system.ask(echo, number, 5)
    figures["ask"] = (time.perf_counter() - begun) / ASKS * 1e6
    system.shutdown()
    return figures


def best(repeat: int, measure: Callable[[], dict[str, float]]) -> dict[str, float]:
    """Return the least of each figure in ``repeat`` rounds."""
    rounds = [measure() for _ in range(repeat)]
    return {name: min(figures[name] for figures in rounds) for name in rounds[0]}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description="Costs of the event-loop system base, in microseconds.")
    parser.add_argument("--repeat", type=int, default=20)
    repeat = parser.parse_args().repeat
    eventloop.install()
    columns = {
        "on the loop": best(repeat, lambda: asyncio.run(on_loop(pickled=False))),
        "from a thread": best(repeat, lambda: by_name(eventloop.BASE_NAME)),
        "pickling": best(repeat, lambda: asyncio.run(on_loop(pickled=True))),
        "simpleSystemBase": best(repeat, lambda: by_name("simpleSystemBase")),
    }
    print(f"{'microseconds per':<34}" + "".join(f"{column:>18}" for column in columns))
    for name in columns["on the loop"]:
        cells = [f"{figures[name]:.1f}" if name in figures else "-" for figures in columns.values()]
        print(f"{name:<34}" + "".join(f"{cell:>18}" for cell in cells))


if __name__ == "__main__":
    main()
