"""Files that an actor watches by returning a ``ThespianWatch`` from its handler."""

from __future__ import annotations

import asyncio
import logging
import select

from thespian.actors import WatchMessage

from raftkv.actors.system.base.addressable import Addressable
from raftkv.actors.system.base.message_loop import Dispatcher

log = logging.getLogger("raftkv.system")


class Watch:
    """The files that one actor watches. The event loop waits for them, also for actors with their own thread.

    A readable file puts a ``WatchMessage`` into the actor's mailbox. The message does not say which files are
    readable; that is checked when its turn comes, since an earlier message may have read them or ended the watch.
    """

    __slots__ = ("_loop", "_message_loop", "_owner", "filenos")

    def __init__(self, owner: Addressable, loop: asyncio.AbstractEventLoop, message_loop: Dispatcher) -> None:
        self.filenos: list[int] = []
        self._owner = owner
        self._loop = loop
        self._message_loop = message_loop

    def change(self, filenos: list[int]) -> None:
        """Watch these files instead of the previous ones. On the actor's thread."""
        before, self.filenos = self.filenos, filenos
        self._message_loop.call(lambda: self._change_readers(before, filenos))

    def ready(self) -> list[int]:
        """Return the files that are readable now. On the actor's thread."""
        poll = select.poll()
        for fileno in self.filenos:
            poll.register(fileno, select.POLLIN)
        return [fileno for fileno, events in poll.poll(0) if not events & select.POLLNVAL]

    def _change_readers(self, before: list[int], after: list[int]) -> None:
        for fileno in before:
            self._loop.remove_reader(fileno)
        for fileno in after:
            try:
                self._loop.add_reader(fileno, self._readable, after)
            except PermissionError:
                # Regular files can't be watched: they are always readable.
                self._loop.call_soon(self._readable, after)
            except OSError:
                log.warning("%s watches %s, which is not an open file", self._owner, fileno)

    def _readable(self, filenos: list[int]) -> None:
        # Otherwise the loop would call this again and again until the actor has read. The watch that the actor returns
        # next adds the files again.
        for fileno in filenos:
            self._loop.remove_reader(fileno)
        self._owner.post(WatchMessage(None), self._owner.address)
