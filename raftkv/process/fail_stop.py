"""Fail-stop: log the reason and end the process at once, from any thread.

Nothing is cleaned up and no other thread runs again in between: whatever a node has acknowledged is on disk, and a
restart recovers from there. Actors get ``FailStop.fail`` as a plain function, which a simulation replaces.
"""

from __future__ import annotations

import logging
import os
import threading
import traceback
from typing import NoReturn

from raftkv.exit_status import EXIT_BUG
from raftkv.process.log_output import LogOutput

logger = logging.getLogger("raftkv.node")

FLUSH_S = 1.0


class FailStop:
    """Ends the process; the first call decides the exit status and the reason."""

    def __init__(self, output: LogOutput) -> None:
        self._output = output
        self._lock = threading.Lock()

    def fail(self, status: int, line: str) -> NoReturn:
        """Log and print the first line of ``line``, log the lines after it as its trace, and exit with ``status``."""
        # A second failure, while the line of the first is being written, blocks here until the process ends.
        with self._lock:
            first, _, trace = line.partition("\n")
            logger.handle(
                logger.makeRecord(logger.name, logging.CRITICAL, "", 0, first, (), None, sinfo=trace.rstrip() or None)
            )
            self._output.line(f"raftkv: {first}")
            self._output.flush_within(FLUSH_S)
            os._exit(status)

    def fail_after(self, seconds: float, status: int, line: str) -> None:
        """Fail unless the process ends within ``seconds``; uses a thread, because the event loop may be what hangs."""
        timer = threading.Timer(seconds, self.fail, (status, line))
        timer.daemon = True
        timer.start()

    def on_thread_exception(self, hook: threading.ExceptHookArgs) -> None:
        """Serve as ``threading.excepthook``: a thread that ends with an exception is a bug."""
        trace = "".join(traceback.format_exception(hook.exc_type, hook.exc_value, hook.exc_traceback))
        name = hook.thread.name if hook.thread is not None else "unknown"
        self.fail(EXIT_BUG, f"bug in thread {name}: {hook.exc_value!r}\n{trace}")
