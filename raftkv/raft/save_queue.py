"""Saves on their way to the journal, and the messages that must not be sent before they are durable.

"Durable before sent": no message may leave a node with a term, a vote or an entry that a crash could still undo.
Saves are numbered and the journal finishes them in order, so a message that depends on the current state waits for the
latest save. It is kept complete, as it was decided, and sent unchanged by whichever role holds the replica then.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from raftkv.raft.progress import AMPLE_FREE_BYTES

AMPLE_FROM_BYTES = 1 << 30
"""From here on a node reports ``AMPLE_FREE_BYTES``, so that its answers do not change with every write."""


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


class SaveQueue:
    """What of the replica is durable, what is being saved, and what waits for that.

    ``durable_index`` is the last index known to be on this node's disk as it stands in the log now: cutting the log off
    lowers it, and with it what the saves under way will raise it to. Numbers of saves count from 1 without gaps.
    """

    __slots__ = (
        "_last_number",
        "_unsaved_bytes",
        "_waiting",
        "durable_index",
        "durable_term",
        "free_bytes",
        "free_bytes_asked_ms",
        "hard_state_dirty",
        "pending",
    )  # fmt: skip

    def __init__(self, *, durable_index: int = 0, durable_term: int = 0, free_bytes: int = 0) -> None:
        self.durable_index = durable_index
        self.durable_term = durable_term
        """The latest term on disk."""
        self.hard_state_dirty = False
        """Term or vote have changed since the last save was asked for."""
        self.free_bytes = free_bytes
        """Bytes of entries for which the disk had room when the journal last reported it."""
        self.free_bytes_asked_ms = float("-inf")
        self.pending: deque[PendingSave] = deque()
        self._last_number = 0
        self._unsaved_bytes = 0
        """Bytes of entries in the log that no save was asked for yet."""
        self._waiting: deque[tuple[int, Any, Any]] = deque()

    @property
    def available_bytes(self) -> int:
        """Bytes of entries that can be appended: what is being saved already has its place on the disk."""
        return self.free_bytes - self._unsaved_bytes - sum(save.size for save in self.pending)

    @property
    def reported_free_bytes(self) -> int:
        """The free space reported to the leader; ``AMPLE_FREE_BYTES`` while there is plenty."""
        available = self.available_bytes
        return max(0, available) if available < AMPLE_FROM_BYTES else AMPLE_FREE_BYTES

    @property
    def oldest_ms(self) -> float | None:
        """When the oldest unconfirmed save was asked for; None when there is none."""
        return self.pending[0].asked_ms if self.pending else None

    def appended(self, size: int) -> None:
        """Record that entries of ``size`` bytes were added to the log; they have to be saved next."""
        self._unsaved_bytes += size

    def begin(self, last_index: int, term: int, now_ms: float) -> int:
        """Record that term, vote and the log up to ``last_index`` are being saved; return the number of the save."""
        self._last_number += 1
        self.hard_state_dirty = False
        size, self._unsaved_bytes = self._unsaved_bytes, 0
        self.pending.append(PendingSave(self._last_number, last_index, term, now_ms, size))
        return self._last_number

    def confirm(self, number: int) -> None:
        """Record that every save up to ``number`` is on disk."""
        while self.pending and self.pending[0].number <= number:
            save = self.pending.popleft()
            self.durable_index = max(self.durable_index, save.last_index)
            self.durable_term = save.term

    def truncate(self, index: int) -> None:
        """Record that the log was cut off at ``index``: saves under way make nothing from there on durable."""
        self.durable_index = min(self.durable_index, index - 1)
        for save in self.pending:
            save.last_index = min(save.last_index, index - 1)

    def send_later(self, address: Any, message: Any) -> bool:
        """Keep a message until all saves asked for are on disk; return False if there is nothing to wait for."""
        assert not self.hard_state_dirty, "a message that waits for a save that was not asked for"
        if not self.pending:
            return False
        self._waiting.append((self.pending[-1].number, address, message))
        return True

    def take_ready(self, number: int) -> Iterator[tuple[Any, Any]]:
        """Yield and forget the (address, message) pairs that waited for saves up to ``number``, in order."""
        while self._waiting and self._waiting[0][0] <= number:
            _, address, message = self._waiting.popleft()
            yield address, message
