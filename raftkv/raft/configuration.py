"""Who is in the cluster, and what a majority of it is.

A configuration has one set of voters, or two while the cluster moves from one to the other (joint consensus,
dissertation 4.3); everything that needs a majority then needs one of each.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Mapping

import msgspec

from raftkv.raft.entry import NodeId


class Member(msgspec.Struct, frozen=True, array_like=True):
    """A node of the cluster.

    ``incarnation`` is drawn when a data directory is made: the same id with another incarnation is another member
    (its disk was wiped), and must not vote in the first one's place. ``address`` is ``host:port`` of its Raft port.
    """

    id: NodeId
    address: str
    incarnation: str


class Configuration(msgspec.Struct, frozen=True, array_like=True):
    """The members, and which of them vote: in ``voters``, and in ``outgoing`` as well while it is not empty (joint).

    Members that are in neither are learners.
    """

    members: tuple[Member, ...] = ()
    voters: frozenset[NodeId] = frozenset()
    outgoing: frozenset[NodeId] = frozenset()

    @property
    def ids(self) -> tuple[NodeId, ...]:
        """The ids of all members, in order."""
        return tuple(member.id for member in self.members)

    @property
    def all_voters(self) -> frozenset[NodeId]:
        """Everyone whose vote counts somewhere."""
        return self.voters | self.outgoing

    def member(self, node_id: NodeId) -> Member | None:
        """Return the member with this id, if there is one."""
        return next((member for member in self.members if member.id == node_id), None)

    def has_quorum(self, agreeing: Collection[NodeId]) -> bool:
        """Whether ``agreeing`` holds a majority of the voters (of both sets while joint)."""
        return all(
            sum(voter in agreeing for voter in voters) >= majority(len(voters))
            for voters in (self.voters, self.outgoing)
            if voters
        ) and bool(self.voters)

    def quorum_value(self, value_of: Mapping[NodeId, int] | Callable[[NodeId], int]) -> int:
        """Return the highest value that a majority of voters has reached (of both sets while joint)."""
        read = value_of.__getitem__ if isinstance(value_of, Mapping) else value_of
        return min(
            sorted(map(read, voters), reverse=True)[majority(len(voters)) - 1]
            for voters in (self.voters, self.outgoing)
            if voters
        )

    def encode(self) -> bytes:
        """Return the data of an entry of kind ``CONFIGURATION``: the same bytes for an equal configuration."""
        return _encoder.encode((self.members, sorted(self.voters), sorted(self.outgoing)))


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Configuration)


def majority(size: int) -> int:
    """Return how many of ``size`` are more than half."""
    return size // 2 + 1


def decode_configuration(data: bytes) -> Configuration:
    """Return the configuration that an entry carries; raises ``msgspec.DecodeError`` if it carries none."""
    try:
        return _decoder.decode(data)
    except UnicodeDecodeError as error:
        raise msgspec.ValidationError(f"a name that is not UTF-8: {error}") from None
    except RecursionError:
        raise msgspec.ValidationError("nested too deeply") from None


def founding_configuration(members: Collection[Member]) -> Configuration:
    """Return the configuration that a cluster of these members starts with: all of them vote."""
    ordered = tuple(sorted(members, key=lambda member: member.id))
    return Configuration(ordered, frozenset(member.id for member in ordered))


def cluster_id(configuration: Configuration) -> str:
    """Return the cluster's id: a hash of its founding configuration, the same on every node."""
    return hashlib.sha256(configuration.encode()).hexdigest()[:16]


def initial_cluster_hash(initial_cluster: tuple[tuple[NodeId, str], ...]) -> str:
    """Return a hash of the list of nodes that a cluster starts with, the same for every order of it."""
    return hashlib.sha256(repr(sorted(initial_cluster)).encode()).hexdigest()[:16]
