"""Fail-stop: ends the process at once, from any thread, after saying why."""

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
    """Ends the process; what is on disk is then all that counts, so there is nothing to clean up."""

    def __init__(self, output: LogOutput) -> None:
        self._output = output
        self._lock = threading.Lock()

    def fail(self, status: int, line: str) -> NoReturn:
        """Log ``line`` (and a trace in the lines after it), print it, and end the process with ``status``."""
        # Whoever fails next, while the first one's line is being written, waits here for the end.
        with self._lock:
            first, _, trace = line.partition("\n")
            logger.handle(
                logger.makeRecord(logger.name, logging.CRITICAL, "", 0, first, (), None, sinfo=trace.rstrip() or None)
            )
            self._output.line(f"raftkv: {first}")
            self._output.flush_within(FLUSH_S)
            os._exit(status)

    def fail_after(self, seconds: float, status: int, line: str) -> None:
        """Fail unless the process has ended by then; not by the event loop, which may be what does not go on."""
        timer = threading.Timer(seconds, self.fail, (status, line))
        timer.daemon = True
        timer.start()

    def on_thread_exception(self, hook: threading.ExceptHookArgs) -> None:
        """Be a ``threading.excepthook``: a thread that ends by an exception is a bug."""
        trace = "".join(traceback.format_exception(hook.exc_type, hook.exc_value, hook.exc_traceback))
        name = hook.thread.name if hook.thread is not None else "unknown"
        self.fail(EXIT_BUG, f"bug in thread {name}: {hook.exc_value!r}\n{trace}")
