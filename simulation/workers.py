"""Processes that live one life after the other, and tell in JSON what came of each.

They are ended at once where that is wanted. One that dies, or that lives for ever, is a finding as any other.
"""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import signal
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection, wait
from typing import Any

import msgspec

from raftkv.simulation.sweep import Result, Task, live

LONGEST_S = 900.0
"""For how long a life may go on, in real time: most take about a second."""

ENDING_S = 10.0
"""How long a process may take from its last word to its end."""

LOOK_S = 1.0
"""After how long without any result whoever waits for one gets to act."""


class Workers:
    """So many processes; used as a context, at whose end they are gone."""

    def __init__(self, jobs: int) -> None:
        self._jobs = jobs
        self._idle: list[_Worker] = []
        self._busy: dict[Any, _Worker] = {}

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *unused: object) -> None:
        for worker in (*self._idle, *self._busy.values()):
            worker.end()

    def results(self, tasks: Iterator[Task]) -> Iterator[Result | None]:
        """Give out tasks, and give what came of them, in any order; None where there was nothing for a while."""
        more = True
        while more or self._busy:
            while more and len(self._busy) < self._jobs:
                task = next(tasks, None)
                more = task is not None
                if task is not None:
                    worker = self._idle.pop() if self._idle else _Worker()
                    worker.give(task)
                    self._busy[worker.connection] = worker
            ready = wait(list(self._busy), LOOK_S) if self._busy else []
            for connection in ready:
                yield self._take(self._busy.pop(connection))
            for worker in self._busy.values():
                if worker.is_late():
                    worker.end()
            if not ready:
                yield None

    def _take(self, worker: _Worker) -> Result:
        try:
            result = msgspec.json.decode(worker.connection.recv_bytes(), type=Result)
        except (EOFError, OSError):
            why = "it went on for too long" if worker.is_late() else f"its process ended with status {worker.status()}"
            return Result(worker.task, f"this life has no end: {why}")
        self._idle.append(worker)
        return result


class _Worker:
    task: Task

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, other = context.Pipe()
        self._process = context.Process(target=_work, args=(other,), daemon=True)
        self._process.start()
        other.close()
        self._since_s = 0.0

    def give(self, task: Task) -> None:
        """Let it live a life."""
        self.task = task
        self._since_s = time.monotonic()
        # Whether anybody is there is seen when there is no answer.
        with contextlib.suppress(OSError):
            self.connection.send_bytes(msgspec.json.encode(task))

    def is_late(self) -> bool:
        """Whether a life goes on for too long."""
        return time.monotonic() - self._since_s > LONGEST_S

    def status(self) -> int | None:
        """Return the status of a process that is about to end."""
        self._process.join(ENDING_S)
        self.end()
        return self._process.exitcode

    def end(self) -> None:
        """End the process at once, if it has not ended yet."""
        self._process.kill()
        self._process.join()


def _work(connection: Connection) -> None:
    """Be a worker, until nobody is there any more who gives tasks."""
    # A Ctrl-C reaches all processes of a terminal; this one is ended by who started it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    logging.disable(logging.CRITICAL)
    with contextlib.suppress(EOFError, OSError):
        while True:
            task = msgspec.json.decode(connection.recv_bytes(), type=Task)
            connection.send_bytes(msgspec.json.encode(live(task)))
