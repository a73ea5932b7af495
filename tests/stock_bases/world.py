"""Node, journal, store and peers of a role in one ordinary Thespian actor, which records what the roles send."""

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


class SetUp(Message, frozen=True):
    """Create the roles and give this replica to the follower, with these bounds of its election timeout."""

    replica: Replica
    election_min_ms: float
    election_max_ms: float


class ToRole(Message, frozen=True):
    """Pass a message to the role that has the replica."""

    message: Any


class GetSent(Message, frozen=True):
    """Reply with all messages from the roles to peers, journal and store, in order."""


def fail(status: int, line: str) -> None:
    """Stop the actor, as a node would stop; the test then times out."""
    raise SystemExit(line)


class World(Actor):
    """Node, journal, store and peers of the roles under test."""

    def __init__(self) -> None:
        super().__init__()
        self.roles: dict[str, ActorAddress] = {}
        self.active: ActorAddress | None = None
        self.sent: list[Any] = []

    def receiveMessage(self, message: Any, sender: ActorAddress) -> None:
        """Do what the receiver of the message would do in a node."""
        if isinstance(message, SetUp):
            self._set_up(message)
        elif isinstance(message, ToRole):
            self.send(self.active, message.message)
        elif isinstance(message, GetSent):
            self.send(sender, tuple(self.sent))
        elif isinstance(message, Assume):
            self.active = self.roles[message.role]
            self.send(self.active, message)
        elif isinstance(message, Save):
            self.sent.append(message)
            self.send(self.active, Saved(message.number, 1 << 40))
        elif isinstance(message, Apply):
            self.sent.append(message)
            self.send(self.active, AppliedUpTo(message.entries[-1].index))
        elif isinstance(message, Saved | AppliedUpTo):
            # Returned by a role that no longer has the replica.
            self.send(self.active, message)
        elif not isinstance(message, ActorSystemMessage | RoleChanged):
            self.sent.append(message)

    def _set_up(self, set_up: SetUp) -> None:
        self.roles = {name: self.createActor(role) for name, role in ROLES.items()}
        peers = set_up.replica.peers
        start = Start(
            node_id="n1",
            node=self.myAddress,
            journal=self.myAddress,
            store=self.myAddress,
            peer_address=dict.fromkeys(peers, self.myAddress).__getitem__,
            initial_cluster=tuple((name, f"{name}:5001") for name in set_up.replica.configuration.ids),
            initial_cluster_hash="",
            environment=Environment(
                directory="",
                disk=None,  # type: ignore[arg-type]
                clock=SystemClock(),
                rng=Random(1),
                timing=Timing(10.0, set_up.election_min_ms, set_up.election_max_ms),
                limits=Limits(),
                fail=fail,
            ),
        )
        for role in self.roles.values():
            self.send(role, start)
        self.active = self.roles["follower"]
        self.send(self.active, Assume(set_up.replica, "follower", "the test says so"))
