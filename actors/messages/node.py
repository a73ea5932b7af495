"""Messages between the actors of one node, and the one that Node itself sends to other nodes: ``AdvertiseAddress``.

All are frozen data but ``Assume``, which hands the one replica over.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import msgspec
from thespian.actors import ActorAddress

from raftkv.actors.messages.base import Message, PeerMessage, RoleName
from raftkv.actors.messages.requests import ReplyTo
from raftkv.environment import Environment
from raftkv.raft.configuration import Member
from raftkv.raft.entry import Entry, NodeId
from raftkv.store.commands import Query

if TYPE_CHECKING:
    from raftkv.raft.replica import Replica


class AdvertiseAddress(PeerMessage, frozen=True, tag=49):
    """Where clients reach the sender: ``http`` is ``host:port``. Sent to each peer whenever it connects."""

    http: Annotated[str, msgspec.Meta(max_length=300)]

    for_role: ClassVar[bool] = False


class RoleChanged(Message, frozen=True):
    """Sent to the observer at each change of role, term or leader; ``reason`` is a sentence for people.

    ``members`` are those of the configuration in force.
    """

    id: NodeId
    role: RoleName
    term: int
    leader: NodeId | None
    reason: str
    cluster_id: str | None = None
    members: tuple[Member, ...] = ()


class Boot(Message, frozen=True, gc=True):
    """First message to Node: everything that it needs to start the node's other actors.

    ``initial_cluster`` are the (id, Raft address ``host:port``) pairs of ``--cluster``. ``peer_address`` returns the
    address of another node's Node actor. ``http`` is where clients reach this node (host:port). The ``observer`` gets
    every ``RoleChanged`` and ``AdvertiseAddress``.
    """

    node_id: NodeId
    incarnation: str
    initial_cluster: tuple[tuple[NodeId, str], ...]
    peer_address: Callable[[NodeId], ActorAddress]
    observer: ActorAddress | None
    http: str
    environment: Environment


class Start(Message, frozen=True, gc=True):
    """First message to every other actor of a node: the addresses that it sends to, and its environment.

    ``initial_cluster`` and ``peer_address`` as in ``Boot``; ``initial_cluster_hash`` is the same on every node that was
    started with the same list.
    """

    node_id: NodeId
    node: ActorAddress
    journal: ActorAddress
    store: ActorAddress
    peer_address: Callable[[NodeId], ActorAddress]
    initial_cluster: tuple[tuple[NodeId, str], ...]
    initial_cluster_hash: str
    environment: Environment


class Recovered(Message, frozen=True):
    """What the journal found on disk. ``free_bytes`` as in ``Saved``."""

    current_term: int
    voted_for: NodeId | None
    entries: tuple[Entry, ...]
    free_bytes: int


class Save(Message, frozen=True):
    """Make durable: term, vote, and ``entries``, whose first one cuts off what the log had from its index on.

    ``number`` counts saves from 1 without gaps.
    """

    number: int
    current_term: int
    voted_for: NodeId | None
    entries: tuple[Entry, ...] = ()


class Saved(Message, frozen=True):
    """Every save up to ``number`` is on disk; ``free_bytes`` bytes of entries can be saved before the disk is full."""

    number: int
    free_bytes: int

    for_role: ClassVar[bool] = True


class AskFreeBytes(Message, frozen=True):
    """Ask the journal for ``FreeBytes``: a node that saves nothing would never learn that there is room again."""


class FreeBytes(Message, frozen=True):
    """How many bytes of entries can be saved before the disk is full."""

    free_bytes: int

    for_role: ClassVar[bool] = True


class Apply(Message, frozen=True):
    """Apply these committed entries, of which ``first_index`` is the first.

    ``waiters`` are (index, reply_to) pairs: where the ``Applied`` of the entry at that index goes.
    """

    first_index: int
    entries: tuple[Entry, ...]
    waiters: tuple[tuple[int, ReplyTo], ...] = ()


class AppliedUpTo(Message, frozen=True):
    """The store has applied everything up to ``index``."""

    index: int

    for_role: ClassVar[bool] = True


class ReadAt(Message, frozen=True):
    """Ask the store to answer these queries once ``read_index`` is applied, or ``Refused`` at ``deadline_ms``."""

    queries: tuple[Query, ...]
    reply_to: ReplyTo
    read_index: int
    deadline_ms: float


class PeerUp(Message, frozen=True):
    """The link to ``peer`` carries messages (again)."""

    peer: NodeId


class PeerDown(Message, frozen=True):
    """Messages to ``peer`` may have been lost: its connection ended, or its queue overflowed."""

    peer: NodeId
    reason: str = ""

    for_role: ClassVar[bool] = True


class NotSent(Message, frozen=True):
    """The link refused ``message`` to ``peer`` at once: not one byte of it left this node."""

    peer: NodeId
    message: Any
    reason: str = ""

    for_role: ClassVar[bool] = True


class Flush(Message, frozen=True):
    """An actor's message to itself: everything that was in its mailbox before has been handled."""

    ignored_by: ClassVar[frozenset[RoleName]] = frozenset({"bootstrap", "follower", "candidate"})


class Assume:
    """Take over ``replica`` in ``role`` and handle ``cause``, the message that made the change, first.

    The one message that is not frozen data: the replica is moved, and its sender does not touch it again.
    """

    __slots__ = ("cause", "reason", "replica", "role")

    def __init__(self, replica: Replica, role: RoleName, reason: str, cause: Any = None) -> None:
        self.replica = replica
        self.role: RoleName = role
        self.reason = reason
        self.cause = cause

    def __repr__(self) -> str:
        """Return what a report of a bug needs: not the replica, which is large."""
        return f"Assume({self.role!r}, {self.reason!r}, {self.cause!r})"
