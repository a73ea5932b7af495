"""A stage on which one actor, or all actors of several nodes, act by hand: no thread, no port, no waiting.

An actor on it gets messages from the test and its sends are collected, in order. Time stands still unless moved.
Messages go by reference, as on the event-loop base; with ``pytest --pickled`` every one is pickled on its way.
"""

from __future__ import annotations

import itertools
from datetime import timedelta
from typing import Any, ClassVar
from weakref import WeakValueDictionary

from thespian.actors import Actor, ActorAddress, WakeupMessage

from raftkv.actors.system.base.pickled_copy import pickled_copy


class ManualClock:
    """A clock that shows what the test set; pickled, it is still the same clock, as time is the same for all."""

    def __init__(self) -> None:
        self.ms = 0.0
        _clocks[id(self)] = self

    def __reduce__(self) -> tuple[Any, ...]:
        return _clock, (id(self),)

    def now_ms(self) -> float:
        """Return the time that was set."""
        return self.ms


_clocks: WeakValueDictionary[int, ManualClock] = WeakValueDictionary()


def _clock(number: int) -> ManualClock:
    return _clocks[number]


class Part:
    """What Thespian calls the reference of an actor to its system: here it only writes down what the actor wants."""

    def __init__(self, name: str, stage: Stage) -> None:
        self.address = ActorAddress(name)
        self.globalName = name
        self.stage = stage
        self.children = itertools.count(1)

    def actor_send(self, target: ActorAddress, message: Any) -> None:
        """Write a send down."""
        self.stage.sent.append((self.address.addressDetails, target.addressDetails, self.stage.carried(message)))

    def wakeupAfter(self, period: timedelta, payload: Any = None) -> None:
        """Write a wake-up down."""
        due_ms = self.stage.clock.ms + period.total_seconds() * 1000.0
        self.stage.wakeups.append((due_ms, next(self.stage.order), self.address.addressDetails, payload))

    def createActor(self, actor_class: type[Actor], *unused: Any) -> ActorAddress:
        """Put another actor on the stage."""
        # A test's variety of one of our actors goes by the name of ours.
        ours = next((each for each in actor_class.__mro__ if each.__module__.startswith("raftkv.")), actor_class)
        name = f"{self.address.addressDetails}/{ours.__name__.lower()}"
        self.stage.put(name, actor_class)
        return ActorAddress(name)


class Stage:
    """Actors by name, what they sent and nobody has delivered, and when they want to be woken."""

    pickles: ClassVar[bool] = False
    """Whether all stages pickle every message: who changes what he has sent, or counts on sharing it, is found."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.actors: dict[str, Actor] = {}
        self.sent: list[tuple[str, str, Any]] = []
        self.wakeups: list[tuple[float, int, str, Any]] = []
        self.order = itertools.count()

    def put(self, name: str, actor_class: type[Actor]) -> Actor:
        """Make an actor of this class, under this name."""
        actor = actor_class()
        actor._myRef = Part(name, self)
        self.actors[name] = actor
        return actor

    def carried(self, message: Any) -> Any:
        """Return a message as it arrives: itself, or a copy of it."""
        return pickled_copy(message) if self.pickles else message

    def give(self, name: str, message: Any, sender: str = "test") -> None:
        """Let an actor handle one message now."""
        self.actors[name].receiveMessage(self.carried(message), ActorAddress(sender))

    def due(self) -> list[tuple[float, int, str, Any]]:
        """Take the wake-ups whose time has come, in order."""
        now = [wakeup for wakeup in sorted(self.wakeups) if wakeup[0] <= self.clock.ms]
        self.wakeups = [wakeup for wakeup in self.wakeups if wakeup[0] > self.clock.ms]
        return now

    def wake_due(self) -> None:
        """Deliver the wake-ups whose time has come."""
        for _, _, name, payload in self.due():
            if name in self.actors:
                self.give(name, WakeupMessage(timedelta(), payload), name)

    def remove(self, name: str) -> None:
        """Take an actor and its children off the stage without a word to anyone."""
        for other in [other for other in self.actors if other == name or other.startswith(f"{name}/")]:
            del self.actors[other]
        self.wakeups = [wakeup for wakeup in self.wakeups if wakeup[2] in self.actors]
        self.sent = [sent for sent in self.sent if sent[0] in self.actors or sent[0] == "test"]
