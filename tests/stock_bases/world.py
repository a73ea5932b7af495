"""Everything that a role talks to, as one ordinary Thespian actor: it passes the baton on, saves, and remembers."""

from __future__ import annotations

from random import Random
from typing import Any

from thespian.actors import Actor, ActorAddress, ActorSystemMessage

from raftkv.actors.messages.base import Message
from raftkv.actors.messages.node import (
    AppliedUpTo,
    Apply,
    Assume,
    RoleChanged,
    Save,
    Saved,
    Start,
)
from raftkv.actors.roles.candidate import Candidate
from raftkv.actors.roles.follower import Follower
from raftkv.actors.roles.leader import Leader
from raftkv.actors.roles.role import Role
from raftkv.config.settings import Limits, Timing
from raftkv.environment import Environment
from raftkv.process.clock import SystemClock
from raftkv.raft.replica import Replica

ROLES: dict[str, type[Role]] = {"follower": Follower, "candidate": Candidate, "leader": Leader}


class Begin(Message, frozen=True):
    """Create the roles and give this replica to the follower, which waits so long for a leader."""

    replica: Replica
    election_min_ms: float
    election_max_ms: float


class ToRole(Message, frozen=True):
    """Give a message to whichever role has the replica."""

    message: Any


class AskSaid(Message, frozen=True):
    """Answer with everything that roles have sent to their peers, the journal, the store and the observer, in order."""


def fail(status: int, line: str) -> None:
    """Stop, as a node would: the test then waits in vain."""
    raise SystemExit(line)


class World(Actor):
    """Node, journal, store and peers of the roles under test."""

    def __init__(self) -> None:
        super().__init__()
        self.roles: dict[str, ActorAddress] = {}
        self.active: ActorAddress | None = None
        self.said: list[Any] = []

    def receiveMessage(self, message: Any, sender: ActorAddress) -> None:
        """Do what the one would do to whom the message is addressed."""
        if isinstance(message, Begin):
            self._begin(message)
        elif isinstance(message, ToRole):
            self.send(self.active, message.message)
        elif isinstance(message, AskSaid):
            self.send(sender, tuple(self.said))
        elif isinstance(message, Assume):
            self.active = self.roles[message.role]
            self.send(self.active, message)
        elif isinstance(message, Save):
            self.said.append(message)
            self.send(self.active, Saved(message.number, 1 << 40))
        elif isinstance(message, Apply):
            self.said.append(message)
            self.send(self.active, AppliedUpTo(message.entries[-1].index))
        elif isinstance(message, Saved | AppliedUpTo):
            # Given back by a role that no longer has the replica.
            self.send(self.active, message)
        elif not isinstance(message, ActorSystemMessage | RoleChanged):
            self.said.append(message)

    def _begin(self, begin: Begin) -> None:
        self.roles = {name: self.createActor(role) for name, role in ROLES.items()}
        peers = begin.replica.peers
        start = Start(
            node_id="n1",
            node=self.myAddress,
            journal=self.myAddress,
            store=self.myAddress,
            peer_address=dict.fromkeys(peers, self.myAddress).__getitem__,
            initial_cluster=tuple((name, f"{name}:5001") for name in begin.replica.configuration.ids),
            initial_cluster_hash="",
            environment=Environment(
                directory="",
                disk=None,  # type: ignore[arg-type]
                clock=SystemClock(),
                rng=Random(1),
                timing=Timing(10.0, begin.election_min_ms, begin.election_max_ms),
                limits=Limits(),
                fail=fail,
            ),
        )
        for role in self.roles.values():
            self.send(role, start)
        self.active = self.roles["follower"]
        self.send(self.active, Assume(begin.replica, "follower", "the test says so"))
