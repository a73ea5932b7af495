"""The journal: makes terms, votes and entries durable. All saves that wait share one write and one sync (group commit).

The longer a sync takes, the more saves arrive meanwhile and share the next one, so the journal adapts to the disk
without a setting. Theory and format: ``raftkv/journal/__init__.py``.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable
from typing import Any

from thespian.actors import Actor, ActorAddress, ActorExitRequest

from raftkv.actors.messages.base import Message
from raftkv.actors.messages.node import (
    AskFreeBytes,
    Flush,
    FreeBytes,
    Recovered,
    Save,
    Saved,
    Start,
)
from raftkv.exit_status import EXIT_BUG, EXIT_UNUSABLE
from raftkv.journal.data_directory import DataDirectoryError, journal_directory, read_identity
from raftkv.journal.format import Record, owner_of
from raftkv.journal.recovery import DamagedJournal
from raftkv.journal.replay import Replay
from raftkv.journal.wal import Wal


class PrepareSpare(Message, frozen=True):
    """The journal's message to itself: make the next slice of the spare segment."""


class Journal(Actor):
    """Writes what it is sent in ``Save`` and answers ``Saved``, in order.

    It waits for the disk, so it runs in a thread of its own where the system base has them. A handler that fails
    is never called again with the same message: the bytes of a failed write are not known to be anywhere.
    """

    own_thread = True
    retry_failed_messages = False

    def __init__(self) -> None:
        super().__init__()
        self._start: Start | None = None
        self._wal: Wal | None = None
        self._stopped = False
        self._last_number = 0
        self._waiting: Replay | None = None
        self._prepare_sent = False

    def receiveMessage(self, message: Any, sender: ActorAddress) -> None:
        """Handle a message; what goes wrong stops the node."""
        handler = _HANDLERS.get(type(message))
        if handler is None or self._stopped:
            return
        try:
            handler(self, message)
        except (DamagedJournal, DataDirectoryError) as error:
            self._fail(EXIT_UNUSABLE, str(error))
        except OSError as error:
            self._fail(EXIT_BUG, f"the journal stops after {_told(error)}")
        except Exception as error:
            line = f"a bug in the journal, on {type(message).__name__}: {error!r}"
            self._fail(EXIT_BUG, f"{line}\n{traceback.format_exc()}")

    def _on_start(self, message: Start) -> None:
        assert self._start is None, "the journal was started twice"
        self._start = message
        identity = read_identity(message.disk, message.directory)
        # Only a journal that is used without a node, as in tests, has no identity.
        owner = owner_of(identity.node_id, identity.incarnation) if identity else bytes(16)
        self._wal, replay = Wal.open(
            message.disk,
            journal_directory(message.directory),
            segment_bytes=message.limits.segment_bytes,
            owner=owner,
        )
        entries = tuple(replay.entries)
        self.send(message.node, Recovered(replay.current_term, replay.voted_for, entries, self._wal.free_bytes()))
        self._prepare_spare_soon()

    def _on_save(self, message: Save) -> None:
        assert message.number == self._last_number + 1, f"save {message.number} came after {self._last_number}"
        self._last_number = message.number
        if self._waiting is None:
            self._waiting = Replay()
            # A mailbox is first in, first out: all saves that are in it now come before this and go into one batch.
            self.send(self.myAddress, Flush())
        self._waiting.add(Record(message.current_term, message.voted_for, message.entries))

    def _on_flush(self, _: Flush) -> None:
        assert self._start is not None
        assert self._wal is not None
        assert self._waiting is not None, "nothing waits to be flushed"
        batch, self._waiting = self._waiting, None
        self._wal.append(batch.record())
        self.send(self._start.node, Saved(self._last_number, self._wal.free_bytes()))
        self._prepare_spare_soon()

    def _on_prepare_spare(self, _: PrepareSpare) -> None:
        assert self._wal is not None
        self._prepare_sent = False
        if self._wal.spare_wanted:
            self._wal.prepare_spare()
            self._prepare_spare_soon()

    def _on_ask_free_bytes(self, _: AskFreeBytes) -> None:
        assert self._start is not None
        assert self._wal is not None
        self.send(self._start.node, FreeBytes(self._wal.free_bytes()))

    def _on_exit(self, _: ActorExitRequest) -> None:
        self._stop()

    def _prepare_spare_soon(self) -> None:
        """Do the next slice after the messages that are waiting now."""
        assert self._wal is not None
        if not self._prepare_sent and self._wal.spare_wanted:
            self._prepare_sent = True
            self.send(self.myAddress, PrepareSpare())

    def _fail(self, status: int, line: str) -> None:
        """Stop the node. Nothing is said any more: whoever waits for ``Saved`` must not get it."""
        self._stopped = True
        assert self._start is not None, line
        self._start.fail(status, line)
        self._stop()

    def _stop(self) -> None:
        self._stopped = True
        if self._wal is not None:
            self._wal.close()


def _told(error: OSError) -> str:
    """Return an ``OSError`` as people say it."""
    what = error.strerror or repr(error)
    return f"{what}: {error.filename}" if error.filename else what


_HANDLERS: dict[type, Callable[[Journal, Any], None]] = {
    Start: Journal._on_start,
    Save: Journal._on_save,
    Flush: Journal._on_flush,
    PrepareSpare: Journal._on_prepare_spare,
    AskFreeBytes: Journal._on_ask_free_bytes,
    ActorExitRequest: Journal._on_exit,
}
