"""Worker processes that do one run after the other; tasks and results travel as JSON.

A worker can be ended at any time. One that crashes, or whose run does not end, is reported as a failed run.
"""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import signal
import time
from collections import Counter
from collections.abc import Iterator
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import msgspec

from raftkv.simulation.checks.violation import first_line
from raftkv.simulation.report import timeline
from raftkv.simulation.run import Run
from raftkv.simulation.schedule import save
from raftkv.simulation.sweep import Task, TaskResult

LONGEST_S = 900.0
"""How long a run may take, in real time; most take about a second."""

EXIT_S = 10.0
"""How long a worker may take to exit after it has closed its pipe."""

IDLE_S = 1.0
"""How often ``results`` yields None while no run ends."""


def run_task(task: Task) -> TaskResult:
    """Do one run in this process; a failure leaves a schedule and a timeline in the task's directory."""
    started_s = time.process_time()
    run = Run(task.plan())
    result = run.run()
    schedule = picture = ""
    if not result.ok:
        schedule = str(Path(task.directory) / f"{task.name}.json")
        picture = str(Path(task.directory) / f"{task.name}.html")
        executed = msgspec.structs.replace(run.plan, faults=result.faults)
        save(Path(schedule), executed, first_line(result.violation))
        timeline.save(run, result, Path(picture), str(task.origin))
    kinds = Counter(fault.kind for fault in result.faults)
    cpu_s = time.process_time() - started_s
    return TaskResult(
        task, result.violation, result.events, result.virtual_ms, kinds, result.answers, cpu_s, schedule, picture
    )


class Workers:
    """A number of worker processes; a context manager, at whose end they are gone."""

    def __init__(self, jobs: int) -> None:
        self._jobs = jobs
        self._idle: list[_Worker] = []
        self._busy: dict[Any, _Worker] = {}

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *unused: object) -> None:
        for worker in (*self._idle, *self._busy.values()):
            worker.end()

    def results(self, tasks: Iterator[Task]) -> Iterator[TaskResult | None]:
        """Hand out the tasks and yield their results in any order, and None whenever no run has ended for a while."""
        more = True
        while more or self._busy:
            while more and len(self._busy) < self._jobs:
                task = next(tasks, None)
                more = task is not None
                if task is not None:
                    worker = self._idle.pop() if self._idle else _Worker()
                    worker.start(task)
                    self._busy[worker.connection] = worker
            ready = wait(list(self._busy), IDLE_S) if self._busy else []
            for connection in ready:
                yield self._receive(self._busy.pop(connection))
            for worker in self._busy.values():
                if worker.is_late():
                    worker.end()
            if not ready:
                yield None

    def _receive(self, worker: _Worker) -> TaskResult:
        try:
            result = msgspec.json.decode(worker.connection.recv_bytes(), type=TaskResult)
        except (EOFError, OSError):
            reason = "it took too long" if worker.is_late() else f"its process ended with status {worker.status()}"
            return TaskResult(worker.task, f"the run did not end: {reason}")
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
        self._started_s = 0.0

    def start(self, task: Task) -> None:
        """Start a run."""
        self.task = task
        self._started_s = time.monotonic()
        # If the process is gone, the missing result shows it.
        with contextlib.suppress(OSError):
            self.connection.send_bytes(msgspec.json.encode(task))

    def is_late(self) -> bool:
        """Whether the run takes too long."""
        return time.monotonic() - self._started_s > LONGEST_S

    def status(self) -> int | None:
        """Return the exit status of a process that is about to exit."""
        self._process.join(EXIT_S)
        self.end()
        return self._process.exitcode

    def end(self) -> None:
        """Kill the process if it still runs."""
        self._process.kill()
        self._process.join()


def _work(connection: Connection) -> None:
    """Do runs until the other end of the pipe is closed."""
    # A Ctrl-C reaches all processes of a terminal; the parent ends this one.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    logging.disable(logging.CRITICAL)
    with contextlib.suppress(EOFError, OSError):
        while True:
            task = msgspec.json.decode(connection.recv_bytes(), type=Task)
            connection.send_bytes(msgspec.json.encode(run_task(task)))
