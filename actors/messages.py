"""Every message between the actors, and which of them may cross from node to node.

All are frozen data but ``Assume``, which hands the one replica over. Those in ``PeerMessage`` travel as bytes
(``raftkv.actors.wire``); their tags are on the wire and are never used again. ``sender`` is the node that sent the
message: the link checks it against the peer that proved its identity. Times are milliseconds, sizes bytes.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec
from thespian.actors import ActorAddress

from raftkv.clock import Clock
from raftkv.commands import Command, Item, Query, Result
from raftkv.disk import Disk
from raftkv.entry import Entry, NodeId
from raftkv.names import NAME_LENGTH
from raftkv.progress import UNKNOWN_ROOM
from raftkv.settings import Limits, Timing

if TYPE_CHECKING:
    from raftkv.replica import Replica

RoleName = Literal["founder", "follower", "candidate", "leader"]
Index = Annotated[int, msgspec.Meta(ge=0, le=2**62)]
Term = Annotated[int, msgspec.Meta(ge=0, le=2**62)]
TimeoutMs = Annotated[float, msgspec.Meta(ge=0, le=86_400_000)]
Name = Annotated[str, msgspec.Meta(min_length=1, max_length=NAME_LENGTH)]
Level = Literal["linearizable", "stale"]
"""How fresh a read is to be."""


class Message(msgspec.Struct, frozen=True, gc=False):
    """A message that stays inside the node."""


class Wire(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """A message that may go to another node."""


# --- Raft's own messages (dissertation, figures 3.1, 3.10 and section 9.6): any may be lost, repeated or late.


class RequestVote(Wire, frozen=True, tag=1):
    """Ask for a vote; with ``pre_vote``, only whether one would be given in ``term``, which nobody has begun.

    ``transfer``: the leader itself asked for this election, so having heard of it is no reason to refuse.
    """

    sender: Name
    term: Term
    last_log_index: Index
    last_log_term: Term
    pre_vote: bool = False
    transfer: bool = False


class RequestVoteReply(Wire, frozen=True, tag=2):
    """Answer to a ``RequestVote``; a granted pre-vote carries the term that was asked about."""

    sender: Name
    term: Term
    vote_granted: bool
    pre_vote: bool = False


class AppendEntries(Wire, frozen=True, tag=3):
    """Entries that follow ``prev_log_index``, or none: a heartbeat.

    ``read_round``: the leader's latest round of heartbeats that reads wait for; the reply returns it.
    """

    sender: Name
    term: Term
    prev_log_index: Index
    prev_log_term: Term
    entries: tuple[Entry, ...]
    leader_commit: Index
    read_round: int = 0


class AppendEntriesReply(Wire, frozen=True, tag=4):
    """Answer to an ``AppendEntries``.

    On success everything up to ``match_index`` equals the leader's log and is on this node's disk. Otherwise
    ``match_index`` is the ``prev_log_index`` that did not fit, and the entry there had ``conflict_term``, whose first
    index here is ``conflict_index`` (term 0: there is no such entry, and ``conflict_index`` is the end of the log).
    ``no_room``: this node's disk is full; nothing was appended. ``room``: bytes of entries that it can take.
    """

    sender: Name
    term: Term
    success: bool
    match_index: Index
    read_round: int = 0
    conflict_term: Term = 0
    conflict_index: Index = 0
    no_room: bool = False
    room: int = UNKNOWN_ROOM


class TimeoutNow(Wire, frozen=True, tag=5):
    """The leader asks this node to start an election at once (leadership transfer, dissertation 3.10)."""

    sender: Name
    term: Term


# --- Requests that one node passes on to another. Never sent twice; matched by (boot, number) of the node that asks.


class Refused(Wire, frozen=True, tag=16):
    """A request was not served, and why; ``detail`` is for people.

    ``unknown`` is the only code after which the request may have taken effect, or may yet.
    """

    code: Literal[
        "no_leader", "not_leader", "not_committed", "retry", "unknown", "overloaded", "no_room", "stopping", "invalid"
    ]
    detail: str = ""


class Applied(Wire, frozen=True, tag=17):
    """The commands of one entry were applied: a result for each, in order. ``revision`` is the keyspace's after."""

    index: Index
    term: Term
    revision: int
    results: tuple[Result, ...]


class ReadResult(Wire, frozen=True, tag=18):
    """What the queries of a ``Read`` found, in order, in a keyspace at ``revision`` after applying ``index``."""

    index: Index
    revision: int
    items: tuple[Item | None, ...]


class ReadIndex(Wire, frozen=True, tag=19):
    """The commit index that a linearizable read has to wait for (dissertation, 6.4)."""

    index: Index


class Done(Wire, frozen=True, tag=20):
    """What was asked for has been done."""


Reply = Applied | ReadResult | ReadIndex | Done | Refused


class Propose(Wire, frozen=True, tag=32):
    """Append these commands as one entry and answer ``Applied``; worth doing for ``timeout_ms`` only."""

    commands: tuple[Command, ...]
    timeout_ms: TimeoutMs


class AskReadIndex(Wire, frozen=True, tag=33):
    """Confirm leadership and answer ``ReadIndex``."""

    timeout_ms: TimeoutMs


class Forward(Wire, frozen=True, tag=34):
    """A follower passes a request on to the leader's node: one hop, never more."""

    sender: Name
    boot: int
    number: int
    request: Propose | AskReadIndex


class ForwardReply(Wire, frozen=True, tag=35):
    """The answer to a ``Forward``."""

    sender: Name
    boot: int
    number: int
    reply: Reply


class Introduce(Wire, frozen=True, tag=48):
    """A node without a configuration tells the others of its start list who it is and whom it has met.

    ``start_list`` is a hash of the list it was started with; ``met`` are (id, incarnation) pairs, in order, its own
    among them. ``founding`` is the data of entry 1 where the sender has one. With ``answer`` it wants one back.
    """

    sender: Name
    incarnation: Name
    start_list: str
    met: tuple[tuple[Name, Name], ...]
    founding: bytes = b""
    answer: bool = False


class About(Wire, frozen=True, tag=49):
    """Where clients reach the sender: ``http`` is ``host:port``. Told to each peer whenever it comes."""

    sender: Name
    http: Annotated[str, msgspec.Meta(max_length=300)]


PeerMessage = (
    RequestVote
    | RequestVoteReply
    | AppendEntries
    | AppendEntriesReply
    | TimeoutNow
    | Forward
    | ForwardReply
    | Introduce
    | About
)


# --- Requests of the front end, to Node.


class Read(Message, frozen=True):
    """Answer queries: ``ReadResult``, or ``Refused``."""

    queries: tuple[Query, ...]
    level: Level
    timeout_ms: TimeoutMs


class AskStatus(Message, frozen=True):
    """Answer ``Status``."""


class Retire(Message, frozen=True):
    """Hand leadership to the most up-to-date peer, if it is ours, then answer ``Done``; never campaign again."""

    timeout_ms: TimeoutMs


class PeerStatus(Message, frozen=True):
    """How one peer stands: ``last_heard_ms`` is how long ago (None: never, or not known to a follower).

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
    """What a node knows of itself. ``reason`` says why there is no leader where there is none."""

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


class RoleChanged(Message, frozen=True):
    """Told to the observer at each change of role, term or leader; ``reason`` is a sentence for people."""

    id: NodeId
    role: RoleName
    term: int
    leader: NodeId | None
    reason: str
    cluster_id: str | None = None


# --- Between the actors of one node.


class Boot(Message, frozen=True, gc=True):
    """Everything a node's parent actor needs to start the others; see ``Start`` for the shared fields.

    ``http`` is where clients reach this node (host:port). The ``observer`` gets every ``RoleChanged`` and ``About``.
    """

    node_id: NodeId
    incarnation: str
    start_list: tuple[tuple[NodeId, str], ...]
    peers: dict[NodeId, ActorAddress]
    observer: ActorAddress | None
    http: str
    directory: str
    disk: Disk
    clock: Clock
    rng: Random
    timing: Timing
    limits: Limits
    fail: Callable[[int, str], None]


class Start(Message, frozen=True, gc=True):
    """First message to every actor of a node: whom it talks to, and its only access to time, chance and disk.

    ``addresses`` are the Raft addresses (host:port) of all nodes of the start list. ``fail(status, line)`` stops the
    process: a bug or a disk that failed must not be survived.
    """

    node_id: NodeId
    node: ActorAddress
    journal: ActorAddress
    store: ActorAddress
    peers: dict[NodeId, ActorAddress]
    addresses: dict[NodeId, str]
    start_list_hash: str
    directory: str
    disk: Disk
    clock: Clock
    rng: Random
    timing: Timing
    limits: Limits
    fail: Callable[[int, str], None]


class Recovered(Message, frozen=True):
    """What the journal found on disk. ``room`` as in ``Saved``."""

    current_term: int
    voted_for: NodeId | None
    entries: tuple[Entry, ...]
    room: int


class Save(Message, frozen=True):
    """Make durable: term, vote, and ``entries``, whose first one cuts off what the log had from its index on.

    ``number`` counts saves from 1 without gaps.
    """

    number: int
    current_term: int
    voted_for: NodeId | None
    entries: tuple[Entry, ...] = ()


class Saved(Message, frozen=True):
    """Every save up to ``number`` is on disk; ``room`` bytes of entries can be saved before the disk is full."""

    number: int
    room: int


class AskRoom(Message, frozen=True):
    """Ask the journal for ``Room``: a node that saves nothing would never hear that there is room again."""


class Room(Message, frozen=True):
    """How many bytes of entries can be saved before the disk is full."""

    room: int


class Asker(Message, frozen=True):
    """Who waits for an answer: an actor of this node, or, with ``forward`` (boot, number), a request of a peer."""

    address: Any
    forward: tuple[int, int] | None = None


class Asked(Message, frozen=True):
    """A request inside the node: the request, who asked, and until when (on this node's clock) it is worth doing."""

    request: Propose | Read | AskReadIndex | AskStatus | Retire
    asker: Asker
    deadline_ms: float


class Apply(Message, frozen=True):
    """Apply these committed entries, of which ``first_index`` is the first.

    ``askers``: (index, who) for those that wait for an entry's ``Applied``.
    """

    first_index: int
    entries: tuple[Entry, ...]
    askers: tuple[tuple[int, Asker], ...] = ()


class AppliedUpTo(Message, frozen=True):
    """The store has applied everything up to ``index``."""

    index: int


class ReadAt(Message, frozen=True):
    """Ask the store to answer these queries once ``read_index`` is applied, or ``Refused`` at ``deadline_ms``."""

    queries: tuple[Query, ...]
    asker: Asker
    read_index: int
    deadline_ms: float


class PeerUp(Message, frozen=True):
    """The link to ``peer`` carries messages (again)."""

    peer: NodeId


class PeerDown(Message, frozen=True):
    """Messages to ``peer`` may have been lost: its connection ended, or more waited than may wait."""

    peer: NodeId
    reason: str = ""


class NotSent(Message, frozen=True):
    """The link refused ``message`` to ``peer`` at once: not one byte of it left this node."""

    peer: NodeId
    message: Any
    reason: str = ""


class Flush(Message, frozen=True):
    """An actor's message to itself: everything that waited before it has been seen."""


class Assume:
    """Take over ``replica`` in ``role`` and handle ``cause``, the message that made the change, first.

    The one message that is not frozen data: the replica is moved, and who sent it does not touch it again.
    """

    __slots__ = ("cause", "reason", "replica", "role")

    def __init__(self, replica: Replica, role: RoleName, reason: str, cause: Any = None) -> None:
        self.replica = replica
        self.role: RoleName = role
        self.reason = reason
        self.cause = cause
