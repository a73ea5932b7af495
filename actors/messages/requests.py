"""Requests of clients and their answers, inside a node and passed on from one node to another.

A request is never sent to another node twice; its answer is matched by the (boot_id, number) of the node that asks.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from raftkv.actors.messages.base import Index, Level, Message, PeerMessage, Term, TimeoutMs, WireMessage
from raftkv.raft.entry import NodeId
from raftkv.store.commands import Command, Item, Query, Result


class Refused(WireMessage, frozen=True, tag=16):
    """A request was not served, and why; ``detail`` is for people.

    ``unknown`` is the only code after which the request may have taken effect, or may yet.
    """

    code: Literal[
        "no_leader", "not_leader", "not_committed", "retry", "unknown", "overloaded", "no_room", "stopping", "invalid"
    ]
    detail: str = ""


class Applied(WireMessage, frozen=True, tag=17):
    """The commands of one entry were applied: a result for each, in order. ``revision`` is the keyspace's after."""

    index: Index
    term: Term
    revision: int
    results: tuple[Result, ...]


class ReadResult(WireMessage, frozen=True, tag=18):
    """What the queries of a ``Read`` found, in order, in a keyspace at ``revision`` after applying ``index``."""

    index: Index
    revision: int
    items: tuple[Item | None, ...]


class ReadIndex(WireMessage, frozen=True, tag=19):
    """The commit index that a linearizable read has to wait for (dissertation, 6.4)."""

    index: Index


class Done(WireMessage, frozen=True, tag=20):
    """The request was carried out."""


Reply = Applied | ReadResult | ReadIndex | Done | Refused


class Propose(WireMessage, frozen=True, tag=32):
    """Append these commands as one entry and answer ``Applied``; expires after ``timeout_ms``."""

    commands: tuple[Command, ...]
    timeout_ms: TimeoutMs


class AskReadIndex(WireMessage, frozen=True, tag=33):
    """Confirm leadership and answer ``ReadIndex``."""

    timeout_ms: TimeoutMs


class Forward(PeerMessage, frozen=True, tag=34):
    """A follower passes a request on to the leader's node: one hop, never more."""

    boot_id: int
    number: int
    request: Propose | AskReadIndex

    for_role: ClassVar[bool] = False

    may_repeat: ClassVar[bool] = False

    def is_control(self) -> bool:
        """Requests are bulky."""
        return False


class ForwardReply(PeerMessage, frozen=True, tag=35):
    """The answer to a ``Forward``."""

    boot_id: int
    number: int
    reply: Reply

    may_repeat: ClassVar[bool] = False

    def is_control(self) -> bool:
        """Answers are bulky."""
        return False


class Read(Message, frozen=True):
    """Answer queries: ``ReadResult``, or ``Refused``."""

    queries: tuple[Query, ...]
    level: Level
    timeout_ms: TimeoutMs


class AskStatus(Message, frozen=True):
    """Answer ``Status``."""


class Resign(Message, frozen=True):
    """Hand leadership to the most up-to-date peer, if it is ours, then answer ``Done``; never campaign again."""

    timeout_ms: TimeoutMs


class PeerStatus(Message, frozen=True):
    """The state of one peer; ``last_heard_ms`` is the time since its last answer (None at followers, or if never).

    ``match_index``, ``next_index`` and ``state`` are known to a leader only.
    """

    id: NodeId
    address: str
    connected: bool
    last_heard_ms: float | None = None
    match_index: int | None = None
    next_index: int | None = None
    state: str | None = None


class Status(Message, frozen=True):
    """A node's view of itself. ``reason`` says why there is no leader; None while there is one."""

    id: NodeId
    role: str
    term: int
    leader: NodeId | None
    commit_index: int
    last_applied: int
    last_log_index: int
    durable_index: int
    cluster_id: str | None
    incarnation: str
    voters: tuple[NodeId, ...]
    peers: tuple[PeerStatus, ...]
    reason: str | None


class ReplyTo(Message, frozen=True):
    """Where an answer goes: to an actor of this node, or, with ``forward`` (boot_id, number), a request of a peer."""

    address: Any
    forward: tuple[int, int] | None = None


class PendingRequest(Message, frozen=True):
    """A request inside the node, with the address for the answer and a deadline on this node's clock."""

    request: Propose | Read | AskReadIndex | AskStatus | Resign
    reply_to: ReplyTo
    deadline_ms: float

    for_role: ClassVar[bool] = True
