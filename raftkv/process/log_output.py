"""Log output that never blocks the node: records go into a bounded queue, and a thread writes them.

A stopped terminal or a pipe without a reader must not stop elections. While the queue is full, records are dropped and
counted; the count is logged once there is room.
"""

from __future__ import annotations

import logging
import os
import threading
import time
import traceback
from queue import SimpleQueue

import ujson

from raftkv.config.settings import LogFormat

_OURS = "raftkv"


class LogOutput(logging.Handler):
    """A handler that writes records to a file descriptor from its own thread; ``capacity`` of them may wait."""

    def __init__(self, descriptor: int, log_format: LogFormat, *, node_id: str = "-", capacity: int = 4096) -> None:
        super().__init__()
        self._descriptor = descriptor
        self._format = _as_json if log_format == "json" else _as_text
        self._node_id = node_id
        self._capacity = capacity
        self._waiting: SimpleQueue[bytes | threading.Event] = SimpleQueue()
        self._dropped = 0
        self._failed = False
        # A daemon, because a write that never returns must not keep the process from ending.
        threading.Thread(target=self._write_all, name="log output", daemon=True).start()

    def emit(self, record: logging.LogRecord) -> None:
        """Queue ``record``, or drop it if the queue is full; ``logging`` calls this under the handler's lock."""
        if self._waiting.qsize() >= self._capacity:
            self._dropped += 1
            return
        try:
            line = self._format(record, self._node_id)
        except Exception:
            # One logging call has the wrong arguments: no reason to stop the node.
            line = f"{record.levelname} {record.name}: cannot format {record.msg!r}"
        self._waiting.put(_encode(line))

    def line(self, text: str) -> None:
        """Write ``text`` unchanged, as a line of its own."""
        self._waiting.put(_encode(text))

    def flush_within(self, seconds: float) -> bool:
        """Wait up to ``seconds`` for everything queued so far; return whether it was written."""
        written = threading.Event()
        self._waiting.put(written)
        return written.wait(seconds)

    def _write_all(self) -> None:
        while True:
            item = self._waiting.get()
            if isinstance(item, threading.Event):
                item.set()
            else:
                self._write(item)
                self._report_dropped()

    def _report_dropped(self) -> None:
        if not self._dropped or self._waiting.qsize() > self._capacity // 2:
            return
        with self.lock:  # type: ignore[union-attr]  # the base class makes it in its __init__
            dropped, self._dropped = self._dropped, 0
        message = f"{dropped} log records were dropped here, because the output was too slow"
        record = logging.LogRecord("raftkv.log", logging.WARNING, "", 0, message, None, None)
        self._write(_encode(self._format(record, self._node_id)))

    def _write(self, data: bytes) -> None:
        # Not a stream: while one write waits for a full pipe, it would hold the stream's lock.
        while data and not self._failed:
            try:
                data = data[os.write(self._descriptor, data) :]
            except BlockingIOError:
                # Another process that shares the descriptor, such as a shell, made it non-blocking.
                time.sleep(0.01)
            except OSError:
                # The reader has gone; the node works without log output too.
                self._failed = True


def start_logging(level: str, log_format: LogFormat, *, node_id: str = "-", descriptor: int = 2) -> LogOutput:
    """Log to ``descriptor``: records of raftkv from ``level`` on, those of libraries from warnings on."""
    output = LogOutput(descriptor, log_format, node_id=node_id)
    root = logging.getLogger()
    root.handlers[:] = [output]
    root.setLevel(logging.WARNING)
    logging.getLogger(_OURS).setLevel(level.upper())
    logging.captureWarnings(True)
    return output


def _encode(line: str) -> bytes:
    return (line + "\n").encode("utf-8", "backslashreplace")


def _time(record: logging.LogRecord) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03}Z"


def _trace(record: logging.LogRecord) -> str | None:
    """Return the stack trace of a record, or None."""
    if record.exc_info and record.exc_info[0] is not None:
        return "".join(traceback.format_exception(*record.exc_info)).rstrip("\n")
    return record.stack_info


def _as_text(record: logging.LogRecord, node_id: str) -> str:
    """Return ``time LEVEL node logger: message`` on one line, and below it the trace, indented."""
    # A message may quote a client, which must not be able to forge a line of the log.
    message = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in record.getMessage())
    line = f"{_time(record)} {record.levelname:<7} {node_id} {record.name}: {message}"
    trace = _trace(record)
    return line if trace is None else line + "\n    " + trace.replace("\n", "\n    ")


def _as_json(record: logging.LogRecord, node_id: str) -> str:
    """Return one JSON object with time, level, node, logger, message and, if there is one, trace."""
    fields = {
        "time": _time(record),
        "level": record.levelname.lower(),
        "node": node_id,
        "logger": record.name,
        "message": record.getMessage(),
    }
    trace = _trace(record)
    if trace is not None:
        fields["trace"] = trace
    return ujson.dumps(fields, escape_forward_slashes=False)
