"""Bootstrap: the role of a node without a configuration, which neither votes nor campaigns until it has one.

The cluster is founded when all nodes of its initial list, all of them empty, have met each other. Each then writes the
same entry 1 by itself: members in order of their ids, each with its incarnation. A node that finds the cluster founded
without it adopts entry 1 if it is the very node that is named there. One whose disk was wiped since is another
incarnation and must stay out: it has forgotten its votes.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from raftkv.actors.messages.raft import (
    BootstrapHello,
)
from raftkv.actors.roles.role import Role
from raftkv.raft.configuration import (
    Configuration,
    Member,
    cluster_id,
    decode_configuration,
    founding_configuration,
)
from raftkv.raft.entry import Entry, Kind, NodeId

HELLO_HEARTBEATS = 2
"""How many heartbeats pass between two hellos."""

Met = tuple[tuple[NodeId, str], ...]


class Bootstrap(Role):
    """Holds the replica until there is a configuration."""

    role = "bootstrap"

    def __init__(self) -> None:
        super().__init__()
        self.met: dict[NodeId, str] = {}
        """Each node's incarnation, as last heard from it."""
        self.met_by: dict[NodeId, Met] = {}
        """The nodes that each node has met, as last heard from it."""
        self.obstacles: dict[NodeId, str] = {}
        """What keeps us from founding or joining, by the node whose message says so."""

    @property
    def others(self) -> list[NodeId]:
        """The other nodes of the initial cluster, in order."""
        return sorted(node_id for node_id, _ in self.start.initial_cluster if node_id != self.start.node_id)

    def assumed(self, cause: Any) -> None:
        """Start with this node alone; a cluster of one node is founded at once."""
        self.met = {self.replica.node_id: self.replica.incarnation}
        self._send_hello(self.others, answer=True)
        self.found_if_all_met()
        if self.has_replica:
            self._rest()

    def wake(self, now_ms: float) -> None:
        """Send hellos again: messages may be lost, and nodes come late."""
        self.service.expire(now_ms)
        self._send_hello(self.others, answer=True)
        self._rest()

    def _rest(self) -> None:
        self.wake_at(self.now() + HELLO_HEARTBEATS * self.environment.timing.heartbeat_ms)

    def _send_hello(self, peers: Iterable[NodeId], *, answer: bool) -> None:
        replica = self.replica
        cluster, met = self.start.initial_cluster_hash, self.all_met()
        hello = BootstrapHello(replica.node_id, replica.incarnation, cluster, met, b"", answer)
        for peer in peers:
            self.send(self.peer(peer), hello)

    def all_met(self) -> Met:
        """Return the (id, incarnation) pairs of all nodes met so far, in order."""
        return tuple(sorted(self.met.items()))

    def on_BootstrapHello(self, message: BootstrapHello) -> None:
        """Meet another node, or learn how the cluster was founded."""
        if message.founding:
            self._join(message)
            return
        if message.sender not in self.others:
            return
        if message.initial_cluster_hash != self.start.initial_cluster_hash:
            self.obstacles[message.sender] = f"{message.sender} was started with another --cluster list"
            return
        # Incarnations have an order, so that every node's idea of another one only ever moves forward: a message of an
        # earlier incarnation may come late, and two foundings would be possible if it were believed again.
        known = self.met.get(message.sender, "")
        if message.incarnation < known:
            self.obstacles[message.sender] = (
                f"{message.sender} was met as {known} and now says it is {message.incarnation}, which is older; if its "
                "clock was set back and its data removed, start this node again"
            )
            return
        self.obstacles.pop(message.sender, None)
        self.met[message.sender] = message.incarnation
        self.met_by[message.sender] = message.met
        if message.answer:
            self._send_hello([message.sender], answer=False)
        self.found_if_all_met()

    def found_if_all_met(self) -> None:
        """Found the cluster once every node has met every other, in the same incarnations."""
        mine = self.all_met()
        if len(mine) == len(self.others) + 1 and all(self.met_by.get(peer) == mine for peer in self.others):
            self.found(mine, "all nodes have met: the cluster is founded")

    def found(self, met: Met, reason: str) -> None:
        """Write the entry 1 of a cluster of these nodes."""
        addresses = dict(self.start.initial_cluster)
        members = [Member(node_id, addresses[node_id], incarnation) for node_id, incarnation in met]
        self.adopt(founding_configuration(members).encode(), reason)

    def _join(self, message: BootstrapHello) -> None:
        """Adopt the entry 1 of a cluster that was founded with us, or find out why we are not part of it."""
        try:
            configuration = decode_configuration(message.founding)
        except msgspec.DecodeError:
            self.obstacles[message.sender] = f"{message.sender} describes its cluster in a form that can't be read"
            return
        if why := self._why_not_of(configuration, message.sender):
            self.obstacles[message.sender] = why
        else:
            self.adopt(message.founding, f"{message.sender} knows how the cluster was founded")

    def _why_not_of(self, configuration: Configuration, sender: NodeId) -> str | None:
        """Return why this node is not a member of the cluster with this entry 1; None if it is."""
        replica = self.replica
        if configuration != founding_configuration(configuration.members):
            return f"{sender} describes a cluster that can't have been founded so"
        cluster = cluster_id(configuration)
        member = configuration.member(replica.node_id)
        if member is None:
            return f"{sender} belongs to cluster {cluster}, which has no {replica.node_id}"
        if member.incarnation != replica.incarnation:
            return (
                f"cluster {cluster} knows {replica.node_id} as {member.incarnation}, and this is "
                f"{replica.incarnation}: its data directory was lost or replaced, so it can't go on as the same node"
            )
        if set(configuration.ids) != set(dict(self.start.initial_cluster)):
            return f"cluster {cluster} was founded by {', '.join(configuration.ids)}, and --cluster names other nodes"
        return None

    def adopt(self, founding: bytes, reason: str) -> None:
        """Begin the log with the entry 1 that founded the cluster, and follow."""
        replica = self.replica
        entry = Entry(1, 1, Kind.CONFIGURATION, founding)
        replica.current_term = max(replica.current_term, 1)
        replica.append((entry,))
        self.save((entry,))
        # The same bytes on every node, by the rule above: nothing else can ever be committed in its place.
        replica.commit_index = 1
        self.become("follower", reason)

    def reason_for_no_leader(self) -> str:
        """Name the nodes that are missing, or what keeps us from founding or joining."""
        if self.obstacles:
            return "; ".join(dict.fromkeys(self.obstacles[peer] for peer in sorted(self.obstacles)))
        missing = sorted(set(self.others) - set(self.met))
        if missing:
            return f"waiting for {', '.join(missing)}: the cluster begins when all its nodes have met"
        return "all nodes are connected and exchange their lists"
