"""The replica: everything a node knows as a member of its cluster, in one object that one role holds at a time.

It is the baton of the roles: moved from one to the next, never shared. It holds Raft's state (dissertation, figure
3.1) and two queues: ``saves``, for what has to be durable before what, and ``requests``, for clients that wait.
Addresses and messages are opaque here: these modules keep the books, the roles in ``raftkv.actors.roles`` decide.
"""

from __future__ import annotations

from collections import deque

from raftkv.raft.configuration import Configuration, cluster_id, decode_configuration
from raftkv.raft.entry import Entry, Kind, NodeId
from raftkv.raft.log import Log
from raftkv.raft.pending_requests import PendingRequests
from raftkv.raft.save_queue import SaveQueue


class Replica:
    """Raft's state on one node.

    ``last_applied <= applying_index <= min(commit_index, durable_index)``, and the first three never fall.
    ``voted_for`` is set at most once in a term.
    """

    def __init__(
        self,
        node_id: NodeId,
        incarnation: str,
        boot_id: int,
        *,
        current_term: int = 0,
        voted_for: NodeId | None = None,
        entries: tuple[Entry, ...] = (),
        free_bytes: int = 0,
    ) -> None:
        self.node_id = node_id
        self.incarnation = incarnation
        self.boot_id = boot_id
        """Drawn at each start, so that answers to requests from before a restart are recognized."""

        # Persistent state.
        self.current_term = current_term
        self.voted_for = voted_for
        self.log = Log(entries)
        self.founding = b""
        """The encoded configuration that founded the cluster; empty while this node belongs to none."""
        self.cluster_id: str | None = None
        """A hash of ``founding``; None while this node belongs to no cluster."""
        self._find_founding(entries)

        # Volatile state.
        self.commit_index = 0
        self.applying_index = 0
        """The last index that was given to the store."""
        self.last_applied = 0
        """The last index that the store has confirmed."""
        self.inflight_applies: deque[int] = deque()
        """The last index of each message to the store that it has not confirmed."""
        self.leader_id: NodeId | None = None
        self.leader_heard_ms = float("-inf")
        self.leader_matched_index = 0
        """Up to here our log is known to equal that of the leader of the current term.

        Not to be confused with a leader's ``match_index`` of a peer, which speaks of what is on that peer's disk.
        """
        self.min_stale_read_index: int | None = None
        """The lowest index that stale reads may show: it covers all that was acknowledged before this node's start.

        None until it is known; stale reads are then served as linearizable ones.
        """
        self.min_stale_read_request = 0
        """The number of the forwarded request that last asked a leader for it."""
        self.connected: set[NodeId] = set()
        """The peers that messages reach at present."""
        self.resigned = False
        """This node is about to stop: it neither campaigns nor takes requests."""

        self.saves = SaveQueue(durable_index=self.log.last_index, durable_term=current_term, free_bytes=free_bytes)
        self.requests = PendingRequests()

    @property
    def configuration(self) -> Configuration:
        """The configuration in force."""
        return self.log.configuration

    @property
    def durable_index(self) -> int:
        """The last index that is on this node's disk."""
        return self.saves.durable_index

    @property
    def peers(self) -> tuple[NodeId, ...]:
        """The other members."""
        return tuple(member for member in self.configuration.ids if member != self.node_id)

    def adopt_term(self, term: int) -> None:
        """Go to a later term, in which this node has not voted and knows no leader (3.3)."""
        assert term > self.current_term, (term, self.current_term)
        self.current_term = term
        self.voted_for = None
        self.leader_id = None
        self.leader_matched_index = 0
        self.saves.hard_state_dirty = True

    def vote_for(self, candidate: NodeId) -> None:
        """Give this term's one vote (3.4)."""
        voted_for = self.voted_for
        assert voted_for in (None, candidate), f"voted for {voted_for} in term {self.current_term}, now for {candidate}"
        if self.voted_for is None:
            self.voted_for = candidate
            self.saves.hard_state_dirty = True

    def append(self, entries: tuple[Entry, ...]) -> None:
        """Add entries to the log; they have to be saved next."""
        self.log.append(entries)
        self.saves.appended(sum(entry.size for entry in entries))
        self._find_founding(entries)

    def truncate(self, index: int) -> None:
        """Cut the log off at ``index``, behind all that is committed."""
        assert index > self.commit_index, f"cutting off {index}, committed up to {self.commit_index}"
        self.log.truncate(index)
        self.saves.truncate(index)
        if index == 1:
            self.founding, self.cluster_id = b"", None

    def save(self, now_ms: float) -> int:
        """Record that the current term, vote and log are being saved; return the number of the save."""
        return self.saves.begin(self.log.last_index, self.current_term, now_ms)

    def saved(self, number: int) -> None:
        """Record that every save up to ``number`` is on disk."""
        self.saves.confirm(number)
        assert self.durable_index <= self.log.last_index, (self.durable_index, self.log.last_index)

    def _find_founding(self, entries: tuple[Entry, ...]) -> None:
        if entries and entries[0].index == 1 and entries[0].kind == Kind.CONFIGURATION:
            self.founding = entries[0].data
            self.cluster_id = cluster_id(decode_configuration(self.founding))
