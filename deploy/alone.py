"""One at a time: whoever makes, replaces or removes nodes on this machine has the cluster to himself."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

from deploy.engine import place
from deploy.waiting import POLL_S


class Alone:
    """A context that one process at a time is in, for each ``what`` on each engine; whoever is in it may enter again.

    It is the lock of a file that is removed in the end. The system lets it go when a process ends, however it ends.
    ``say`` is told when another has to be waited for, which takes as long as that one does.
    """

    def __init__(self, what: str, say: Callable[[str], None]) -> None:
        self._what = what
        self._say = say
        # What has the same name on another engine is something else.
        mark = hashlib.sha256(f"{place()} {what}".encode()).hexdigest()[:16]
        self.path = Path(tempfile.gettempdir()) / f"raftkv-deploy-{mark}.lock"
        """The file."""
        self._threads = threading.RLock()
        self._times = 0
        self._descriptor = -1

    def __enter__(self) -> Alone:
        self._threads.acquire()
        try:
            if not self._times:
                self._descriptor = self._lock()
        except BaseException:
            self._threads.release()
            raise
        self._times += 1
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._times -= 1
        if not self._times:
            # Removed while it is still ours. It may be somebody else's file, in a directory where that matters.
            with contextlib.suppress(OSError):
                self.path.unlink()
            os.close(self._descriptor)
        self._threads.release()

    def _lock(self) -> int:
        """Return the descriptor of the file, once its lock is ours."""
        told = False
        while (descriptor := self._try()) is None:
            if not told:
                self._say(f"another command is at work on {self._what}; waiting for it")
            told = True
            time.sleep(POLL_S)
        return descriptor

    def _try(self) -> int | None:
        """Return the descriptor of the file, if its lock is ours now."""
        descriptor = self._open()
        with contextlib.suppress(BlockingIOError, FileNotFoundError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Whoever had it before may have removed the file meanwhile: others do not see this one any more.
            if os.path.samestat(os.fstat(descriptor), os.stat(self.path)):
                return descriptor
        os.close(descriptor)
        return None

    def _open(self) -> int:
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            # What others have made in a directory for all may be opened, but not with the flag that would make it.
            return os.open(self.path, flags)
        except FileNotFoundError:
            descriptor = os.open(self.path, flags | os.O_CREAT, 0o644)
        with contextlib.suppress(OSError):
            # Other users need to see it too, whatever our mask is.
            os.fchmod(descriptor, 0o644)
        return descriptor
