"""Files that an actor watches by returning a ``ThespianWatch`` from its handler."""

from __future__ import annotations

import logging
import select
from typing import TYPE_CHECKING

from thespian.actors import WatchMessage

if TYPE_CHECKING:
    from raftkv.actors.system.base.actor_cell import ActorCell

log = logging.getLogger("raftkv.system")


class Watch:
    """The files that one actor watches at present. The event loop does the waiting, whatever thread the actor has.

    A file that can be read puts a ``WatchMessage`` into the actor's mailbox. Which files these are is found out when
    the message's turn comes: a message before it may have read them, or have ended the watch.
    """

    __slots__ = ("_cell", "filenos")

    def __init__(self, cell: ActorCell) -> None:
        self._cell = cell
        self.filenos: list[int] = []

    def change(self, filenos: list[int]) -> None:
        """Watch these files instead of the former; on the actor's thread."""
        before, self.filenos = self.filenos, filenos
        self._cell.base.message_loop.call(lambda: self._change_readers(before, filenos))

    def ready(self) -> list[int]:
        """Return which of the files can be read now; on the actor's thread."""
        poll = select.poll()
        for fileno in self.filenos:
            poll.register(fileno, select.POLLIN)
        return [fileno for fileno, events in poll.poll(0) if not events & select.POLLNVAL]

    def _change_readers(self, before: list[int], after: list[int]) -> None:
        loop = self._cell.base.loop
        for fileno in before:
            loop.remove_reader(fileno)
        for fileno in after:
            try:
                loop.add_reader(fileno, self._readable, after)
            except PermissionError:
                # Plain files can't be watched: they are always ready.
                loop.call_soon(self._readable, after)
            except OSError:
                log.warning("%s wants to watch %s, which is no open file", self._cell, fileno)

    def _readable(self, filenos: list[int]) -> None:
        # The loop would call again and again until the actor has read; what the actor returns then watches again.
        for fileno in filenos:
            self._cell.base.loop.remove_reader(fileno)
        self._cell.post(WatchMessage(None), self._cell.address)
