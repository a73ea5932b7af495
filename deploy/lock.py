"""A lock between commands: one command at a time changes the nodes of a cluster from this machine.

The lock is an exclusive ``flock`` on a file in the directory for temporary files, so the system releases it when the
process that holds it ends, however that happens. The holder removes the file before it unlocks it. The package filelock
is not used: it opens the file for writing and leaves it behind, so users who share an engine would lock each other out.
"""

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

from deploy.engine import endpoint
from deploy.waiting import POLL_S


class CommandLock:
    """A reentrant context manager that one process at a time can enter, for each ``subject`` on each engine.

    ``say`` is called once if another process holds the lock; entering then blocks until that process releases it.
    """

    def __init__(self, subject: str, say: Callable[[str], None]) -> None:
        self._subject = subject
        self._say = say
        # The same name on another engine is another cluster.
        digest = hashlib.sha256(f"{endpoint()} {subject}".encode()).hexdigest()[:16]
        self.path = Path(tempfile.gettempdir()) / f"raftkv-deploy-{digest}.lock"
        """The lock file; it exists while a process holds the lock."""
        self._threads = threading.RLock()
        self._depth = 0
        self._descriptor = -1

    def __enter__(self) -> CommandLock:
        self._threads.acquire()
        try:
            if not self._depth:
                self._descriptor = self._lock()
        except BaseException:
            self._threads.release()
            raise
        self._depth += 1
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._depth -= 1
        if not self._depth:
            # Remove the file while we still hold the lock. In a sticky directory it may belong to another user.
            with contextlib.suppress(OSError):
                self.path.unlink()
            os.close(self._descriptor)
        self._threads.release()

    def _lock(self) -> int:
        """Block until the lock is ours; return the file's descriptor."""
        announced = False
        while (descriptor := self._try_lock()) is None:
            if not announced:
                self._say(f"another command is working on {self._subject}; waiting for it to finish")
            announced = True
            time.sleep(POLL_S)
        return descriptor

    def _try_lock(self) -> int | None:
        """Return the file's descriptor if the lock is ours now."""
        descriptor = self._open()
        with contextlib.suppress(BlockingIOError, FileNotFoundError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # The previous holder may have removed the file since we opened it: then other processes lock a new one.
            if os.path.samestat(os.fstat(descriptor), os.stat(self.path)):
                return descriptor
        os.close(descriptor)
        return None

    def _open(self) -> int:
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            # In a sticky directory Linux refuses O_CREAT for a file of another user, but not a plain open.
            return os.open(self.path, flags)
        except FileNotFoundError:
            descriptor = os.open(self.path, flags | os.O_CREAT, 0o644)
        with contextlib.suppress(OSError):
            # Other users must be able to open it whatever our umask is.
            os.fchmod(descriptor, 0o644)
        return descriptor
