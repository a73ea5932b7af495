"""Raft's own messages between nodes (dissertation, figures 3.1, 3.10 and section 9.6), and those of the bootstrap.

Any of them may be lost, repeated, reordered or very late.
"""

from __future__ import annotations

from typing import ClassVar

import msgspec

from raftkv.actors.messages.base import Index, Name, PeerMessage, RoleName, Term
from raftkv.raft.configuration import decode_configuration
from raftkv.raft.entry import Entry, Kind
from raftkv.raft.progress import AMPLE_FREE_BYTES
from raftkv.store.commands import decode_commands

_KINDS = frozenset(Kind)


class RequestVote(PeerMessage, frozen=True, tag=1):
    """Ask for a vote; with ``pre_vote``, only whether one would be granted in ``term``, which has not begun.

    ``transfer``: the leader itself asked for this election, so a voter that still hears it does not refuse.
    """

    term: Term
    last_log_index: Index
    last_log_term: Term
    pre_vote: bool = False
    transfer: bool = False


class RequestVoteReply(PeerMessage, frozen=True, tag=2):
    """Answer to a ``RequestVote``; a granted pre-vote carries the term that was asked about."""

    term: Term
    vote_granted: bool
    pre_vote: bool = False

    ignored_by: ClassVar[frozenset[RoleName]] = frozenset({"bootstrap"})


class AppendEntries(PeerMessage, frozen=True, tag=3):
    """Entries that follow ``prev_log_index``, or none: a heartbeat.

    ``read_round``: the leader's latest round of heartbeats that reads wait for; the reply returns it.
    """

    term: Term
    prev_log_index: Index
    prev_log_term: Term
    entries: tuple[Entry, ...]
    leader_commit: Index
    read_round: int = 0

    ignored_by: ClassVar[frozenset[RoleName]] = frozenset({"bootstrap"})

    def is_control(self) -> bool:
        """Heartbeats overtake entries."""
        return not self.entries

    def check(self) -> None:
        """Refuse entries that would stop the node that appends or applies them."""
        index, term = self.prev_log_index, self.prev_log_term
        for entry in self.entries:
            index += 1
            if entry.index != index or not term <= entry.term <= self.term or entry.kind not in _KINDS:
                raise msgspec.ValidationError(f"entry {entry.index} of term {entry.term} in the place of {index}")
            if entry.kind == Kind.COMMANDS:
                decode_commands(entry.data)
            elif entry.kind == Kind.CONFIGURATION:
                if index != 1:
                    # Members are those of the bootstrap until there is a way to change them.
                    raise msgspec.ValidationError(f"a configuration at index {index}")
                decode_configuration(entry.data)
            term = entry.term


class AppendEntriesReply(PeerMessage, frozen=True, tag=4):
    """Answer to an ``AppendEntries``.

    On success everything up to ``match_index`` equals the leader's log and is on this node's disk. Otherwise
    ``match_index`` is the ``prev_log_index`` that did not fit, and the entry there had ``conflict_term``, whose first
    index here is ``conflict_index`` (term 0: there is no such entry, and ``conflict_index`` is the end of the log).
    ``no_room``: this node's disk is full; nothing was appended. ``free_bytes``: bytes of entries that it can take.
    """

    term: Term
    success: bool
    match_index: Index
    read_round: int = 0
    conflict_term: Term = 0
    conflict_index: Index = 0
    no_room: bool = False
    free_bytes: int = AMPLE_FREE_BYTES

    ignored_by: ClassVar[frozenset[RoleName]] = frozenset({"bootstrap"})


class TimeoutNow(PeerMessage, frozen=True, tag=5):
    """The leader asks this node to start an election at once (leadership transfer, dissertation 3.10)."""

    term: Term

    ignored_by: ClassVar[frozenset[RoleName]] = frozenset({"bootstrap", "leader"})


class BootstrapHello(PeerMessage, frozen=True, tag=48):
    """A node without a configuration introduces itself to the others of its initial cluster.

    ``initial_cluster_hash`` is the hash of the list that it was started with. ``met`` are the (id, incarnation) pairs
    of all nodes that it has met, in order, itself included. ``founding`` is the data of entry 1, if the sender has it.
    With ``answer`` the sender wants a hello back.
    """

    incarnation: Name
    initial_cluster_hash: str
    met: tuple[tuple[Name, Name], ...]
    founding: bytes = b""
    answer: bool = False
