"""Raft's own messages between nodes (dissertation, figures 3.1, 3.10 and section 9.6), and those of the bootstrap.

Any may be lost, repeated or late. ``sender`` is the node that sent the message: the link checks it against the peer
that proved its identity.
"""

from __future__ import annotations

from raftkv.actors.messages.base import Index, Name, Term, Wire
from raftkv.raft.entry import Entry
from raftkv.raft.progress import UNKNOWN_FREE_BYTES


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
    ``no_room``: this node's disk is full; nothing was appended. ``free_bytes``: bytes of entries that it can take.
    """

    sender: Name
    term: Term
    success: bool
    match_index: Index
    read_round: int = 0
    conflict_term: Term = 0
    conflict_index: Index = 0
    no_room: bool = False
    free_bytes: int = UNKNOWN_FREE_BYTES


class TimeoutNow(Wire, frozen=True, tag=5):
    """The leader asks this node to start an election at once (leadership transfer, dissertation 3.10)."""

    sender: Name
    term: Term


class BootstrapHello(Wire, frozen=True, tag=48):
    """A node without a configuration tells the others of its start list who it is and whom it has met.

    ``initial_cluster`` is a hash of the list it was started with; ``met`` are (id, incarnation) pairs, in order, its
    own among them. ``founding`` is the data of entry 1 where the sender has one. With ``answer`` it wants one back.
    """

    sender: Name
    incarnation: Name
    initial_cluster: str
    met: tuple[tuple[Name, Name], ...]
    founding: bytes = b""
    answer: bool = False
