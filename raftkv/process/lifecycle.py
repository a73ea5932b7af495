"""The life cycle of a node's process: check the ports, lock the data directory, run until a stop, exit with a status.

A node starts writing only when nothing is left that a wrong setting could prevent, and it stops in order within
``STOP_S``. Whatever happens in between, the process ends: an error before the start is one line and status 1, an
exception that nothing else catches is a bug and fail-stop.
"""

from __future__ import annotations

import asyncio
import secrets
import sys
import threading
import time
import traceback
from collections.abc import Coroutine
from typing import Any

import uvloop

from raftkv.config.settings import Settings
from raftkv.exit_status import EXIT_BUG, EXIT_UNFINISHED, EXIT_UNUSABLE
from raftkv.journal.data_directory import DataDirectoryError, open_data_directory
from raftkv.journal.os_disk import OsDisk
from raftkv.process.fail_stop import FailStop
from raftkv.process.log_output import LogOutput
from raftkv.process.server import NodeProcess
from raftkv.process.signals import StartError, allow_many_files, check_free, listen_for_stop
from raftkv.process.supervisor import SupervisorPipe

STOP_S = 4.5
"""Longest duration of a stop, more than its steps take together: supervisors commonly kill after five seconds."""


def serve_node(settings: Settings, output: LogOutput, supervisor: SupervisorPipe) -> int:
    """Run a node until it is asked to stop; return the exit status."""
    fail_stop = FailStop(output)
    threading.excepthook = fail_stop.on_thread_exception
    # Another thread may keep the interpreter from the event loop for this long, the one with the journal's checksums
    # for example.
    sys.setswitchinterval(0.0005)
    allow_many_files()
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            status = runner.run(run_node(settings, supervisor, fail_stop))
    except (StartError, DataDirectoryError) as error:
        output.line(f"raftkv: {error}")
        status = EXIT_UNUSABLE
    except Exception as error:
        fail_stop.fail(EXIT_BUG, f"bug in the node's start or stop: {error!r}\n{traceback.format_exc()}")
    output.flush_within(1.0)
    return status


async def run_node(settings: Settings, supervisor: SupervisorPipe, fail_stop: FailStop) -> int:
    """Run a node until a signal, or the end of its supervisor; return the exit status.

    Raises ``StartError`` and ``DataDirectoryError``, with everything closed again.
    """
    # Before anything is written: a mistyped port must not leave a new data directory behind.
    for name, endpoint in (("http", settings.http), ("raft", settings.raft)):
        check_free(name, endpoint)
    disk = OsDisk()
    directory = open_data_directory(disk, settings.data_dir, settings.id, new_incarnation=new_incarnation)
    try:
        stop_requested = listen_for_stop(supervisor, fail_stop)
        node = NodeProcess(settings, disk, directory, supervisor, fail_stop)
        try:
            await first_of(node.start(), stop_requested.wait())
            await stop_requested.wait()
            fail_stop.fail_after(
                STOP_S, EXIT_UNFINISHED, f"did not stop within {STOP_S:g} s; what was acknowledged is on disk"
            )
        finally:
            await node.stop()
    finally:
        directory.close()
    return 0


def new_incarnation() -> str:
    """Return a name for a new data directory, greater than earlier ones, so that nodes can tell which is newer."""
    return f"{time.time_ns() // 1_000_000:012x}-{secrets.token_hex(4)}"


async def first_of(work: Coroutine[Any, Any, None], stop: Coroutine[Any, Any, Any]) -> None:
    """Do ``work`` until it is done, or until ``stop`` is, which cancels it; raises what ``work`` raises."""
    tasks = [asyncio.ensure_future(work), asyncio.ensure_future(stop)]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        if tasks[0].done():
            tasks[0].result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
