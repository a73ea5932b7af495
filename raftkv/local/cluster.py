"""A cluster on this machine: its nodes as child processes, started, watched and stopped together."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
from asyncio.subprocess import DEVNULL, Process
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import msgspec

from raftkv.config.option import PREFIX
from raftkv.local.files import LocalNode, restart_command
from raftkv.local.story import Story, how_it_ended
from raftkv.process.supervisor import decode_event
from raftkv.raft.entry import NodeId

STOP_SECONDS = 10.0
LOG_BYTES = 16 << 20


class ChildProcess:
    """The process of one node."""

    def __init__(
        self, node: LocalNode, process: Process, reports: asyncio.StreamReader, pipe: asyncio.StreamWriter
    ) -> None:
        self.node = node
        self.process = process
        self.reports = reports
        # The child stops when this end of the pipe is closed.
        self.pipe = pipe


class LocalCluster:
    """Starts the nodes, prints what they do, restarts stopped ones when the user presses Enter, and stops them all."""

    def __init__(self, nodes: tuple[LocalNode, ...], directory: Path, say: Callable[[str], None]) -> None:
        self._nodes = nodes
        self._directory = directory
        self._say = say
        self._children: dict[NodeId, ChildProcess] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._starting = asyncio.Lock()
        self._story = Story(say, nodes, self._pid)
        self._interactive = sys.stdin is not None and sys.stdin.isatty()
        self._stop = asyncio.Event()
        self._stops = 0

    async def run(self) -> int:
        """Run until a signal, or until no node runs and none can be restarted; return the exit status."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._on_signal)
        if self._interactive:
            # In the background, as after `make run &`, reading the terminal must not stop this process.
            signal.signal(signal.SIGTTIN, signal.SIG_IGN)
            loop.add_reader(sys.stdin.fileno(), self._on_enter)
        try:
            await self._start()
            await self._stop.wait()
        finally:
            failed = not self._children and not self._stops
            await self._stop_all()
        return 1 if failed else 0

    async def _start(self) -> None:
        """Start every node that is not running."""
        async with self._starting:
            for node in self._nodes:
                if node.id not in self._children and not self._stops:
                    child = self._children[node.id] = await _spawn(node)
                    self._spawn_task(self._follow(child))
            if self._stops:
                # The signal may have come while the last node was being started.
                self._signal_all(signal.SIGTERM)

    async def _follow(self, child: ChildProcess) -> None:
        """Print what a node reports until it ends, and then how it ended."""
        while line := await child.reports.readline():
            # During a stop of the whole cluster, elections are of no interest.
            if not self._stops:
                with contextlib.suppress(msgspec.DecodeError, UnicodeDecodeError):
                    self._story.add(decode_event(line))
        status = await child.process.wait()
        child.pipe.close()
        del self._children[child.node.id]
        if not self._stops:
            self._say_stopped(child, status)

    def _say_stopped(self, child: ChildProcess, status: int) -> None:
        node = child.node
        self._story.forget(node.id)
        self._say(f"{node.id} stopped (pid {child.process.pid}, {how_it_ended(status)}).")
        if status > 0 and (last := last_line(node.log)):
            self._say(f"  Last line of its log ({node.log}): {last}")
        self._say(f"  To restart it: {restart_command(node, os.environ)}")
        if self._interactive:
            self._say("  or press Enter here.")
        if not self._children and not self._interactive:
            self._say("No node is running any more.")
            self._stop.set()

    async def _stop_all(self) -> None:
        """Stop every child; kill those that take longer than ``STOP_SECONDS``."""
        if self._children:
            self._say(f"Stopping {', '.join(self._children)} …")
        self._signal_all(signal.SIGTERM)
        _, late = await asyncio.wait(self._tasks, timeout=STOP_SECONDS) if self._tasks else (None, None)
        if late:
            self._say(f"{', '.join(self._children)} did not stop within {STOP_SECONDS:.0f} s; killing.")
            self._signal_all(signal.SIGKILL)
            await asyncio.wait(late)
        self._say(f"All nodes have stopped; their data stays in {self._directory}.")

    def _signal_all(self, number: signal.Signals) -> None:
        for child in self._children.values():
            with contextlib.suppress(ProcessLookupError):
                child.process.send_signal(number)

    def _on_signal(self) -> None:
        self._stops += 1
        self._stop.set()
        if self._stops > 1:
            self._signal_all(signal.SIGKILL)

    def _on_enter(self) -> None:
        terminal = sys.stdin.fileno()
        try:
            if os.tcgetpgrp(terminal) != os.getpgrp():
                return
            ended = os.read(terminal, 4096) == b""
        except OSError:
            ended = True
        if ended:
            asyncio.get_running_loop().remove_reader(terminal)
        elif not self._stops:
            self._spawn_task(self._start())

    def _spawn_task(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _pid(self, node_id: NodeId) -> int | None:
        child = self._children.get(node_id)
        return None if child is None else child.process.pid


async def _spawn(node: LocalNode) -> ChildProcess:
    """Start the process of ``node``, with its log in a file and a pipe for its reports."""
    if node.log.exists() and node.log.stat().st_size > LOG_BYTES:
        node.log.replace(node.log.with_name("node.log.1"))
    ours, its = socket.socketpair()
    with its, open(node.log, "ab") as log:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "raftkv", "serve", "--config", str(node.config)),
            *("--events-fd", str(its.fileno())),
            stdin=DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=(its.fileno(),),
            env={name: value for name, value in os.environ.items() if not name.startswith(PREFIX)},
            # A terminal sends Ctrl-C to the whole process group; the supervisor stops the nodes itself, in order.
            start_new_session=True,
        )
    return ChildProcess(node, process, *await asyncio.open_connection(sock=ours))


def last_line(path: Path) -> str:
    """Return the last line with text in a file, or an empty string."""
    try:
        with open(path, "rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - 8192))
            lines = file.read().decode("utf-8", "replace").split("\n")
    except OSError:
        return ""
    return next((line for line in reversed(lines) if line.strip()), "")
