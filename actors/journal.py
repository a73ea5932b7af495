"""The journal: makes terms, votes and entries durable. All saves that wait share one write and one sync (group commit).

The longer a sync takes, the more saves arrive meanwhile and share the next one, so the journal adapts to the disk
without a setting. Theory and format: ``raftkv/journal/__init__.py``.
"""

from __future__ import annotations

import traceback
from typing import Any

from thespian.actors import ActorExitRequest

from raftkv.actors.fail_stop import FailStopActor
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


class Journal(FailStopActor):
    """Writes what it is sent in ``Save`` and answers ``Saved``, in order.

    It waits for the disk, so it runs in a thread of its own where the system base has them. A handler that fails
    is never called again with the same message: after a failed write, it is unknown which bytes are on disk.
    """

    label = "journal"
    own_thread = True

    def __init__(self) -> None:
        super().__init__()
        self._wal: Wal
        self._is_open = False
        self._stopped = False
        self._last_number = 0
        self._waiting: Replay | None = None
        self._prepare_sent = False

    def handle(self, message: Any) -> None:
        """Handle a message, unless the journal has stopped: after a failure nothing may be answered any more."""
        if not self._stopped:
            super().handle(message)

    def failed(self, message: Any, error: Exception) -> None:
        """Stop the node. A save that is not certain to be on disk must not be answered."""
        self._stopped = True
        status, line = EXIT_BUG, ""
        if isinstance(error, DamagedJournal | DataDirectoryError):
            status, line = EXIT_UNUSABLE, str(error)
        elif isinstance(error, OSError):
            line = f"the journal stops after {_described(error)}"
        else:
            # The message may hold megabytes of values.
            line = f"bug in {self.label}: {error!r} on {type(message).__name__}\n{traceback.format_exc()}"
        try:
            self.environment.fail(status, line)
        finally:
            # Not before: closing the files of a disk that has failed may fail too, and the node would live on.
            self._stop()

    def on_Start(self, message: Start) -> None:
        """Read what is on disk, and report it."""
        assert not self._is_open, "the journal was started twice"
        super().on_Start(message)
        environment = message.environment
        identity = read_identity(environment.disk, environment.directory)
        # Only a journal that is used without a node, as in tests, has no identity.
        owner = owner_of(identity.node_id, identity.incarnation) if identity else bytes(16)
        self._wal, replay = Wal.open(
            environment.disk,
            journal_directory(environment.directory),
            segment_bytes=environment.limits.segment_bytes,
            owner=owner,
        )
        self._is_open = True
        entries = tuple(replay.entries)
        self.send(message.node, Recovered(replay.current_term, replay.voted_for, entries, self._wal.free_bytes()))
        self._prepare_spare_soon()

    def on_Save(self, message: Save) -> None:
        """Queue a save, to share a batch with those that are already in the mailbox."""
        assert message.number == self._last_number + 1, f"save {message.number} came after {self._last_number}"
        self._last_number = message.number
        if self._waiting is None:
            self._waiting = Replay()
            # A mailbox is first in, first out: all saves that are in it now come before this and go into one batch.
            self.send(self.myAddress, Flush())
        self._waiting.add(Record(message.current_term, message.voted_for, message.entries))

    def on_Flush(self, _: Flush) -> None:
        """Write and sync all saves that wait, and confirm the last of them."""
        assert self._waiting is not None, "nothing waits to be flushed"
        batch, self._waiting = self._waiting, None
        self._wal.append(batch.record())
        self.send(self.start.node, Saved(self._last_number, self._wal.free_bytes()))
        self._prepare_spare_soon()

    def on_PrepareSpare(self, _: PrepareSpare) -> None:
        """Make the next slice of the spare segment."""
        self._prepare_sent = False
        if self._wal.spare_wanted:
            self._wal.prepare_spare()
            self._prepare_spare_soon()

    def on_AskFreeBytes(self, _: AskFreeBytes) -> None:
        """Report how much room there is."""
        self.send(self.start.node, FreeBytes(self._wal.free_bytes()))

    def on_ActorExitRequest(self, _: ActorExitRequest) -> None:
        """Close the files."""
        self._stop()

    def _prepare_spare_soon(self) -> None:
        """Make the next slice after the messages that are waiting now."""
        if not self._prepare_sent and self._wal.spare_wanted:
            self._prepare_sent = True
            self.send(self.myAddress, PrepareSpare())

    def _stop(self) -> None:
        self._stopped = True
        if self._is_open:
            self._wal.close()


def _described(error: OSError) -> str:
    """Return the text of an ``OSError``, with the file that it concerns."""
    what = error.strerror or repr(error)
    return f"{what}: {error.filename}" if error.filename else what
