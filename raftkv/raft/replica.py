"""The replica: everything a node knows as a member of its cluster, in one object that one role holds at a time.

Addresses and messages are opaque here: this module keeps the books, the roles in ``raftkv.actors`` decide.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from raftkv.raft.configuration import Configuration, cluster_id, decode_configuration
from raftkv.raft.entry import Entry, NodeId
from raftkv.raft.log import Log
from raftkv.raft.progress import UNKNOWN_FREE_BYTES

PLENTY_OF_FREE_BYTES = 1 << 30


@dataclass(slots=True)
class PendingSave:
    """A save that the journal has not confirmed.

    ``last_index`` is the log's with it, ``size`` the bytes of its entries, ``asked_ms`` when it was asked for.
    """

    number: int
    last_index: int
    term: int
    asked_ms: float
    size: int


@dataclass(slots=True, frozen=True)
class Waiting:
    """Somebody who waits for an entry to be applied; ``term`` is the entry's."""

    term: int
    reply_to: Any
    deadline_ms: float


@dataclass(slots=True, frozen=True)
class Forwarded:
    """A request that was passed on to ``leader``, and who asked for it."""

    pending: Any
    leader: NodeId


class Replica:
    """Raft's state (dissertation, figure 3.1) and what waits for it: the baton that the roles hand on.

    Saves are numbered from 1. ``durable_index`` is the last index known to be on this node's disk as it stands in
    the log now: cutting the log off lowers it, and what the saves under way would raise it to.
    """

    def __init__(
        self,
        node_id: NodeId,
        incarnation: str,
        boot: int,
        *,
        current_term: int = 0,
        voted_for: NodeId | None = None,
        entries: tuple[Entry, ...] = (),
        free_bytes: int = 0,
    ) -> None:
        self.node_id = node_id
        self.incarnation = incarnation
        self.boot = boot
        """Drawn at each start, so that answers to requests of an earlier life are known as such."""
        self.current_term = current_term
        self.voted_for = voted_for
        self.log = Log(entries)
        self.commit_index = 0
        self.durable_index = self.log.last_index
        self.leader_matched_index = 0
        """Up to here our log is known to equal that of the leader of the current term."""
        self.applying_index = 0
        """The last index that was given to the store."""
        self.inflight_applies: deque[int] = deque()
        """The last index of each message to the store that it has not confirmed."""
        self.last_applied = 0
        self.min_stale_read_index: int | None = None
        """A read index that was confirmed in this life: stale reads show no less, or they would go back in time."""
        self.min_stale_read_request = 0
        """The number of the request by which we have asked a leader for it last."""
        self.leader_id: NodeId | None = None
        self.leader_heard_ms = float("-inf")
        self.durable_term = current_term
        """The latest term on disk."""
        self.hard_state_dirty = False
        """Term or vote have changed since the last save was asked for."""
        self.free_bytes = free_bytes
        """Bytes of entries that could be saved before the disk is full when the last save was confirmed."""
        self.free_bytes_asked_ms = float("-inf")
        self._unsaved_bytes = 0
        """Bytes of entries in the log that no save was asked for yet."""
        self.connected: set[NodeId] = set()
        self.resigned = False
        """This node is about to stop: it neither campaigns nor takes requests."""
        self.saves: deque[PendingSave] = deque()
        self._last_save = 0
        self._replies: deque[tuple[int, Any, Any]] = deque()
        self._waiters: dict[int, list[Waiting]] = {}
        self.held: deque[Any] = deque()
        """Requests that wait for a leader."""
        self.forwarded: dict[int, Forwarded] = {}
        self._last_forward = 0

    @property
    def configuration(self) -> Configuration:
        """The configuration in force."""
        return self.log.configuration

    @property
    def founding(self) -> bytes:
        """The data of entry 1, which founded the cluster; empty while this node belongs to none."""
        return self.log.entry(1).data if self.log.last_index else b""

    @property
    def cluster_id(self) -> str | None:
        """The id of the cluster that entry 1 founded; None while this node belongs to none."""
        return cluster_id(decode_configuration(self.founding)) if self.founding else None

    @property
    def peers(self) -> tuple[NodeId, ...]:
        """The other members."""
        return tuple(member for member in self.configuration.ids if member != self.node_id)

    @property
    def available_bytes(self) -> int:
        """Bytes of entries that can be appended: what is under way to the disk already has its place there."""
        return self.free_bytes - self._unsaved_bytes - sum(save.size for save in self.saves)

    @property
    def reported_free_bytes(self) -> int:
        """What the leader is told of the room here: a number only where it may begin to matter."""
        return max(0, self.available_bytes) if self.available_bytes < PLENTY_OF_FREE_BYTES else UNKNOWN_FREE_BYTES

    # --- saves and what waits for them

    def append(self, entries: tuple[Entry, ...]) -> None:
        """Add entries to the log; they have to be saved next."""
        self.log.append(entries)
        self._unsaved_bytes += sum(entry.size for entry in entries)

    def save(self, now_ms: float) -> int:
        """Note that the current term, vote and log are being saved; return the number of the save."""
        self._last_save += 1
        self.hard_state_dirty = False
        size, self._unsaved_bytes = self._unsaved_bytes, 0
        self.saves.append(PendingSave(self._last_save, self.log.last_index, self.current_term, now_ms, size))
        return self._last_save

    def saved(self, number: int) -> None:
        """Note that every save up to ``number`` is on disk."""
        while self.saves and self.saves[0].number <= number:
            save = self.saves.popleft()
            self.durable_index = max(self.durable_index, save.last_index)
            self.durable_term = save.term
        assert self.durable_index <= self.log.last_index, (self.durable_index, self.log.last_index)

    def truncate(self, index: int) -> None:
        """Cut the log off at ``index``; saves under way no longer make anything from there on durable."""
        assert index > self.commit_index, f"cutting off {index}, committed up to {self.commit_index}"
        self.log.truncate(index)
        self.durable_index = min(self.durable_index, index - 1)
        for save in self.saves:
            save.last_index = min(save.last_index, index - 1)

    def reply_when_saved(self, address: Any, message: Any) -> bool:
        """Keep a complete reply until all saves asked for are on disk; return False if there is nothing to wait for."""
        assert not self.hard_state_dirty, "a reply that waits for a save which nobody asked for"
        if not self.saves:
            return False
        self._replies.append((self.saves[-1].number, address, message))
        return True

    def saved_replies(self, number: int) -> Iterator[tuple[Any, Any]]:
        """Yield (address, message) of the replies for which saves up to ``number`` are enough, in order."""
        while self._replies and self._replies[0][0] <= number:
            _, address, message = self._replies.popleft()
            yield address, message

    # --- askers

    def wait_for(self, index: int, waiting: Waiting) -> None:
        """Remember who waits for the entry at ``index``."""
        self._waiters.setdefault(index, []).append(waiting)

    def waiting_for(self, index: int) -> list[Waiting]:
        """Return and forget who waits for ``index``, in whatever term."""
        return self._waiters.pop(index, []) if self._waiters else []

    def expired_waiters(self, now_ms: float) -> list[Any]:
        """Return and forget the askers whose deadline has passed."""
        expired = []
        for index, waiting in list(self._waiters.items()):
            late = [one.reply_to for one in waiting if one.deadline_ms <= now_ms]
            if late:
                expired += late
                self._waiters[index] = [one for one in waiting if one.deadline_ms > now_ms]
                if not self._waiters[index]:
                    del self._waiters[index]
        return expired

    # --- requests passed on

    def forward(self, pending: Any, leader: NodeId) -> int:
        """Remember a request that is passed on to ``leader``; return its number."""
        self._last_forward += 1
        self.forwarded[self._last_forward] = Forwarded(pending, leader)
        return self._last_forward
