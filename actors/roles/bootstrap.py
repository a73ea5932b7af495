"""The founder: a node without a configuration, which neither votes nor campaigns until it has one.

The cluster is founded when all nodes of the start list, all of them empty, have met each other. Each then writes the
same entry 1 by itself. A node that comes to a cluster founded without it adopts entry 1 if it is the very node that
is named there; one whose disk was wiped since is another incarnation, and must stay out: it has forgotten its votes.
"""

from __future__ import annotations

from typing import Any

import msgspec

from raftkv.actors.messages.raft import BootstrapHello
from raftkv.actors.roles.passing import Passing
from raftkv.raft.configuration import Configuration, Member, cluster_id, decode_configuration, founding_configuration
from raftkv.raft.entry import Entry, Kind, NodeId

HELLO_HEARTBEATS = 2
"""How many heartbeats pass between two introductions."""

Met = tuple[tuple[NodeId, str], ...]


class Bootstrap(Passing):
    """Holds the replica until there is a configuration."""

    role = "bootstrap"

    def __init__(self) -> None:
        super().__init__()
        self.met: dict[NodeId, str] = {}
        """Each node's incarnation, as it last told us."""
        self.said: dict[NodeId, Met] = {}
        """Whom each node has told us it has met."""
        self.why_out: dict[NodeId, str] = {}
        """What keeps us from founding or joining, by the node that told us."""

    def assumed(self, cause: Any) -> None:
        """Begin with oneself; a node alone in its list founds at once."""
        self.met = {self.replica.node_id: self.replica.incarnation}
        self._send_hello(self.start.peers, answer=True)
        self._found()
        if self.has_replica:
            self._rest()

    def wake(self, now_ms: float) -> None:
        """Introduce ourselves again: messages may be lost, and nodes come late."""
        self.expire(now_ms)
        self._send_hello(self.start.peers, answer=True)
        self._rest()

    def _rest(self) -> None:
        self.wake_at(self.now() + HELLO_HEARTBEATS * self.start.timing.heartbeat_ms)

    def _send_hello(self, peers: Any, *, answer: bool) -> None:
        replica = self.replica
        initial_cluster, met = self.start.initial_cluster_hash, self._all_met()
        introduction = BootstrapHello(replica.node_id, replica.incarnation, initial_cluster, met, b"", answer)
        for peer in sorted(peers):
            self.send(self.start.peers[peer], introduction)

    def _all_met(self) -> Met:
        return tuple(sorted(self.met.items()))

    def on_BootstrapHello(self, message: BootstrapHello) -> None:
        """Meet another node."""
        if message.founding:
            self._join(message)
            return
        if message.sender not in self.start.peers:
            return
        if message.initial_cluster != self.start.initial_cluster_hash:
            self.why_out[message.sender] = f"{message.sender} was started with another --cluster list"
            return
        # Incarnations have an order, so that everyone's idea of who a node is only ever moves on: what an earlier
        # one has said may come late, and two foundings would be possible if it were believed again.
        known = self.met.get(message.sender, "")
        if message.incarnation < known:
            self.why_out[message.sender] = (
                f"{message.sender} was met as {known} and now says it is {message.incarnation}, which is older; if its "
                "clock was set back and its data removed, start this node again"
            )
            return
        self.why_out.pop(message.sender, None)
        self.met[message.sender] = message.incarnation
        self.said[message.sender] = message.met
        if message.answer:
            self._send_hello([message.sender], answer=False)
        self._found()

    def _found(self) -> None:
        """Found the cluster once everyone has met everyone, in the same incarnations."""
        mine = self._all_met()
        if len(mine) == len(self.start.peers) + 1 and all(self.said.get(peer) == mine for peer in self.start.peers):
            members = [Member(node_id, self.start.addresses[node_id], incarnation) for node_id, incarnation in mine]
            self._adopt(founding_configuration(members).encode(), "all nodes have met: the cluster is founded")

    def _join(self, message: BootstrapHello) -> None:
        """Adopt the entry 1 of a cluster that was founded with us, or find out why we are not part of it."""
        try:
            configuration = decode_configuration(message.founding)
        except msgspec.DecodeError:
            self.why_out[message.sender] = f"{message.sender} told us of a cluster in a form we can't read"
            return
        if why := self._why_not_of(configuration, message.sender):
            self.why_out[message.sender] = why
        else:
            self._adopt(message.founding, f"{message.sender} told us of the founding")

    def _why_not_of(self, configuration: Configuration, teller: NodeId) -> str | None:
        """Say why we can't be a member of a cluster that was founded so; None when we are."""
        replica = self.replica
        if configuration != founding_configuration(configuration.members):
            return f"{teller} told us of a cluster that no founding makes"
        cluster = cluster_id(configuration)
        member = configuration.member(replica.node_id)
        if member is None:
            return f"{teller} belongs to cluster {cluster}, which has no {replica.node_id}"
        if member.incarnation != replica.incarnation:
            return (
                f"cluster {cluster} knows {replica.node_id} as {member.incarnation}, and this is "
                f"{replica.incarnation}: its data directory was lost or replaced, so it can't go on as the same node"
            )
        if set(configuration.ids) != set(self.start.addresses):
            return f"cluster {cluster} was founded by {', '.join(configuration.ids)}, and --cluster names other nodes"
        return None

    def _adopt(self, founding: bytes, reason: str) -> None:
        replica = self.replica
        entry = Entry(1, 1, Kind.CONFIGURATION, founding)
        replica.current_term = max(replica.current_term, 1)
        replica.append((entry,))
        self.save((entry,))
        # The same bytes on every node, by the rule above: there is nothing that could stand in its place.
        replica.commit_index = 1
        self.become("follower", reason)

    def reason_for_no_leader(self) -> str:
        """Say whom we wait for."""
        if self.why_out:
            return "; ".join(dict.fromkeys(self.why_out[peer] for peer in sorted(self.why_out)))
        missing = sorted(set(self.start.peers) - set(self.met))
        if missing:
            return f"waiting for {', '.join(missing)}: the cluster begins when all its nodes have met"
        return "all nodes are here and get to know each other"
